"""`alula list`: what there is to choose from."""

from collections.abc import Callable
from typing import Any

from rich.table import Table

from alula.commands.console import OUT, Result, print_results
from alula.configs.compose import GROUPS
from alula.configs.schemas import ListConfig
from alula.core.errors import AlulaError, ConfigError, unknown_name
from alula.core.spaces import SpaceSpec
from alula.sims.registry import TASKS, make_task


def run(config: ListConfig, as_json: bool) -> None:
    """Print the tables that were asked for."""
    if config.what not in ("all", *TABLES):
        raise ConfigError(unknown_name("list", config.what, ("all", *TABLES)))
    chosen = TABLES if config.what == "all" else {config.what: TABLES[config.what]}
    counts = []
    for name, table in chosen.items():
        rows = table()
        OUT.print(rows)
        counts.append(Result(name, rows.row_count, "1"))
    if as_json:
        print_results("list", counts)


def _tasks() -> Table:
    table = Table("task", "Gymnasium id", "observation", "action", "rate", "limit", "about", title="tasks")
    for name, entry in TASKS.items():
        about = _summary(entry.config)
        try:
            task = make_task(entry.config())
        except AlulaError as error:
            table.add_row(name, entry.gymnasium_id, "", "", "", "", f"not available: {error}")
            continue
        sizes = (_sizes(task.observation), _sizes(task.action))
        table.add_row(
            name, entry.gymnasium_id, *sizes, f"{task.control_rate:g} Hz", f"{task.max_episode_steps} steps", about
        )
    return table


def _choices(group: str) -> Table:
    table = Table("name", "about", title={"policy": "policies", "algorithm": "algorithms"}[group])
    for name, schema in GROUPS[group].items():
        table.add_row(name, _summary(schema))
    return table


def _sizes(space: SpaceSpec) -> str:
    return "\n".join(f"{name} {field.size}" for name, field in space.items())


def _summary(schema: type[Any]) -> str:
    return (schema.__doc__ or "").strip().splitlines()[0]


TABLES: dict[str, Callable[[], Table]] = {
    "tasks": _tasks,
    "policies": lambda: _choices("policy"),
    "algorithms": lambda: _choices("algorithm"),
}

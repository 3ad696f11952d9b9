"""`alula list`: what there is to choose from."""

import json
from collections.abc import Callable
from importlib import import_module
from importlib.resources import files
from typing import Any

from alula.commands.console import OUT, Result, print_results
from alula.configs.compose import GROUPS
from alula.configs.schemas import ListConfig
from alula.core.errors import AlulaError, ConfigError, unknown_name
from alula.core.spaces import SpaceSpec
from alula.datasets.formats.registry import FORMATS
from alula.real_robot.devices.registry import DEVICES
from alula.sims.registry import TASKS, make_task


def run(config: ListConfig, as_json: bool) -> None:
    """Print the lists that were asked for."""
    if config.what not in ("all", *LISTS):
        raise ConfigError(unknown_name("list", config.what, ("all", *LISTS)))
    counts = []
    for title in LISTS if config.what == "all" else (config.what,):
        entries = LISTS[title]()
        OUT.print(f"[bold]{title}[/bold]")
        for name, lines in entries.items():
            OUT.print(f"  {name}")
            for line in lines:
                OUT.print(f"      {line}", markup=False)  # a remedy may hold [brackets]
        counts.append(Result(title, len(entries), "1"))
    if as_json:
        print_results("list", counts)


def _tasks() -> dict[str, list[str]]:
    found = {}
    for name, entry in TASKS.items():
        lines = [_summary(entry.config), f'gymnasium.make("{entry.gymnasium_id}")']
        try:
            task = make_task(entry.config())
        except AlulaError as error:
            lines.append(f"not available: {error}")
        else:
            (action,) = task.action.values()
            lines.append(f"{_sizes(task.observation)} → {_sizes(task.action)} ({action.control_mode})")
            lines.append(f"{task.control_rate:g} Hz, at most {task.max_episode_steps} steps; {_expert(name)}")
        found[name] = lines
    return found


def _expert(task: str) -> str:
    """What `make bench-experts` found."""
    found = json.loads(files("alula.sims").joinpath("experts.json").read_text(encoding="utf-8"))
    if task not in found["successes"]:
        return "expert not scored yet"
    successes = found["successes"][task]
    if successes is None:
        return "no scripted expert"
    return f"expert succeeds in {successes} of {found['episodes']} episodes"


def _choices(group: str) -> dict[str, list[str]]:
    return {name: [_summary(schema)] for name, schema in GROUPS[group].items()}


def _devices() -> dict[str, list[str]]:
    found = {}
    for name, entry in DEVICES.items():
        lines = [_summary(entry.config)]
        if entry.emulator is not None:
            lines.append(f"emulated by alula emulate device={name}")
        if entry.extra is not None:
            lines.append(f"needs pip install 'alula[{entry.extra}]'")
        found[name] = lines
    return found


def _faults() -> dict[str, list[str]]:
    """What each emulator can let go wrong."""
    found = {}
    for name, entry in DEVICES.items():
        if entry.emulator is not None:
            try:
                module = import_module(f"alula.real_robot.emulators.{entry.emulator}")
            except ImportError as error:
                found[name] = [f"not available: the package {error.name} is missing"]
            else:
                found[name] = [f"{kind}: {what}" for kind, what in module.FAULTS.items()]
    return found


def _sizes(space: SpaceSpec) -> str:
    return ", ".join(f"{name} {field.size}" for name, field in space.items())


def _summary(schema: type[Any]) -> str:
    return (schema.__doc__ or "").strip().splitlines()[0]


LISTS: dict[str, Callable[[], dict[str, list[str]]]] = {
    "tasks": _tasks,
    "policies": lambda: _choices("policy"),
    "algorithms": lambda: _choices("algorithm"),
    "devices": _devices,
    "faults": _faults,
    "formats": lambda: {name: [entry.summary] for name, entry in FORMATS.items()},
}

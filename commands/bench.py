"""`alula bench AREA`: measure; every area is one file in `benches/` and one line here."""

from collections.abc import Callable

from rich.table import Table

from alula.commands.benches.datasets import bench_datasets
from alula.commands.benches.hardware import bench_hardware
from alula.commands.benches.rl import bench_rl
from alula.commands.benches.sims import bench_sims
from alula.commands.console import OUT, Result, print_results
from alula.commands.inputs import required
from alula.configs.schemas import BenchConfig
from alula.core.errors import ConfigError, unknown_name
from alula.training.provenance import commit, machine

AREAS: dict[str, Callable[[BenchConfig], list[Result]]] = {
    "sims": bench_sims,
    "rl": bench_rl,
    "datasets": bench_datasets,
    "hardware": bench_hardware,
}


def run(config: BenchConfig, as_json: bool) -> None:
    """Measure one area."""
    required(config.area, "area", "sims")
    if config.area not in AREAS:
        raise ConfigError(unknown_name("bench area", config.area, AREAS))
    results = AREAS[config.area](config)
    table = Table("name", "value", "spread", "unit", "runs", "against", "bar", "ok", title=f"{machine()}, {commit()}")
    for result in results:
        spread = "" if result.low is None else f"{result.low:,.4g} to {result.high:,.4g}"
        bar = "" if result.bar is None else f"{result.bar:,g}"
        ok = "" if result.ok is None else "yes" if result.ok else "no"
        table.add_row(
            result.name, f"{result.value:,.4g}", spread, result.unit, str(result.runs), result.peer or "", bar, ok
        )
    OUT.print(table)
    if as_json:
        print_results(config.area, results)

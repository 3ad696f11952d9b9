"""`alula inspect`: what is in a dataset."""

from typing import Any

from rich.table import Table

from alula.commands.console import OUT, Result, print_results
from alula.commands.inputs import required
from alula.configs.schemas import InspectConfig
from alula.datasets.store import EpisodeStore
from alula.datasets.summary import summarize


def run(config: InspectConfig, as_json: bool) -> None:
    """Print the summary."""
    summary = summarize(EpisodeStore.open(required(config.data, "data", "demonstrations.zarr")))
    fields: dict[str, Any] = summary.pop("fields")
    for name, value in summary.items():
        OUT.print(f"{name:<22} {value}")
    table = Table("field", "shape", "dtype", "units", "min", "max")
    for name, about in fields.items():
        table.add_row(name, *(str(about[key]) for key in ("shape", "dtype", "units", "min", "max")))
    OUT.print(table)
    if as_json:
        numbers = ("episodes", "steps", "size_on_disk_bytes")
        print_results("inspect", [Result(name, summary[name], "1") for name in numbers])

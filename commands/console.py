"""What commands say: progress on standard error, results on standard output."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from alula.training.loop import Progress as Report
from alula.training.provenance import commit, machine

OUT = Console(highlight=False, soft_wrap=True)
ERR = Console(stderr=True, highlight=False, soft_wrap=True)
SHOWN = ("cloning/loss", "held_out/error", "rollout/success", "evaluation/success")


@dataclass
class Result:
    """One measured number."""

    name: str
    value: float
    unit: str
    low: float | None = None
    """Lower end of the 95 % interval, or of the spread over runs."""
    high: float | None = None
    runs: int = 1
    """Measurements or episodes behind `value`."""
    peer: str | None = None
    """What it was measured against, in the same run."""
    bar: float | None = None
    """Value to reach."""
    ok: bool | None = None
    """Whether it did."""


def print_results(area: str, results: list[Result]) -> None:
    """One JSON object on one line, the last on standard output."""
    report: dict[str, Any] = {"area": area, "machine": machine(), "commit": commit()}
    print(json.dumps(report | {"results": [asdict(result) for result in results]}), flush=True)


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """A progress bar with rate and time left; yields the function to report to."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[metrics]}"),
    )
    with Progress(*columns, console=ERR) as bar:
        task = bar.add_task(title, total=None, rate="", metrics="")
        shown: dict[str, float] = {}

        def report(done: int, total: int, metrics: dict[str, float]) -> None:
            shown.update({name: value for name, value in metrics.items() if name in SHOWN})
            speed = bar.tasks[0].speed
            bar.update(
                task,
                completed=done,
                total=total,
                rate=f"{speed:,.0f}/s" if speed else "",
                metrics="  ".join(f"{name.split('/')[0]} {value:.3f}" for name, value in shown.items()),
            )

        yield report

"""`alula inspect`: what is in a dataset."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from alula.commands.console import OUT, Result, print_results, progress
from alula.commands.inputs import required
from alula.configs.schemas import InspectConfig
from alula.core.errors import DatasetError
from alula.datasets.conversion import Conversion, source_format
from alula.datasets.formats.native import Native
from alula.datasets.rerun_export import load_rerun, write_rerun
from alula.datasets.schema import OUTCOME
from alula.datasets.store import EpisodeStore
from alula.datasets.summary import summarize
from alula.training.dataset_page import clock_in_words, dataset_name, facts, listed, oddities, write_dataset_page

LONGEST = 100
"""Characters of a dataset's metadata that are shown of one value."""
MOST_CLOCKS = 8
"""Streams whose clocks are shown; the page has all."""


def run(config: InspectConfig, as_json: bool) -> None:
    """Print the summary, write the page and, where asked for, the recording."""
    path = required(config.data, "data", "demonstrations.zarr")
    if config.rerun is not None:
        load_rerun()  # before the long work
    with _native(path) as store:
        summary = summarize(store, EpisodeStore.open(Path(config.reference)) if config.reference else None)
        if store.path.resolve() != path.resolve():  # a copy was read
            files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
            summary |= {"path": str(path), "size_on_disk_bytes": sum(file.stat().st_size for file in files)}
        _show(store, summary)
        if config.page is not None:
            _write(config.page.replace("NAME", _file_name(path)), lambda page: write_dataset_page(store, summary, page))
        if config.rerun is not None:
            with progress("rerun") as report:
                _write(
                    config.rerun,
                    lambda file: write_rerun(store, file, lambda done, total: report(done, total, {})),
                )
    if as_json:
        numbers = ("episodes", "steps", "size_on_disk_bytes", "trajectory_quality", "state_action_coverage")
        results = [Result(name, summary[name], "1") for name in numbers if summary[name] is not None]
        print_results("inspect", results)


def _file_name(path: Path) -> str:
    """What files about a dataset are called after."""
    name = dataset_name(path)
    return name.replace("/", "-") if "/" in name else Path(name).stem


@contextmanager
def _native(path: Path) -> Iterator[EpisodeStore]:
    """The dataset at `path`; one of another format becomes ours for the while."""
    found = source_format(path, None)
    if isinstance(found, Native):
        yield EpisodeStore.open(path)
        return
    with TemporaryDirectory() as folder, found.open(path) as reader, progress("convert") as report:
        copy = Path(folder) / "copy.zarr"
        Conversion(path, copy, reader, Native()).run(report=lambda done, total: report(done, total, {}))
        yield EpisodeStore.open(copy)


def _write(name: str, write: Callable[[Path], None]) -> None:
    """Have a file written and say where it is."""
    path = Path(name).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    except OSError as error:
        raise DatasetError(
            f"cannot write '{path}': {error.strerror}; free some space or choose a folder that you may write to"
        ) from error
    OUT.print(str(path), style="bold", markup=False)


def _show(store: EpisodeStore, summary: Mapping[str, Any]) -> None:
    OUT.print(summary["path"], markup=False, style="bold")
    words = facts(store, summary)
    streams = [name for name in summary["clocks"] if name in store.streams]
    words |= {f"stream {name}": clock_in_words(summary["clocks"][name]) for name in streams[:MOST_CLOCKS]}
    if len(streams) > MOST_CLOCKS:
        words["more streams"] = str(len(streams) - MOST_CLOCKS)
    width = max(len(name) for name in words)
    for name, text in words.items():
        OUT.print(f"  {name:<{width}}  {text}", markup=False)
    for oddity in oddities(summary):
        OUT.print(f"  look: {oddity}", style="yellow", markup=False)
    _show_fields(summary["fields"])
    for name, value in summary["metadata"].items():
        text = json.dumps(value, ensure_ascii=False)
        OUT.print(f"{name}: {text if len(text) <= LONGEST else text[:LONGEST] + ' ...'}", markup=False)


def _show_fields(fields: Mapping[str, Mapping[str, Any]]) -> None:
    """A line for what each is, and two for its range; outcomes are told by return and success."""
    for name, about in fields.items():
        if name not in OUTCOME:
            kind = f"{about['dtype']} {about['shape'] or ''}".strip()
            units = listed([unit for unit in dict.fromkeys(about["units"]) if unit != "1"])
            OUT.print(f"{name}  {kind}{f', {units}' if units else ''}", markup=False)
            OUT.print(f"    from {listed(about['min'])}\n    to   {listed(about['max'])}", markup=False)

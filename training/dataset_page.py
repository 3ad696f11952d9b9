"""What is in a dataset, in words, and as one HTML page with plots and pictures that is readable without a network."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from alula.core.spaces import FieldSpec
from alula.datasets.statistics import statistics
from alula.datasets.store import EpisodeStore
from alula.datasets.summary import episode_sums
from alula.training.contact_sheets import PICTURE_AXES, Frame, film_strip, pictures
from alula.training.dataset_plots import Element, Line, distribution_plot, sorted_plot, time_plot
from alula.training.report import NBSP, duration, rate, render

MOST_ELEMENTS = 32
"""Plots of distributions; actions and observations get half each, and what the other leaves."""
MOST_SIZE = 64
"""Fields with more elements, such as embeddings, get no plots."""
MOST_LINES = 4
"""Episodes over time."""
MOST_ROWS = 6
"""Episodes on a contact sheet."""
MOST_NAMES = 8
"""Elements or episodes that one sentence lists."""

VERSION = re.compile(r"\d+(\.\d+)+")
BYTES = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Row:
    """One episode of a contact sheet."""

    caption: str
    instruction: str
    frames: list[Frame]


@dataclass(frozen=True)
class Sheet:
    """What one camera saw."""

    field: FieldSpec
    rows: list[Row]
    """Empty where every picture is the same single colour."""


def write_dataset_page(store: EpisodeStore, summary: Mapping[str, Any], path: Path) -> None:
    """Write the page.

    Args:
        store: The dataset.
        summary: What `summarize` found in it.
        path: The HTML file; one that is there is replaced.

    Raises:
        DatasetError: the dataset is damaged.
        OSError: the file cannot be written.
    """
    elements, left_out = chosen_elements(store)
    over_time = [element for element in elements if element.field.name == "action"] or elements
    episodes = _spread_out(store, MOST_LINES)
    page = render(
        "dataset_page.html.jinja",
        title=dataset_name(Path(summary["path"])),
        summary=summary,
        listed=listed,
        facts=facts(store, summary),
        oddities=oddities(summary),
        sheets=_sheets(store, summary),
        episode_plots=_episode_plots(store, summary),
        distributions=_distributions(store, elements),
        left_out=left_out,
        has_limits=any(element.limits for element in elements),
        over_time=_over_time(store, over_time, episodes),
        shown=episodes,
        metadata=json.dumps(summary["metadata"], indent=2, ensure_ascii=False),
    )
    path.write_text(page, encoding="utf-8")


def dataset_name(path: Path) -> str:
    """The last part of its path, after the one before where that is only a version, as in `bridge/1.0.0`."""
    last = path.resolve()
    return f"{last.parent.name}/{last.name}" if VERSION.fullmatch(last.name) else last.name


def facts(store: EpisodeStore, summary: Mapping[str, Any]) -> dict[str, str]:
    """The numbers of a dataset in words; what nobody recorded is left out."""
    found = {"episodes": f"{summary['episodes']:,}", "steps": f"{summary['steps']:,}"}
    seconds = recorded_seconds(store)
    if seconds is not None:
        found["recorded time"] = duration(seconds)
    clock = summary["clocks"].get("steps")
    if clock is not None:
        found["clock"] = clock_in_words(clock)
    found["steps per episode"] = _spread(summary["lengths"])
    if any(summary["returns"].values()):
        found["return"] = _spread(summary["returns"])
    if summary["success_rate"] is not None:
        found["success"] = rate(summary["success_rate"])
    if summary["trajectory_quality"] is not None:
        found["trajectory quality"] = f"{summary['trajectory_quality']:.2f}"
    if summary["state_action_coverage"] is not None:
        found["state-action coverage"] = f"{summary['state_action_coverage']:.2f}"
    instructions = [line["instruction"] for line in store.episode_metadata if line.get("instruction")]
    if instructions:
        found["different instructions"] = f"{len(set(instructions)):,}"
    found["size on disk"] = _size(summary["size_on_disk_bytes"])
    return found


def recorded_seconds(store: EpisodeStore) -> float | None:
    """Length of all episodes together [s], by their clock or else their rate; None where there is neither."""
    ends, lengths = store.episode_ends, store.lengths
    if "timestamp" in store.extra:
        timestamps, some = store.read("timestamp"), lengths > 0
        return float((timestamps[ends[some] - 1] - timestamps[(ends - lengths)[some]]).sum()) / 1e9
    hertz = _rate(store)
    return store.num_steps / hertz if hertz else None


def _rate(store: EpisodeStore) -> float | None:
    """Steps per second [Hz], as the specification says."""
    return next((field.rate for field in store.action.values()), None) or store.metadata.get("rate")


def clock_in_words(clock: Mapping[str, float]) -> str:
    """Rate, jitter and longest interval."""
    rate_hz, jitter_ms, longest_ms = (
        f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        for value in (clock[name] for name in ("rate_hz", "jitter_ms", "longest_ms"))
    )
    return f"{rate_hz}{NBSP}Hz, jitter {jitter_ms}{NBSP}ms, longest interval {longest_ms}{NBSP}ms"


def oddities(summary: Mapping[str, Any]) -> list[str]:
    """What somebody should look at before training, a sentence each."""
    found = []
    for name, elements in summary["constant_elements"].items():
        is_whole = len(elements) == (summary["fields"][name]["shape"] or [1])[-1]
        found.append(f"Never changes: {name}" + ("" if is_whole else f" {listed(elements)}"))
    saturated, outside = (summary["actions"][name] for name in ("saturated_share", "outside_share"))
    if saturated:
        found.append(f"{rate(saturated)} of all action values are at a limit of the specification or beyond")
    if outside:
        found.append(f"{rate(outside)} of all action values are beyond the limits")
    for group in summary["duplicate_episodes"]:
        found.append(f"Identical episodes: {listed(group)}")
    if summary["damaged_episodes"]:
        found.append(f"Damaged episodes, not what was recorded: {listed(summary['damaged_episodes'])}")
    if summary["empty_episodes"]:
        found.append(f"Episodes without steps: {listed(summary['empty_episodes'])}")
    return found


def listed(values: Any) -> str:
    """The first few of several values, numbers to four digits; or the one that it is."""
    every = values if isinstance(values, list) else [values]
    words = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in every[:MOST_NAMES]]
    more = len(every) - MOST_NAMES
    return ", ".join(words) + (f" and {more:,} more" if more > 0 else "")


def _spread(found: Mapping[str, float]) -> str:
    if found["min"] == found["max"]:
        return f"{found['min']:,.4g}"
    return f"{found['min']:,.4g} to {found['max']:,.4g}, median {found['median']:,.4g}"


def _size(number: int) -> str:
    power = min(int(math.log10(max(number, 1))) // 3, len(BYTES) - 1)
    return f"{number / 1000**power:.3g}{NBSP}{BYTES[power]}"


def chosen_elements(store: EpisodeStore) -> tuple[list[Element], list[str]]:
    """Elements to plot, actions first, and in words what that leaves out."""
    fields = (*store.action.values(), *store.observation.values())
    small = {field: field.size <= MOST_SIZE and len(field.shape) < PICTURE_AXES for field in fields}
    actions, observations = (
        [Element(field, index) for field in space.values() if small[field] for index in range(field.size)]
        for space in (store.action, store.observation)
    )
    room = max(MOST_ELEMENTS // 2, MOST_ELEMENTS - len(observations))
    chosen = [*actions[:room], *observations[: MOST_ELEMENTS - len(actions[:room])]]
    left_out = []
    for field in (field for field in small if field not in pictures(store)):
        missing = field.size - sum(element.field == field for element in chosen)
        if missing:
            left_out.append(f"{field.name} ({missing:,} of {field.size:,} elements)")
    return chosen, left_out


def _spread_out(store: EpisodeStore, most: int) -> list[int]:
    """Some episodes that have steps, evenly from the first to the last."""
    some = np.flatnonzero(store.lengths)
    return some[np.unique(np.linspace(0, len(some) - 1, min(most, len(some))).round().astype(int))].tolist()


def _successful(store: EpisodeStore, summary: Mapping[str, Any]) -> Bool[ndarray, " episodes"] | None:
    return None if summary["success_rate"] is None else episode_sums(store, "next.success") > 0


def _episode_plots(store: EpisodeStore, summary: Mapping[str, Any]) -> list[str]:
    successful = _successful(store, summary)
    plots = []
    if summary["lengths"]["min"] != summary["lengths"]["max"]:
        plots.append(sorted_plot("Length", "steps", store.lengths, successful))
    if summary["returns"]["min"] != summary["returns"]["max"]:
        plots.append(sorted_plot("Return", "sum of rewards", episode_sums(store, "next.reward"), successful))
    return plots


def _distributions(store: EpisodeStore, elements: Iterable[Element]) -> list[str]:
    found = statistics(store)
    return [distribution_plot(element, found[element.field.name]) for element in elements]


def _over_time(store: EpisodeStore, elements: Sequence[Element], episodes: Sequence[int]) -> list[str]:
    """One plot for every element; a field is read once."""
    ends, lengths = store.episode_ends, store.lengths
    parts = [(int(ends[episode] - lengths[episode]), int(ends[episode])) for episode in episodes]
    times = [_times(store, start, stop) for start, stop in parts]
    label = "seconds" if "timestamp" in store.extra or _rate(store) else "steps"
    plots = []
    for field in dict.fromkeys(element.field for element in elements):
        recorded = [store.read(field.name, start, stop) for start, stop in parts]
        for element in (element for element in elements if element.field == field):
            lines = [Line(x, element.of(values)) for x, values in zip(times, recorded, strict=True)]
            plots.append(time_plot(element, lines, label))
    return plots


def _times(store: EpisodeStore, start: int, stop: int) -> Float64[ndarray, " steps"]:
    """Since the first of these steps [s]; without clock or rate their numbers."""
    if "timestamp" in store.extra:
        timestamps = store.read("timestamp", start, stop)
        return (timestamps - timestamps[0]) / 1e9
    return np.arange(stop - start) / (_rate(store) or 1.0)


def _sheets(store: EpisodeStore, summary: Mapping[str, Any]) -> list[Sheet]:
    """One for every camera."""
    episodes = _spread_out(store, MOST_ROWS)
    captions = {episode: _caption(store, summary, episode) for episode in episodes}
    sheets = []
    for field in pictures(store):
        about = summary["fields"][field.name]
        chosen = [] if about["min"] == about["max"] else episodes
        rows = [Row(*captions[episode], film_strip(store, field.name, episode)) for episode in chosen]
        sheets.append(Sheet(field, rows))
    return sheets


def _caption(store: EpisodeStore, summary: Mapping[str, Any], episode: int) -> tuple[str, str]:
    """Number, length and outcome of an episode; its instruction, which may be empty."""
    words = [f"Episode {episode}", f"{store.lengths[episode]:,} steps"]
    successful = _successful(store, summary)
    if successful is not None:
        words.append("success" if successful[episode] else "no success")
    return ", ".join(words), str(store.episode_metadata[episode].get("instruction", ""))

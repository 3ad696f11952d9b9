"""What is in a dataset, as plain values to print or to write as JSON."""

from collections import defaultdict
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped, UInt64
from numpy import ndarray

from alula.core.normalizer import FieldStatistics
from alula.core.spaces import FieldSpec
from alula.datasets import video_field, window_cache
from alula.datasets.statistics import CACHE_FILE, statistics
from alula.datasets.store import EpisodeStore

CACHES = {CACHE_FILE, video_field.CACHE_FOLDER, window_cache.FOLDER}
BLOCK_STEPS = 2**16
"""Read at a time, so that memory does not grow with the dataset."""


def summarize(store: EpisodeStore, reference: EpisodeStore | None = None) -> dict[str, Any]:
    """Counts, ranges and oddities of a dataset.

    Per-element values run over the last axis of a field; the other axes (image rows and columns) are merged.

    Args:
        store: Dataset with at least one episode.
        reference: What quality and coverage are relative to, such as a replay of everything; default itself.

    Raises:
        DatasetError: the dataset has no episodes, or the reference has other fields.
    """
    found = statistics(store)
    return {
        "path": str(store.path),
        "episodes": store.num_episodes,
        "steps": store.num_steps,
        "lengths": _spread(store.lengths),
        "returns": _spread(episode_sums(store, "next.reward")),
        "success_rate": _success_rate(store),
        "trajectory_quality": trajectory_quality(store, reference or store),
        "state_action_coverage": state_action_coverage(store, reference),
        "clocks": clocks(store),
        "fields": {name: _field_summary(field, found[name]) for name, field in store.fields.items()},
        "constant_elements": _constant_elements(store, found),
        "actions": _action_limits(store),
        "duplicate_episodes": _duplicates(store),
        "damaged_episodes": store.damaged_episodes(),
        "empty_episodes": np.flatnonzero(store.lengths == 0).tolist(),
        "size_on_disk_bytes": _size(store),
        "metadata": store.metadata,
    }


def _spread(values: Shaped[ndarray, " episodes"]) -> dict[str, int | float]:
    return {"min": values.min().item(), "median": float(np.median(values)), "max": values.max().item()}


def episode_sums(store: EpisodeStore, name: str) -> Float64[ndarray, " episodes"]:
    """Sum of a field of single numbers over each episode."""
    owners = np.repeat(np.arange(store.num_episodes), store.lengths)
    return np.bincount(owners, store.read(name).astype(np.float64), minlength=store.num_episodes)


def _success_rate(store: EpisodeStore) -> float | None:
    """Share of episodes with a success at any step; None where the recording does not say."""
    if store.metadata.get("success_recorded", True) is False:
        return None
    return float((episode_sums(store, "next.success") > 0).mean())


def trajectory_quality(store: EpisodeStore, reference: EpisodeStore) -> float | None:
    """Mean return, from 0 (the reference's worst episode) to 1 (its best); None where all returns are equal.

    Schweighofer et al. 2021, "A dataset perspective on offline reinforcement learning", equation 1.
    """
    returns = episode_sums(reference, "next.reward")
    low, high = returns.min(), returns.max()
    return float((episode_sums(store, "next.reward").mean() - low) / (high - low)) if high > low else None


def state_action_coverage(store: EpisodeStore, reference: EpisodeStore | None) -> float | None:
    """How much of what can be seen and done was: distinct cells of state and action, relative to the reference's.

    A cell is one standard deviation of the reference wide in every element; images are left out. Without a reference
    it is the share of steps that are in a new cell. Schweighofer et al. 2021, equation 2, for continuous spaces.
    """
    scale = statistics(reference or store)
    cells = _cells(store, scale)
    every = len(cells) if reference is None else len(np.unique(_cells(reference, scale)))
    return len(np.unique(cells)) / every if every else None


def _cells(store: EpisodeStore, scale: dict[str, FieldStatistics]) -> UInt64[ndarray, " steps"]:
    """A number for the cell of every step; equal for equal cells (and by chance for one pair in 2**64)."""
    cells = np.zeros(store.num_steps, dtype=np.uint64)
    fields = [*store.observation.values(), *store.action.values()]
    mixer = np.random.default_rng(0)
    for field in (field for field in fields if field.dtype != "uint8"):
        weights = mixer.integers(0, 2**64, field.size, dtype=np.uint64, endpoint=False)
        about = scale[field.name]
        width = np.maximum(about.std, np.finfo(float).tiny)
        for start in range(0, store.num_steps, BLOCK_STEPS):
            values = store.read(field.name, start, start + BLOCK_STEPS)
            steps = np.nan_to_num((values - about.mean) / width).round().astype(np.int64).reshape(len(values), -1)
            cells[start : start + BLOCK_STEPS] += (steps.astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64)
    return cells


def clocks(store: EpisodeStore) -> dict[str, dict[str, float]]:
    """Rate [Hz], jitter (standard deviation of the intervals [ms]) and longest interval [ms] of every clock.

    `steps` are those of the field `timestamp`; streams go by their own names. Without timestamps there is no clock.
    """
    recorded = {name: (store.read_stream(name, "timestamp"), store.stream_ends(name)) for name in store.streams}
    if "timestamp" in store.extra:
        recorded["steps"] = (store.read("timestamp"), store.episode_ends)
    found = {}
    for name, (timestamps, ends) in recorded.items():
        within = np.setdiff1d(np.arange(1, len(timestamps)), ends)  # not from one episode to the next
        intervals = (timestamps[within] - timestamps[within - 1]) / 1e6
        if len(intervals) and np.median(intervals) > 0:
            found[name] = {
                "rate_hz": float(1e3 / np.median(intervals)),
                "jitter_ms": float(intervals.std()),
                "longest_ms": float(intervals.max()),
            }
    return found


def _field_summary(field: FieldSpec, found: FieldStatistics) -> dict[str, Any]:
    merged = tuple(range(len(field.shape) - 1))
    return {
        "shape": list(field.shape),
        "dtype": field.dtype,
        "units": list(field.units),
        "min": np.min(found.low, axis=merged).tolist(),
        "max": np.max(found.high, axis=merged).tolist(),
    }


def _constant_elements(store: EpisodeStore, found: dict[str, FieldStatistics]) -> dict[str, list[str]]:
    """Observation and action elements that never change: their name, or their index where they have none."""
    constant = {}
    for field in (*store.observation.values(), *store.action.values()):
        summary = _field_summary(field, found[field.name])
        still = np.atleast_1d(np.equal(summary["min"], summary["max"]))
        names = field.element_names or tuple(str(index) for index in range(still.size))
        constant[field.name] = [name for name, is_still in zip(names, still, strict=True) if is_still]
    return {name: elements for name, elements in constant.items() if elements}


def _action_limits(store: EpisodeStore) -> dict[str, float | None]:
    """Shares of action values at a limit of the specification (or beyond), and beyond; None without limits."""
    field = store.action.get("action")
    if field is None or (field.low is None and field.high is None):
        return {"saturated_share": None, "outside_share": None}
    actions = store.read("action")
    low, high = field.bounds()
    return {
        "saturated_share": float(((actions <= low) | (actions >= high)).mean()),
        "outside_share": float(((actions < low) | (actions > high)).mean()),
    }


def _size(store: EpisodeStore) -> int:
    """Bytes of the recording, without copies that can be made again."""
    files = (file for file in store.path.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files if not CACHES & {*file.relative_to(store.path).parts})


def _duplicates(store: EpisodeStore) -> list[list[int]]:
    """Groups of episodes whose arrays are identical."""
    groups = defaultdict(list)
    for index, digest in enumerate(store.digests):
        groups[digest].append(index)
    return [group for group in groups.values() if len(group) > 1]

"""What is in a dataset, as plain values to print or to write as JSON."""

from collections import defaultdict
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped
from numpy import ndarray

from alula.core.normalizer import FieldStatistics
from alula.core.spaces import FieldSpec
from alula.datasets.statistics import statistics
from alula.datasets.store import EpisodeStore


def summarize(store: EpisodeStore) -> dict[str, Any]:
    """Counts, ranges and oddities of a dataset.

    Per-element values run over the last axis of a field; the other axes (image rows and columns) are merged.

    Raises:
        DatasetError: the dataset has no episodes.
    """
    found = statistics(store)
    return {
        "path": str(store.path),
        "episodes": store.num_episodes,
        "steps": store.num_steps,
        "lengths": _spread(store.lengths),
        "returns": _spread(_episode_sums(store, "next.reward")),
        "success_rate": _success_rate(store),
        "fields": {name: _field_summary(field, found[name]) for name, field in store.fields.items()},
        "constant_elements": _constant_elements(store, found),
        "actions": _action_limits(store),
        "duplicate_episodes": _duplicates(store),
        "size_on_disk_bytes": sum(file.stat().st_size for file in store.path.rglob("*") if file.is_file()),
        "metadata": store.metadata,
    }


def _spread(values: Shaped[ndarray, " episodes"]) -> dict[str, int | float]:
    return {"min": values.min().item(), "median": float(np.median(values)), "max": values.max().item()}


def _episode_sums(store: EpisodeStore, name: str) -> Float64[ndarray, " episodes"]:
    return np.add.reduceat(store.read(name).astype(np.float64), store.episode_ends - store.lengths)


def _success_rate(store: EpisodeStore) -> float | None:
    """Share of episodes with a success at any step; None where the recording does not say."""
    if store.metadata.get("success_recorded", True) is False:
        return None
    return float((_episode_sums(store, "next.success") > 0).mean())


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
    field = store.action["action"]
    if field.low is None and field.high is None:
        return {"saturated_share": None, "outside_share": None}
    actions = store.read("action")
    low, high = field.bounds()
    return {
        "saturated_share": float(((actions <= low) | (actions >= high)).mean()),
        "outside_share": float(((actions < low) | (actions > high)).mean()),
    }


def _duplicates(store: EpisodeStore) -> list[list[int]]:
    """Groups of episodes whose arrays are identical."""
    groups = defaultdict(list)
    for index, digest in enumerate(store.digests):
        groups[digest].append(index)
    return [group for group in groups.values() if len(group) > 1]

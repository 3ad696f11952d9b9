"""Extremes and moments of every field of a dataset, computed once and kept beside the data."""

import contextlib
import uuid
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from alula.core.errors import DatasetError
from alula.core.normalizer import FieldStatistics
from alula.datasets.store import EpisodeStore

CACHE_FILE = "statistics.npz"
BLOCK_BYTES = 8 * 2**20
"""Read at a time, so that memory does not grow with the dataset."""
PARTS = ("count", "low", "high", "mean", "squares")


def statistics(store: EpisodeStore) -> dict[str, FieldStatistics]:
    """Statistics of every field over all committed steps, element by element.

    One streaming pass; the result is kept in the dataset with a hash of the committed episodes and computed anew
    when they have changed.

    Raises:
        DatasetError: the dataset has no episodes.
    """
    if store.num_episodes == 0:
        raise DatasetError(f"dataset '{store.path}' has no episodes, so no statistics; record or convert some first")
    fingerprint = store.fingerprint
    cached = _read_cache(store, fingerprint)
    if cached is not None:
        return cached
    computed = {name: _field_statistics(store, name) for name in store.fields}
    _write_cache(store.path / CACHE_FILE, computed, fingerprint)
    return computed


def _field_statistics(store: EpisodeStore, name: str) -> FieldStatistics:
    field = store.fields[name]
    block_steps = max(1, BLOCK_BYTES // (field.size * np.dtype(field.dtype).itemsize))
    result = FieldStatistics.empty((field.size,))
    for start in range(0, store.num_steps, block_steps):
        block = store.read(name, start, start + block_steps)
        result = result.merged(FieldStatistics.of(block.reshape(len(block), -1).astype(np.float64)))
    return FieldStatistics(result.count, *(getattr(result, part).reshape(field.shape) for part in PARTS[1:]))


def _read_cache(store: EpisodeStore, fingerprint: str) -> dict[str, FieldStatistics] | None:
    try:
        with np.load(store.path / CACHE_FILE, allow_pickle=False) as cache:
            if str(cache["fingerprint"]) != fingerprint:
                return None
            parts = {name: [cache[f"{name}/{part}"] for part in PARTS] for name in store.fields}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None  # Absent or damaged: it is only a cache.
    return {name: FieldStatistics(int(count), *arrays) for name, (count, *arrays) in parts.items()}


def _write_cache(path: Path, computed: dict[str, FieldStatistics], fingerprint: str) -> None:
    arrays: dict[str, Any] = {f"{name}/{part}": getattr(computed[name], part) for name in computed for part in PARTS}
    draft = path.with_name(f".{CACHE_FILE}.{uuid.uuid4().hex[:8]}")
    # A dataset that may only be read still has statistics; they are computed again next time.
    with contextlib.suppress(OSError):
        try:
            with draft.open("wb") as file:
                np.savez(file, fingerprint=fingerprint, **arrays)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

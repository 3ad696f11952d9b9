"""Extremes, moments and quantiles of every field of a dataset, computed once and kept beside the data."""

import contextlib
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float64, Shaped
from numpy import ndarray

from alula.core.errors import DatasetError
from alula.core.normalizer import QUANTILE_RANKS, FieldStatistics
from alula.datasets.quantiles import QuantileSketch, weighted_quantiles
from alula.datasets.store import EpisodeStore

CACHE_FILE = "statistics.npz"
BLOCK_BYTES = 8 * 2**20
"""Read at a time, so that memory does not grow with the dataset."""
PARTS = ("count", "low", "high", "mean", "squares", "missing", "quantiles")
PICTURE_AXES = 3
BYTE_VALUES = np.arange(256.0)


def statistics(store: EpisodeStore) -> dict[str, FieldStatistics]:
    """Statistics of every field over all committed steps, element by element; of pictures channel by channel.

    One streaming pass; the result is kept in the dataset with a hash of the committed episodes and computed anew
    when they have changed. Of pictures (three axes or more, channels last) the other axes keep the length 1, and each
    pixel counts. Quantiles of uint8 pictures and of up to 16,383 values are exact (`numpy.quantile`), others are off by
    no more than the rank error that `QuantileSketch` bounds: 0.03 % of a million values, 0.05 % of a hundred million.
    That is for fields of up to 256 elements; with 2,000 elements it is 0.3 % and 0.5 %.

    Raises:
        DatasetError: the dataset has no steps.
    """
    if store.num_steps == 0:
        raise DatasetError(
            f"dataset '{store.path}' has no episodes with steps, so no statistics; record or convert some first"
        )
    fingerprint = store.fingerprint
    cached = _read_cache(store, fingerprint)
    if cached is not None:
        return cached
    computed = {name: _field_statistics(store, name) for name in store.fields}
    _write_cache(store.path / CACHE_FILE, computed, fingerprint)
    return computed


def combined(parts: Sequence[FieldStatistics], weights: Float64[ndarray, " parts"]) -> FieldStatistics:
    """Statistics of a field over several datasets that are drawn from by weight, each as if it had the same size.

    Quantiles are those of the weighted mixture to within 0.1 % of rank, beyond the error of the parts.

    Args:
        parts: Statistics of the field in each dataset, with quantiles.
        weights: Of each dataset.
    """
    shares = np.stack([weight * part.present / part.count for weight, part in zip(weights, parts, strict=True)])
    shares /= np.maximum(shares.sum(0), np.finfo(np.float64).tiny)
    means, deviations = np.stack([part.mean for part in parts]), np.stack([part.std for part in parts])
    mean = (shares * means).sum(0)
    variance = (shares * (deviations**2 + (means - mean) ** 2)).sum(0)
    count, missing = sum(part.count for part in parts), np.sum([part.missing for part in parts], axis=0)
    tables = np.concatenate([part.quantile(QUANTILE_RANKS).reshape(len(QUANTILE_RANKS), -1) for part in parts])
    table_weights = np.repeat(shares.reshape(len(parts), -1), len(QUANTILE_RANKS), axis=0)
    table = np.stack([_inverted(*columns) for columns in zip(tables.T, table_weights.T, strict=True)], axis=1)
    return FieldStatistics(
        count,
        np.min([part.low for part in parts], axis=0, keepdims=True)[0],
        np.max([part.high for part in parts], axis=0, keepdims=True)[0],
        np.asarray(mean),
        np.asarray(variance * (count - missing)),
        np.asarray(missing),
        table.reshape(-1, *mean.shape),
    )


def _inverted(values: Float64[ndarray, " points"], weights: Float64[ndarray, " points"]) -> Float64[ndarray, " ranks"]:
    """Quantiles of weighted points, each in the middle of its share."""
    order = np.argsort(values)
    order = order[weights[order] > 0]
    if not len(order):
        return np.full(len(QUANTILE_RANKS), np.nan)
    middles = np.cumsum(weights[order]) - weights[order] / 2
    ranks = (middles - middles[0]) / (middles[-1] - middles[0])
    return np.interp(QUANTILE_RANKS, ranks, values[order])


def _field_statistics(store: EpisodeStore, name: str) -> FieldStatistics:
    field = store.fields[name]
    is_picture = len(field.shape) >= PICTURE_AXES
    shape = (*(1 for _ in field.shape[:-1]), field.shape[-1]) if is_picture else field.shape
    size = int(np.prod(shape))
    block_steps = max(1, BLOCK_BYTES // (field.size * np.dtype(field.dtype).itemsize))
    blocks = (
        store.read(name, start, start + block_steps).reshape(-1, size)
        for start in range(0, store.num_steps, block_steps)
    )
    found = _of_bytes(blocks, size) if is_picture and field.dtype == "uint8" else _of_numbers(blocks, size)
    arrays = [getattr(found, part) for part in PARTS[1:]]
    return FieldStatistics(found.count, *(array.reshape((*array.shape[:-1], *shape)) for array in arrays))


def _of_numbers(blocks: Iterable[Shaped[ndarray, "batch size"]], size: int) -> FieldStatistics:
    result, sketch = FieldStatistics.empty((size,)), QuantileSketch(size)
    for block in blocks:
        result = result.merged(FieldStatistics.of(block.astype(np.float64)))
        sketch.add(block)
    quantiles = sketch.quantiles(QUANTILE_RANKS, result.missing)
    known = result.present > 0
    quantiles[0, known], quantiles[-1, known] = result.low[known], result.high[known]
    result.quantiles = quantiles
    return result


def _of_bytes(blocks: Iterable[Shaped[ndarray, "batch size"]], size: int) -> FieldStatistics:
    """All exact, from how often each of the 256 values occurs."""
    counts = np.zeros((size, len(BYTE_VALUES)), np.int64)
    for block in blocks:
        for row, column in zip(counts, block.T, strict=True):
            row += np.bincount(column, minlength=len(BYTE_VALUES))
    count = int(counts[0].sum())
    mean = counts @ BYTE_VALUES / count
    squares = (counts * (BYTE_VALUES - mean[:, None]) ** 2).sum(1)
    places = QUANTILE_RANKS * (count - 1)
    quantiles = np.stack([weighted_quantiles(BYTE_VALUES, row.astype(np.float64), places) for row in counts], axis=1)
    return FieldStatistics(count, quantiles[0], quantiles[-1], mean, squares, np.zeros(size, np.int64), quantiles)


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

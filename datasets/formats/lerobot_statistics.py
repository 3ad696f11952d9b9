"""The statistics that LeRobot keeps of every episode, and those of all episodes together.

Of each feature: minimum, maximum, mean, standard deviation, count, and the quantiles 1, 10, 50, 90 and 99 %; pictures
per channel in [0, 1], of sampled frames. Of the whole, moments follow from those of the episodes. Quantiles do
not: they are taken from the data again, by a sketch; for pictures and other large features they are the mean of the
episodes' quantiles weighted by their counts, which is LeRobot's own rule.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float64, Shaped, UInt8
from numpy import ndarray

from alula.datasets.formats.lerobot_columns import Feature, from_arrow
from alula.datasets.quantiles import QuantileSketch

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
SAMPLED_FRAMES = 100
"""Of an episode's frames, as many as this, evenly spread."""
SAMPLED_SIZE = 150
"""Pixels of a sampled frame's longer side, at least."""
SKETCHED_SIZE = 64
"""Numbers of a feature, at most, whose quantiles of the whole are taken from the data."""

Statistics = dict[str, Any]
"""`min`, `max`, `mean`, `std`, the quantiles: nested lists of numbers; `count`: a list of one."""


def feature_statistics(feature: Feature, values: Shaped[ndarray, "steps *shape"]) -> Statistics | None:
    """Statistics of one feature over one episode.

    Values that are not numbers (NaN) do not count. None where there is nothing to count, where the numbers are too
    large for a variance, and for features that LeRobot's own code would take for pictures by their name, though they
    are none.
    """
    if len(values) == 0 or ("image" in feature.name and not feature.picture):
        return None
    if feature.picture:
        parts = {name: value.reshape(3, 1, 1) for name, value in _of_pictures(values).items()}
    else:
        parts = _of_numbers(values.astype(np.float64))
    if not all(np.isfinite(value).all() for value in parts.values()):
        return None
    count = min(len(values), SAMPLED_FRAMES) if feature.picture else len(values)
    return {**{name: value.tolist() for name, value in parts.items()}, "count": [count]}


def _of_numbers(values: Float64[ndarray, "steps *shape"]) -> dict[str, ndarray]:
    """Without NaN; not finite where there are only those, or where squares overflow."""
    silent = np.isnan(values)
    if silent.all(axis=0).any():
        return {"mean": np.array(np.nan)}
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = np.ma.masked_array(values, silent) if silent.any() else values
        moments = {"min": numbers.min(0), "max": numbers.max(0), "mean": numbers.mean(0), "std": numbers.std(0)}
        quantiles = np.nanquantile(values, list(QUANTILES.values()), axis=0)
    return {name: np.asarray(value) for name, value in (*moments.items(), *zip(QUANTILES, quantiles, strict=True))}


def _of_pictures(frames: UInt8[ndarray, "steps height width 3"]) -> dict[str, Float64[ndarray, " 3"]]:
    """From a histogram of each channel: exact for the sampled pixels, and quick."""
    chosen = np.linspace(0, len(frames) - 1, min(len(frames), SAMPLED_FRAMES)).round().astype(int)
    stride = max(1, max(frames.shape[1:3]) // SAMPLED_SIZE)
    pixels = frames[chosen, ::stride, ::stride].reshape(-1, 3)
    counts = np.stack([np.bincount(pixels[:, channel], minlength=256) for channel in range(3)])
    levels, present = np.arange(256) / 255, counts > 0
    mean = counts @ levels / len(pixels)
    found = {
        "min": levels[present.argmax(1)],
        "max": levels[255 - present[:, ::-1].argmax(1)],
        "mean": mean,
        "std": np.sqrt(np.maximum(counts @ levels**2 / len(pixels) - mean**2, 0)),
    }
    cumulative = counts.cumsum(1)
    for name, fraction in QUANTILES.items():
        found[name] = levels[(cumulative >= fraction * len(pixels)).argmax(1)]
    return found


class Aggregate:
    """Statistics of all episodes together, from those of each, one after the other."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, Any]] = {}

    def add(self, episode: Mapping[str, Statistics]) -> None:
        """One more episode's statistics, by feature."""
        for name, statistics in episode.items():
            parts = {part: np.array(value, np.float64) for part, value in statistics.items() if part != "count"}
            if name not in self._sums:
                nothing = {part: np.zeros_like(parts["mean"]) for part in ("squares", "mean", *QUANTILES)}
                self._sums[name] = {"count": 0, "min": parts["min"], "max": parts["max"], **nothing}
            _merge(self._sums[name], parts, statistics["count"][0])

    def result(self) -> dict[str, Statistics]:
        """By feature, as LeRobot's `stats.json` has them; without those whose variance is too large for a number."""
        finite = {name: sums for name, sums in self._sums.items() if np.isfinite(sums["squares"]).all()}
        return {name: _finished(sums) for name, sums in finite.items()}


def _merge(sums: dict[str, Any], parts: dict[str, ndarray], count: int) -> None:
    """Chan et al. 1983 for the moments; weighted sums for the quantiles."""
    total = sums["count"] + count
    with np.errstate(over="ignore", invalid="ignore"):
        delta = parts["mean"] - sums["mean"]
        sums["squares"] += parts["std"] ** 2 * count + delta**2 * (sums["count"] * count / total)
    sums["min"], sums["max"] = np.minimum(sums["min"], parts["min"]), np.maximum(sums["max"], parts["max"])
    for part in ("mean", *QUANTILES):
        sums[part] += (parts[part] - sums[part]) * (count / total)
    sums["count"] = total


def _finished(sums: dict[str, Any]) -> Statistics:
    std = np.sqrt(sums["squares"] / sums["count"])
    return {
        **{part: sums[part].tolist() for part in ("min", "max", "mean")},
        "std": std.tolist(),
        "count": [sums["count"]],
        **{part: sums[part].tolist() for part in QUANTILES},
    }


def quantiles_of_whole(files: Iterable[Path], features: Iterable[Feature]) -> dict[str, Statistics]:
    """Quantiles of small features over all steps, by one pass over data files that were just written.

    Args:
        files: Data files.
        features: Those that have statistics; large ones are left out.
    """
    small = [feature for feature in features if not feature.picture and int(np.prod(feature.shape)) <= SKETCHED_SIZE]
    sizes = {feature.name: int(np.prod(feature.shape)) for feature in small}
    sketches = {name: QuantileSketch(size) for name, size in sizes.items()}
    missing = {name: np.zeros(size, np.int64) for name, size in sizes.items()}
    for path in files:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, list(sketches))
                for feature in small:
                    values = from_arrow(feature, table[feature.name], str(path)).astype(np.float64)
                    values = values.reshape(len(table), sizes[feature.name])
                    sketches[feature.name].add(values)
                    missing[feature.name] += np.isnan(values).sum(0)
    found = {}
    for feature in small:
        levels = sketches[feature.name].quantiles(np.array(list(QUANTILES.values())), missing[feature.name])
        found[feature.name] = {
            name: level.reshape(feature.shape).tolist() for name, level in zip(QUANTILES, levels, strict=True)
        }
    return found

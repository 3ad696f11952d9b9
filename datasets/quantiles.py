"""Quantiles of more values than fit into memory, in one pass and with a bound on their error.

A sketch keeps sorted runs of values at levels; at level h a value stands for 2^h of those that were added. A level that
is full is sorted, every other value goes up one level, and the rest are dropped: alternately those at even and at odd
places, so that the errors of two successive compactions cancel (Manku, Rajagopalan & Lindsay 1998, "Approximate medians
and other quantiles in one pass and with limited memory"; levels as in Karnin, Lang & Liberty 2016, "Optimal quantile
approximation in streams", without the chance). All elements of a field go through the same levels at the same time.
"""

import numpy as np
from jaxtyping import Float64, Int64, Shaped
from numpy import ndarray

SKETCH_BYTES = 32 * 2**20
"""Memory of one level, where the field is small enough for its capacity not to matter."""
CAPACITIES = (256, 16384)
"""Least and most values of an element at one level. Fewer than that many in all are all kept."""


class QuantileSketch:
    """Quantiles of each element of a stream of vectors; NaN counts as missing."""

    def __init__(self, size: int) -> None:
        """A sketch of vectors with `size` elements."""
        least, most = CAPACITIES
        self.capacity = int(np.clip(SKETCH_BYTES // (8 * size) // 2 * 2, least, most))
        self.count = 0
        """Vectors added."""
        self._size = size
        self._levels: list[list[Float64[ndarray, "size values"]]] = [[]]
        self._compactions = [0]

    @property
    def rank_error(self) -> float:
        """Most by which the rank of a quantile can be off, as a share of all values; 0 where all were kept.

        A compaction at level h moves ranks by at most 2^h, and the next one moves them back.
        """
        moved = sum((number + 1) // 2 * 2**level for level, number in enumerate(self._compactions))
        return moved / max(self.count, 1)

    def add(self, values: Shaped[ndarray, "batch size"]) -> None:
        """Take in vectors."""
        self.count += len(values)
        while len(values):
            room = self.capacity - self._filled(0)
            part, values = values[:room], values[room:]
            self._levels[0].append(part.T.astype(np.float64))
            if len(part) == room:
                self._compact(0)

    def _filled(self, level: int) -> int:
        return sum(run.shape[1] for run in self._levels[level])

    def _compact(self, level: int) -> None:
        """Move half of a full level up, where each value counts for two."""
        values = np.sort(np.concatenate(self._levels[level], axis=1), axis=1)  # NaN comes last.
        kept = values[:, self._compactions[level] % 2 :: 2]
        self._compactions[level] += 1
        self._levels[level].clear()
        if level + 1 == len(self._levels):
            self._levels.append([])
            self._compactions.append(0)
        self._levels[level + 1].append(np.ascontiguousarray(kept))
        if self._filled(level + 1) == self.capacity:
            self._compact(level + 1)

    def quantiles(
        self, ranks: Float64[ndarray, " ranks"], missing: Int64[ndarray, " size"]
    ) -> Float64[ndarray, "ranks size"]:
        """Values at these shares of each element's numbers, between two of them by linear interpolation.

        Args:
            ranks: In [0, 1].
            missing: How many values of each element are NaN.
        """
        runs = [(run, 2.0**level) for level, level_runs in enumerate(self._levels) for run in level_runs]
        values = np.concatenate([np.empty((self._size, 0)), *(run for run, _ in runs)], axis=1)
        weights = np.repeat([weight for _, weight in runs], [run.shape[1] for run, _ in runs])
        last = self.count - missing - 1
        return np.stack(
            [weighted_quantiles(row, weights, ranks * end) for row, end in zip(values, last, strict=True)], axis=1
        )


def weighted_quantiles(
    values: Float64[ndarray, " values"], weights: Float64[ndarray, " values"], places: Float64[ndarray, " places"]
) -> Float64[ndarray, " places"]:
    """What stands at these places of the sorted sequence in which every value occurs `weight` times, NaN left out.

    Between two places it is linear, as in `numpy.quantile`; all is NaN where there is no number.
    """
    order = np.argsort(values)
    order = order[: len(values) - np.isnan(values).sum()]
    if not len(order):
        return np.full(len(places), np.nan)
    ends = np.cumsum(weights[order])
    below, above = (
        values[order[np.minimum(np.searchsorted(ends, whole, side="right"), len(order) - 1)]]
        for whole in (np.floor(places), np.ceil(places))
    )
    return np.asarray(below + (above - below) * (places - np.floor(places)))

"""Streaming statistics of fields, and the invertible scaling that a policy carries inside itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy import ndarray
from torch import Tensor, nn

from alula.core.errors import SpecError, unknown_name

CONSTANT_RANGE = 1e-6
"""Half-ranges below this count as constant: such elements are shifted to 0, not stretched to [-1, 1]."""


QUANTILE_RANKS = np.linspace(0, 1, 1001)
"""Shares of the values at which quantiles are kept: every 0.1 %, from the smallest value to the largest."""


@dataclass
class FieldStatistics:
    """Count, extremes and moments of one field, updated batch by batch in one pass (Chan et al. 1983).

    NaN stands for what was not recorded: it is counted and otherwise left out.
    """

    count: int
    """Values of each element, missing ones included."""
    low: Float64[ndarray, "*shape"]
    high: Float64[ndarray, "*shape"]
    mean: Float64[ndarray, "*shape"]
    squares: Float64[ndarray, "*shape"]
    """Sum of squared deviations from the mean."""
    missing: Int64[ndarray, "*shape"]
    """Values that are NaN."""
    quantiles: Float64[ndarray, "ranks *shape"] | None = None
    """Values at `QUANTILE_RANKS`, NaN where all are missing; None where only moments were taken."""

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> "FieldStatistics":
        """Statistics of nothing."""
        nothing = np.zeros(shape, np.int64)
        return cls(0, np.full(shape, np.inf), np.full(shape, -np.inf), np.zeros(shape), np.zeros(shape), nothing)

    @classmethod
    def of(cls, values: Float[ndarray, "batch *shape"]) -> "FieldStatistics":
        """Statistics of one batch."""
        values = values.astype(np.float64)
        absent = np.isnan(values)
        count, missing = len(values), absent.sum(0)
        mean = values.sum(0, where=~absent) / np.maximum(count - missing, 1)
        squares = ((values - mean) ** 2).sum(0, where=~absent)
        low, high = np.fmin.reduce(values, 0, initial=np.inf), np.fmax.reduce(values, 0, initial=-np.inf)
        return cls(count, *_arrays(low, high, mean, squares, missing))

    def merged(self, other: "FieldStatistics") -> "FieldStatistics":
        """Statistics of both together, without quantiles."""
        share = other.present / np.maximum(self.present + other.present, 1)
        delta = other.mean - self.mean
        return FieldStatistics(
            self.count + other.count,
            *_arrays(
                np.minimum(self.low, other.low),
                np.maximum(self.high, other.high),
                self.mean + delta * share,
                self.squares + other.squares + delta**2 * self.present * share,
                self.missing + other.missing,
            ),
        )

    @property
    def present(self) -> Int64[ndarray, "*shape"]:
        """Values that are numbers."""
        return np.asarray(self.count - self.missing)

    @property
    def std(self) -> Float64[ndarray, "*shape"]:
        """Population standard deviation."""
        return np.asarray(np.sqrt(self.squares / np.maximum(self.present, 1)))

    def quantile(self, ranks: float | Float64[ndarray, " ranks"]) -> Float64[ndarray, "*shape"]:
        """The value that such a share of all values does not exceed; between `QUANTILE_RANKS` the nearest of them.

        Raises:
            SpecError: no quantiles were taken.
        """
        if self.quantiles is None:
            raise SpecError(f"quantile {ranks} was asked of statistics that hold moments only; take them of a dataset")
        return np.asarray(self.quantiles[np.rint(np.asarray(ranks) * (len(self.quantiles) - 1)).astype(int)])


def _arrays(*parts: ndarray | np.number[Any]) -> tuple[ndarray, ...]:
    """NumPy turns arrays without axes into scalars; back to arrays."""
    return tuple(np.asarray(part) for part in parts)


class Normalizer(nn.Module):
    """Maps every field's recorded range to [-1, 1] and back, element by element.

    Elements that never changed in the data are only shifted to 0, so a later deviation keeps its unit and cannot
    explode. The scaling is stored with the module, hence inside every checkpoint.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Identity scaling for fields of these shapes; `fit` or `load_state_dict` sets it."""
        super().__init__()
        self.names = tuple(shapes)
        for index, shape in enumerate(shapes.values()):
            self.register_buffer(f"center_{index}", torch.zeros(shape))
            self.register_buffer(f"scale_{index}", torch.ones(shape))

    def fit(self, statistics: Mapping[str, FieldStatistics]) -> None:
        """Take the range of every field from `statistics`.

        Raises:
            SpecError: a field has no statistics, or holds no sample, NaN, or a value that is not finite.
        """
        for index, name in enumerate(self.names):
            if name not in statistics:
                raise SpecError(unknown_name("field in the statistics", name, statistics))
            found = statistics[name]
            if found.count == 0 or not (np.isfinite(found.low).all() and np.isfinite(found.high).all()):
                raise SpecError(f"statistics of field '{name}' are empty or not finite; check the dataset")
            if found.missing.any():
                raise SpecError(
                    f"field '{name}' is NaN in up to {found.missing.max()} of {found.count} steps, and a network would "
                    f"turn all it computes into NaN; choose other fields, or a dataset without gaps"
                )
            center, half = np.asarray((found.high + found.low) / 2), np.asarray((found.high - found.low) / 2)
            scale = np.where(half < CONSTANT_RANGE, 1.0, half)
            self.get_buffer(f"center_{index}").copy_(torch.from_numpy(center))
            self.get_buffer(f"scale_{index}").copy_(torch.from_numpy(scale))

    def _buffers_of(self, name: str) -> tuple[Tensor, Tensor]:
        if name not in self.names:
            raise SpecError(unknown_name("field of the normalizer", name, self.names))
        index = self.names.index(name)
        return self.get_buffer(f"center_{index}"), self.get_buffer(f"scale_{index}")

    def normalize(self, name: str, value: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Field `name` from its own unit to [-1, 1]."""
        center, scale = self._buffers_of(name)
        return (value - center) / scale

    def unnormalize(self, name: str, value: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Field `name` from [-1, 1] back to its own unit."""
        center, scale = self._buffers_of(name)
        return value * scale + center

    def scale(self, name: str) -> Float[Tensor, "*field"]:
        """Half-range of field `name`, in its own unit."""
        return self._buffers_of(name)[1]

    def copy_field(self, name: str, other: "Normalizer") -> None:
        """Take over the scaling of field `name` from `other`."""
        for own, given in zip(self._buffers_of(name), other._buffers_of(name), strict=True):
            own.copy_(given)

"""Windows of several datasets, each as often as its weight says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from alula.core.errors import DatasetError, SpecError, unknown_name
from alula.core.normalizer import FieldStatistics
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Windows
from alula.datasets.statistics import combined, statistics
from alula.datasets.store import EpisodeStore
from alula.datasets.window_cache import window_bytes, window_dtype
from alula.datasets.windows import MEMORY_LIMIT, WindowSampler

REPEATS = 2**20
"""Least number of indices that stand for one window: shares are then exact to one in two million."""
MOST_INDICES = 2**62
T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """One dataset of a mixture."""

    store: EpisodeStore
    weight: float = 1.0
    """Share of the windows, relative to the other sources' weights, whatever the dataset's size."""


class Mixture:
    """Samples like a `WindowSampler`, from several datasets at once.

    An index is a ticket of a lottery: every window has several, all windows of a source equally many, and the sources
    as many as their weights say. Who draws indices evenly in [0, len(self)) thus draws sources by weight and windows of
    a source evenly, and the same indices always give the same windows. Observation fields that a source lacks are
    zeros, and `present` of the windows says so.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        horizon: int,
        fields: Sequence[str] | None = None,
        memory_limit: int = MEMORY_LIMIT,
        *,
        history: int | None = None,
        cache: Path | None = None,
    ) -> None:
        """Load what windows of all sources need.

        Args:
            sources: At least one.
            horizon: Actions in a window [steps].
            fields: Observation fields to load; None for all that any source has.
            memory_limit: Most bytes to hold in memory for all sources together.
            history: Observations in a window [steps]; None for one alone, without an axis.
            cache: As for `WindowSampler`.

        Raises:
            DatasetError: a source cannot be sampled, no source has a field, or a weight is not a positive number.
            SpecError: two sources disagree about a field.
        """
        weights = np.array([source.weight for source in sources], dtype=np.float64)
        if not len(sources) or not np.all(np.isfinite(weights) & (weights > 0)):
            raise DatasetError(f"weights of a mixture are {weights.tolist()}; needed is one or more, all above 0")
        self.stores = [source.store for source in sources]
        self.weights = weights / weights.sum()
        """Share of each source."""
        self.observation = _united([store.observation for store in self.stores], self.stores, fields)
        self.action = _united([store.action for store in self.stores], self.stores, None)
        self.history = history
        sizes = [sum(window_bytes(store, name) for name in self._names(store)) for store in self.stores]
        shrink = min(1.0, memory_limit / max(sum(sizes), 1))
        self._samplers = [
            WindowSampler(store, horizon, self._names(store)[:-1], int(size * shrink), history=history, cache=cache)
            for store, size in zip(self.stores, sizes, strict=True)
        ]
        self._lengths = np.array([len(sampler) for sampler in self._samplers])
        num_indices = min(REPEATS * (self._lengths / self.weights).max(), MOST_INDICES)
        repeats = np.rint(self.weights * num_indices / self._lengths).astype(np.int64)
        self._ends = np.cumsum(self._lengths * repeats)
        self._starts = self._ends - self._lengths * repeats

    def __len__(self) -> int:
        """Number of indices, far more than there are windows."""
        return int(self._ends[-1])

    def sample(self, indices: Int64[ndarray, " batch"]) -> Windows:
        """The windows that these indices stand for.

        Args:
            indices: In [0, len(self)).
        """
        source = np.searchsorted(self._ends, indices, side="right")
        steps = (indices - self._starts[source]) % self._lengths[source]
        parts = {}
        for number in np.unique(source).tolist():
            rows = np.flatnonzero(source == number)
            parts[number] = rows, self._samplers[number].sample(steps[rows])
        return self._assembled(source, parts)

    def _assembled(self, source: Int64[ndarray, " batch"], parts: dict[int, tuple[ndarray, Windows]]) -> Windows:
        """The windows of all sources, each in the rows that it was drawn for."""
        batch = len(source)
        _, first = next(iter(parts.values()))
        span = () if self.history is None else (self.history,)
        dtypes = {name: window_dtype(self._owner(name), name) for name in self.observation}
        result = Windows(
            {name: np.zeros((batch, *span, *self.observation[name].shape), dtypes[name]) for name in dtypes},
            np.empty((batch, *first.actions.shape[1:]), first.actions.dtype),
            np.empty((batch, first.mask.shape[1]), bool),
            None if self.history is None else np.empty((batch, self.history), bool),
            source,
            {name: np.zeros(batch, bool) for name in dtypes},
        )
        assert result.present is not None
        for rows, windows in parts.values():
            result.actions[rows], result.mask[rows] = windows.actions, windows.mask
            if result.history_mask is not None:
                result.history_mask[rows] = windows.history_mask
            for name, values in windows.observation.items():
                result.observation[name][rows], result.present[name][rows] = values, True
        return result

    @cached_property
    def source_statistics(self) -> list[dict[str, FieldStatistics]]:
        """Statistics of the fields of each source."""
        return [
            {name: found for name, found in statistics(store).items() if name in self._names(store)}
            for store in self.stores
        ]

    @cached_property
    def statistics(self) -> dict[str, FieldStatistics]:
        """Statistics of every field over what is drawn: sources that have it, by their weights."""
        result = {}
        for name in (*self.observation, "action"):
            holders = [number for number, found in enumerate(self.source_statistics) if name in found]
            parts = [self.source_statistics[number][name] for number in holders]
            result[name] = combined(parts, self.weights[holders])
        return result

    def _names(self, store: EpisodeStore) -> list[str]:
        """Fields of the mixture that a source has, `action` last."""
        return [*(name for name in self.observation if name in store.observation), "action"]

    def _owner(self, name: str) -> EpisodeStore:
        return next(store for store in self.stores if name in store.observation)


def _united(spaces: Sequence[SpaceSpec], stores: Sequence[EpisodeStore], names: Sequence[str] | None) -> SpaceSpec:
    """All fields of several spaces, or those of `names`, after checking that no two sources disagree about one."""
    found: dict[str, tuple[FieldSpec, EpisodeStore]] = {}
    for space, store in zip(spaces, stores, strict=True):
        for name, field in space.items():
            if name not in found:
                found[name] = field, store
            elif names is None or name in names:
                known, other = found[name]
                found[name] = _agreed(known, other, field, store), other
    for name in names or ():
        if name not in found:
            raise DatasetError(unknown_name("observation field", name, found))
    return SpaceSpec(tuple(found[name][0] for name in (found if names is None else names)))


def _agreed(mine: FieldSpec, other: EpisodeStore, field: FieldSpec, store: EpisodeStore) -> FieldSpec:
    """A field as two sources have it, with the wider bounds, or a `SpecError` that names both."""
    images = [window_dtype(owner, mine.name) for owner in (other, store)]
    pairs = {
        "shape": (mine.shape, field.shape),
        "unit": (_spread(mine, mine.units), _spread(field, field.units)),
        "control mode": (mine.control_mode, field.control_mode),
        "type in windows": (images[0], images[1]),
        "element names": (mine.element_names or field.element_names, field.element_names or mine.element_names),
        "rate [Hz]": (mine.rate or field.rate, field.rate or mine.rate),
    }
    for what, (left, right) in pairs.items():
        if left != right:
            raise SpecError(
                f"field '{mine.name}': {what} is {left} in '{other.path}', {right} in '{store.path}'; convert one of "
                f"them, rename the field, or leave it out by choosing fields"
            )
    low, high = _wider(min, mine, mine.low, field.low), _wider(max, mine, mine.high, field.high)
    return replace(mine, low=low, high=high, allow_nan=mine.allow_nan or field.allow_nan)


def _wider(
    choose: Callable[[T, T], T], field: FieldSpec, left: tuple[T, ...] | None, right: tuple[T, ...] | None
) -> tuple[T, ...] | None:
    if left is None or right is None:
        return None
    return tuple(map(choose, _spread(field, left), _spread(field, right)))


def _spread(field: FieldSpec, entries: tuple[T, ...]) -> tuple[T, ...]:
    """One entry per element."""
    size = field.shape[-1] if field.shape else 1
    return entries * size if len(entries) == 1 else entries

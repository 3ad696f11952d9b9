"""Training samples: what was seen up to a step and the actions that followed it, gathered for a whole batch at once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped
from numpy import ndarray

from alula.core.errors import DatasetError, unknown_name
from alula.core.transitions import Windows
from alula.datasets.store import EpisodeStore
from alula.datasets.window_cache import MappedFields, load, window_bytes

MEMORY_LIMIT = 4 * 2**30
"""Bytes of a dataset that a sampler may keep in memory unless told otherwise."""


class WindowSampler:
    """Windows of a dataset, one for every step of every episode.

    Values are float32 (`uint8` images stay `uint8`). The smallest fields are held in memory as long as `memory_limit`
    allows; the others are gathered from an uncompressed copy on disk of which no more than the rest of the limit stays
    mapped, so that only the batch itself comes on top. Episodes appended later are not seen.
    """

    def __init__(
        self,
        store: EpisodeStore,
        horizon: int,
        fields: Sequence[str] | None = None,
        memory_limit: int = MEMORY_LIMIT,
        *,
        history: int | None = None,
        cache: Path | None = None,
    ) -> None:
        """Load what windows need.

        Args:
            store: Dataset with at least one step.
            horizon: Actions in a window [steps].
            fields: Observation fields to load; None for all.
            memory_limit: Most bytes to hold in memory.
            history: Observations in a window [steps], the last at the window's first action; None for that one
                alone, without an axis.
            cache: Folder for copies of what exceeds the limit; None for one inside the dataset, or the user's cache
                where that may not be written.

        Raises:
            DatasetError: the dataset is empty, has no actions, or lacks a field; horizon or history < 1; or a copy
                cannot be written.
        """
        for what, steps in (("horizon", horizon), ("history", history)):
            if steps is not None and steps < 1:
                raise DatasetError(f"{what} is {steps} steps, at least 1 is needed")
        names = _names(store, fields)
        self.store, self.horizon, self.history = store, horizon, history
        self.observation_names = tuple(names[:-1])
        """Observation fields of a window."""
        self.num_bytes = 0
        """Memory held by the arrays."""
        self._held, mapped = {}, []
        for name in sorted(names, key=lambda name: window_bytes(store, name)):
            if self.num_bytes + window_bytes(store, name) <= memory_limit:
                self._held[name] = load(store, name)
                self.num_bytes += self._held[name].nbytes
            else:
                mapped.append(name)
        self._mapped = MappedFields(store, mapped, cache, memory_limit - self.num_bytes)
        self._ends, self._starts = store.episode_ends, store.episode_ends - store.lengths
        self._ahead = np.arange(horizon)
        self._back = np.arange(1 - (history or 1), 1)

    def __len__(self) -> int:
        """Number of windows: one for every step."""
        return int(self._ends[-1])

    def sample(self, indices: Int64[ndarray, " batch"]) -> Windows:
        """The windows that start at these steps.

        Args:
            indices: Steps in [0, len(self)), counted over all episodes.
        """
        episodes = np.searchsorted(self._ends, indices, side="right")
        ahead, last = indices[:, None] + self._ahead, self._ends[episodes, None] - 1
        actions = self._take("action", np.minimum(ahead, last))
        if self.history is None:
            seen, history_mask = indices, None
        else:
            back, first = indices[:, None] + self._back, self._starts[episodes, None]
            seen, history_mask = np.maximum(back, first), back >= first
        observation = {name: self._take(name, seen) for name in self.observation_names}
        return Windows(observation, actions, ahead <= last, history_mask)

    def _take(self, name: str, steps: Int64[ndarray, "batch *span"]) -> Shaped[ndarray, "batch *values"]:
        if name in self._held:
            return self._held[name].take(steps, axis=0)
        return self._mapped.take(name, steps)


def _names(store: EpisodeStore, fields: Sequence[str] | None) -> list[str]:
    """The fields of a window, `action` last, or a `DatasetError`."""
    if "action" not in store.action:
        raise DatasetError(
            f"dataset '{store.path}' has no field 'action': it is a recording without commands, from which no "
            f"windows can be made; use a dataset of demonstrations"
        )
    if store.num_steps == 0:
        raise DatasetError(f"dataset '{store.path}' has no episodes with steps to sample; record or convert some first")
    for name in fields or ():
        if name not in store.observation:
            raise DatasetError(unknown_name("observation field", name, store.observation))
    return [*(store.observation if fields is None else fields), "action"]


def prefetch(
    sample: Callable[[Int64[ndarray, " batch"]], Windows], batches: Iterable[Int64[ndarray, " batch"]], depth: int = 2
) -> Iterator[Windows]:
    """The windows of each batch of indices, in order, gathered by a thread while the caller works on earlier ones.

    Args:
        sample: A sampler's method; called by one thread only.
        batches: Indices of each batch.
        depth: Batches to be ahead.
    """
    pending: deque[Future[Windows]] = deque()
    with ThreadPoolExecutor(1, "windows") as thread:
        for indices in batches:
            pending.append(thread.submit(sample, indices))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

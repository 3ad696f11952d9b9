"""Training samples: an observation and the actions that followed it, gathered for a whole batch at once."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, Shaped
from numpy import ndarray

from alula.core.errors import DatasetError, unknown_name
from alula.core.transitions import Windows
from alula.datasets.store import EpisodeStore

MEMORY_LIMIT = 8 * 2**30
"""Bytes that a sampler may hold unless told otherwise."""


class WindowSampler:
    """Windows of a dataset, one for every step of every episode.

    The fields that windows need are held in memory, contiguous, as float32 (`uint8` images stay `uint8`):
    `num_bytes` says how much that is, `fields` and `memory_limit` bound it. Episodes appended later are not seen.
    """

    def __init__(
        self,
        store: EpisodeStore,
        horizon: int,
        fields: Sequence[str] | None = None,
        memory_limit: int = MEMORY_LIMIT,
    ) -> None:
        """Load what windows need.

        Args:
            store: Dataset with at least one episode.
            horizon: Actions in a window [steps].
            fields: Observation fields to load; None for all.
            memory_limit: Most bytes to hold in memory.

        Raises:
            DatasetError: the dataset is empty, too large for the limit, or lacks a field; or horizon < 1.
        """
        if horizon < 1:
            raise DatasetError(f"horizon is {horizon} steps, at least 1 is needed")
        if store.num_episodes == 0:
            raise DatasetError(f"dataset '{store.path}' has no episodes to sample; record or convert some first")
        for name in fields or ():
            if name not in store.observation:
                raise DatasetError(unknown_name("observation field", name, store.observation))
        self.horizon = horizon
        names = [*(store.observation if fields is None else fields), "action"]
        self.num_bytes = sum(_memory(store, name) for name in names)
        """Memory held by the arrays."""
        if self.num_bytes > memory_limit:
            raise DatasetError(
                f"windows of dataset '{store.path}' need {self.num_bytes / 2**20:.1f} MiB for {', '.join(names)}, the "
                f"limit is {memory_limit / 2**20:.1f} MiB; choose fewer fields or raise memory_limit"
            )
        arrays = {name: _load(store, name) for name in names}
        self._actions = arrays.pop("action")
        self._observation = arrays
        self._last = np.repeat(store.episode_ends - 1, store.lengths)
        self._ahead = np.arange(horizon)

    def __len__(self) -> int:
        """Number of windows: one for every step."""
        return len(self._last)

    def sample(self, indices: Int64[ndarray, " batch"]) -> Windows:
        """The windows that start at these steps.

        Args:
            indices: Steps in [0, len(self)), counted over all episodes.
        """
        steps = indices[:, None] + self._ahead
        last = self._last[indices][:, None]
        actions = self._actions.take(np.minimum(steps, last), axis=0)
        observation = {name: values.take(indices, axis=0) for name, values in self._observation.items()}
        return Windows(observation, actions, steps <= last)


def _stored_dtype(store: EpisodeStore, name: str) -> str:
    return "uint8" if store.fields[name].dtype == "uint8" and name != "action" else "float32"


def _memory(store: EpisodeStore, name: str) -> int:
    itemsize = np.dtype(_stored_dtype(store, name)).itemsize
    return store.num_steps * store.fields[name].size * itemsize


def _load(store: EpisodeStore, name: str) -> Shaped[ndarray, "steps *field"]:
    return np.ascontiguousarray(store.read(name), dtype=_stored_dtype(store, name))

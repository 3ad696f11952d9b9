"""Episodes kept back from training, and how well a policy foretells their actions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from numpy import ndarray
from torch import Generator

from alula.core.errors import DatasetError
from alula.core.normalizer import CONSTANT_RANGE, FieldStatistics
from alula.core.transitions import Windows
from alula.datasets.store import EpisodeStore
from alula.policies.policy import GenerativePolicy

Sample = Callable[[Int64[ndarray, " batch"]], Windows]
"""The windows that start at these steps, which are counted over all episodes."""
MOST_WINDOWS = 2048
"""Held-out windows that a measurement uses at most, evenly spaced: it is repeated throughout training."""
BATCH = 256
"""Windows that are predicted at once."""
MOST_DRAWN = 400
"""Steps of held-out episodes that are kept for plots."""
BLOCK_BYTES = 8 * 2**20
"""Read at a time for statistics, so that memory does not grow with the dataset."""


@dataclass(frozen=True)
class Split:
    """Which episodes are learned from and which are kept back; both ascending."""

    training: Int64[ndarray, " training"]
    held_out: Int64[ndarray, " held_out"]


def split_episodes(store: EpisodeStore, share: float, seed: int) -> Split:
    """Keep a share of the episodes back, at least one; none where the share is 0.

    Raises:
        DatasetError: nothing would be left to learn from.
    """
    episodes = np.flatnonzero(store.lengths)  # those without steps are neither learned nor foretold
    count = min(max(round(share * len(episodes)), 1), len(episodes)) if share else 0
    if count and count == len(episodes):
        raise DatasetError(
            f"dataset '{store.path}' has {len(episodes)} episodes with steps, and held_out={share:g} would keep back "
            f"{count}; at least one must be left to learn from. Record more, or train on all of it with held_out=0"
        )
    shuffled = np.random.default_rng(seed).permutation(episodes)
    return Split(np.sort(shuffled[count:]), np.sort(shuffled[:count]))


def steps_of(store: EpisodeStore, episodes: Int64[ndarray, " some"]) -> Int64[ndarray, " steps"]:
    """Every step of some episodes, counted over the whole dataset."""
    chosen = np.zeros(store.num_episodes, dtype=bool)
    chosen[episodes] = True
    return np.flatnonzero(np.repeat(chosen, store.lengths))


def statistics_of(
    store: EpisodeStore, names: Sequence[str], steps: Int64[ndarray, " steps"]
) -> dict[str, FieldStatistics]:
    """Statistics of some fields over some steps, in one streaming pass.

    Raises:
        DatasetError: a field holds a value that is not finite.
    """
    chosen = np.zeros(store.num_steps, dtype=bool)
    chosen[steps] = True
    return {name: _field_statistics(store, name, chosen) for name in names}


def _field_statistics(store: EpisodeStore, name: str, chosen: Bool[ndarray, " steps"]) -> FieldStatistics:
    field = store.fields[name]
    block_steps = max(1, BLOCK_BYTES // (max(field.size, 1) * np.dtype(field.dtype).itemsize))
    result = FieldStatistics.empty(field.shape)
    for start in range(0, store.num_steps, block_steps):
        block = store.read(name, start, start + block_steps).astype(np.float64)
        if not np.isfinite(block).all():
            raise DatasetError(
                f"field '{name}' of dataset '{store.path}' holds values that are not finite, which no network can "
                f"learn from. Choose other fields with fields=[...], or drop those episodes"
            )
        result = result.merged(FieldStatistics.of(block[chosen[start : start + block_steps]]))
    return result


@dataclass(frozen=True)
class Element:
    """One element of the action, and how far predictions of it are off."""

    name: str
    unit: str
    error: float
    """Mean absolute error, in `unit`."""
    baseline: float
    """The same of predicting the mean action always, in `unit`."""
    std: float
    """Standard deviation in the training episodes, in `unit`."""


@dataclass(frozen=True)
class Foretold:
    """The start of one held-out episode beside what the policy predicted, replanning where it would when acting."""

    episode: int
    recorded: list[list[float]]
    """Actions by step, in the action's units."""
    predicted: list[list[float]]


@dataclass(frozen=True)
class HeldOutError:
    """Mean absolute error of the actions that would be executed, on episodes that training never saw."""

    episodes: list[int]
    steps: int
    """Of these episodes together."""
    windows: int
    """Predictions measured, each of `execute_steps` actions."""
    execute_steps: int
    error: float
    """Mean over the elements of error / std, where an element varied at all."""
    baseline: float
    """The same of predicting the mean action always."""
    elements: list[Element]
    rate: float | None
    """Actions per second [Hz]; None where the recording does not say."""
    foretold: list[Foretold]
    """Whole episodes of `episodes` from the first on, as far as they fit a plot."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


class HeldOut:
    """Measures policies on held-out episodes, the same windows and the same noise every time.

    Args:
        store: The dataset.
        sample: Its windows.
        episodes: Those kept back; at least one.
        action: Statistics of the training episodes' actions.
        seed: Of the noise that a generative policy starts from.
    """

    def __init__(
        self,
        store: EpisodeStore,
        sample: Sample,
        episodes: Int64[ndarray, " held_out"],
        action: FieldStatistics,
        seed: int,
    ) -> None:
        self.store, self.sample, self.episodes, self.seed = store, sample, episodes, seed
        self.mean, self.std = action.mean, action.std
        self.steps = steps_of(store, episodes)
        count = min(len(self.steps), MOST_WINDOWS)
        self.measured = self.steps[np.linspace(0, len(self.steps) - 1, count).round().astype(np.int64)]

    def error(self, policy: GenerativePolicy) -> float:
        """Mean absolute error in standard deviations: see `HeldOutError.error`."""
        return self._in_std(self._errors(policy)[0])

    def measure(self, policy: GenerativePolicy) -> HeldOutError:
        """Everything that a report tells."""
        field = policy.action_field
        errors, baselines = self._errors(policy)
        names = field.element_names or [f"{field.name}[{index}]" for index in range(field.size)]
        units = np.broadcast_to(field.units, field.shape).tolist()
        columns = zip(names, units, errors.tolist(), baselines.tolist(), self.std.tolist(), strict=True)
        return HeldOutError(
            episodes=self.episodes.tolist(),
            steps=len(self.steps),
            windows=len(self.measured),
            execute_steps=policy.execute_steps,
            error=self._in_std(errors),
            baseline=self._in_std(baselines),
            elements=[Element(*column) for column in columns],
            rate=field.rate or self.store.metadata.get("rate"),
            foretold=self._foretold(policy),
        )

    def _errors(self, policy: GenerativePolicy) -> tuple[Float64[ndarray, " action"], Float64[ndarray, " action"]]:
        """Mean absolute error of each element: the policy's and the baseline's."""
        sums = np.zeros((2, len(self.mean)))
        count = 0
        for windows, predicted in self._predictions(policy, self.measured):
            mask, recorded = (values[:, : policy.execute_steps] for values in (windows.mask, windows.actions))
            for row, guess in enumerate((predicted, self.mean)):
                sums[row] += np.abs(guess - recorded)[mask].sum(axis=0, dtype=np.float64)
            count += int(mask.sum())
        return sums[0] / count, sums[1] / count

    def _in_std(self, errors: Float64[ndarray, " action"]) -> float:
        varies = self.std >= CONSTANT_RANGE
        return float((errors[varies] / self.std[varies]).mean()) if varies.any() else float(errors.mean())

    def _predictions(
        self, policy: GenerativePolicy, steps: Int64[ndarray, " steps"]
    ) -> Iterator[tuple[Windows, Float32[ndarray, "batch execute action"]]]:
        """Windows in batches, and the actions that the policy would execute from each one's start."""
        generator = Generator().manual_seed(self.seed)
        for start in range(0, len(steps), BATCH):
            windows = self.sample(steps[start : start + BATCH])
            seen = {name: torch.from_numpy(windows.observation[name]) for name in policy.observation}
            chunk, _ = policy.sample(seen, generator, stochastic=False)
            yield windows, chunk[:, : policy.execute_steps].numpy()

    def _foretold(self, policy: GenerativePolicy) -> list[Foretold]:
        """Episodes from the first on while they fit into `MOST_DRAWN` steps; the first one in any case."""
        found: list[Foretold] = []
        room = MOST_DRAWN
        for episode in self.episodes:
            length, end = int(self.store.lengths[episode]), int(self.store.episode_ends[episode])
            if found and length > room:
                break
            begin, length = end - length, min(length, MOST_DRAWN)
            starts = np.arange(begin, begin + length, policy.execute_steps)
            predicted = np.concatenate([actions for _, actions in self._predictions(policy, starts)])
            recorded = self.store.read("action", begin, begin + length)
            flat = predicted.reshape(-1, predicted.shape[-1])[:length]
            found.append(Foretold(int(episode), _plain(recorded), _plain(flat)))
            room -= length
        return found


def _plain(values: Float[ndarray, "steps action"]) -> list[list[float]]:
    """Six digits are more than a plot shows."""
    return [[float(f"{value:.6g}") for value in row] for row in values.tolist()]

"""Executing action chunks on a real clock, where planning takes time: which action belongs to which control step.

Time is counted in control steps. A chunk that was asked for while others' actions were still to come belongs to the
step of its observation: by the time it arrives, its first actions have passed and are dropped. One that was waited
for, since nothing was left to do, begins when it arrives. No action is ever executed at another step than its own.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray

from alula.core.errors import ActionError, ConfigError

ENSEMBLE_DECAY = 0.01
"""Overlapping chunks weigh exp(-0.01 i), the oldest first (Zhao et al. 2023, arXiv:2304.13705, algorithm 2)."""
DELAYS = 10
"""Answers of which the slowest is expected to come again; our choice, as the paper gives no number."""


class Mode(StrEnum):
    """How planning and executing go together."""

    SYNCHRONOUS = "synchronous"
    """Receding horizon: plan when there is nothing left to do, and wait for it at rest."""
    ASYNCHRONOUS = "asynchronous"
    """Plan ahead of need, and change to the new chunk as soon as it arrives."""
    REAL_TIME = "real_time"
    """Plan ahead, and let the new chunk agree with what will be executed until it arrives (Black et al. 2025)."""


@dataclass(frozen=True)
class Execution:
    """How a policy's chunks are executed."""

    mode: Mode
    horizon: int
    """Actions of a chunk."""
    execute_steps: int
    """Actions after which the next chunk is wanted; in asynchronous mode `threshold` says so."""
    action_size: int
    """Elements of an action."""
    threshold: float = 0.5
    """Share of a chunk that is left when the next one is asked for; asynchronous mode."""
    ensemble: bool = False
    """Average all chunks that have an action for a step; asynchronous mode."""

    def __post_init__(self) -> None:
        """Check that the mode can work."""
        if not 1 <= self.execute_steps <= self.horizon:
            raise ConfigError(f"execute_steps is {self.execute_steps}; it must lie in [1, horizon={self.horizon}]")
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold is {self.threshold}; allowed is a share from 0 to 1")
        if self.ensemble and self.mode is not Mode.ASYNCHRONOUS:
            raise ConfigError(f"ensemble averages chunks in mode=asynchronous only, but mode is {self.mode}")
        if self.mode is Mode.REAL_TIME and self.horizon == 1:
            raise ConfigError(
                "the policy plans one action at a time, so a new plan has nothing to agree with; use mode=synchronous"
            )


@dataclass(frozen=True)
class Committed:
    """What follows if nothing new is planned, and how far a new chunk should agree with it."""

    actions: Float[ndarray, "steps action"]
    """From the step of the new chunk's first action on, in the action field's units."""
    weights: Float[ndarray, " steps"]
    """1 for those that run while the new chunk is made, then falling towards 0."""


@dataclass(frozen=True)
class _Chunk:
    """A plan with its place in time."""

    actions: Float[ndarray, "horizon action"]
    begin: int
    """Step of its first action."""
    first: int
    """Step from which on it is executed."""
    end: int
    """Step after its last."""


def agreement(frozen: int, steps: int) -> Float[ndarray, " steps"]:
    """Soft mask of real-time chunking (Black et al. 2025, arXiv:2506.07339, eq. 5).

    Args:
        frozen: Actions that run while the new chunk is made.
        steps: Actions that the two chunks have in common.

    Returns:
        1 where frozen, then c (exp(c) - 1) / (e - 1) with c falling linearly.
    """
    remaining = (steps - np.arange(steps)) / (steps - frozen + 1)
    return np.where(np.arange(steps) < frozen, 1.0, remaining * np.expm1(remaining) / np.expm1(1.0))


class ChunkBuffer:
    """The chunks of one robot by control step: says when to ask for the next, and what to do now.

    At most one question is open at a time: after `ask` comes `take` or `give_up`.
    """

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self._chunks: list[_Chunk] = []
        self._asked: int | None = None
        self._frozen: int | None = None
        """Actions that the open question's chunk leaves to its predecessors; None where it is waited for."""
        self._delays: deque[int] = deque(maxlen=DELAYS)
        self._cold: int | None = None
        """Delay of the first answer, which everything still had to be loaded for."""

    @property
    def delay(self) -> int:
        """Steps that the next answer is expected to take: the most that recent ones took, the first left out."""
        return max(self._delays, default=self._cold or 0)

    def left(self, step: int) -> int:
        """Actions that are still to come, that of `step` included."""
        return max((chunk.end - step for chunk in self._chunks if chunk.end > step), default=0)

    def wants(self, step: int) -> bool:
        """Whether the next chunk should be asked for."""
        execution, left = self.execution, self.left(step)
        if self._asked is not None:
            return False
        match execution.mode:
            case Mode.SYNCHRONOUS:
                return left == 0
            case Mode.ASYNCHRONOUS:
                return left <= execution.threshold * execution.horizon
            case Mode.REAL_TIME:
                executed = max(1, min(execution.execute_steps, execution.horizon - self.delay))
                return left <= execution.horizon - executed

    def ask(self, step: int) -> Committed | None:
        """Note that a chunk is asked for, on an observation of this step.

        Returns:
            What it should agree with; None where it is free.
        """
        following = [action for ahead in range(self.left(step)) if (action := self.action(step + ahead)) is not None]
        self._asked = step
        self._frozen = 0 if following else None
        if self.execution.mode is not Mode.REAL_TIME or not following:
            return None
        self._frozen = min(self.delay, len(following))
        actions = np.stack(following)
        if self._frozen == 0 or not np.isfinite(actions).all():
            return None
        return Committed(actions, agreement(self._frozen, len(actions)))

    def give_up(self) -> None:
        """Note that the open question will not be answered."""
        self._asked = None

    def take(self, actions: Shaped[ndarray, "..."], step: int) -> bool:
        """The answer to the open question, which arrived in this step.

        Returns:
            Whether it is of use; False where it took longer than the chunk is long.

        Raises:
            ActionError: it is no chunk.
        """
        execution, asked = self.execution, self._asked
        assert asked is not None, "nothing was asked for"
        self._asked = None
        if actions.shape != (execution.horizon, execution.action_size) or actions.dtype.kind != "f":
            raise ActionError(
                f"the policy answered an array of {actions.dtype} and shape {actions.shape}; a chunk is of numbers, "
                f"{(execution.horizon, execution.action_size)} (steps, elements of an action)"
            )
        if self._cold is None:
            self._cold = step - asked
        else:
            self._delays.append(step - asked)
        if step - asked > execution.horizon:
            return False
        begin, first = (step, step) if self._frozen is None else (asked, max(step, asked + self._frozen))
        # What was promised to the chunk before stays so.
        first = max([first, *(chunk.first for chunk in self._chunks[-1:])])
        used = execution.execute_steps if execution.mode is Mode.SYNCHRONOUS else execution.horizon
        self._chunks = [chunk for chunk in self._chunks if chunk.end > step]
        self._chunks.append(_Chunk(actions, begin, first, begin + used))
        return first < begin + used

    def action(self, step: int) -> Float[ndarray, " action"] | None:
        """What to do in this step; None where nothing is planned for it."""
        found = [chunk for chunk in self._chunks if chunk.first <= step < chunk.end]
        if not found:
            return None
        return _average([chunk.actions[step - chunk.begin] for chunk in found[0 if self.execution.ensemble else -1 :]])


def _average(actions: Sequence[Float[ndarray, " action"]]) -> Float[ndarray, " action"]:
    """Mean of actions for the same step, weighted by age; the oldest comes first."""
    if len(actions) == 1:
        return actions[0]
    weights = np.exp(-ENSEMBLE_DECAY * np.arange(len(actions)))
    return np.average(np.stack(actions), axis=0, weights=weights).astype(actions[0].dtype)

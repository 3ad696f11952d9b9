"""Executing action chunks: when to plan anew, and which planned action each environment takes now."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int64
from numpy import ndarray

from alula.core.errors import ActionError

Plan = Callable[[Int64[ndarray, " planning"]], Float[ndarray, "planning horizon action"]]
"""Asked once per step with the environments whose queue is empty; answers their new chunks."""


@dataclass(frozen=True)
class ChunkQueue:
    """Pending actions of every environment; a value that is passed in and out, never hidden in a policy."""

    chunks: Float[ndarray, "num_envs execute_steps action"]
    positions: Int64[ndarray, " num_envs"]
    """Index of the next action in each chunk; `execute_steps` where nothing is pending."""


@dataclass(frozen=True)
class ChunkExecutor:
    """Receding horizon: execute the first `execute_steps` actions of a chunk, then plan anew.

    Environments are independent: one that was reset plans at once, the others finish their chunks.
    """

    execute_steps: int
    action_size: int

    def empty(self, num_envs: int) -> ChunkQueue:
        """Queues with nothing pending."""
        chunks = np.zeros((num_envs, self.execute_steps, self.action_size), dtype=np.float32)
        return ChunkQueue(chunks, np.full(num_envs, self.execute_steps, dtype=np.int64))

    def reset(self, queue: ChunkQueue, ended: Bool[ndarray, " num_envs"]) -> ChunkQueue:
        """Forget the pending actions of the environments whose episode ended, and of no other."""
        return replace(queue, positions=np.where(ended, self.execute_steps, queue.positions))

    def step(self, queue: ChunkQueue, plan: Plan) -> tuple[Float[ndarray, "num_envs action"], ChunkQueue]:
        """The action of every environment for this step, and the queue after it.

        `plan` is called once if any queue is empty, with the ids of just those environments.

        Raises:
            ActionError: `plan` answered something else than one chunk, long enough, for each of them.
        """
        chunks, positions = queue.chunks, queue.positions
        empty = np.flatnonzero(positions >= self.execute_steps)
        if len(empty):
            chunks, positions = chunks.copy(), positions.copy()
            planned = plan(empty)[:, : self.execute_steps]
            expected = (len(empty), self.execute_steps, self.action_size)
            if planned.shape != expected:
                raise ActionError(
                    f"planned chunks are {planned.shape}, expected {expected} "
                    "(environments, steps to execute, action elements); the policy's horizon may be too short"
                )
            chunks[empty] = planned
            positions[empty] = 0
        actions = chunks[np.arange(len(positions)), positions]
        return actions, ChunkQueue(chunks, positions + 1)

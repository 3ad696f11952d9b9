"""An expert for tasks that reward every step: it tries what it might do on copies of the environments."""

from dataclasses import fields

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.sims.engine import BatchState, Engine
from alula.sims.task import Task


class Planner:
    """Model-predictive path integral control (Williams et al. 2017, "Information theoretic MPC", algorithm 2).

    Each environment keeps a plan, the actions of the next `horizon` steps. At every step, variations of it are
    simulated by the task's own physics; their average, weighted by what they earn, is the new plan.

    Args:
        task: The task; its randomisation is not known to the planner.
        noise: See `Task.expert`.
        seed: Of that noise and of the variations.
        horizon: Control steps that a plan looks ahead.
        samples: Variations, the first of which is the plan itself.
        spread: Standard deviation of the variations, as a share of half the action range.
        hold: Control steps for which a variation stays the same.
    """

    temperature = 0.1
    """Difference in earnings that makes a weight 1/e, as a share of their standard deviation."""

    def __init__(
        self, task: Task, noise: float, seed: int, horizon: int, samples: int, spread: float, hold: int
    ) -> None:
        self.task, self.noise = task, noise
        self.horizon, self.samples, self.spread, self.hold = horizon, samples, spread, hold
        self.generator = np.random.default_rng(seed)
        self._low, self._high = (bound.astype(float) for bound in task.action["action"].bounds())
        self._copies: Engine | None = None
        self._plans = np.zeros((0, horizon, len(self._low)))

    def act(self, state: BatchState) -> Float64[ndarray, "num_envs action"]:
        """First actions of the improved plans."""
        count = len(state.time)
        if self._copies is None or len(self._plans) != count:
            self._copies = self.task.make_engine(count * self.samples, None)
            self._plans = np.zeros((count, *self._plans.shape[1:]))
        center, half = (self._high + self._low) / 2, (self._high - self._low) / 2
        self._plans[state.time == 0.0] = center
        shape = (count, self.samples, -(-self.horizon // self.hold), len(center))
        variations = self.generator.normal(0.0, self.spread * half, shape).repeat(self.hold, axis=2)
        variations[:, 0] = 0.0
        tried = np.clip(self._plans[:, None] + variations[:, :, : self.horizon], self._low, self._high)
        earned = self._earnings(self._copies, state, tried.reshape(-1, *tried.shape[2:])).reshape(count, -1)
        scale = self.temperature * earned.std(axis=1, keepdims=True) + np.finfo(float).tiny
        weights = np.exp((earned - earned.max(axis=1, keepdims=True)) / scale)
        plans = np.einsum("es,esha->eha", weights / weights.sum(axis=1, keepdims=True), tried)
        self._plans = np.concatenate((plans[:, 1:], plans[:, -1:]), axis=1)
        trembling = self.generator.normal(0.0, 2 * self.noise * half, (count, len(center)))
        return np.clip(plans[:, 0] + trembling, self._low, self._high)

    def _earnings(
        self, engine: Engine, state: BatchState, actions: Float64[ndarray, "copies horizon action"]
    ) -> Float64[ndarray, " copies"]:
        """Sum of the rewards until the plan or the episode ends."""
        task, copies = self.task, engine.state
        _copy(state, copies, self.samples)
        earned, alive = np.zeros(len(actions)), np.ones(len(actions), dtype=bool)
        for step in range(self.horizon):
            task.control(copies, actions[:, step])
            diverged = engine.advance()
            task.forward(copies)
            success = task.success(copies)
            alive &= ~diverged
            earned += np.where(alive, task.reward(copies, success), 0.0)
            alive &= ~task.terminated(copies, success)
        return earned


def _copy(state: BatchState, copies: BatchState, count: int) -> None:
    """Make `count` copies of each environment, next to each other."""
    for field in fields(state):
        if field.name != "extras":
            getattr(copies, field.name)[:] = getattr(state, field.name).repeat(count, axis=0)
    for name, array in copies.extras.items():
        array[:] = state.extras[name].repeat(count, axis=0)

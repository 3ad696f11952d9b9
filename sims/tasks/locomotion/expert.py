"""Demonstrator of the locomotion tasks: linear feedback and a clock, found by `benchmarks/experts/search.py`.

That linear feedback is enough to run: Mania, Guy & Recht 2018, "Simple random search of static linear policies is
competitive for reinforcement learning". That a clock gives it rhythm: Raffin et al. 2024, "An open-loop baseline for
reinforcement learning locomotion tasks".
"""

import json
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.sims.engine import BatchState
from alula.sims.task import Task

VELOCITY_SCALE = 0.1
"""A velocity counts as this much of a position [s], and a fast joint is no further from its rest than a bent one."""


@dataclass
class Gait:
    """What one expert knows; with a leading axis, one per environment."""

    frequency: Float64[ndarray, "*environments"]
    """Of its clock [Hz]."""
    weights: Float64[ndarray, "*environments action feature"]
    """Action per feature, see `GaitExpert.features`."""

    @classmethod
    def load(cls, name: str) -> "Gait":
        """The one that comes with the task of this name."""
        text = files("alula.sims.tasks.locomotion").joinpath(f"experts/{name}.json").read_text(encoding="utf-8")
        found = json.loads(text)
        return cls(np.array(found["frequency"]), np.array(found["weights"]))


class GaitExpert:
    """Acts by a weighted sum of what the joints do and what the clock says, within the motors' bounds.

    Args:
        task: The task.
        hidden: Leading positions that must not matter, such as how far it has come.
        gait: The weights.
        noise: See `Task.expert`.
        seed: See `Task.expert`.
    """

    def __init__(self, task: Task, hidden: int, gait: Gait, noise: float, seed: int) -> None:
        self.gait, self.noise = gait, noise
        self.generator = np.random.default_rng(seed)
        self._hidden, self._rest = hidden, task.model.qpos0[hidden:]
        self._low, self._high = (bound.astype(float) for bound in task.action["action"].bounds())

    def features(self, state: BatchState) -> Float64[ndarray, "num_envs feature"]:
        """One, positions from the model's initial state, scaled velocities, sine and cosine of the clock."""
        angle = 2 * np.pi * self.gait.frequency * state.time
        positions = state.qpos[:, self._hidden :] - self._rest
        columns = (np.ones(len(angle)), positions, VELOCITY_SCALE * state.qvel, np.sin(angle), np.cos(angle))
        return np.column_stack(columns)

    def act(self, state: BatchState) -> Float64[ndarray, "num_envs action"]:
        """See `Expert.act`."""
        # One product per environment: the sum's rounding must not depend on how many there are.
        action = (self.gait.weights @ self.features(state)[:, :, None])[:, :, 0]
        trembling = self.noise * (self._high - self._low) * self.generator.standard_normal(action.shape)
        return np.clip(action + trembling, self._low, self._high)

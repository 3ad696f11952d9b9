"""Scripted demonstrator of TwoRoutes."""

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.core.spaces import FieldSpec
from alula.sims.engine import BatchState

DETOUR = 0.2
"""How far beside the obstacle's middle it passes [m]."""
PASSED = -0.03
"""Where on the way along x it turns towards the goal [m]."""
MISJUDGEMENT = 0.03
"""Standard deviation of the detour, times `noise` [m]."""
BRAKING_TIME = 0.15
"""It is as fast as would bring it to the goal in this time, or as fast as it can [s]."""


class RouteExpert:
    """Chooses a side in every episode, passes the obstacle there, and heads for the goal.

    Args:
        left_share: Probability of the left side.
        action: The velocity that is commanded.
        noise: Imperfection; 0 is its best.
        seed: Of choice and imperfection.
    """

    def __init__(self, left_share: float, action: FieldSpec, noise: float, seed: int) -> None:
        self.left_share, self.noise = left_share, noise
        self.low, self.high = action.bounds()
        self.generator = np.random.default_rng(seed)
        self.detour = np.zeros(0)

    def act(self, state: BatchState) -> Float64[ndarray, "num_envs 2"]:
        """Velocity towards the side of the obstacle, then towards the goal."""
        count, begun = len(state.time), state.time == 0.0
        if len(self.detour) != count:
            self.detour = np.zeros(count)
        side = np.where(self.generator.random(count) < self.left_share, 1.0, -1.0)
        wide = DETOUR + self.noise * MISJUDGEMENT * self.generator.standard_normal(count)
        self.detour = np.where(begun, side * wide, self.detour)
        beside = np.stack([np.zeros(count), self.detour], axis=1)
        passed = state.qpos[:, :1] > PASSED
        way = np.where(passed, state.mocap_pos[:, 0, :2], beside) - state.qpos[:, :2]
        distance = np.linalg.norm(way, axis=1, keepdims=True)
        speed = np.where(passed, np.minimum(self.high[0], distance / BRAKING_TIME), self.high[0])
        velocity = speed * way / np.maximum(distance, 1e-6)
        velocity += self.noise * np.abs(velocity) * self.generator.standard_normal((count, 2))
        return np.clip(velocity, self.low, self.high)

"""Scripted demonstrator of PegInsertion."""

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from alula.core.geometry import rotate_by_yaw
from alula.sims.engine import BatchState
from alula.sims.robots.kinematics import yaw_of
from alula.sims.tasks.peg_insertion.frames import relative_pose
from alula.sims.tasks.peg_insertion.limits import MAX_STEP, MAX_TURN

APPROACH, DESCEND, LIFT = range(3)
GAIN = 0.8
"""Share of the way to the waypoint that is commanded per step."""
FAR_HEIGHT, NEAR_HEIGHT = 0.03, 0.006
"""Waypoint height above the hole while far from it and while aligning [m]."""
NEAR = 0.01
"""Distance to the hole's axis that counts as near [m]."""
ALIGNED, ALIGNED_YAW = 0.0005, 0.02
"""Misalignment with the aim below which it descends [m, rad]."""
DESCENT = 0.004
"""Commanded descent per step [m]."""
INSIDE = -0.002
"""Tip height below which the peg has found the hole [m]."""
STALL_SPEED = 0.01
"""Descending more slowly than this means being stuck on the rim [m/s]."""
STALL_STEPS = 2
MISJUDGEMENT = 0.002
"""Standard deviation of the aim's error per attempt, per axis, times `noise` [m]."""
TREMOR = 0.03
"""Noise at rest as a share of the action range, times `noise`."""
LIMITS = np.array([MAX_STEP, MAX_STEP, MAX_STEP, MAX_TURN])


class PegExpert:
    """Go above the socket, align, descend; when stuck on the rim, lift and aim again.

    It sees the true socket pose. With `noise` > 0 it misjudges its aim a little at each attempt, and its motion is
    disturbed in proportion to its size, as human movement is (Harris & Wolpert 1998, Nature 394).

    Args:
        noise: Imperfection; 0 is its best.
        seed: Of that imperfection.
        rate: Control steps per second [Hz].
    """

    def __init__(self, noise: float, seed: int, rate: float) -> None:
        self.noise, self.rate = noise, rate
        self.generator = np.random.default_rng(seed)
        self.phase = np.zeros(0, dtype=np.int64)
        self.aim = np.zeros((0, 2))
        self.stalled = np.zeros(0, dtype=np.int64)
        self.height = np.zeros(0)

    def act(self, state: BatchState) -> Float64[ndarray, "num_envs 4"]:
        """Proportional steps towards the present waypoint."""
        position, yaw = relative_pose(state, measured=False)
        if len(self.phase) != len(yaw):
            self.phase, self.stalled = np.zeros(len(yaw), dtype=np.int64), np.zeros(len(yaw), dtype=np.int64)
            self.aim, self.height = np.zeros((len(yaw), 2)), position[:, 2].copy()
        self._aim_anew(state.time == 0.0)
        self._change_phase(position, yaw)
        error = position[:, :2] - np.where((position[:, 2] < INSIDE)[:, None], 0.0, self.aim)
        near = np.hypot(error[:, 0], error[:, 1]) < NEAR
        height = np.where(near, NEAR_HEIGHT, FAR_HEIGHT)
        climb = np.select([self.phase == DESCEND, self.phase == LIFT], [-DESCENT, DESCENT], height - position[:, 2])
        step = rotate_by_yaw(np.column_stack([-error, climb]), state.extras["socket_yaw"][:, 0])
        step -= state.extras["target"] - state.extras["tool_position"]  # what is commanded but not reached yet
        turn = -yaw - (state.extras["target_yaw"][:, 0] - yaw_of(state.extras["tool_rotation"]))
        action = np.clip(GAIN * np.column_stack([step, turn]), -LIMITS, LIMITS)
        spread = self.noise * (np.abs(action) + TREMOR * LIMITS)
        return np.clip(action + spread * self.generator.standard_normal(action.shape), -LIMITS, LIMITS)

    def _aim_anew(self, where: Bool[ndarray, " num_envs"]) -> None:
        """Begin an attempt."""
        errors = self.noise * MISJUDGEMENT * self.generator.standard_normal(self.aim.shape)
        self.aim = np.where(where[:, None], errors, self.aim)
        self.phase = np.where(where, APPROACH, self.phase)
        self.stalled = np.where(where, 0, self.stalled)

    def _change_phase(self, position: Float64[ndarray, "num_envs 3"], yaw: Float64[ndarray, " num_envs"]) -> None:
        height = position[:, 2]
        error = np.abs(position[:, :2] - self.aim).max(axis=1)
        aligned = (error < ALIGNED) & (np.abs(yaw) < ALIGNED_YAW) & (height < 1.5 * NEAR_HEIGHT)
        self.phase = np.where((self.phase == APPROACH) & aligned, DESCEND, self.phase)
        slow = (self.height - height) * self.rate < STALL_SPEED
        on_rim = (self.phase == DESCEND) & (height > INSIDE) & (height < 0.5 * NEAR_HEIGHT) & slow
        self.stalled = np.where(on_rim, self.stalled + 1, 0)
        self.phase = np.where(self.stalled >= STALL_STEPS, LIFT, self.phase)
        self._aim_anew((self.phase == LIFT) & (height > 0.5 * NEAR_HEIGHT))
        self.height = height.copy()

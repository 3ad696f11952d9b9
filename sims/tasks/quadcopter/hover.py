"""Catch a Crazyflie that is thrown, and hold it at a target."""

import mujoco
import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from alula.core.spaces import FieldSpec
from alula.sims.engine import BatchState
from alula.sims.scenery import add_camera
from alula.sims.tasks.quadcopter.base import QuadcopterTask
from alula.sims.tasks.quadcopter.config import HoverConfig
from alula.sims.tasks.quadcopter.scene import add_mark
from alula.sims.tasks.quadcopter.trajectories import Reference, minimum_jerk

CENTER = np.array([0.0, 0.0, 1.0])
"""Of starts and targets [m]."""
SUCCESS_DISTANCE = 0.05
"""[m]"""
SUCCESS_SPEED = 0.1
"""[m/s]"""
HOLD = 1.0
"""How long the drone must stay near the target, and slow [s]."""
HALF_REWARD = 0.1
"""Distance from the target at which the reward is one half [m]."""
RATE_PENALTY = 0.02
"""Reward lost per body rate [1/(rad/s)]."""
PACE = 0.7
"""Mean speed of the expert's way to the target [m/s]."""
LEAST_DURATION = 1.5
"""Of the expert's way [s]."""


class Hover(QuadcopterTask):
    """Success once the drone was within 5 cm of the target and slower than 0.1 m/s for a second without a break.

    The reward of a step is 1 / (1 + d / 0.1 m) - 0.02 s |Ω|, with the distance d to the target and the body rates Ω:
    it pulls from afar, and the more the nearer. It is worth collecting to the end: only a crash ends an episode early.
    """

    config: HoverConfig
    num_draws = 6

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """The target."""
        add_camera(spec.worldbody, "overview", (1.3, -1.1, 1.35), (0, 0, 0.95), fovy=42)
        add_mark(spec, "target", SUCCESS_DISTANCE)

    def memory(self) -> dict[str, tuple[int, ...]]:
        """For how many steps the drone was held before the present state."""
        return {"held": (1,)}

    def lay_out(
        self, state: BatchState, env_ids: Int64[ndarray, " selected"], unit: Float64[ndarray, "selected n"]
    ) -> Float64[ndarray, "selected drones 3"]:
        """Target and start, each somewhere in its cube."""
        either_way = 2 * unit - 1
        state.mocap_pos[env_ids, 0] = CENTER + self.config.target_range * either_way[:, :3]
        return (CENTER + self.config.start_range * either_way[:, 3:])[:, None]

    def environment_field(self) -> FieldSpec:
        """Where the target is from the drone."""
        names, resolution = ("to_target_x", "to_target_y", "to_target_z"), (SUCCESS_DISTANCE,)
        return FieldSpec(
            "observation.environment_state", (3,), element_names=names, units=("m",), resolution=resolution
        )

    def observe_environment(self, state: BatchState) -> Float64[ndarray, "num_envs 3"]:
        """See `environment_field`."""
        return state.mocap_pos[:, 0] - state.qpos[:, :3]

    def _distance(self, state: BatchState) -> Float64[ndarray, " num_envs"]:
        away = self.observe_environment(state)
        return np.sqrt(np.einsum("na,na->n", away, away))

    def _held(self, state: BatchState) -> Float64[ndarray, " num_envs"]:
        """For how many steps, the present one included, the drone has been near the target and slow."""
        velocity = state.qvel[:, :3]
        slow = np.einsum("na,na->n", velocity, velocity) < SUCCESS_SPEED**2
        return np.where(slow & (self._distance(state) < SUCCESS_DISTANCE), state.extras["held"][:, 0] + 1, 0)

    def commit(self, state: BatchState) -> None:
        """Count."""
        state.extras["held"][:, 0] = self._held(state)

    def success(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """Held for long enough."""
        return self._held(state) >= HOLD * self.config.control_rate

    def reward(self, state: BatchState, success: Bool[ndarray, " num_envs"]) -> Float64[ndarray, " num_envs"]:
        """See the class."""
        del success
        rate = state.qvel[:, 3:]
        penalty = RATE_PENALTY * np.sqrt(np.einsum("na,na->n", rate, rate))
        return 1.0 / (1.0 + self._distance(state) / HALF_REWARD) - penalty

    def terminated(self, state: BatchState, success: Bool[ndarray, " num_envs"]) -> Bool[ndarray, " num_envs"]:
        """On a crash only."""
        del success
        return self.crashed(state)

    def reference(self, state: BatchState) -> Reference:
        """From the start to the target, and rest."""
        start, target = state.extras["start"], state.mocap_pos[:, :1]
        distance = np.linalg.norm(target - start, axis=-1)[:, 0]
        rest = np.zeros_like(start)
        duration = np.maximum(distance / PACE, LEAST_DURATION)
        return minimum_jerk(start, rest, target, rest, duration, state.time)

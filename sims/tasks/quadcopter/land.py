"""Touch down softly on a pad."""

import mujoco
import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from alula.core.spaces import FieldSpec
from alula.sims.engine import BatchState
from alula.sims.scenery import add_camera
from alula.sims.tasks.quadcopter.base import QuadcopterTask
from alula.sims.tasks.quadcopter.config import LandConfig
from alula.sims.tasks.quadcopter.trajectories import Reference, through

PAD_RADIUS = 0.12
"""[m]"""
START_CENTER = np.array([0.0, 0.0, 1.0])
START_RANGE = np.array([0.5, 0.5, 0.3])
"""Half the size of the box of initial positions [m]."""
TOUCHDOWN = 0.02
"""Height of the centre that counts as touching the ground [m]: legs are 1 cm long, contacts begin at 1.25 cm."""
SOFT = 0.3
"""Largest sinking speed of a landing [m/s]."""
STEADY = 0.2
"""Largest horizontal speed of a landing [m/s]."""
UPRIGHT = np.cos(0.2)
"""Smallest cosine of the tilt of a landing."""
PACE = 0.6
"""Mean speed of the expert's way there [m/s]."""
HOVER_HEIGHT, SINKING = 0.3, 0.15
"""The expert stops so far above the pad [m], and ends up going down at this speed [m/s]."""
BELOW = 0.4
"""Its reference goes so far below the ground [m], which presses the drone through the cushion of the ground effect."""


class Land(QuadcopterTask):
    """Success if the drone touches the ground on the pad, sinking slower than 0.3 m/s, steady and upright.

    Touchdown is decided by height, so that it means the same with and without contacts, and by the greater sinking
    speed of the two last control steps, before the ground has absorbed it. It ends the episode.

    The reward of a step is 10 /m (p' - p), plus 10 on success; p is the value of where the drone is, before and after
    the step: p = -(horizontal distance to the pad) - ½ (height).
    """

    config: LandConfig
    num_draws = 5
    ground = TOUCHDOWN

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """The pad."""
        add_camera(spec.worldbody, "overview", (1.2, -1.2, 0.9), (0, 0, 0.45), fovy=48)
        pad = spec.worldbody.add_body(name="pad", mocap=True)
        for radius, height, color in ((1.0, 0.0005, (0.20, 0.42, 0.66, 1)), (0.6, 0.001, (0.93, 0.93, 0.93, 1))):
            size = [radius * PAD_RADIUS, height, 0]
            pad.add_site(type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=size, rgba=list(color))

    def memory(self) -> dict[str, tuple[int, ...]]:
        """Sinking speed [m/s] and the reward's p [m] before the last step."""
        return {"sinking": (1,), "potential": (1,)}

    def lay_out(
        self, state: BatchState, env_ids: Int64[ndarray, " selected"], unit: Float64[ndarray, "selected n"]
    ) -> Float64[ndarray, "selected drones 3"]:
        """Pad and start."""
        either_way = 2 * unit - 1
        state.mocap_pos[env_ids, 0, :2] = self.config.pad_range * either_way[:, :2]
        state.mocap_pos[env_ids, 0, 2] = 0.0
        return (START_CENTER + START_RANGE * either_way[:, 2:])[:, None]

    def environment_field(self) -> FieldSpec:
        """Where the pad is from the drone."""
        names = ("to_pad_x", "to_pad_y", "to_pad_z")
        return FieldSpec("observation.environment_state", (3,), element_names=names, units=("m",), resolution=(0.05,))

    def observe_environment(self, state: BatchState) -> Float64[ndarray, "num_envs 3"]:
        """See `environment_field`."""
        return state.mocap_pos[:, 0] - state.qpos[:, :3]

    def _potential(self, state: BatchState) -> Float64[ndarray, " num_envs"]:
        x, y, z = self.observe_environment(state).T
        return -np.hypot(x, y) - 0.5 * np.abs(z)

    def commit(self, state: BatchState) -> None:
        """Remember what the step begins with."""
        state.extras["sinking"][:, 0] = -state.qvel[:, 2]
        state.extras["potential"][:, 0] = self._potential(state)

    def success(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """A soft touchdown on the pad."""
        x, y, z = self.observe_environment(state).T
        vx, vy, vz = state.qvel[:, :3].T
        soft = np.maximum(-vz, state.extras["sinking"][:, 0]) < SOFT
        steady = np.hypot(vx, vy) < STEADY
        upright = state.extras["rotation"][:, 0, 2, 2] > UPRIGHT
        return (-z < TOUCHDOWN) & (np.hypot(x, y) < PAD_RADIUS) & soft & steady & upright

    def reward(self, state: BatchState, success: Bool[ndarray, " num_envs"]) -> Float64[ndarray, " num_envs"]:
        """See the class."""
        return 10.0 * (self._potential(state) - state.extras["potential"][:, 0] + success)

    def reference(self, state: BatchState) -> Reference:
        """To a point above the pad, and slowly down beyond the height of touchdown."""
        start, pad = state.extras["start"], state.mocap_pos[:, :1]
        above, below = (pad + np.array([0.0, 0.0, height]) for height in (HOVER_HEIGHT, -BELOW))
        points = np.stack([start, above, below], axis=1)
        velocities = np.zeros_like(points)
        velocities[:, 2, :, 2] = -SINKING
        approach = np.maximum(np.linalg.norm(above - start, axis=-1)[:, 0] / PACE, 1.5)
        descent = np.full_like(approach, (HOVER_HEIGHT + BELOW) / SINKING)
        return through(points, velocities, np.stack([approach, descent], axis=1), state.time)

"""Move the tool to a point in the air."""

import mujoco
import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from alula.sims.engine import BatchState
from alula.sims.tasks.tabletop.base import TabletopTask
from alula.sims.tasks.tabletop.expert import Pose, Waypoint

RADIUS = 0.01
"""How near the tool must come [m]."""
HEIGHTS = (0.3, 1.5)
"""Range of the point's height, in half-widths of the workspace."""


class Reach(TabletopTask):
    """A point above the workspace; reward 1 and the end once the tool is within 1 cm of it."""

    num_draws = 3
    fixture_names = ("target",)

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """A ball that one can reach through."""
        spec.worldbody.add_body(name="target", mocap=True).add_geom(
            type=mujoco.mjtGeom.mjGEOM_SPHERE,
            size=[RADIUS, 0, 0],
            contype=0,
            conaffinity=0,
            rgba=[0.15, 0.65, 0.30, 1.0],
        )

    def lay_out(
        self, state: BatchState, env_ids: Int64[ndarray, " selected"], unit: Float64[ndarray, "selected n"]
    ) -> None:
        """Anywhere above the workspace."""
        low, high = HEIGHTS
        position = np.empty((len(unit), 3))
        position[:, :2] = self.center + self.half * (2.0 * unit[:, :2] - 1.0)
        position[:, 2] = self.half * (low + (high - low) * unit[:, 2])
        self.fixtures["target"].place(state, env_ids, position, np.zeros(len(unit)))

    def success(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """Near enough."""
        away = self.fixtures["target"].position(state) - state.extras["tool_position"]
        return np.linalg.norm(away, axis=1) < RADIUS

    def plan(self, state: BatchState) -> list[Waypoint]:
        """Straight there."""
        target = self.fixtures["target"].position(state)
        return [Waypoint([Pose(target, np.full(len(target), self.home_yaw[0]), 1.0)], follow=True)]

"""Lift a cube off the table."""

import mujoco
import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from alula.sims.engine import BatchState
from alula.sims.tasks.tabletop.base import TabletopTask
from alula.sims.tasks.tabletop.expert import Pose, Waypoint
from alula.sims.tasks.tabletop.grasping import facing, fell, grasp
from alula.sims.tasks.tabletop.scene import add_block

HALF = 0.02
"""Half the cube's edge [m]."""
MASS = 0.05
"""[kg]"""
HEIGHT = 0.08
"""How far the cube must be off the table [m]."""


class Lift(TabletopTask):
    """40 mm cube anywhere in the workspace; reward 1 and the end once it is 8 cm above where it lay."""

    num_draws = 3
    thing_names = ("cube",)

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """One cube."""
        add_block(spec, "cube", (HALF, HALF, HALF), MASS, (0.90, 0.45, 0.13, 1.0))

    def lay_out(
        self, state: BatchState, env_ids: Int64[ndarray, " selected"], unit: Float64[ndarray, "selected n"]
    ) -> None:
        """Anywhere, turned any way."""
        position = np.full((len(unit), 3), HALF)
        position[:, :2] = self.center + self.half * (2.0 * unit[:, :2] - 1.0)
        self.things["cube"].place(state, env_ids, position, 2.0 * np.pi * unit[:, 2])

    def success(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """High enough."""
        return self.things["cube"].position(state)[:, 2] > HALF + HEIGHT

    def plan(self, state: BatchState) -> list[Waypoint]:
        """Grasp and lift; again if it slips."""
        cube = self.things["cube"]
        yaw = facing(cube.yaw(state), self.home_yaw[0])
        above = cube.position(state) + np.array([0.0, 0.0, HEIGHT + 0.03])
        lift = Waypoint([Pose(above, yaw, 0.0)], failed=fell(state, self.arms[0], cube))
        return [*grasp(cube.position(state), yaw), lift]

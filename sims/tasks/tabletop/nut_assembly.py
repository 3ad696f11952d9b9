"""Put a square nut on a square peg."""

import mujoco
import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from alula.core.geometry import rotate_by_yaw, wrap_angle
from alula.sims.engine import BatchState
from alula.sims.robots.kinematics import yaw_of
from alula.sims.tasks.tabletop.base import TabletopTask
from alula.sims.tasks.tabletop.config import NutAssemblyConfig
from alula.sims.tasks.tabletop.expert import Pose, Waypoint
from alula.sims.tasks.tabletop.grasping import facing, grasp, lost
from alula.sims.tasks.tabletop.scene import CONTACT, add_free_body, apart

PEG_HALF_WIDTH, PEG_HEIGHT = 0.010, 0.05
"""Of the peg, whose section is square [m]."""
HALF_THICKNESS = 0.012
"""Of the nut [m]."""
WALL = 0.012
"""Width of the nut's frame around its hole [m]."""
HANDLE_LENGTH, HANDLE_HALF_WIDTH = 0.05, 0.008
"""Of the lug by which the nut is held [m]."""
DENSITY = 1000.0
"""Of the nut [kg/m^3], as plastics."""
SPACING = 0.10
"""Distance of the lug's middle from the peg at the beginning [m]: the open fingers fit between."""
TRIES = 8
"""Places that are drawn to keep this distance."""
SEATED = 0.005
"""How far above the table a nut may be that counts as down [m]."""
OPEN = 0.01
"""How much further apart than the lug's width the fingers must be to have let go of it [m]."""
DESCENT = 0.008
"""How far below the tool the expert aims while it lowers the nut, which keeps it slow and aligned [m]."""
COLOR = (0.90, 0.45, 0.13, 1.0)


class NutAssembly(TabletopTask):
    """A nut with a lug lies on the table, a peg stands on it; success is the nut around the peg, down and released."""

    config: NutAssemblyConfig
    num_draws = 2 + 4 * TRIES
    thing_names = ("nut",)
    fixture_names = ("peg",)

    @property
    def hole(self) -> float:
        """Half the width of the nut's hole [m]."""
        return PEG_HALF_WIDTH + self.config.clearance

    @property
    def reach(self) -> float:
        """Distance from the hole's axis to the middle of the lug [m]."""
        return self.hole + WALL + HANDLE_LENGTH / 2

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """The nut of five boxes, its frame's origin in the middle of the hole, and the peg."""
        nut, middle, outer = add_free_body(spec, "nut"), self.hole + WALL / 2, self.hole + WALL
        parts = {
            "east": ((middle, 0.0), (WALL / 2, outer)),
            "west": ((-middle, 0.0), (WALL / 2, outer)),
            "north": ((0.0, middle), (self.hole, WALL / 2)),
            "south": ((0.0, -middle), (self.hole, WALL / 2)),
            "handle": ((self.reach, 0.0), (HANDLE_LENGTH / 2, HANDLE_HALF_WIDTH)),
        }
        for name, (center, half) in parts.items():
            nut.add_geom(
                name=name,
                type=mujoco.mjtGeom.mjGEOM_BOX,
                pos=[*center, 0.0],
                size=[*half, HALF_THICKNESS],
                density=DENSITY,
                rgba=list(COLOR),
                **CONTACT,
            )
        spec.worldbody.add_body(name="peg", mocap=True).add_geom(
            name="peg",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[0.0, 0.0, PEG_HEIGHT / 2],
            size=[PEG_HALF_WIDTH, PEG_HALF_WIDTH, PEG_HEIGHT / 2],
            rgba=[0.20, 0.42, 0.66, 1.0],
            **CONTACT,
        )

    def lay_out(
        self, state: BatchState, env_ids: Int64[ndarray, " selected"], unit: Float64[ndarray, "selected n"]
    ) -> None:
        """Lug and peg anywhere in the workspace, turned any way, but not in each other's reach."""
        tries = unit[:, 2:].reshape(-1, TRIES, 2, 2)
        places = np.zeros((len(unit), 2, 3))
        places[:, :, :2] = apart(tries, self.center, self.half, SPACING)
        nut_yaw, peg_yaw = 2.0 * np.pi * unit[:, :2].T
        nut = places[:, 0] - self.reach * np.stack([np.cos(nut_yaw), np.sin(nut_yaw), 0.0 * nut_yaw], axis=1)
        nut[:, 2] = HALF_THICKNESS
        self.things["nut"].place(state, env_ids, nut, nut_yaw)
        self.fixtures["peg"].place(state, env_ids, places[:, 1], peg_yaw)

    def success(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """The peg is in the hole, the nut is down, and the gripper has let go."""
        nut, peg = self.things["nut"], self.fixtures["peg"]
        offset = rotate_by_yaw(nut.position(state) - peg.position(state), -peg.yaw(state))
        around = np.abs(offset[:, :2]).max(axis=1) < 2 * self.config.clearance
        released = self.arms[0].opening(state) > 2 * HANDLE_HALF_WIDTH + OPEN
        return around & (offset[:, 2] < HALF_THICKNESS + SEATED) & released

    def plan(self, state: BatchState) -> list[Waypoint]:
        """Take the lug, bring the hole above the peg, as the nut really hangs, lower it, let go."""
        arm, nut, peg = self.arms[0], self.things["nut"], self.fixtures["peg"]
        tool, tool_yaw = state.extras["tool_position"], yaw_of(state.extras["tool_rotation"])
        nut_yaw = nut.yaw(state)
        handle = nut.position(state) + self.reach * nut.rotation(state)[:, :, 0]
        dropped = lost(state, arm, handle)
        yaw = facing(peg.yaw(state) + tool_yaw - nut_yaw, self.home_yaw[0])
        offset = rotate_by_yaw(tool - nut.position(state), wrap_angle(yaw - tool_yaw))
        aligned = peg.position(state) + offset
        over = np.array([0.0, 0.0, PEG_HEIGHT + 0.03])
        lower = aligned + np.array([0.0, 0.0, HALF_THICKNESS + 0.002])
        lower[:, 2] = np.maximum(lower[:, 2], tool[:, 2] - DESCENT)
        taken = facing(nut_yaw, self.home_yaw[0], np.pi)
        return [
            *grasp(handle, taken),
            Waypoint([Pose(handle + over, taken, 0.0)], near=0.02, failed=dropped),
            Waypoint([Pose(aligned + over, yaw, 0.0)], near=0.002, follow=True, failed=dropped),
            Waypoint([Pose(lower, yaw, 0.0)], near=0.003, follow=True, failed=dropped),
            Waypoint([Pose(tool, tool_yaw, 1.0)], near=1.0),
        ]

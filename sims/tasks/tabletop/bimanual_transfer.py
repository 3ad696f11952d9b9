"""Hand a bar over from one arm to another."""

from dataclasses import replace

import mujoco
import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from alula.sims.engine import BatchState
from alula.sims.robots.control import ArmControl
from alula.sims.scenery import add_camera
from alula.sims.tasks.tabletop.base import Mount, TabletopTask
from alula.sims.tasks.tabletop.expert import Pose, Waypoint
from alula.sims.tasks.tabletop.grasping import CLOSING_STEPS, facing, grasp, lost
from alula.sims.tasks.tabletop.scene import add_block

HALF_LENGTH, HALF_WIDTH = 0.10, 0.012
"""Of the bar, whose section is square [m]."""
MASS = 0.06
"""[kg]"""
GRIP = 0.075
"""Distance from the bar's middle to where each arm takes it [m]."""
RANGE = 0.3
"""Half-width of the square of initial bar positions, as a share of the workspace's."""
FROM_RIGHT_TO_LEFT = np.pi / 2
"""Direction from the right arm to the left one [rad]."""
YAW_RANGE = 0.5
"""Largest angle of the bar against the line from arm to arm, either way [rad]."""
HEIGHT = 0.08
"""How far above the table the bar must be held [m]."""
ON_AXIS = 0.015
"""A tool within this distance of the bar's axis, between its fingers, has the bar [m]."""
AWAY = 0.06
"""A tool further from the bar's axis than this has let go of it [m]."""
MEETING_HEIGHT = 0.16
"""Where the arms meet [m]."""


class BimanualTransfer(TabletopTask):
    """Two arms face each other; the left one picks a bar up by one end, the right one takes over the other end."""

    camera = "front"
    num_draws = 3
    thing_names = ("bar",)

    def mounts(self) -> tuple[Mount, ...]:
        """On both sides of the workspace, as far from its centre as one arm alone."""
        x, reach = self.center[0], self.center[0]
        return (Mount("left_", (x, reach, 0.0), -np.pi / 2), Mount("right_", (x, -reach, 0.0), np.pi / 2))

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """One bar, and a camera that sees both arms."""
        x, y = self.center
        add_camera(spec.worldbody, "front", (3.6 * x, y, 1.7 * x), (x, y, 0.4 * x), 36)
        add_block(spec, "bar", (HALF_LENGTH, HALF_WIDTH, HALF_WIDTH), MASS, (0.90, 0.45, 0.13, 1.0))

    def start_center(self, index: int) -> tuple[float, float]:
        """On its own side."""
        x, y = self.center
        return (x, y + (1 - 2 * index) * self.half)

    def lay_out(
        self, state: BatchState, env_ids: Int64[ndarray, " selected"], unit: Float64[ndarray, "selected n"]
    ) -> None:
        """Near the middle, pointing from arm to arm, more or less."""
        spread = 2.0 * unit - 1.0
        position = np.full((len(unit), 3), HALF_WIDTH)
        position[:, :2] = self.center + RANGE * self.half * spread[:, :2]
        self.things["bar"].place(state, env_ids, position, FROM_RIGHT_TO_LEFT + YAW_RANGE * spread[:, 2])

    def from_axis(self, state: BatchState, arm: ArmControl) -> Float64[ndarray, " num_envs"]:
        """Distance of an arm's tool from the bar's axis [m]."""
        bar = self.things["bar"]
        offset = state.extras[arm.prefix + "tool_position"] - bar.position(state)
        axis = bar.rotation(state)[:, :, 0]
        along = np.clip(np.einsum("ni,ni->n", offset, axis), -HALF_LENGTH, HALF_LENGTH)
        return np.linalg.norm(offset - along[:, None] * axis, axis=1)

    def success(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """The bar is in the air, in the right gripper, and the left one is away."""
        left, right = (self.from_axis(state, arm) for arm in self.arms)
        return (self.things["bar"].position(state)[:, 2] > HALF_WIDTH + HEIGHT) & (right < ON_AXIS) & (left > AWAY)

    def plan(self, state: BatchState) -> list[Waypoint]:
        """The left arm picks up and presents, the right one takes, the left one lets go and withdraws."""
        left_arm, right_arm = self.arms
        bar, still = self.things["bar"], np.zeros((len(state.time), 3))
        yaw = facing(bar.yaw(state), FROM_RIGHT_TO_LEFT, np.pi)
        axis = np.stack([np.cos(yaw), np.sin(yaw), np.zeros_like(yaw)], axis=1)
        left_end, right_end = bar.position(state) + GRIP * axis, bar.position(state) - GRIP * axis
        left_yaw, right_yaw = (facing(yaw, home, np.pi) for home in self.home_yaw)
        straight = [facing(still[:, 0] + FROM_RIGHT_TO_LEFT, home, np.pi) for home in self.home_yaw]
        meeting, out = still + np.array([*self.center, MEETING_HEIGHT]), np.array([0.0, self.half, 0.0])
        grip = np.array([0.0, GRIP, 0.0])
        presented, held = Pose(meeting + grip, straight[0], 0.0), Pose(meeting - grip, straight[1], 0.0)
        released, withdrawn = replace(presented, opening=1.0), Pose(meeting + grip + out, straight[0], 1.0)
        waiting = Pose(meeting - grip - out, straight[1], 1.0)
        dropped = lost(state, left_arm, left_end)
        return [
            *(replace(step, poses=[*step.poses, waiting]) for step in grasp(left_end, left_yaw)),
            Waypoint([presented, waiting], failed=dropped),
            *(replace(step, poses=[presented, *step.poses], failed=dropped) for step in grasp(right_end, right_yaw)),
            Waypoint([released, held], near=0.02, wait=CLOSING_STEPS),
            Waypoint([withdrawn, held], failed=lost(state, right_arm, right_end)),
        ]

"""Parts of plans: how to take hold of a thing from above."""

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from alula.sims.engine import BatchState
from alula.sims.robots.control import ArmControl
from alula.sims.tasks.tabletop.expert import Pose, Waypoint
from alula.sims.tasks.tabletop.scene import FreeBody

CLEARANCE = 0.06
"""Height above a thing from which the open gripper comes down [m]."""
CLOSING_STEPS = 10
"""Control steps that closing the gripper takes."""
HOLDING = 0.04
"""A thing further from the tool than this is not in the gripper [m]."""


def facing(yaw: Float64[ndarray, " batch"], natural: float, symmetry: float = np.pi / 2) -> Float64[ndarray, " batch"]:
    """The equivalent of a grasp's `yaw` nearest to the `natural` one, for a thing of that rotational symmetry [rad]."""
    return natural + (yaw - natural + symmetry / 2) % symmetry - symmetry / 2


def grasp(position: Float64[ndarray, "batch 3"], yaw: Float64[ndarray, " batch"]) -> list[Waypoint]:
    """Come from above with the gripper open, and close it around `position`."""
    above = position + np.array([0.0, 0.0, CLEARANCE])
    return [
        Waypoint([Pose(above, yaw, 1.0)], near=0.01, follow=True),
        Waypoint([Pose(position, yaw, 1.0)], near=0.006, follow=True),
        Waypoint([Pose(position, yaw, 0.0)], near=0.02, wait=CLOSING_STEPS),
    ]


def fell(state: BatchState, arm: ArmControl, thing: FreeBody) -> Bool[ndarray, " num_envs"]:
    """Where the thing is no longer between the fingers."""
    away = np.linalg.norm(thing.position(state) - state.extras[arm.prefix + "tool_position"], axis=1)
    return away > HOLDING

"""Parts of plans: how to take hold of a thing from above."""

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from alula.sims.engine import BatchState
from alula.sims.robots.control import ArmControl
from alula.sims.robots.kinematics import yaw_of
from alula.sims.tasks.tabletop.expert import Pose, Waypoint
from alula.sims.tasks.tabletop.scene import FreeBody

CLEARANCE = 0.06
"""Height above a thing from which the open gripper comes down [m]."""
CLOSING_STEPS = 10
"""Control steps that closing the gripper takes."""
RELEASE = 0.75
"""Opening of the gripper that lets go of a thing and spares its neighbours."""
HOLDING = 0.04
"""A thing further from the tool than this is not in the gripper [m]."""


def facing(yaw: Float64[ndarray, " batch"], natural: float, symmetry: float = np.pi / 2) -> Float64[ndarray, " batch"]:
    """The equivalent of a grasp's `yaw` nearest to the `natural` one, for a thing of that rotational symmetry [rad]."""
    return natural + (yaw - natural + symmetry / 2) % symmetry - symmetry / 2


def grasp(
    position: Float64[ndarray, "batch 3"], yaw: Float64[ndarray, " batch"], opening: float = 1.0
) -> list[Waypoint]:
    """Come from above with the gripper open, and close it around `position`."""
    above = position + np.array([0.0, 0.0, CLEARANCE])
    return [
        Waypoint([Pose(above, yaw, opening)], near=0.01, follow=True),
        Waypoint([Pose(position, yaw, opening)], near=0.006, follow=True),
        Waypoint([Pose(position, yaw, 0.0)], near=0.02, wait=CLOSING_STEPS),
    ]


def place(
    state: BatchState,
    arm: ArmControl,
    position: Float64[ndarray, "num_envs 3"],
    goal: Float64[ndarray, "num_envs 3"],
    done: Bool[ndarray, " num_envs"],
) -> list[Waypoint]:
    """Carry what is held from above to `goal`, set it down and leave.

    Args:
        state: The present state.
        arm: The arm that holds it.
        position: Where the thing is [m].
        goal: Where it shall be [m].
        done: Where it is there to stay; elsewhere the plan begins anew after the gripper left.
    """
    tool, yaw = state.extras[arm.prefix + "tool_position"], yaw_of(state.extras[arm.prefix + "tool_rotation"])
    up, away = np.array([0.0, 0.0, CLEARANCE]), lost(state, arm, position)
    aim = goal + tool - position
    return [
        Waypoint([Pose(tool + up, yaw, 0.0)], near=0.02, failed=away),
        Waypoint([Pose(aim + up, yaw, 0.0)], near=0.01, failed=away),
        Waypoint([Pose(aim, yaw, 0.0)], near=0.005, failed=away),
        Waypoint([Pose(aim, yaw, RELEASE)], near=0.02, wait=CLOSING_STEPS),
        Waypoint([Pose(tool + up, yaw, RELEASE)], failed=away & ~done),
    ]


def lost(state: BatchState, arm: ArmControl, position: Float64[ndarray, "num_envs 3"]) -> Bool[ndarray, " num_envs"]:
    """Where the point by which a thing is held is no longer between the fingers."""
    return np.linalg.norm(position - state.extras[arm.prefix + "tool_position"], axis=1) > HOLDING


def fell(state: BatchState, arm: ArmControl, thing: FreeBody) -> Bool[ndarray, " num_envs"]:
    """Where the thing is no longer between the fingers."""
    return lost(state, arm, thing.position(state))

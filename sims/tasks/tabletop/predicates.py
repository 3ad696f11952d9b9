"""What tasks ask of a thing: whether it is where it should be, at rest and let go."""

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from alula.sims.engine import BatchState
from alula.sims.robots.control import ArmControl
from alula.sims.tasks.tabletop.grasping import lost

LYING = 0.005
"""A thing lies on what is below it if its height is right to within this [m]."""
STILL = 0.02
"""Speed below which a thing is at rest [m/s]."""
SLACK = 0.01
"""A gripper wider open than a thing by this much does not hold it [m]."""


def near(
    position: Float64[ndarray, "num_envs 3"],
    goal: Float64[ndarray, "num_envs 3"],
    radius: float | Float64[ndarray, " num_envs"],
    height: float | Float64[ndarray, " num_envs"],
) -> Bool[ndarray, " num_envs"]:
    """Where both are closer than `radius` horizontally and than `height` vertically [m]."""
    away = position - goal
    return (np.hypot(away[:, 0], away[:, 1]) < radius) & (np.abs(away[:, 2]) < height)


def still(velocity: Float64[ndarray, "num_envs 3"]) -> Bool[ndarray, " num_envs"]:
    """Where a thing is at rest, by its linear velocity [m/s]."""
    return np.linalg.norm(velocity, axis=1) < STILL


def released(
    state: BatchState, arm: ArmControl, position: Float64[ndarray, "num_envs 3"], width: float
) -> Bool[ndarray, " num_envs"]:
    """Where the gripper is away from a thing of that width [m], or open around it."""
    return lost(state, arm, position) | (arm.opening(state) > width + SLACK)

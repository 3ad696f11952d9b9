"""References that drones can follow: smooth up to the acceleration."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

Points = Float64[ndarray, "num_envs drones 3"]


@dataclass(frozen=True)
class Reference:
    """Where drones should be, and how they should move there."""

    position: Points
    """[m]"""
    velocity: Points
    """[m/s]"""
    acceleration: Points
    """[m/s²]"""


def minimum_jerk(
    start: Points,
    start_velocity: Points,
    end: Points,
    end_velocity: Points,
    duration: Float64[ndarray, " num_envs"],
    time: Float64[ndarray, " num_envs"],
) -> Reference:
    """The fifth-order polynomial between two states without acceleration (Flash & Hogan 1985, eq. 4).

    Args:
        start: Position at time 0 [m].
        start_velocity: Velocity at time 0 [m/s].
        end: Position at `duration` [m].
        end_velocity: Velocity at `duration` [m/s].
        duration: [s]
        time: When to look; taken within 0 and `duration` [s].
    """
    length = duration[:, None, None]
    share = np.clip(time[:, None, None] / length, 0.0, 1.0)
    slope = length * start_velocity
    ahead, faster = end - start - slope, length * (end_velocity - start_velocity)
    third, fourth, fifth = 10 * ahead - 4 * faster, 7 * faster - 15 * ahead, 6 * ahead - 3 * faster
    return Reference(
        start + share * (slope + share**2 * (third + share * (fourth + share * fifth))),
        (slope + share**2 * (3 * third + share * (4 * fourth + share * 5 * fifth))) / length,
        share * (6 * third + share * (12 * fourth + share * 20 * fifth)) / length**2,
    )


def through(
    points: Float64[ndarray, "num_envs waypoints drones 3"],
    velocities: Float64[ndarray, "num_envs waypoints drones 3"],
    durations: Float64[ndarray, "num_envs legs"],
    time: Float64[ndarray, " num_envs"],
) -> Reference:
    """Minimum-jerk legs from waypoint to waypoint, which all drones reach at the same time; in the end, the last.

    Args:
        points: Positions [m].
        velocities: Velocities there [m/s].
        durations: Of the legs [s].
        time: When to look [s].
    """
    ends = np.cumsum(durations, axis=1)
    leg = np.minimum((time[:, None] >= ends).sum(axis=1), durations.shape[1] - 1)
    env = np.arange(len(time))
    since = time - (ends - durations)[env, leg]
    here, there = (env, leg), (env, leg + 1)
    return minimum_jerk(points[here], velocities[here], points[there], velocities[there], durations[env, leg], since)

"""Formulas of rotors and air, on the operators that NumPy arrays and torch tensors share.

Each works elementwise on arrays of any shape whose last axis is, where it matters, the drones of one environment.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.sims.quadcopters.crazyflie import GRAVITY, Quadcopter


def lag_decays(drone: Quadcopter, timestep: float, steps: int, motor_lag: bool) -> Float64[ndarray, " steps"]:
    """Share of a rotor's distance to its command that is left after 1, 2, ... steps; exact for a first-order lag."""
    elapsed = timestep * np.arange(1, steps + 1)
    return np.exp(-elapsed / drone.motor_time_constant) if motor_lag else np.zeros(steps)


def rotor_response(drone: Quadcopter, speed: Any, command: Any, decay: Any) -> Any:
    """Rotor speeds after `decay` of the distance to the command is left [rad/s]; motors cannot leave their range."""
    target = command.clip(0.0, drone.max_speed)
    return target + decay * (speed - target)


def ground_effect(drone: Quadcopter, height: Any) -> Any:
    """Factor on the thrust at a height above the floor [m]: 1 + c (rotor radius / 4 height)^2, bounded.

    The form of Cheeseman & Bennett 1955, "The effect of the ground on a helicopter rotor in forward flight", to first
    order. The bound takes over below 4 cm and under the floor.
    """
    lowest = drone.rotor_radius / 4 * math.sqrt(drone.ground_effect / drone.ground_effect_limit)
    return 1.0 + drone.ground_effect_limit * (lowest / height.clip(lowest)) ** 2


def downwash(drone: Quadcopter, x: Any, y: Any, z: Any) -> Any:
    """Downward force on every drone from all above it [N]; positions [m] have the drones in the last axis.

    Panerati et al. 2021, eq. for the downwash: a Gaussian of the horizontal distance whose height falls and whose width
    grows with the separation. The fit degenerates below about 1 m, where it was not measured: there, the wash is never
    narrower than the arms from which it comes, and never pushes harder than the thrust that makes it (the weight).
    """
    slope, intercept = drone.downwash_width
    across = (x[..., :, None] - x[..., None, :]) ** 2 + (y[..., :, None] - y[..., None, :]) ** 2
    above = z[..., None, :] - z[..., :, None]
    # Never nearer than where the fit equals the weight of a Crazyflie.
    nearest = drone.rotor_radius / 4 * math.sqrt(drone.downwash / (drone.mass * GRAVITY))
    strength = drone.downwash * (drone.rotor_radius / 4 / above.clip(nearest)) ** 2
    width = (slope * above + intercept).clip(drone.arm_length)
    return ((above > 0) * strength * math.e ** (-0.5 * across / width**2)).sum(-1)

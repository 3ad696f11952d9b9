"""From thrust and torque to the speeds of four rotors that cannot pull and cannot turn infinitely fast."""

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

from alula.sims.quadcopters.crazyflie import CRAZYFLIE

MAX_ROTOR_THRUST = CRAZYFLIE.thrust_coefficient * CRAZYFLIE.max_speed**2
"""Of one rotor [N]."""
MAX_THRUST = 4 * MAX_ROTOR_THRUST
"""Of all [N]."""
_, ROLL, PITCH, YAW = (CRAZYFLIE.thrust_coefficient * np.linalg.inv(CRAZYFLIE.allocation)).T[..., None, None]
"""Thrusts of the rotors for a torque about each body axis [N/(N m)]; a thrust is shared evenly."""


def rotor_speeds(
    thrust: Float[ndarray, "num_envs drones"], torque: Float64[ndarray, "3 num_envs drones"]
) -> Float64[ndarray, "4 num_envs drones"]:
    """Rotor speeds [rad/s], exact where the rotors can give it.

    Where they cannot, what keeps the drone upright comes first: roll and pitch torque, in proportion if even that is
    too much; then the thrust nearest to the wanted one; then as much of the yaw torque as is left.

    Args:
        thrust: Wanted along the body's z axis [N].
        torque: Wanted about the body's axes [N m].
    """
    tilting = ROLL * torque[0] + PITCH * torque[1]
    least, most = tilting.min(axis=0), tilting.max(axis=0)
    scale = MAX_ROTOR_THRUST / np.maximum(most - least, MAX_ROTOR_THRUST)
    share = np.fmax(np.fmin(0.25 * thrust, MAX_ROTOR_THRUST - scale * most), -scale * least)
    forces = scale * tilting + share
    turning = YAW * torque[2]
    room = np.where(turning > 0, MAX_ROTOR_THRUST - forces, forces)
    fits = np.maximum(room, 0.0) / np.maximum(np.abs(turning), 1e-12)
    forces += turning * np.minimum(fits.min(axis=0), 1.0)
    # What rounding leaves below zero, and the NaN of a diverged environment, become a standing rotor.
    return np.sqrt(np.fmin(np.fmax(forces, 0.0), MAX_ROTOR_THRUST) / CRAZYFLIE.thrust_coefficient)

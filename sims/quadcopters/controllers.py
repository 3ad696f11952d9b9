"""Flight controllers: one cascade from position to rotor speeds, with two ways to build its stages.

Every stage turns a command of four numbers per drone into the command of the next stage:

    position, yaw → velocity, yaw rate → roll, pitch, yaw, thrust → thrust, body rates → rotor speeds

so a command may enter, and be read off, between any two of them (`action_modes`). Attitudes are R = Rz(yaw) Ry(pitch)
Rx(roll), body axes x forward, y left, z up. Gains are inverse time constants: each stage is three times or more as
fast as the one before it. The rotors' own lag of 65 ms would be too slow for the last one, so they are commanded beyond
what is wanted, by as much as brings their response to MOTOR_RESPONSE.

Arrays have their components in front, (3, num_envs, drones): NumPy is several times as fast along a long last axis.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

from alula.core.geometry import wrap_angle
from alula.sims.quadcopters.crazyflie import CRAZYFLIE, GRAVITY
from alula.sims.quadcopters.mixer import rotor_speeds

INERTIA = np.array(CRAZYFLIE.inertia)[:, None, None]
"""[kg m²]"""
POSITION_GAIN = 2.0
"""Commanded velocity per position error [1/s]."""
VELOCITY_GAIN = 4.0
"""Commanded acceleration per velocity error [1/s]; twice POSITION_GAIN damps the pair with ζ = 1/√2."""
ATTITUDE_GAIN = np.array([8.0, 8.0, 3.0])[:, None, None]
"""Commanded body rate per attitude error [1/s]; yaw is weak, as propeller drag is all it has."""
RATE_GAIN = np.array([20.0, 20.0, 8.0])[:, None, None]
"""Commanded angular acceleration per rate error [1/s]."""
MOTOR_RESPONSE = 0.02
"""Time constant of the rotors with their lead [s]: damps the body rates with ζ = 1/(2 √(RATE_GAIN MOTOR_RESPONSE))."""
LEAST_LIFT = 2.0
"""Vertical acceleration, gravity included, that is always asked for, so that thrust points upwards [m/s²]."""

Vectors = Float64[ndarray, "3 num_envs drones"]
Rotations = Float64[ndarray, "3 3 num_envs drones"]
Command = Float[ndarray, "4 num_envs drones"]
Memory = Float64[ndarray, "memory num_envs drones"]


@dataclass(frozen=True)
class Motion:
    """What a flight controller measures."""

    position: Vectors
    """In the world [m]."""
    rotation: Rotations
    """From the body to the world."""
    velocity: Vectors
    """In the world [m/s]."""
    body_rate: Vectors
    """Angular velocity in the body frame [rad/s]."""
    rotor_speed: Float64[ndarray, "4 num_envs drones"]
    """[rad/s]; a drone that does not measure it models it, for the lag and all commands are known."""

    @property
    def yaw(self) -> Float64[ndarray, "num_envs drones"]:
        """Heading of the body's x axis [rad]."""
        return np.arctan2(self.rotation[1, 0], self.rotation[0, 0])


class Controller(ABC):
    """The cascade. Stateless: what it integrates is in the memory that it is given, and updates in place.

    Args:
        rate: Calls per second [Hz].
        motor_lag: Whether rotors lag behind their commands.
    """

    memory_size: ClassVar[int]
    """Numbers per drone that live on between control steps; zero at the start of an episode."""

    def __init__(self, rate: float, motor_lag: bool) -> None:
        self.period = 1.0 / rate
        wanted, own = (1.0 - np.exp(-self.period / lag) for lag in (MOTOR_RESPONSE, CRAZYFLIE.motor_time_constant))
        self.lead = wanted / own if motor_lag else 1.0

    def velocity(self, motion: Motion, command: Command, memory: Memory) -> Command:
        """Velocity [m/s] and yaw rate [rad/s] that lead to a position [m] and yaw [rad]."""
        del memory
        lower = np.empty(command.shape)
        lower[:3] = POSITION_GAIN * (command[:3] - motion.position)
        lower[3] = ATTITUDE_GAIN[2] * wrap_angle(command[3] - motion.yaw)
        return lower

    def attitude_thrust(self, motion: Motion, command: Command, memory: Memory) -> Command:
        """Roll, pitch, yaw [rad] and thrust [N] that lead to a velocity [m/s] and yaw rate [rad/s].

        The thrust is the wanted force's share along the present body axis (Lee et al. 2010, eq. 15).
        """
        x, y, z = lift = self.acceleration(command[:3] - motion.velocity, memory)
        z[:] = np.maximum(z + GRAVITY, LEAST_LIFT)
        yaw = wrap_angle(motion.yaw + command[3] / ATTITUDE_GAIN[2])
        cos, sin = np.cos(yaw), np.sin(yaw)
        forward, left = cos * x + sin * y, cos * y - sin * x
        lower = np.empty(command.shape)
        lower[0] = -np.arctan2(left, np.hypot(forward, z))
        lower[1] = np.arctan2(forward, z)
        lower[2] = yaw
        lower[3] = CRAZYFLIE.mass * (lift * motion.rotation[:, 2]).sum(axis=0)
        return lower

    def thrust_body_rate(self, motion: Motion, command: Command, memory: Memory) -> Command:
        """Thrust [N] and body rates [rad/s] that lead to roll, pitch and yaw [rad]."""
        del memory
        wanted = rotation_from_euler(command[0], command[1], command[2])
        lower = np.empty(command.shape)
        lower[0] = command[3]
        lower[1:] = -ATTITUDE_GAIN * self.attitude_error(motion.rotation, wanted)
        return lower

    def rotor_speed(self, motion: Motion, command: Command, memory: Memory) -> Command:
        """Rotor speeds [rad/s] that give the thrust [N] and lead to the body rates [rad/s]."""
        torque = self.torque(command[1:] - motion.body_rate, motion.body_rate, memory)
        return motion.rotor_speed + self.lead * (rotor_speeds(command[0], torque) - motion.rotor_speed)

    @abstractmethod
    def acceleration(self, error: Vectors, memory: Memory) -> Vectors:
        """Acceleration [m/s²] against a velocity error [m/s]."""

    @abstractmethod
    def attitude_error(self, rotation: Rotations, wanted: Rotations) -> Vectors:
        """Angle times axis [rad, body axes] of the rotation from the wanted attitude; exact where it is small."""

    @abstractmethod
    def torque(self, error: Vectors, body_rate: Vectors, memory: Memory) -> Vectors:
        """Torque [N m, body axes] against a body rate error [rad/s]."""


class Geometric(Controller):
    """Lee, Leok & McClamroch 2010, "Geometric tracking control of a quadrotor UAV on SE(3)".

    Their force and moment for a constant wanted attitude (eqs. 15, 16), in cascade form:
    F = -k_x e_x - k_v e_v + m g e_3 with k_v = m VELOCITY_GAIN and k_x = k_v POSITION_GAIN, and
    M = -k_R e_R - k_Ω Ω + Ω × JΩ with k_Ω = J RATE_GAIN and k_R = k_Ω ATTITUDE_GAIN. It has no memory: what the
    model does not know stays as a small offset.
    """

    memory_size = 0

    def acceleration(self, error: Vectors, memory: Memory) -> Vectors:
        """Proportional."""
        del memory
        return VELOCITY_GAIN * error

    def attitude_error(self, rotation: Rotations, wanted: Rotations) -> Vectors:
        """Their eq. 10: half the vee of R_dᵀR - RᵀR_d, the sine of the angle times the axis."""
        return _sine(rotation, wanted)

    def torque(self, error: Vectors, body_rate: Vectors, memory: Memory) -> Vectors:
        """Proportional, and what turns the angular momentum along with the body."""
        del memory
        momentum = INERTIA * body_rate
        return INERTIA * (RATE_GAIN * error) + cross(body_rate, momentum)


class Pid(Controller):
    """Cascaded PID, the structure of common autopilots.

    Position and attitude are proportional, velocity and body rates also integral; the derivative of each is the next
    loop inwards. The integrals take up what the model does not know: weight, drag, downwash, a bent propeller.
    """

    memory_size = 6
    velocity_integral: ClassVar[float] = 0.5
    """Gain of the integral of velocity errors [1/s²]."""
    most_acceleration: ClassVar[float] = 3.0
    """Bound of that integral's share [m/s²]."""
    rate_integral: ClassVar[float] = 40.0
    """Gain of the integral of rate errors [1/s²]."""
    most_angular_acceleration: ClassVar[float] = 40.0
    """Bound of that integral's share [rad/s²]."""

    def acceleration(self, error: Vectors, memory: Memory) -> Vectors:
        """Proportional and integral."""
        integral = memory[:3]
        _accumulate(integral, self.velocity_integral * self.period * error, self.most_acceleration)
        return VELOCITY_GAIN * error + integral

    def attitude_error(self, rotation: Rotations, wanted: Rotations) -> Vectors:
        """Twice the vector part of the quaternion: unlike the sine it still grows beyond a right angle."""
        trace = (rotation * wanted).sum(axis=(0, 1))
        half_angle_cosine = np.sqrt(np.maximum(0.25 * (1.0 + trace), 1e-4))
        return _sine(rotation, wanted) / half_angle_cosine

    def torque(self, error: Vectors, body_rate: Vectors, memory: Memory) -> Vectors:
        """Proportional and integral."""
        del body_rate
        integral = memory[3:]
        _accumulate(integral, self.rate_integral * self.period * error, self.most_angular_acceleration)
        return INERTIA * (RATE_GAIN * error + integral)


CONTROLLERS: dict[str, type[Controller]] = {"pid": Pid, "geometric": Geometric}


def feedforward(
    position: Float64[ndarray, "*shape"], velocity: Float64[ndarray, "*shape"], acceleration: Float64[ndarray, "*shape"]
) -> Float64[ndarray, "*shape"]:
    """The position [m] to command for tracking a moving reference.

    Put into the cascade it gives exactly Lee's force (eq. 15), with the reference's velocity and acceleration.
    """
    return position + velocity / POSITION_GAIN + acceleration / (POSITION_GAIN * VELOCITY_GAIN)


def rotation_from_euler(
    roll: Float[ndarray, "num_envs drones"],
    pitch: Float[ndarray, "num_envs drones"],
    yaw: Float[ndarray, "num_envs drones"],
) -> Rotations:
    """Rz(yaw) Ry(pitch) Rx(roll), angles in rad."""
    (sr, sp, sy), (cr, cp, cy) = ([function(angle) for angle in (roll, pitch, yaw)] for function in (np.sin, np.cos))
    rotation = np.empty((3, 3, *roll.shape))
    rotation[0] = cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr
    rotation[1] = sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr
    rotation[2] = -sp, cp * sr, cp * cr
    return rotation


def cross(left: Float64[ndarray, "3 *shape"], right: Float64[ndarray, "3 *shape"]) -> Float64[ndarray, "3 *shape"]:
    """Vector product along the first axis."""
    (a, b, c), (x, y, z) = left, right
    return np.stack([b * z - c * y, c * x - a * z, a * y - b * x])


def _sine(rotation: Rotations, wanted: Rotations) -> Vectors:
    """Sine of the angle between two attitudes times the axis: half the vee of R_dᵀR - RᵀR_d.

    That is half the sum of the vector products of their rows.
    """
    return 0.5 * cross(np.swapaxes(rotation, 0, 1), np.swapaxes(wanted, 0, 1)).sum(axis=1)


def _accumulate(integral: Vectors, step: Vectors, bound: float) -> None:
    """Add within ±`bound`; `fmin` and `fmax` also let no NaN of a diverged environment in."""
    np.fmin(np.fmax(integral + step, -bound), bound, out=integral)

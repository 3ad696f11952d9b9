"""What all quadcopters share: what they see and are told, where they may fly, when their battery ends a flight.

An action is a place and a heading: x, y, z [m] in the world and yaw [rad]. Yaw counts turns: a measured heading
continues the one before it, so that nothing jumps where the compass does.
"""

import math

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.core.errors import DeviceError
from alula.core.geometry import rotation_from_quaternion
from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec
from alula.real_robot.contract import DeviceSpec, Limits, State, Stop

ACTION_NAMES = ("x", "y", "z", "yaw")
STATE_NAMES = (
    *("x", "y", "z"),
    *("qw", "qx", "qy", "qz"),
    *("velocity_x", "velocity_y", "velocity_z"),
    *("rate_x", "rate_y", "rate_z"),
)
STATE_UNITS = (*("m",) * 3, *("1",) * 4, *("m/s",) * 3, *("rad/s",) * 3)
FLOOR = 0.1
"""Lowest height of the fence [m]: our choice, above the cushion of air under the rotors."""
TURNS = 2
"""Turns that the heading may make, either way: our choice."""
VELOCITY = (1.5, 1.5, 1.0, 1.5)
ACCELERATION = (3.0, 3.0, 2.5, 3.0)
JERK = (30.0, 30.0, 25.0, 20.0)
"""Limits of x, y, z [m, s] and yaw [rad, s]: our choice, a fifth or more above what the simulated experts fly. With
them a drone tilts by 30 degrees at most, and takes a tenth of a second for it."""
MARGIN = 0.25
"""Kept from the fence by commands [m]: our choice, as a drone that is sent to and fro overshoots what it is told; in
an hour of the wildest wishes a simulated Crazyflie leaves it by 6 mm (`tests/real_robot/test_quadcopter.py`)."""
FOLLOWING = (0.5, 0.5, 0.5, 1.0)
"""Farthest from where it was sent [m, rad]: our choice."""
STILL = (0.1, 0.1, 0.1, 0.2)
"""Speeds that count as standing still [m/s, rad/s]: our choice, above what an estimator makes of a hovering drone."""
LOW_BATTERY, CRITICAL_BATTERY = 0.15, 0.07
"""Shares of the charge: below the first for `LOW_S`, or below the second at once, a flight ends (our choice)."""
LOW_S = 2.0
"""How long a battery must be low [s]: a burst of thrust makes it sag for less."""
FARTHEST, FASTEST = 1e3, 1e2
"""Positions [m] and speeds [m/s, rad/s] beyond these are no measurements."""


def specification(
    name: str, model: str, fence: float, ceiling: float, takeoff: float, rate: float, watchdog: float
) -> DeviceSpec:
    """A quadcopter that flies in a box.

    Args:
        name: In the table of devices.
        model: What it must say of itself.
        fence: Half the side of the square that it may fly over [m].
        ceiling: Height that it may fly at [m].
        takeoff: Height that it takes off to [m].
        rate: Control periods per second [Hz].
        watchdog: Time after which it stops by itself when nobody commands it [s].

    Raises:
        DeviceError: it takes off to outside its box.
    """
    low, high = FLOOR + MARGIN, ceiling - MARGIN
    if not low <= takeoff <= high:
        raise DeviceError(
            f"{name} is to take off to {takeoff} m; with its ceiling at {ceiling} m allowed are {low:.2f} to "
            f"{high:.2f} m: change device.takeoff or device.ceiling"
        )
    yaw = 2 * math.pi * TURNS
    corner = (fence, fence, ceiling, yaw)
    limits = Limits((-fence, -fence, FLOOR, -yaw), corner, VELOCITY, ACCELERATION, JERK, MARGIN, FOLLOWING)
    state = FieldSpec("observation.state", (13,), units=STATE_UNITS, element_names=STATE_NAMES, rate=rate)
    battery = FieldSpec("observation.battery", (1,), low=(0.0,), high=(1.0,), rate=rate)
    action = FieldSpec(
        name="action",
        shape=(4,),
        units=("m", "m", "m", "rad"),
        element_names=ACTION_NAMES,
        low=limits.low,
        high=limits.high,
        control_mode=ControlMode.POSITION,
        rate=rate,
    )
    return DeviceSpec(
        name=name,
        model=model,
        observation=SpaceSpec((state, battery)),
        action=SpaceSpec((action,)),
        limits=limits,
        rate=rate,
        stops=(Stop.HOLD, Stop.BRAKE, Stop.LIMP, Stop.LAND, Stop.KILL),
        device_watchdog=watchdog,
        after_fault=Stop.LAND,
    )


class Telemetry:
    """The newest that is known of a quadcopter; what cannot have been measured leaves the last as it is."""

    def __init__(self) -> None:
        self._position, self._velocity, self._rates = np.zeros(3), np.zeros(3), np.zeros(3)
        self._quaternion, self.yaw = np.array([1.0, 0.0, 0.0, 0.0]), 0.0
        self.battery = math.nan
        """Share of the charge that is left; not a number before it has been heard of."""
        self.valid = False
        """Whether the last measurement was one."""

    def update(
        self,
        position: Float64[ndarray, "3"],
        quaternion: Float64[ndarray, "4"],
        velocity: Float64[ndarray, "3"],
        rates: Float64[ndarray, "3"],
    ) -> None:
        """Take a measurement.

        Args:
            position: [m], in the world.
            quaternion: wxyz, of any sign and nearly any length.
            velocity: [m/s], in the world.
            rates: [rad/s], in the body.
        """
        length = float(np.linalg.norm(quaternion))
        bounds = ((position, FARTHEST), (velocity, FASTEST), (rates, FASTEST))
        # Comparisons with what is not a number are false.
        self.valid = 0.5 < length < 2.0 and all(bool((np.abs(array) < most).all()) for array, most in bounds)
        if not self.valid:
            return
        quaternion = quaternion / length
        if quaternion @ self._quaternion < 0:
            quaternion = -quaternion
        self._position, self._quaternion, self._velocity, self._rates = position, quaternion, velocity, rates
        rotation = self._rotation()
        heading = math.atan2(rotation[1, 0], rotation[0, 0])
        self.yaw += math.remainder(heading - self.yaw, 2 * math.pi)

    def forget_turns(self) -> None:
        """Heading within half a turn from zero again, as when a flight begins."""
        self.yaw = math.remainder(self.yaw, 2 * math.pi)

    def _rotation(self) -> Float64[ndarray, "3 3"]:
        return rotation_from_quaternion(self._quaternion[None])[0]

    @property
    def speed(self) -> Float64[ndarray, "4"]:
        """Velocity [m/s] and rate of the heading [rad/s]."""
        rotation = self._rotation()
        level = max(1.0 - float(rotation[2, 0]) ** 2, 1e-6)
        turning = float(rotation[2, 1] * self._rates[1] + rotation[2, 2] * self._rates[2]) / level
        return np.append(self._velocity, turning)

    def state(self, sequence: int, received_ns: int, faults: tuple[str, ...] = ()) -> State:
        """All of it; velocities below `STILL` are none."""
        own = np.concatenate([self._position, self._quaternion, self._velocity, self._rates])
        observation = {
            "observation.state": own.astype(np.float32),
            "observation.battery": np.array([self.battery], dtype=np.float32),
        }
        position, speed = np.append(self._position, self.yaw), self.speed
        still = np.where(np.abs(speed) < STILL, 0.0, speed)
        return State(observation, position, still, np.full(4, self.valid), sequence, received_ns, faults)


class BatteryWatch:
    """Complains of a battery that is low, once it has been for a while, or critical; takes nothing back."""

    def __init__(self) -> None:
        self._enough_ns: int | None = None
        self._complaint: tuple[str, ...] = ()

    def __call__(self, share: float, now_ns: int) -> tuple[str, ...]:
        """Faults of the battery.

        Args:
            share: Of the charge that is left; not a number: unknown.
            now_ns: Monotonic time [ns].
        """
        if self._enough_ns is None or not share < LOW_BATTERY:
            self._enough_ns = now_ns
        if share < CRITICAL_BATTERY:
            self._complaint = (f"the battery is critical: {100 * share:.0f} %",)
        elif now_ns - self._enough_ns > LOW_S * 1e9 and not self._complaint:
            self._complaint = (f"the battery is low: {100 * share:.0f} %",)
        return self._complaint

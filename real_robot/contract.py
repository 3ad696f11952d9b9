"""What every device is and does, and what passes between it and whoever steers it.

A control period is `device.write(governor(source.at(now), device.read(), now))`, the same for arms, quadcopters and
simulation. All times are `time.monotonic_ns()` of the host; no wall clock takes part in control.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Shaped
from numpy import ndarray

from alula.core.errors import SpecError
from alula.core.spaces import SpaceSpec

if TYPE_CHECKING:
    from alula.real_robot.governor import SafeCommand


class Stop(StrEnum):
    """Ways to stop, from gentle to final."""

    HOLD = "hold"
    """Stay where it is, under power."""
    BRAKE = "brake"
    """Come to rest within the limits, then hold."""
    LIMP = "limp"
    """Motors without torque."""
    LAND = "land"
    """Quadcopters: descend and switch off."""
    KILL = "kill"
    """Power off at once, whatever falls."""


@dataclass(frozen=True)
class Limits:
    """What a command may do, per element of the action; all in the action's unit and seconds."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    velocity: tuple[float, ...]
    acceleration: tuple[float, ...]
    jerk: tuple[float, ...]
    margin: float = 0.0
    """Distance that commands keep from `low` and `high`."""
    following: tuple[float, ...] = ()
    """How far the measured position may be from the commands of the last moment before the run ends; infinite where
    something is grasped or pressed. Empty: nowhere watched."""

    def __post_init__(self) -> None:
        """Check that they describe a motion."""
        names = ("low", "high", "velocity", "acceleration", "jerk", *(["following"] if self.following else []))
        sizes = {len(getattr(self, name)) for name in names}
        if len(sizes) != 1:
            raise SpecError(f"limits have {sorted(sizes)} elements; each needs one per element of the action")
        for index, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            if not low + self.margin < high - self.margin:
                raise SpecError(
                    f"limits of element {index} leave no room: {low} to {high} with a margin of {self.margin}"
                )
        for name in names[2:]:
            if not all(value > 0 for value in getattr(self, name)):
                raise SpecError(f"limit of {name} is {getattr(self, name)}; each must be above 0")


@dataclass(frozen=True)
class Grip:
    """The element of an action that is a gripper."""

    element: int
    """Its index."""
    closed: float
    """Its position with the fingers together, in the action's unit."""
    opened: float
    """Its position with the fingers as far apart as they go."""


@dataclass(frozen=True)
class DeviceSpec:
    """Everything about a device that is known before it is connected."""

    name: str
    """Name in the table of devices."""
    model: str
    """What the device must say of itself when it is connected."""
    observation: SpaceSpec
    action: SpaceSpec
    """The field `action`: absolute positions, one per element of `limits`."""
    limits: Limits
    rate: float
    """Control periods per second [Hz]."""
    stops: tuple[Stop, ...]
    """What `Device.stop` can do."""
    device_watchdog: float | None
    """Time after which the device stops by itself when nobody commands it [s]; None: it never does."""
    after_fault: Stop = Stop.HOLD
    """How a run ends in which the device complained or went silent, once it has braked."""
    grip: Grip | None = None
    """The gripper; None where there is none."""
    share: float = 1.0
    """Of the device's own limits of velocity, acceleration and jerk: what `slower` has left of them."""

    def __post_init__(self) -> None:
        """Check that action and limits belong together."""
        (action,) = self.action.values()
        if action.shape != (len(self.limits.low),):
            raise SpecError(
                f"action has shape {action.shape}, but there are limits for {len(self.limits.low)} elements"
            )

    def slower(self, share: float) -> "DeviceSpec":
        """The same with only a share of the limits of velocity, acceleration and jerk."""
        limits = self.limits
        velocity, acceleration, jerk = (
            tuple(share * value for value in values) for values in (limits.velocity, limits.acceleration, limits.jerk)
        )
        limits = replace(limits, velocity=velocity, acceleration=acceleration, jerk=jerk)
        return replace(self, limits=limits, share=share * self.share)

    @property
    def own_velocity(self) -> Float64[ndarray, " action"]:
        """The device's own limits of velocity, however slow it is told to be: a measure of what counts as rest."""
        return np.array(self.limits.velocity) / self.share

    @property
    def period_ns(self) -> int:
        """Length of a control period [ns]."""
        return round(1e9 / self.rate)


@runtime_checkable
class Workspace(Protocol):
    """Where a device may be, beyond the limits of each element: a box for the tool, distance to obstacles."""

    def inside(self, positions: Float64[ndarray, "points action"]) -> Bool[ndarray, " points"]:
        """Which of these positions are permitted."""
        ...

    def free(self, way: Float64[ndarray, "places action"]) -> bool:
        """Whether the device may go from the first of these places, where it is, through the others to the last."""
        ...


@dataclass(frozen=True)
class State:
    """The newest that is known of a device."""

    observation: Mapping[str, Shaped[ndarray, "*field"]]
    """One array per observation field."""
    position: Float64[ndarray, " action"]
    """Measured, in the action's coordinates."""
    velocity: Float64[ndarray, " action"]
    valid: Bool[ndarray, " action"]
    """Elements whose values are fresh; the others repeat their last."""
    sequence: int
    """Counts the device's answers; does not rise while it is silent."""
    received_ns: int
    """When the answer arrived, by the host's monotonic clock [ns]."""
    faults: tuple[str, ...] = ()
    """What the device complains of, in words."""


@dataclass(frozen=True)
class Intent:
    """What somebody wants done; nothing of it is believed."""

    action: Shaped[ndarray, "..."]
    """Supposed to be the action field's shape, finite and within limits."""
    created_ns: int
    """When it was decided [ns]."""
    source: str
    """"policy", "teleoperation", "replay", "hold", "goto", "recovery"."""


@dataclass(frozen=True)
class Receipt:
    """What became of a command."""

    sent_ns: int
    delivered: bool
    """False where the link refused it."""
    detail: str = field(default="")


@runtime_checkable
class Device(Protocol):
    """A robot, its emulator, or a simulation.

    The order is `configure` → `activate` → (`read`, `write`)* → `stop` → `close`. `stop` is legal in every state; after
    it has held or braked, `activate` goes on from there.
    """

    spec: DeviceSpec

    def configure(self) -> None:
        """Connect, check identity and calibration, set the device's own watchdog; nothing moves.

        Raises:
            DeviceError: it is not there, not permitted, or not what the specification says.
        """
        ...

    def activate(self) -> State:
        """Power the motors where they are; what has power already stays where it was sent.

        Returns:
            The state; its position is where the motors are sent, which is where commands must begin.

        Raises:
            DeviceError: the device refuses.
        """
        ...

    def read(self) -> State:
        """The newest state; never waits longer than a period, never raises for a lost link."""
        ...

    def write(self, command: "SafeCommand") -> Receipt:
        """Send a command; never waits longer than a period.

        Raises:
            TypeError: it is anything but a `SafeCommand`.
        """
        ...

    def stop(self, how: Stop) -> None:
        """Stop now; doing it again changes nothing."""
        ...

    def close(self) -> None:
        """Let go of the link; motors without torque unless the device cannot stand that."""
        ...

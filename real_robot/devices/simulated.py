"""A device without a wire: it does what it is told with a lag. For dry runs, and to test whatever steers devices."""

import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.core.errors import DeviceError
from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec
from alula.real_robot.contract import DeviceSpec, Limits, Receipt, State, Stop
from alula.real_robot.devices.config import SimulatedConfig
from alula.real_robot.governor import SafeCommand


class Simulated:
    """Follows position commands like a first-order system.

    Args:
        spec: What it claims to be; its observation may have the fields `observation.state`, the measured position, and
            `observation.velocity`.
        start: Position at first; default the middle of its range.
        lag: Time constant [s].
        clock: Monotonic time [ns].
    """

    def __init__(
        self,
        spec: DeviceSpec,
        start: Float64[ndarray, " action"] | None = None,
        lag: float = 0.02,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.spec, self.lag, self.clock = spec, lag, clock
        middle = (np.array(spec.limits.low) + np.array(spec.limits.high)) / 2
        self._position = middle if start is None else np.array(start, dtype=np.float64)
        self._velocity = np.zeros_like(self._position)
        self._target = self._position.copy()
        self._active, self._sequence, self._time = False, 0, clock()

    def configure(self) -> None:
        """There is nothing to connect."""

    def activate(self) -> State:
        """Hold where it is."""
        self._target = self._position.copy()
        self._active = True
        return self.read()

    def read(self) -> State:
        """Where it is by now."""
        now = self.clock()
        elapsed, self._time = (now - self._time) / 1e9, now
        before = self._position
        self._position = self._target + (before - self._target) * np.exp(-elapsed / self.lag)
        self._velocity = (self._target - self._position) / self.lag
        self._sequence += 1
        measured = {"observation.state": self._position, "observation.velocity": self._velocity}
        observation = {
            name: value.astype(np.float32) for name, value in measured.items() if name in self.spec.observation
        }
        valid = np.ones(len(self._position), dtype=bool)
        return State(observation, self._position.copy(), self._velocity.copy(), valid, self._sequence, now)

    def write(self, command: SafeCommand) -> Receipt:
        """Take the command as the new target."""
        if not isinstance(command, SafeCommand):
            raise TypeError(f"a device takes a SafeCommand, not {type(command).__name__}")
        if not self._active:
            raise DeviceError(f"{self.spec.name} is not active; call activate first")
        self._target = command.position.copy()
        return Receipt(self.clock(), True)

    def stop(self, how: Stop) -> None:
        """Stay where it is; limp and killed it takes no more commands."""
        self._target = self._position.copy()
        self._active = how in (Stop.HOLD, Stop.BRAKE)

    def close(self) -> None:
        """Take no more commands."""
        self._active = False


class SimulatedArm(Simulated):
    """Joints that can turn half a round either way.

    Args:
        config: How many, and how often they are commanded.
    """

    def __init__(self, config: SimulatedConfig) -> None:
        count, rate = config.joints, config.rate
        joints = FieldSpec("observation.state", (count,), units=("rad",), rate=rate)
        velocity = FieldSpec("observation.velocity", (count,), units=("rad/s",), rate=rate)
        limits = Limits((-np.pi,) * count, (np.pi,) * count, (2.0,) * count, (10.0,) * count, (200.0,) * count)
        mode = ControlMode.JOINT_POSITION_ABSOLUTE
        action = FieldSpec(
            "action", (count,), units=("rad",), low=limits.low, high=limits.high, control_mode=mode, rate=rate
        )
        stops = (Stop.HOLD, Stop.BRAKE, Stop.LIMP)
        spaces = SpaceSpec((joints, velocity)), SpaceSpec((action,))
        super().__init__(DeviceSpec("simulated", "simulated", *spaces, limits, rate, stops, None))

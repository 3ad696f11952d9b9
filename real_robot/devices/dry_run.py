"""A device that is only looked at: what would be sent is judged and recorded, and nothing of it is sent."""

import time
from dataclasses import replace

import numpy as np

from alula.real_robot.contract import Device, Receipt, State, Stop
from alula.real_robot.governor import SafeCommand


class DryRun:
    """Everything of `device` but its motion.

    Args:
        device: It is configured and read, never activated, written to or stopped.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        # It does not go where it would be sent, which is no fault here.
        self.spec = replace(device.spec, limits=replace(device.spec.limits, following=()))

    def configure(self) -> None:
        """Connect and check."""
        self.device.configure()

    def activate(self) -> State:
        """Look where it is; the motors stay as they are. A drone on the floor is thought of as inside its fence."""
        state, limits = self.device.read(), self.spec.limits
        inside = np.clip(state.position, np.array(limits.low) + limits.margin, np.array(limits.high) - limits.margin)
        return replace(state, position=inside, velocity=np.zeros_like(inside))

    def read(self) -> State:
        """The newest state."""
        return self.device.read()

    def write(self, command: SafeCommand) -> Receipt:
        """Send nothing."""
        if not isinstance(command, SafeCommand):
            raise TypeError(f"a device takes a SafeCommand, not {type(command).__name__}")
        return Receipt(time.monotonic_ns(), False, "dry run")

    def stop(self, how: Stop) -> None:
        """Nothing moves that could be stopped."""

    def close(self) -> None:
        """Let go of the link."""
        self.device.close()

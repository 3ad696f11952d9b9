"""Calibrating an arm by hand: its motors without power, a zero pose, and the range of every joint."""

from dataclasses import dataclass, field
from datetime import date

import numpy as np

from alula.core.errors import DeviceError
from alula.real_robot.devices.calibration import COUNTS_PER_TURN, Calibration, expiry
from alula.real_robot.devices.servos import Arm, ServoGroup

MIDDLE = COUNTS_PER_TURN // 2
"""What servos say in the zero pose [count], so that as much as possible lies on either side."""
MOST_OFFSET = MIDDLE - 1
"""Greatest homing offset that every servo can keep [count]."""
TREMBLE = 20
"""How far a hand may move a joint while its zero is set [count]: our choice, 1.8 degrees."""


@dataclass
class Ranges:
    """Where the servos are, and where they have been; counts by servo number."""

    zero: dict[int, int] = field(default_factory=dict)
    present: dict[int, int] = field(default_factory=dict)
    low: dict[int, int] = field(default_factory=dict)
    high: dict[int, int] = field(default_factory=dict)


class Calibrator:
    """What a calibration does to an arm; whoever uses it talks to the person who moves it.

    The order is `connect` → `release` → `center` → `look`, many times → `result` → `close`.

    Args:
        arm: What must be there.
        port: Path of the serial adapter.
    """

    def __init__(self, arm: Arm, port: str) -> None:
        self.arm, self.ranges = arm, Ranges()
        self._servos = ServoGroup(arm, port)
        self._homing: dict[int, int] = {}

    def connect(self) -> None:
        """Open the port and check that the servos are there; nothing changes.

        Raises:
            DeviceError: they are not.
        """
        self._servos.open()

    def release(self) -> None:
        """Take the torque away, and store what the driver expects of the servos.

        Raises:
            DeviceError: a servo does not confirm it.
        """
        torque = self.arm.family.torque
        if not self._servos.set(torque, {servo.number: 0 for servo in self.arm.joints}):
            self._servos.require(
                torque, dict.fromkeys(self.arm.numbers, 0), "they do not let go; take their power away"
            )
        for register, values in self.arm.settings.items():
            self._servos.set_each(register, dict(values))

    def center(self) -> None:
        """Make where it is now its zero.

        Raises:
            DeviceError: a servo is silent, or was moved meanwhile.
        """
        sign, register = self.arm.family.homing_sign, self.arm.family.homing_offset
        homing, present = self._servos.get(register), self._positions()
        angle = {number: (present[number] - sign * homing[number]) % COUNTS_PER_TURN for number in self.arm.numbers}
        shift = {number: int(np.clip(MIDDLE - raw, -MOST_OFFSET, MOST_OFFSET)) for number, raw in angle.items()}
        self._homing = {number: sign * value for number, value in shift.items()}
        zero = {number: raw + shift[number] for number, raw in angle.items()}
        self._servos.set_each(register, self._homing)
        present = self._positions()
        away = {number: present[number] - zero[number] for number in zero}
        if any(abs(value) > TREMBLE for value in away.values()):
            raise DeviceError(
                f"the servos of the {self.arm.name} are {away} counts from the zero that has just been set, allowed "
                f"are {TREMBLE}: hold the arm still; if it was, take its power away for a moment and begin anew"
            )
        self.ranges = Ranges(zero, present, dict(zero), dict(zero))

    def look(self) -> Ranges:
        """Where it is now, and has been since its zero was set.

        Raises:
            DeviceError: a servo is silent, or has passed the end of its encoder.
        """
        ranges, present = self.ranges, self._positions()
        for servo in self.arm.servos:
            number = servo.number
            if abs(present[number] - ranges.present[number]) > MIDDLE:
                raise DeviceError(
                    f"{servo.name} has passed the end of its encoder: it can turn by half a round from its zero pose. "
                    "Begin anew, with the zero pose in the middle of its range"
                )
            ranges.low[number] = min(ranges.low[number], present[number])
            ranges.high[number] = max(ranges.high[number], present[number])
        ranges.present = present
        return ranges

    def _positions(self) -> dict[int, int]:
        found = self._servos.get(self.arm.family.position)
        silent = [servo.name for servo in self.arm.servos if servo.number not in found]
        if silent:
            lost = self._servos.bus.lost
            raise DeviceError(f"no answer from {', '.join(silent)}: {lost or 'check the cables'}")
        return found

    def result(self, today: date) -> Calibration:
        """What has been found.

        Args:
            today: When it was.

        Raises:
            DeviceError: a range is impossible.
        """
        counts = (self.ranges.zero, self.ranges.low, self.ranges.high, self._homing)
        zero, low, high, homing = (tuple(column[number] for number in self.arm.numbers) for column in counts)
        names = tuple(servo.name for servo in self.arm.servos)
        found = Calibration(self.arm.name, names, zero, low, high, homing, expiry(today))
        found.require_possible()
        return found

    def close(self) -> None:
        """Let go of the port; the motors stay without power."""
        self._servos.bus.close()

"""Steering with a gamepad or joystick, read from Linux itself.

Source:
    Documentation/input/joydev/joystick-api.rst of the Linux kernel: events of 8 bytes, `u32 time [ms], s16 value,
    u8 type, u8 number`.
"""

import os
import struct
from collections.abc import Sequence

import numpy as np

from alula.core.errors import DeviceError
from alula.real_robot.teleoperation.operator import Operation

EVENT = struct.Struct("<IhBB")
BUTTON, AXIS, INITIAL = 0x01, 0x02, 0x80
FULL = 32767
DEAD_ZONE = 0.1
"""Deflection below which a stick is at rest: our choice."""
PATIENCE_S = 2.0
"""A pad that says nothing for so long counts as let go of [s]: our choice.

A pad whose radio link breaks is silent, and its last deflection would go on for ever; a hand is never so steady.
"""
AXES = (0, 1, 3, 4, 6, 7)
"""Left stick, right stick, cross; 2 and 5 are the triggers of most pads, which rest at their lowest."""
HELD, STOP, RELEASE = 5, 1, 7
"""Buttons of most pads: right shoulder, B (circle), start."""


class Gamepad:
    """Axes of a gamepad. The dead man's switch is the right shoulder button; B stops, start hands back.

    Args:
        elements: Number of elements of the action.
        path: Of the device.
        axes: For each element the number of the axis that moves it; those left over do not move.
        held: Number of the dead man's button.
        stop: Number of the button that stops everything.
        release: Number of the button that hands back.
    """

    def __init__(
        self,
        elements: int,
        path: str = "/dev/input/js0",
        axes: Sequence[int] = AXES,
        held: int = HELD,
        stop: int = STOP,
        release: int = RELEASE,
    ) -> None:
        self._elements, self._path, self._axes = elements, path, tuple(axes)[:elements]
        self._held, self._stop, self._release = held, stop, release
        self._fd: int | None = None

    def open(self) -> None:
        """Open the device; buttons that are down already do not count until they are pressed again."""
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise DeviceError(
                f"gamepad {self._path}: {error.strerror}; plug it in, see ls /dev/input/js*, and may you read it? "
                "(sudo usermod -aG input $USER)"
            ) from None
        self._data, self._deflection, self._down = b"", dict[int, float](), set[int]()
        self._event_ns, self._stopped, self._lost = 0, False, False

    def read(self, now_ns: int) -> Operation | None:
        """Where sticks and buttons are."""
        released = False
        for value, kind, number in self._events():
            self._event_ns = now_ns
            match kind & ~INITIAL:
                case k if k == AXIS:
                    self._deflection[number] = beyond_dead_zone(value / FULL)
                case k if k == BUTTON and not kind & INITIAL:
                    (self._down.add if value else self._down.discard)(number)
                    released |= number == self._release and bool(value)
                    self._stopped |= number == self._stop and bool(value)
        if self._lost:
            return None
        motion = np.zeros(self._elements)
        motion[: len(self._axes)] = [self._deflection.get(axis, 0.0) for axis in self._axes]
        held = self._held in self._down and now_ns - self._event_ns <= PATIENCE_S * 1e9
        return Operation(motion, held, now_ns, released, self._stopped)

    def _events(self) -> list[tuple[int, int, int]]:
        """Value, type and number of all events that have come."""
        assert self._fd is not None
        try:
            while not self._lost:
                more = os.read(self._fd, 64 * EVENT.size)
                self._data, self._lost = self._data + more, not more
        except BlockingIOError:
            pass
        except OSError:  # unplugged
            self._lost = True
        whole = len(self._data) // EVENT.size * EVENT.size
        found = [(value, kind, number) for _, value, kind, number in EVENT.iter_unpack(self._data[:whole])]
        self._data = self._data[whole:]
        return found

    def close(self) -> None:
        """Let go of it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def beyond_dead_zone(deflection: float) -> float:
    """From 0 at the edge of the dead zone to 1 at the end, without a jump."""
    beyond = max(abs(deflection) - DEAD_ZONE, 0.0) / (1 - DEAD_ZONE)
    return float(np.copysign(min(beyond, 1.0), deflection))

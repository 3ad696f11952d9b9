"""Steering from a terminal, also one at the other end of an ssh connection."""

import os
import re
import select
import sys
import termios
import tty
from collections.abc import Sequence
from typing import Any

import numpy as np

from alula.core.errors import DeviceError
from alula.real_robot.teleoperation.operator import Operation

KEYS = ("qa", "ws", "ed", "rf", "tg", "yh", "uj", "ik")
"""For every element, the key that increases it and the one that decreases it: columns of the keyboard."""
STOP, RELEASE = " ", "\n"
ESCAPE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|O?.)?", re.DOTALL)
"""What arrows and function keys send, letters among it (ECMA-48, section 5.4): none of it is a key of ours."""
HOLD_S = 0.3
"""A terminal does not tell when a key is let go of: it counts as held for so long after it was last heard [s]."""
SLOWLY = 0.2
"""Speed with the shift key, as a share of the speed without: our choice."""


class Keyboard:
    """Keys of a terminal. The dead man's switch is any of the keys that move; space stops, enter hands back.

    Args:
        elements: Number of elements of the action.
        keys: For each, the key that increases it and the one that decreases it.
        terminal: File descriptor.
    """

    def __init__(self, elements: int, keys: Sequence[str] = KEYS, terminal: int | None = None) -> None:
        if elements > len(keys):
            raise DeviceError(f"there are keys for {len(keys)} elements, but {elements} to move; give more keys")
        self._elements, self._terminal = elements, terminal
        self._meaning = {
            key: (element, direction)
            for element, pair in enumerate(keys[:elements])
            for key, direction in zip(pair, (1.0, -1.0), strict=True)
        }
        self._before: Any = None

    def open(self) -> None:
        """Let the terminal tell every key at once, without showing it."""
        self._fd = sys.stdin.fileno() if self._terminal is None else self._terminal
        if not os.isatty(self._fd):
            raise DeviceError("standard input is no terminal; start this by hand, or with ssh -t")
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)
        self._pressed_ns = np.full(self._elements, -(10**18))
        self._share, self._stop, self._lost = np.zeros(self._elements), False, False

    def read(self, now_ns: int) -> Operation | None:
        """Keys that have been pressed since."""
        release = False
        for key in self._typed():
            if key.lower() in self._meaning:
                element, direction = self._meaning[key.lower()]
                self._pressed_ns[element] = now_ns
                self._share[element] = direction * (SLOWLY if key.isupper() else 1.0)
            self._stop |= key == STOP
            release |= key == RELEASE
        if self._lost:
            return None
        held = now_ns - self._pressed_ns <= HOLD_S * 1e9
        return Operation(np.where(held, self._share, 0.0), bool(held.any()), now_ns, release, self._stop)

    def _typed(self) -> str:
        try:
            data = b""
            while not self._lost and select.select([self._fd], [], [], 0)[0]:
                more = os.read(self._fd, 1024)
                data, self._lost = data + more, not more
        except OSError:  # the connection, and with it the terminal, is gone
            self._lost = True
        return ESCAPE.sub("", data.decode("ascii", "ignore")).replace("\r", "\n")

    def close(self) -> None:
        """Give the terminal back as it was."""
        if self._before is not None and not self._lost:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
        self._before = None

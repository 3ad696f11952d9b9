"""Staying where one is."""

import numpy as np

from alula.real_robot.contract import Intent, State


class Hold:
    """Wishes to stay where the device was when it was first asked."""

    def __init__(self) -> None:
        self._position: np.ndarray | None = None

    def at(self, now_ns: int, state: State) -> Intent:
        """The same, for ever."""
        if self._position is None:
            self._position = state.position.copy()
        return Intent(self._position, now_ns, "hold")

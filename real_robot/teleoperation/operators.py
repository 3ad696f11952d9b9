"""Who can steer, by name."""

from collections.abc import Callable

from alula.real_robot.teleoperation.gamepad import Gamepad
from alula.real_robot.teleoperation.keyboard import Keyboard
from alula.real_robot.teleoperation.operator import Operator

OPERATORS: dict[str, Callable[[int], Operator]] = {"keyboard": Keyboard, "gamepad": Gamepad}
"""Operators, made for so many elements."""

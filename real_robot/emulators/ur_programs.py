"""The two programs that an emulated UR runs, each by what it does: nothing here interprets URScript.

`ServoProgram` is the small one of this package's driver, whose constants are read from its text; `CommandProgram` is
the one of the public client `ur_rtde`, of which a few commands are known.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from numpy import ndarray

from alula.real_robot.emulators.judge import Judge
from alula.real_robot.emulators.ur_motion import TICK_S, Joints, Motion

LOOKAHEADS, GAINS = (0.03, 0.2), (100.0, 2000.0)
"""What servoj takes: lookahead time [s] and gain (URScript manual)."""
HALT = 10.0
"""Deceleration of an arm that nobody moves [rad/s^2]: our choice."""


@runtime_checkable
class Machine(Protocol):
    """What a program may touch of the robot."""

    motion: Motion
    judge: Judge
    outputs: dict[str, float]
    """Output registers."""

    def input(self, name: str) -> float:
        """An input register; 0 if never written."""
        ...

    def watch(self, variable: str, rate: float) -> None:
        """Stop the program when this input is not written so many times a second [Hz]; 0: no longer."""
        ...

    def say(self, message: str) -> None:
        """Tell whoever listens."""
        ...


class Program(ABC):
    """A running program."""

    @abstractmethod
    def receive(self, machine: Machine, values: Mapping[str, float]) -> Joints | None:
        """Inputs have been written; returns the joints that this commands, if it does [rad]."""

    @abstractmethod
    def tick(self, machine: Machine) -> bool:
        """A control period; whether the program goes on."""


def find_program(text: str, judge: Judge) -> Program | None:
    """The program that this text is; None if it is neither."""
    if "def alula_servo()" in text:
        return ServoProgram(text, judge)
    if "def rtde_control()" in text:
        return CommandProgram(text)
    return None


class ServoProgram(Program):
    """Waits for a first command, then follows the joints in its registers until its session ends.

    Args:
        text: URScript.
        judge: Told of constants that servoj does not take.
    """

    def __init__(self, text: str, judge: Judge) -> None:
        def constant(pattern: str) -> float:
            found = re.search(pattern, text)
            assert found is not None, f"the program has no {pattern}"
            return float(found[1])

        number = r"([0-9.]+)"
        self.session = int(constant(rf"session = {number}"))
        self.patience = constant(rf"patience = {number}")
        self.leap = constant(rf"leap = {number}")
        self.rate = constant(rf'rtde_set_watchdog\("input_int_register_24", {number}, "stop"\)')
        self.lookahead, self.gain = constant(rf"lookahead_time={number}"), constant(rf"gain={number}")
        self.deceleration = constant(rf"stopj\({number}\)")
        self._last: Joints | None = None
        self._ready = False
        allowed = {"lookahead": LOOKAHEADS, "gain": GAINS}
        wrong = [
            f"servoj has a {name} of {getattr(self, name)}; allowed is {low} to {high}"
            for name, (low, high) in allowed.items()
            if not low <= getattr(self, name) <= high
        ]
        judge.note("program", wrong, lookahead=self.lookahead, gain=self.gain, watchdog=self.rate)

    def _target(self, machine: Machine) -> Joints:
        return np.array([machine.input(f"input_double_register_{24 + joint}") for joint in range(6)])

    def receive(self, machine: Machine, values: Mapping[str, float]) -> Joints | None:
        """See `Program.receive`."""
        mine = machine.input("input_int_register_25") == self.session
        return self._target(machine) if mine and values.get("input_int_register_24", 0) > 0 else None

    def tick(self, machine: Machine) -> bool:
        """See `Program.tick`."""
        count, mine = machine.input("input_int_register_24"), machine.input("input_int_register_25") == self.session
        if self._last is None:
            return self._wait(machine, count, mine)
        if not mine:
            machine.watch("input_int_register_24", 0.0)
            resting = machine.motion.stop(self.deceleration)
            return not resting
        target = self._target(machine)
        if not (np.abs(target - self._last) < self.leap).all():
            machine.say("alula: target is too far from the one before")
            return False
        machine.motion.servo(target, self.lookahead, self.gain)
        machine.outputs["output_int_register_24"] = int(count)
        self._last = target
        return True

    def _wait(self, machine: Machine, count: float, mine: bool) -> bool:
        machine.motion.stop(self.deceleration)
        if mine and count > 0:
            self._last = machine.motion.position.copy()
            machine.watch("input_int_register_24", self.rate)
        elif mine:
            machine.outputs |= {"output_int_register_24": 0, "output_int_register_25": self.session}
            self._ready = True
        self.patience -= TICK_S
        return self.patience > 0 and (mine or not self._ready)


class CommandProgram(Program):
    """ur_rtde's: a command's number in one register, arguments in the others, and an answer when it is done.

    Args:
        text: URScript.
    """

    READY, DONE = 1, 2
    MOVE, SPEED, SERVO, SPEED_STOP, SERVO_STOP, STOP_L, STOP_J, WATCHDOG, END = 1, 9, 11, 15, 16, 33, 34, 35, 255
    AT_ONCE = (SPEED, SERVO)
    """Commands that are not waited for."""
    STOPS = (SPEED_STOP, SERVO_STOP, STOP_L, STOP_J)

    def __init__(self, text: str) -> None:
        offsets = [re.search(rf"global reg_offset_{kind} = (\d+)", text) for kind in ("int", "float")]
        self._int, self._float = (int(found[1]) if found else 0 for found in offsets)
        self._motion, self._arguments = 0, np.zeros(11)
        """The command by which the arm moves, with its numbers."""
        self._pending, self._done = 0, False
        """The command that waits for an answer, and whether it has one."""

    def _numbers(self, machine: Machine) -> ndarray:
        return np.array([machine.input(f"input_double_register_{self._float + index}") for index in range(11)])

    def receive(self, machine: Machine, values: Mapping[str, float]) -> Joints | None:
        """See `Program.receive`."""
        servo = values.get(f"input_int_register_{self._int}") == self.SERVO
        return self._numbers(machine)[:6] if servo else None

    def tick(self, machine: Machine) -> bool:
        """See `Program.tick`."""
        command = int(machine.input(f"input_int_register_{self._int}"))
        ready = command == 0 or command in self.AT_ONCE
        if ready:
            self._pending, self._done = 0, False
        if command in self.AT_ONCE:
            self._motion, self._arguments = command, self._numbers(machine)
        elif command not in (0, self._pending):
            self._pending, self._done = command, self._begin(machine, command)
        if not np.isfinite(self._arguments).all():
            machine.say("a number is not finite")
            return False
        if self._advance(machine.motion):
            self._motion, self._done = 0, self._pending != 0
        machine.outputs[f"output_int_register_{self._int}"] = self.READY if ready else self.DONE if self._done else 0
        return command != self.END

    def _begin(self, machine: Machine, command: int) -> bool:
        """Begin what is answered when it is over; whether it is over already."""
        if command == self.MOVE or command in self.STOPS:
            self._motion, self._arguments = command, self._numbers(machine)
            return False
        if command == self.WATCHDOG:
            machine.watch(f"input_int_register_{self._int}", self._numbers(machine)[0])
        return True

    def _advance(self, motion: Motion) -> bool:
        """A period of the motion; whether it has ended."""
        numbers = self._arguments
        match self._motion:
            case self.SERVO:
                motion.servo(numbers[:6], numbers[9], numbers[10])
            case self.SPEED:
                motion.speed(numbers[:6], numbers[6])
            case self.MOVE:
                return motion.move(numbers[:6], numbers[6], numbers[7])
            case 0:
                motion.stop(HALT)
            case _:
                return motion.stop(numbers[0])
        return False

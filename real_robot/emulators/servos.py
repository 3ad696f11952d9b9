"""What emulated servos have in common, whatever they speak: memory, requests, replies, and what can go wrong.

Nothing of the drivers is used here: this is a second reading of the protocols, so that a mistake in one shows against
the other.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

FAULTS = {
    "silent": "a servo hears but says nothing; those that are asked after it wait for it",
    "drop": "an answer is lost",
    "corrupt": "a bit of an answer is flipped",
    "noise": "random bytes before an answer",
    "late": "an answer comes `value` ms late",
    "echo": "the adapter has another baud rate: nobody understands, and random bytes come back",
    "duplicate": "two servos have the same number and answer at once",
    "unplugged": "the port vanishes",
    "model": "a servo is of another model",
    "overload": "a servo complains of overload",
    "overheat": "a servo complains of its temperature",
    "voltage": "a servo complains of its voltage",
    "frozen": "a servo repeats its first answer, whatever it does",
    "encoder_jump": "a servo's position is off by `value` rad (without one: half a turn), and it moves accordingly",
    "stuck": "a joint does not move",
    "torque_loss": "a servo restarts, as when its supply sags: its torque is off, and nothing but its memory says so",
    "stripped": "a servo's gears are stripped: it has no torque, and does not know",
}


@dataclass
class Request:
    """What a frame asks of the servos."""

    kind: Literal["ping", "read", "write"]
    servos: Sequence[int]
    answered: bool = True
    address: int = 0
    size: int = 0
    data: Mapping[int, bytes] = field(default_factory=dict)
    """What to write, by servo."""
    length: int = 0
    """Of the frame [byte]."""


class Servo(ABC):
    """Memory of one servo.

    Args:
        number: Its own.
        element: Of the action, that it moves.
        zero: Position at 0 rad with its homing offset [count].
        size: Of the memory [byte].
    """

    TORQUE: int
    GOAL: int
    """Addresses."""
    IDENTITY: Mapping[str, int]
    """Addresses of what the servo is, by the fault that makes it something else."""

    def __init__(self, number: int, element: int, zero: int, size: int) -> None:
        self.number, self.element, self.zero = number, element, zero
        self.memory = bytearray(size)
        self.frozen: bytes | None = None

    @property
    def powered(self) -> bool:
        """Whether torque is on."""
        return self.memory[self.TORQUE] == 1

    @property
    @abstractmethod
    def goal(self) -> int:
        """[count]."""

    @property
    def stopped(self) -> bool:
        """Whether it has stopped by itself."""
        return False

    @property
    def pulls(self) -> bool:
        """Whether it moves to its goal."""
        return self.powered and not self.stopped

    @property
    @abstractmethod
    def shift(self) -> int:
        """What its homing offset adds to where it is [count]."""

    @abstractmethod
    def measure(self, counts: int, speed: float, load: float) -> None:
        """Put these into the memory: position, velocity [rad/s], share of the greatest load."""

    @property
    @abstractmethod
    def delay_ns(self) -> int:
        """Pause before it replies."""

    def restart(self) -> None:
        """Forget what does not survive the power, as far as it matters here."""
        self.memory[self.TORQUE] = 0

    def watch(self, silent_ns: float) -> None:  # noqa: B027 - most have none
        """Look at its watchdog, when nobody has said anything for so long."""

    def store(self, address: int, data: bytes) -> None:
        """Write a piece; another homing offset moves the zero."""
        before = self.shift
        self.memory[address : address + len(data)] = data
        self.zero += self.shift - before

    def obeys(self, number: int) -> bool:
        """Whether it does what is written to this number."""
        return number == self.number


class Language(ABC):
    """What the servos speak."""

    BYTE_NS = 10_000
    """Time of a byte on the wire: ten bits at a million per second."""

    @abstractmethod
    def feed(self, data: bytes) -> Iterator[Request]:
        """What is asked by the frames that are complete."""

    @abstractmethod
    def reply(self, servo: Servo, alerts: set[str], data: bytes) -> bytes:
        """A servo's answer; alerts are those of `FAULTS`."""

    @abstractmethod
    def pong(self, memory: bytes) -> bytes:
        """Data in the answer to a ping of a servo with this memory."""


def prepare(
    folder: Path,
    device: str,
    robot: str,
    names: Sequence[str],
    leaders: Mapping[int, int],
    gripper: tuple[float, float],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Setup of a bus with servos 1, 2, ..., and the change of the settings that names their calibration.

    Args:
        folder: Gets the calibration.
        device: Name of the arm in the table of devices.
        robot: Simulated arm.
        names: Of the servos.
        leaders: For servos that share a joint: number of the other one.
        gripper: See the module.
    """
    joints = [number for number, _ in enumerate(names, start=1) if number not in leaders]
    servos = {
        number: {
            "element": joints.index(leaders.get(number, number)),
            "zero": 2048,
            "homing_offset": -7 * number,
        }
        for number, _ in enumerate(names, start=1)
    }
    rows = {
        name: {"zero": 2048, "low": 1, "high": 4095, "homing_offset": servo["homing_offset"]}
        for name, servo in zip(names, servos.values(), strict=True)
    }
    path = folder / "calibration.json"
    content = {"version": 1, "device": device, "expires": "9999-12-31", "servos": rows}
    path.write_text(json.dumps(content), encoding="utf-8")
    scene = {"task": "reach", "settings": {"robot": robot}}
    return {"servos": servos, "gripper": gripper, "default_scene": scene}, {"calibration": str(path)}

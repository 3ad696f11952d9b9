"""Arms made of bus servos, as data, and the memory of their servos."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from alula.core.errors import DeviceError
from alula.real_robot.codecs.servo import Register, Reply, ServoCodec
from alula.real_robot.contract import Grip, Limits
from alula.real_robot.serial_bus import SerialBus

SETUP_S = 0.2
"""Time for an answer while nothing moves yet."""
ATTEMPTS = 3
"""Times that a servo is asked whether it is there, and that memory is written until every servo confirms it."""


@dataclass(frozen=True)
class Servo:
    """One servo of an arm."""

    name: str
    number: int
    model: int
    """What its register says."""
    load: float
    """Share of its greatest load per count of its register."""
    leader: int | None = None
    """Number of the servo that it shares a joint with, and whose orders it takes; None: it has a joint of its own."""


@dataclass(frozen=True)
class Family:
    """What servos speak, and where things are in their memory."""

    codec: ServoCodec
    baud: int
    model: Register
    homing_offset: Register
    homing_sign: int
    """Of the offset where the servo adds it to what it measures."""
    torque: Register
    goal: Register
    position: Register
    velocity: Register
    load: Register
    velocity_unit: float
    """Of a count [rad/s]."""
    unlock: Mapping[Register, int] = field(default_factory=dict)
    """What to write before, and `lock` after what survives the power."""
    lock: Mapping[Register, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Arm:
    """An arm before anything is known about a particular one."""

    name: str
    """In the table of devices."""
    description: str
    """Of its servos."""
    servos: tuple[Servo, ...]
    family: Family
    limits: Limits
    """Of its joints, the servos without a leader; calibrations narrow them."""
    grip: Grip
    """Its last joint."""
    zero_pose: str
    """Where all joints are at 0 rad, in words."""
    rate: float
    settings: Mapping[Register, Mapping[int, int]]
    """What servos keep without power, by number; `alula calibrate` writes it."""
    preparation: Mapping[Register, Mapping[int, int]]
    """What is written before the motors get power, by number, since servos forget it."""
    device_watchdog: float | None
    """See `DeviceSpec`."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """Of all servos."""
        return tuple(servo.number for servo in self.servos)

    @property
    def joints(self) -> tuple[Servo, ...]:
        """Servos with a joint of their own."""
        return tuple(servo for servo in self.servos if servo.leader is None)


class ServoGroup:
    """The servos of an arm at a port.

    Args:
        arm: What must be there.
        port: Path of the serial adapter.
    """

    def __init__(self, arm: Arm, port: str) -> None:
        self.arm, self.bus = arm, SerialBus(port, arm.family.baud, arm.family.codec)

    def open(self) -> None:
        """Take the port, and check that the servos are there.

        Raises:
            DeviceError: the port cannot be had, a servo is silent, or is of another model.
        """
        self.bus.open()
        try:
            self._require_models()
        except DeviceError:
            self.bus.close()
            raise

    def _require_models(self) -> None:
        arm = self.arm
        silent = self._silent(arm.numbers)
        if len(silent) < len(arm.numbers):  # an answer may get lost; at a wrong port nobody answers
            for _ in range(ATTEMPTS - 1):
                silent = self._silent(silent)
        if silent:
            raise DeviceError(
                f"servos {silent} on {self.bus.port} do not answer at {self.bus.baud} baud; {arm.name} has "
                f"{arm.description}: check the power supply, the cables, and the numbers of the servos"
            )
        expected = {servo.number: servo.model for servo in arm.servos}
        self.require(arm.family.model, expected, f"this is no {arm.name}")

    def _silent(self, numbers: Sequence[int]) -> list[int]:
        """Who of these servos does not answer."""
        return [number for number in numbers if self.bus.ping(number, soon(SETUP_S)) is None]

    def require(self, register: Register, expected: Mapping[int, int], remedy: str) -> None:
        """Check a register.

        Raises:
            DeviceError: it holds something else.
        """
        found = self.get(register)
        wrong = {number: found.get(number) for number, value in expected.items() if found.get(number) != value}
        if wrong:
            raise DeviceError(
                f"{register.name.lower()} of the servos on {self.bus.port} is {wrong}, must be "
                f"{ {number: expected[number] for number in wrong} }: {remedy}"
            )

    def get(self, register: Register) -> dict[int, int]:
        """A register of all servos that answer."""
        replies = self.read(register.address, register.size, SETUP_S)
        return {servo: register.decode(reply.data) for servo, reply in replies.items()}

    def read(self, address: int, size: int, patience: float) -> dict[int, Reply]:
        """A piece of the memory of the servos that answer within `patience` [s]."""
        return self.bus.read(self.arm.numbers, address, size, soon(patience))

    def write(self, register: Register, data: Mapping[int, int]) -> bool:
        """Change a register of some servos; whether the port took it."""
        return self.bus.write(register.address, {servo: register.encode(value) for servo, value in data.items()})

    def set(self, register: Register, data: Mapping[int, int]) -> bool:
        """Change a register until all these servos, and those that follow them, confirm it; whether they did."""
        expected = {
            servo.number: data[leader]
            for servo in self.arm.servos
            if (leader := servo.number if servo.leader is None else servo.leader) in data
        }
        for _ in range(ATTEMPTS):
            self.write(register, data)
            found = self.get(register)
            if all(found.get(servo) == value for servo, value in expected.items()):
                return True
        return False

    def set_each(self, register: Register, data: Mapping[int, int]) -> None:
        """Change a register that survives the power, of every servo by itself.

        Raises:
            DeviceError: a servo does not confirm it.
        """
        family, leaders = self.arm.family, {servo.number for servo in self.arm.joints}
        for _ in range(ATTEMPTS):
            for key, value in family.unlock.items():
                self.write(key, dict.fromkeys(data, value))
            # Followers take their leaders' orders, too: their own come last.
            for group in (leaders & data.keys(), data.keys() - leaders):
                if group:
                    self.write(register, {number: data[number] for number in group})
            for key, value in family.lock.items():
                self.write(key, dict.fromkeys(data, value))
            if data.items() <= self.get(register).items():
                return
        self.require(register, data, "they do not take it; is the power supply strong enough?")


def soon(seconds: float) -> int:
    """Monotonic time so far from now [ns]."""
    return time.monotonic_ns() + round(seconds * 1e9)

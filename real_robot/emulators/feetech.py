"""STS3215 servos made of software, on a pseudo-terminal: `python -m alula.real_robot.emulators.feetech SETUP.json`.

See `servo_bus.py`. Of a servo the setup may say `model` and `homing_offset` [count], too.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alula.real_robot.emulators import servos
from alula.real_robot.emulators.console import read_setup
from alula.real_robot.emulators.servo_bus import COUNT, ServoBus, serve
from alula.real_robot.emulators.servos import Language, Request, Servo

FAULTS = servos.FAULTS
PING, READ, WRITE, SYNC_READ, SYNC_WRITE = 1, 2, 3, 0x82, 0x83
MEMORY = 86
MODEL, HOMING, GOAL, TORQUE_LIMIT, PRESENT = 3, 31, 42, 48, 56
ALERTS = {"voltage": 1, "overheat": 4, "overload": 32}
"""Bits of the servo's complaints."""
GRIPPER = (-0.13, 1.70)
"""Angles at which it is closed and open [rad]."""


class STS3215(Servo):
    """Memory of one servo."""

    TORQUE, GOAL, IDENTITY = 40, GOAL, {"model": MODEL}

    def __init__(
        self, number: int, element: int, zero: int = 2048, model: int = 777, homing_offset: int = 0, mode: int = 0
    ) -> None:
        super().__init__(number, element, zero, MEMORY)
        struct.pack_into("<H", self.memory, MODEL, model)
        self.memory[5], self.memory[33], self.memory[55] = number, mode, 1
        self.memory[7] = 250  # half a millisecond, as it comes from the factory
        struct.pack_into("<H", self.memory, HOMING, abs(homing_offset) | (0x800 if homing_offset < 0 else 0))
        struct.pack_into("<H", self.memory, TORQUE_LIMIT, 1000)

    @property
    def goal(self) -> int:
        """See `Servo.goal`."""
        return int(struct.unpack_from("<H", self.memory, GOAL)[0])

    @property
    def shift(self) -> int:
        """See `Servo.shift`: the offset is subtracted."""
        word = int(struct.unpack_from("<H", self.memory, HOMING)[0])
        return word & 0x7FF if word & 0x800 else -word

    @property
    def delay_ns(self) -> int:
        """See `Servo.delay_ns`."""
        return 2_000 * self.memory[7]

    def store(self, address: int, data: bytes) -> None:
        """Write a piece; what survives the power only where it is unlocked."""
        if address >= 40 or self.memory[55] == 0:
            super().store(address, data)

    def measure(self, counts: int, speed: float, load: float) -> None:
        """See `Servo.measure`."""
        signed = [_signed(round(speed / COUNT), 15), _signed(round(1000 * load), 10)]
        struct.pack_into("<HHHBB", self.memory, PRESENT, counts % 4096, *signed, 120, 30)


def _signed(value: int, bit: int) -> int:
    """A magnitude behind a sign bit."""
    return min(abs(value), (1 << bit) - 1) | (1 << bit if value < 0 else 0)


class STS(Language):
    """Feetech's frames; the stream is taken apart byte by byte, and what has a wrong checksum is dropped."""

    def __init__(self) -> None:
        self._frame = bytearray()

    def feed(self, data: bytes) -> Iterator[Request]:
        """See `Language.feed`."""
        for byte in data:
            frame = self._frame
            frame.append(byte)
            if (len(frame) <= 2 and byte != 0xFF) or (len(frame) == 3 and byte == 0xFF):
                frame.clear()
            elif len(frame) > 4 and len(frame) == frame[3] + 4:
                if (sum(frame[2:]) & 0xFF) == 0xFF:
                    yield from self._request(frame[2], frame[4], bytes(frame[5:-1]))
                frame.clear()

    def _request(self, number: int, instruction: int, parameters: bytes) -> Iterator[Request]:
        length = len(parameters) + 6
        if instruction == PING:
            yield Request("ping", [number], length=length)
        elif instruction in (READ, SYNC_READ):
            address, size, *servos = parameters
            servos = servos if instruction == SYNC_READ else [number]
            yield Request("read", servos, address=address, size=size, length=length)
        elif instruction == WRITE:
            yield Request("write", [number], address=parameters[0], data={number: parameters[1:]}, length=length)
        elif instruction == SYNC_WRITE:
            address, size = parameters[:2]
            pieces = [parameters[at : at + size + 1] for at in range(2, len(parameters), size + 1)]
            pairs = {piece[0]: piece[1:] for piece in pieces}
            yield Request("write", list(pairs), answered=False, address=address, data=pairs, length=length)

    def reply(self, servo: Servo, alerts: set[str], data: bytes) -> bytes:
        """See `Language.reply`."""
        body = bytes((servo.number, len(data) + 2, sum(ALERTS[kind] for kind in alerts))) + data
        return b"\xff\xff" + body + bytes((0xFF - (sum(body) & 0xFF),))

    def pong(self, memory: bytes) -> bytes:
        """See `Language.pong`."""
        return b""


def prepare(config: Any, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """See `emulation.py`: an SO-101 and its calibration."""
    names = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
    return servos.prepare(folder, "so101", "so101", names, {}, GRIPPER)


def main() -> None:
    """Serve a bus."""
    setup = read_setup()
    parts = [STS3215(int(number), **values) for number, values in setup["servos"].items()]
    serve(ServoBus(setup, STS(), parts, FAULTS))


if __name__ == "__main__":
    main()

"""Dynamixel X servos made of software: `python -m alula.real_robot.emulators.dynamixel SETUP.json`.

See `servo_bus.py`. Of a servo the setup may say `model`, `firmware`, `mode`, `drive`, `secondary`, `return_delay`
[2 us] and `homing_offset` [count], too. A ViperX moves the simulated ViperX, a Koch the simulated SO-101, which is of
the same build and size.
"""

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alula.real_robot.devices.config import KochLeaderConfig, ViperXConfig
from alula.real_robot.emulators import servos
from alula.real_robot.emulators.console import read_setup
from alula.real_robot.emulators.servo_bus import ServoBus, serve
from alula.real_robot.emulators.servos import Language, Request, Servo

FAULTS = servos.FAULTS | {
    "firmware": "a servo's firmware is too old for a watchdog",
    "watchdog": "a servo's watchdog trips, as if the bus had been silent: it stops and takes no goals",
    "overload": "a servo complains of overload and takes its torque away",
    "overheat": "a servo complains of its temperature and takes its torque away",
    "voltage": "a servo complains of its voltage and takes its torque away",
}
PING, READ, WRITE, STATUS, SYNC_READ, SYNC_WRITE = 1, 2, 3, 0x55, 0x82, 0x83
MEMORY = 147
MODEL, FIRMWARE, DELAY, DRIVE, MODE, SECONDARY, HOMING = 0, 6, 9, 10, 11, 12, 20
TORQUE, ERRORS, WATCHDOG, GOAL, TICK, PRESENT = 64, 70, 98, 116, 120, 126
KEPT, GOALS = range(64), range(100, 120)
"""Addresses of what survives the power, and of what cannot be written once the watchdog has tripped."""
TRIPPED = 0xFF
ERROR_BITS = {"voltage": 1, "overheat": 4, "overload": 32}
RANGE_ERROR, ALERT = 4, 0x80
RPM = 0.229 * 2 * 3.141592653589793 / 60
"""A count of velocity [rad/s]."""


class XServo(Servo):
    """Memory of one servo."""

    TORQUE, GOAL, IDENTITY = TORQUE, GOAL, {"model": MODEL, "firmware": FIRMWARE}

    def __init__(
        self,
        number: int,
        element: int,
        model: int,
        zero: int = 2048,
        homing_offset: int = 0,
        mode: int = 3,
        drive: int = 0,
        secondary: int = 255,
        firmware: int = 45,
        return_delay: int = 250,
    ) -> None:
        super().__init__(number, element, zero, MEMORY)
        struct.pack_into("<H", self.memory, MODEL, model)
        struct.pack_into("<i", self.memory, HOMING, homing_offset)
        for address, value in (
            (FIRMWARE, firmware),
            (7, number),
            (DELAY, return_delay),
            (DRIVE, drive),
            (MODE, mode),
            (SECONDARY, secondary),
        ):
            self.memory[address] = value
        self.refused = False
        """Whether the last write was out of range."""

    @property
    def goal(self) -> int:
        """See `Servo.goal`."""
        return int(struct.unpack_from("<i", self.memory, GOAL)[0])

    @property
    def stopped(self) -> bool:
        """See `Servo.stopped`."""
        return self.memory[WATCHDOG] == TRIPPED

    @property
    def shift(self) -> int:
        """See `Servo.shift`: the offset is added."""
        return int(struct.unpack_from("<i", self.memory, HOMING)[0])

    @property
    def delay_ns(self) -> int:
        """See `Servo.delay_ns`."""
        return 2_000 * self.memory[DELAY]

    def obeys(self, number: int) -> bool:
        """Its own number, and its second."""
        return number in (self.number, self.memory[SECONDARY])

    def store(self, address: int, data: bytes) -> None:
        """Write a piece, if that is possible now."""
        self.refused = (self.stopped and address in GOALS) or (self.powered and address in KEPT)
        if not self.refused:
            super().store(address, data)

    def watch(self, silent_ns: float) -> None:
        """Stop when nobody has said anything for too long."""
        steps = self.memory[WATCHDOG]
        if 0 < steps < 128 and silent_ns > steps * 20e6:
            self.memory[WATCHDOG] = TRIPPED

    def restart(self) -> None:
        """See `Servo.restart`."""
        super().restart()
        self.memory[WATCHDOG] = 0

    def fail(self, kind: str) -> None:
        """Complain, and take the torque away; until it is rebooted."""
        self.memory[ERRORS] |= ERROR_BITS[kind]
        self.memory[TORQUE] = 0

    def measure(self, counts: int, speed: float, load: float) -> None:
        """See `Servo.measure`."""
        struct.pack_into("<hii", self.memory, PRESENT, round(400 * load), round(speed / RPM), counts)
        struct.pack_into("<H", self.memory, TICK, time.monotonic_ns() // 1_000_000 % 0x8000)


class Protocol2(Language):
    """Robotis' frames: taken out of the stream by their headers; what has a wrong CRC is dropped."""

    def __init__(self) -> None:
        self._stream = bytearray()

    def feed(self, data: bytes) -> Iterator[Request]:
        """See `Language.feed`."""
        self._stream += data
        while (start := self._stream.find(b"\xff\xff\xfd\x00")) >= 0:
            del self._stream[:start]
            if len(self._stream) < 7:
                return
            end = 7 + int.from_bytes(self._stream[5:7], "little")
            if len(self._stream) < end:
                return
            packet = bytes(self._stream[:end])
            if cyclic(packet[:-2]) == int.from_bytes(packet[-2:], "little"):
                yield from self._request(packet[4], unstuffed(packet[7:-2]), end)
                del self._stream[:end]
            else:
                del self._stream[:4]

    def _request(self, number: int, content: bytes, length: int) -> Iterator[Request]:
        instruction, parameters = content[0], content[1:]
        address, size = int.from_bytes(parameters[:2], "little"), int.from_bytes(parameters[2:4], "little")
        if instruction == PING:
            yield Request("ping", [number], length=length)
        elif instruction in (READ, SYNC_READ):
            servos = list(parameters[4:]) if instruction == SYNC_READ else [number]
            yield Request("read", servos, address=address, size=size, length=length)
        elif instruction == WRITE:
            yield Request("write", [number], address=address, data={number: parameters[2:]}, length=length)
        elif instruction == SYNC_WRITE:
            pieces = [parameters[at : at + size + 1] for at in range(4, len(parameters), size + 1)]
            pairs = {piece[0]: piece[1:] for piece in pieces}
            yield Request("write", list(pairs), answered=False, address=address, data=pairs, length=length)

    def reply(self, servo: Servo, alerts: set[str], data: bytes) -> bytes:
        """See `Language.reply`."""
        assert isinstance(servo, XServo)
        for kind in alerts:
            servo.fail(kind)
        error = (ALERT if servo.memory[ERRORS] else 0) | (RANGE_ERROR if servo.refused else 0)
        servo.refused = False
        content = stuffed(bytes((STATUS, error)) + data)
        packet = b"\xff\xff\xfd\x00" + struct.pack("<BH", servo.number, len(content) + 2) + content
        return packet + struct.pack("<H", cyclic(packet))

    def pong(self, memory: bytes) -> bytes:
        """See `Language.pong`."""
        return memory[MODEL : MODEL + 2] + memory[FIRMWARE : FIRMWARE + 1]


def cyclic(packet: bytes) -> int:
    """CRC by long division, bit after bit."""
    value = 0
    for byte in packet:
        for bit in range(7, -1, -1):
            out = (value >> 15) ^ (byte >> bit & 1)
            value = (value << 1 & 0xFFFF) ^ (0x8005 if out else 0)
    return value


def stuffed(content: bytes) -> bytes:
    """With one more FD after every FF FF FD."""
    result = bytearray()
    for byte in content:
        result.append(byte)
        if result[-3:] == b"\xff\xff\xfd":
            result.append(0xFD)
    return bytes(result)


def unstuffed(content: bytes) -> bytes:
    """Without them."""
    result = bytearray()
    for index, byte in enumerate(content):
        if not (byte == 0xFD and content[max(index - 3, 0) : index] == b"\xff\xff\xfd"):
            result.append(byte)
    return bytes(result)


def prepare(config: Any, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """See `emulation.py`: the arm of these settings, and its calibration."""
    if isinstance(config, ViperXConfig):
        names = ["waist", "shoulder", "shoulder_shadow", "elbow", "elbow_shadow", "forearm_roll"]
        names += ["wrist_angle", "wrist_rotate", "gripper"]
        keys, changes = servos.prepare(folder, "viperx", "viperx", names, {3: 2, 5: 4}, (-0.60, 1.50))
        models = [1120] * 7 + [1020] * 2
        special: dict[int, dict[str, int]] = {
            2: {"drive": 1},
            3: {"secondary": 2},
            4: {"drive": 1},
            5: {"secondary": 4},
            7: {"drive": 1},
        }
    else:
        names = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
        leads = isinstance(config, KochLeaderConfig)
        device = "koch_leader" if leads else "koch"
        keys, changes = servos.prepare(folder, device, "so101", names, {}, (-0.13, 1.70))
        models = [1190] * 6 if leads else [1060] * 2 + [1200] * 4
        special = {}
    for (number, servo), model in zip(keys["servos"].items(), models, strict=True):
        mode = 5 if number == len(models) else 4
        servo |= {"model": model, "mode": mode, "return_delay": 0, **special.get(number, {})}
    return keys, changes


def main() -> None:
    """Serve a bus."""
    setup = read_setup()
    parts = [XServo(int(number), **values) for number, values in setup["servos"].items()]
    serve(ServoBus(setup, Protocol2(), parts, FAULTS))


if __name__ == "__main__":
    main()

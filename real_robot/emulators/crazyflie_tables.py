"""Log variables and parameters of an emulated Crazyflie, and the log blocks that it sends.

Packets are those of crazyflie-firmware 2026.08 (log.c, param_logic.c), read independently of our own driver.
"""

import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from alula.real_robot.emulators.crazyflie_firmware import PID, Firmware
from alula.real_robot.emulators.faults import FaultPlan

LOG_CODES = {1: "B", 2: "H", 3: "I", 4: "b", 5: "h", 6: "i", 7: "f", 8: "e"}
PARAMETER_CODES = {0x08: "B", 0x09: "H", 0x06: "f"}
LONGEST_LOG = 26
NOT_FOUND, TOO_BIG, EXISTS, INVALID = 2, 7, 17, 22
"""Error numbers."""
STAMPS = 1 << 24

Values = Mapping[str, tuple[int, float]]


def measure(firmware: Firmware, faults: FaultPlan, odd: bool) -> Values:
    """All log variables: type and value.

    Args:
        firmware: Whose.
        faults: What goes wrong.
        odd: Every other time, for quaternions that change their sign.
    """
    plant = firmware.plant
    position = np.full(3, np.nan) if faults.strikes("nan") else firmware.position
    quaternion, twist = plant.pose[3:], plant.twist
    if odd and faults.strikes("quaternion_sign"):
        quaternion = -quaternion
    if length := faults.find("quaternion_length"):
        quaternion = quaternion * length.value
    gyro = np.degrees(twist[3:])
    voltage = firmware.voltage
    level = int(np.clip(100 * (voltage - 3.0) / 1.2, 0, 100))
    return {
        "stabilizer.thrust": (7, 0.0),
        **{f"stateEstimate.{name}": (7, float(value)) for name, value in zip("xyz", position, strict=True)},
        **{f"stateEstimate.v{name}": (7, float(value)) for name, value in zip("xyz", twist[:3], strict=True)},
        **{f"stateEstimate.q{name}": (7, float(value)) for name, value in zip("wxyz", quaternion, strict=True)},
        "stateEstimate.yaw": (7, math.degrees(firmware.place[3])),
        **{f"gyro.{name}": (7, float(value)) for name, value in zip("xyz", gyro, strict=True)},
        "pm.vbat": (7, voltage),
        "pm.batteryLevel": (1, level),
        "sys.canfly": (1, firmware.info >> 3 & 1),
        "supervisor.info": (2, firmware.info),
    }


@dataclass
class Block:
    """Log variables that are sent together."""

    variables: list[tuple[int, str]] = field(default_factory=list)
    """As which type each is sent, and its name."""
    period_ms: int = 0
    """0: not sent."""
    due_ms: int = 0


class Log:
    """The table of log variables, and what is sent of them.

    Args:
        firmware: Whose.
        faults: What goes wrong.
        clock_ms: What the stamps begin with [ms].
    """

    def __init__(self, firmware: Firmware, faults: FaultPlan, clock_ms: int) -> None:
        self._firmware, self._faults = firmware, faults
        self._clock_ms, self._begin_ns = clock_ms, 0
        self._types = {name: kind for name, (kind, _) in measure(firmware, faults, odd=False).items()}
        self._blocks: dict[int, Block] = {}
        self._frozen: dict[int, bytes] = {}
        self._odd = False

    def table(self, data: bytes) -> bytes:
        """Answer about the table."""
        return answer_table(data, self._types, b"\x10\x80")

    def control(self, data: bytes) -> bytes:
        """Answer a command about blocks."""
        command, number = data[0], data[1] if len(data) > 1 else 0
        return bytes((command, number, self._do(command, number, data[2:])))

    def _do(self, command: int, number: int, rest: bytes) -> int:
        if command == 5:
            self._blocks.clear()
            return 0
        if command == 6:
            if number in self._blocks:
                return EXISTS
            self._blocks[number] = Block()
        block = self._blocks.get(number)
        if block is None:
            return NOT_FOUND
        if command in (6, 7):
            return self._append(block, rest)
        if command in (3, 8):
            block.period_ms = 10 * rest[0] if command == 3 else int.from_bytes(rest[:2], "little")
            block.due_ms = 0
        elif command == 4:
            block.period_ms = 0
        elif command == 2:
            del self._blocks[number]
        return 0

    def _append(self, block: Block, entries: bytes) -> int:
        names = list(self._types)
        for kind, variable in struct.iter_unpack("<BH", entries):
            if variable >= len(names):
                return NOT_FOUND
            block.variables.append((kind & 0xF, names[variable]))
            if struct.calcsize(self._code(block)) > LONGEST_LOG:
                block.variables.pop()
                return TOO_BIG
        return 0

    def _code(self, block: Block) -> str:
        return "<" + "".join(LOG_CODES[kind] for kind, _ in block.variables)

    def due(self, now: int) -> Iterator[bytes]:
        """Data of the blocks whose time has come."""
        self._begin_ns = self._begin_ns or now
        clock = self._clock_ms + (now - self._begin_ns) // 1_000_000
        for number, block in self._blocks.items():
            if not block.period_ms or clock < block.due_ms:
                continue
            block.due_ms = max(block.due_ms + block.period_ms, clock - clock % block.period_ms)
            yield self._packet(number, block, clock)

    def _packet(self, number: int, block: Block, clock: int) -> bytes:
        self._odd = not self._odd
        values = measure(self._firmware, self._faults, self._odd)
        backwards = self._faults.find("stamp_backwards")
        stamp = (clock - (int(backwards.value) if backwards else 0)) % STAMPS
        numbers = [values[name][1] for _, name in block.variables]
        data = bytes((number,)) + stamp.to_bytes(3, "little") + struct.pack(self._code(block), *numbers)
        if self._faults.strikes("frozen_stamp"):
            return self._frozen.setdefault(number, data)
        self._frozen.pop(number, None)
        return data


class Parameters:
    """The table of parameters.

    Args:
        firmware: Told when its controller is changed.
    """

    def __init__(self, firmware: Firmware) -> None:
        self._firmware = firmware
        self._entries: dict[str, tuple[int, float]] = {
            "commander.enHighLevel": (0x08, 0),
            "stabilizer.estimator": (0x08, 1),
            "stabilizer.controller": (0x08, PID),
            "kalman.resetEstimation": (0x08, 0),
            "posCtlPid.xKp": (0x06, 2.0),
            "supervisor.landedTimeout": (0x09, 3000),
        }

    def table(self, data: bytes) -> bytes:
        """Answer about the table."""
        return answer_table(data, {name: kind for name, (kind, _) in self._entries.items()}, b"")

    def read(self, data: bytes) -> bytes:
        """Answer with a value."""
        number = int.from_bytes(data[:2], "little")
        if number >= len(self._entries):
            return data[:2] + bytes((NOT_FOUND,))
        kind, value = list(self._entries.values())[number]
        return data[:2] + b"\0" + _pack(PARAMETER_CODES[kind], value)

    def write(self, data: bytes) -> bytes:
        """Change a value by its number."""
        number = int.from_bytes(data[:2], "little")
        if number >= len(self._entries):
            return data[:2] + bytes((NOT_FOUND,))
        name = list(self._entries)[number]
        self._set(name, data[2:])
        return data

    def write_by_name(self, data: bytes) -> bytes:
        """Change a value by its name."""
        group, name, rest = data[1:].split(b"\0", 2)
        question = data[: -len(rest)]
        entry = f"{group.decode('ascii')}.{name.decode('ascii')}"
        if entry not in self._entries:
            return question + bytes((NOT_FOUND,))
        if rest[0] != self._entries[entry][0]:
            return question + bytes((INVALID,))
        self._set(entry, rest[1:])
        return question + b"\0"

    def _set(self, name: str, data: bytes) -> None:
        kind, _ = self._entries[name]
        (value,) = struct.unpack_from("<" + PARAMETER_CODES[kind], data)
        self._entries[name] = kind, value
        if name == "stabilizer.controller":
            self._firmware.controller = int(value)


def answer_table(data: bytes, types: Mapping[str, int], more: bytes) -> bytes:
    """Answer a question about a table.

    Args:
        data: The question.
        types: Of all variables, by name.
        more: What the answer about its size ends with.
    """
    if data[0] == 3:
        fingerprint = zlib.crc32(repr(types).encode())
        return struct.pack("<BHI", 3, len(types), fingerprint) + more
    number = int.from_bytes(data[1:3], "little")
    if number >= len(types):
        return data[:1]
    name, kind = list(types.items())[number]
    return data[:3] + bytes((kind,)) + name.replace(".", "\0").encode("ascii") + b"\0"


def _pack(code: str, value: float) -> bytes:
    return struct.pack("<" + code, value if code == "f" else int(value))

"""Bitcraze's protocol for Crazyflies, CRTP: bytes to messages and back.

A packet is `header | up to 30 bytes`, the header `port << 4 | channel`. Numbers are little-endian. Whoever asks says in
the first bytes what, and the answer, on the same port and channel, begins with the same bytes (`answer_prefix`).

Source: Bitcraze, "CRTP - Communication with the Crazyflie" and the packets of crazyflie-firmware 2026.08, protocol
version 12; Crazyswarm's compressed quaternions as described there.
"""

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

PROTOCOL_VERSIONS = (12, 13)
"""A client of one version works with the next, too, as nothing is removed before it was deprecated for one version."""
LARGEST_DATA = 30
LARGEST_LOG = 26
"""Bytes of values in one packet of a log block."""
STAMP_MODULUS = 1 << 24
"""Stamps of log packets count milliseconds, and begin anew after four and a half hours."""
MODEL = b"Bitcraze Crazyflie"

Vector = Float64[ndarray, "3"]


class Port(IntEnum):
    """Part of the firmware that a packet is for."""

    PARAMETERS = 2
    LOG = 5
    SETPOINT = 7
    HIGH_LEVEL = 8
    SUPERVISOR = 9
    PLATFORM = 13
    LINK = 15


class Type(Enum):
    """Type of a variable: its number in log blocks, its number in parameters, and how it is packed."""

    UINT8 = (1, 0x08, "B")
    UINT16 = (2, 0x09, "H")
    UINT32 = (3, 0x0A, "I")
    INT8 = (4, 0x00, "b")
    INT16 = (5, 0x01, "h")
    INT32 = (6, 0x02, "i")
    FLOAT = (7, 0x06, "f")
    HALF = (8, 0x05, "e")
    """A float of two bytes; log blocks can send any float as one."""

    def __init__(self, log: int, parameter: int, code: str) -> None:
        self.log, self.parameter, self.code = log, parameter, code


class Info(IntFlag):
    """What the supervisor says of the Crazyflie."""

    CAN_BE_ARMED = 1 << 0
    ARMED = 1 << 1
    ARMS_ITSELF = 1 << 2
    CAN_FLY = 1 << 3
    FLYING = 1 << 4
    TUMBLED = 1 << 5
    LOCKED = 1 << 6
    """Until it is restarted."""
    CRASHED = 1 << 7
    HIGH_LEVEL_ACTIVE = 1 << 8
    TRAJECTORY_FINISHED = 1 << 9
    HIGH_LEVEL_DISABLED = 1 << 10
    DECK_FAULT = 1 << 11


@dataclass(frozen=True)
class Packet:
    """One message, either way."""

    port: int
    channel: int
    data: bytes = b""

    def encode(self) -> bytes:
        """Its bytes.

        Raises:
            ValueError: it is too long.
        """
        if len(self.data) > LARGEST_DATA:
            raise ValueError(f"a packet carries {LARGEST_DATA} bytes, not {len(self.data)}")
        return bytes((self.port << 4 | self.channel,)) + self.data

    @classmethod
    def decode(cls, data: bytes) -> "Packet | None":
        """The packet that these bytes are; None where they are none, or a null packet, which means nothing."""
        if not 1 <= len(data) <= LARGEST_DATA + 1 or data[0] & 0xF3 == 0xF3:
            return None
        return cls(data[0] >> 4, data[0] & 3, data[1:])


@dataclass(frozen=True)
class Variable:
    """An entry of the table of log variables."""

    number: int
    code: int
    """Of its type."""
    name: str
    """group.name"""


def answer_prefix(request: Packet) -> bytes:
    """What the answer's data begin with, where there is an answer."""
    data = request.data
    match request.port, request.channel:
        case Port.PARAMETERS, _:
            return data[: data.index(0, data.index(0, 1) + 1) + 1]
        case Port.LOG, 0:
            return data[:3]
        case Port.LOG, 1:
            return data[:1] if data[0] == 0x05 else data[:2]
        case Port.SUPERVISOR, _:
            return bytes((data[0] | 0x80,))
        case ((Port.HIGH_LEVEL | Port.PLATFORM), _):
            return data[:1]
        case Port.LINK, 0:
            return data
        case _:
            return b""


def echo(data: bytes) -> Packet:
    """Asks for the same again."""
    return Packet(Port.LINK, 0, data)


def source() -> Packet:
    """Asks who it is; the answer begins with `MODEL`."""
    return Packet(Port.LINK, 1)


def protocol_version() -> Packet:
    """Asks for the version; it is the answer's second byte."""
    return Packet(Port.PLATFORM, 1, b"\x00")


def table_size() -> Packet:
    """Asks for the number of log variables."""
    return Packet(Port.LOG, 0, b"\x03")


def decode_table_size(data: bytes) -> int:
    """Number of variables."""
    return int(struct.unpack_from("<H", data, 1)[0])


def table_entry(number: int) -> Packet:
    """Asks for a log variable."""
    return Packet(Port.LOG, 0, struct.pack("<BH", 2, number))


def decode_table_entry(data: bytes) -> Variable:
    """The entry.

    Raises:
        ValueError: it is not complete.
    """
    if len(data) < 4 or data.count(0, 4) < 2:
        raise ValueError(f"no entry of a table: {data.hex(' ')}")
    number, code = struct.unpack_from("<HB", data, 1)
    group, name = data[4:].split(b"\0")[:2]
    return Variable(number, code, f"{group.decode('ascii')}.{name.decode('ascii')}")


def reset_log() -> Packet:
    """Forget all log blocks."""
    return Packet(Port.LOG, 1, b"\x05")


def create_log(block: int, variables: Iterable[tuple[Type, int]]) -> Packet:
    """Make a block of variables, each with the type that it is sent as; the answer's third byte is 0 on success."""
    entries = b"".join(struct.pack("<BH", kind.log, number) for kind, number in variables)
    return Packet(Port.LOG, 1, bytes((6, block)) + entries)


def start_log(block: int, period_ms: int) -> Packet:
    """Send a block once a period; the answer's third byte is 0 on success."""
    return Packet(Port.LOG, 1, struct.pack("<BBH", 8, block, period_ms))


def decode_log(packet: Packet, types: Sequence[Type]) -> tuple[int, tuple[float, ...]]:
    """Stamp [ms] and values of a packet of a log block.

    Raises:
        ValueError: its length is another than those of the types.
    """
    code = "<" + "".join(kind.code for kind in types)
    if len(packet.data) != 4 + struct.calcsize(code):
        raise ValueError(f"{len(packet.data) - 4} bytes of values where {code} was expected")
    return int.from_bytes(packet.data[1:4], "little"), struct.unpack_from(code, packet.data, 4)


def set_parameter(name: str, kind: Type, value: float) -> Packet:
    """Change the parameter group.name; the answer's last byte is 0 on success."""
    group, variable = (part.encode("ascii") + b"\0" for part in name.split("."))
    exact = value if kind in (Type.FLOAT, Type.HALF) else int(value)
    packed = bytes((0,)) + group + variable + struct.pack("<B" + kind.code, kind.parameter, exact)
    return Packet(Port.PARAMETERS, 3, packed)


def stop_setpoint() -> Packet:
    """No thrust, at once."""
    return Packet(Port.SETPOINT, 0, b"\x00")


def full_state_setpoint(
    position: Vector,
    velocity: Vector,
    acceleration: Vector,
    quaternion: Float64[ndarray, "4"],
    rates: Vector,
) -> Packet:
    """Where to be, and how to move there.

    Args:
        position: [m], rounded to millimetres.
        velocity: [m/s], in the world.
        acceleration: [m/s²], in the world.
        quaternion: wxyz.
        rates: [rad/s], in the body.

    Raises:
        struct.error: a number is beyond ±32.767.
    """
    numbers = ([round(1000 * float(value)) for value in vector] for vector in (position, velocity, acceleration, rates))
    at, moving, pushed, turning = numbers
    packed = struct.pack("<B9hI3h", 6, *at, *moving, *pushed, compress_quaternion(quaternion), *turning)
    return Packet(Port.SETPOINT, 0, packed)


def position_setpoint(position: Vector, yaw: float) -> Packet:
    """Where to be [m], and the heading [rad]."""
    return Packet(Port.SETPOINT, 0, struct.pack("<B4f", 7, *position, math.degrees(yaw)))


def velocity_setpoint(velocity: Vector, yaw_rate: float) -> Packet:
    """How to move in the world [m/s, rad/s]."""
    return Packet(Port.SETPOINT, 0, struct.pack("<B4f", 8, *velocity, math.degrees(yaw_rate)))


def hover_setpoint(forward: float, left: float, yaw_rate: float, height: float) -> Packet:
    """How to move in the body's directions [m/s, rad/s], and how high to be [m]."""
    return Packet(Port.SETPOINT, 0, struct.pack("<B4f", 10, forward, left, math.degrees(yaw_rate), height))


def end_setpoints() -> Packet:
    """Nobody sends setpoints any more: the high-level commander, which has to have a task, takes over."""
    return Packet(Port.SETPOINT, 1, struct.pack("<BI", 0, 0))


def stop_high_level() -> Packet:
    """The high-level commander forgets its task; unless setpoints come, the motors stop."""
    return Packet(Port.HIGH_LEVEL, 0, b"\x03\x00")


def take_off(height: float, seconds: float) -> Packet:
    """Rise to a height [m] with the heading that it has; the answer's fourth byte is 0 on success."""
    return Packet(Port.HIGH_LEVEL, 0, struct.pack("<BBff?f", 7, 0, height, 0.0, True, seconds))


def land(height: float, seconds: float) -> Packet:
    """Sink to a height [m], and stop the motors there; the answer's fourth byte is 0 on success."""
    return Packet(Port.HIGH_LEVEL, 0, struct.pack("<BBff?f", 8, 0, height, 0.0, True, seconds))


def go_to(position: Vector, yaw: float, seconds: float) -> Packet:
    """Fly somewhere [m, rad] and stay there; the answer's fourth byte is 0 on success."""
    return Packet(Port.HIGH_LEVEL, 0, struct.pack("<BBBB5f", 12, 0, 0, 0, *position, yaw, seconds))


def arm(armed: bool) -> Packet:
    """Let the motors run, or not; the answer: whether that succeeded, and whether they may run."""
    return Packet(Port.SUPERVISOR, 1, bytes((1, armed)))


def recover() -> Packet:
    """It lies on its feet again after a crash; the answer: whether that succeeded, and whether it is well."""
    return Packet(Port.SUPERVISOR, 1, b"\x02")


def emergency_stop() -> Packet:
    """Motors off until it is restarted; nothing is answered."""
    return Packet(Port.SUPERVISOR, 1, b"\x03")


def keep_alive() -> Packet:
    """Once this was sent, a second without it is an emergency stop; nothing is answered."""
    return Packet(Port.SUPERVISOR, 1, b"\x04")


def supervisor_info() -> Packet:
    """Asks for `Info`."""
    return Packet(Port.SUPERVISOR, 0, b"\x0c")


def decode_info(data: bytes) -> Info:
    """What was asked for."""
    return Info(struct.unpack_from("<H", data, 1)[0])


def compress_quaternion(quaternion: Float64[ndarray, "4"]) -> int:
    """A rotation wxyz in 32 bits.

    Which of x, y, z, w (0 to 3) is greatest, and a sign and nine bits of 1/sqrt(2) for each of the others; signs are
    those with the greatest being positive.
    """
    xyzw = np.roll(quaternion / np.linalg.norm(quaternion), -1)
    greatest = int(np.abs(xyzw).argmax())
    number = greatest
    for index, value in enumerate(xyzw):
        if index != greatest:
            negative = (value < 0) != (xyzw[greatest] < 0)
            number = number << 10 | negative << 9 | min(round(511 * math.sqrt(2) * abs(float(value))), 511)
    return int(number)


def decompress_quaternion(number: int) -> Float64[ndarray, "4"]:
    """A rotation wxyz, its greatest element positive; within 2 milliradians in every axis of what was compressed."""
    xyzw, greatest = np.zeros(4), number >> 30
    for index in (3, 2, 1, 0):
        if index != greatest:
            xyzw[index] = (number & 511) / (511 * math.sqrt(2)) * (-1 if number >> 9 & 1 else 1)
            number >>= 10
    xyzw[greatest] = math.sqrt(max(1.0 - float(xyzw @ xyzw), 0.0))
    return np.roll(xyzw, 1)

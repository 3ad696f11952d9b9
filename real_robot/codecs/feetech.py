"""Feetech's protocol for STS servos: bytes to messages and back.

A frame is `FF FF | id | length | instruction | parameters | checksum`, and a reply the same with the servo's alerts in
place of the instruction. The length counts what follows it; the checksum is the complement of the sum from the id on.
Numbers are little-endian. What can be negative has a sign bit in front of its magnitude.

Source: Feetech, "Communication protocol" and "STS3215 memory table".
"""

from collections.abc import Iterable, Mapping
from enum import Enum, IntEnum, IntFlag

from alula.real_robot.codecs.servo import Reply

HEADER = b"\xff\xff"
EVERYBODY = 0xFE
"""Number that all servos listen to and none answers to."""
OVERHEAD = 6
"""Bytes of a frame beside its parameters."""
PING_SIZE = 0
"""Bytes of data in the reply to a ping."""
MODEL_STS3215 = 777
COUNTS_PER_TURN = 4096


class Instruction(IntEnum):
    """What a frame asks for."""

    PING = 0x01
    READ = 0x02
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83


class Alert(IntFlag):
    """What a servo complains of in every reply."""

    VOLTAGE = 1
    ENCODER = 2
    OVERHEATED = 4
    OVERCURRENT = 8
    ANGLE = 16
    OVERLOAD = 32


class Register(Enum):
    """An STS3215's memory: address, size in bytes, and the sign bit of numbers that can be negative."""

    MODEL = (3, 2, None)
    HOMING_OFFSET = (31, 2, 11)
    """Subtracted from the encoder's angle [count]."""
    MODE = (33, 1, None)
    """0: goals are positions."""
    TORQUE_ENABLE = (40, 1, None)
    ACCELERATION = (41, 1, None)
    """Of the servo's own ramp [100 count/s^2]."""
    GOAL_POSITION = (42, 2, 15)
    TORQUE_LIMIT = (48, 2, None)
    """Share of the stall torque [0.1 %]."""
    LOCK = (55, 1, None)
    """0: what is written below 40 survives the power; 1: it does not."""
    POSITION = (56, 2, 15)
    VELOCITY = (58, 2, 15)
    """[count/s]."""
    LOAD = (60, 2, 10)
    """Share of the full duty cycle [0.1 %]."""

    def __init__(self, address: int, size: int, sign_bit: int | None) -> None:
        self.address, self.size, self.sign_bit = address, size, sign_bit

    def encode(self, value: int) -> bytes:
        """The register's bytes.

        Raises:
            ValueError: the value has no room in it.
        """
        magnitude, bits = abs(value), 8 * self.size if self.sign_bit is None else self.sign_bit
        if magnitude >= 1 << bits or (value < 0 and self.sign_bit is None):
            raise ValueError(f"{self.name} cannot hold {value}")
        return (magnitude | (1 << bits if value < 0 else 0)).to_bytes(self.size, "little")

    def decode(self, data: bytes) -> int:
        """The value of the register's bytes."""
        number = int.from_bytes(data, "little")
        if self.sign_bit is None:
            return number
        magnitude = number & ((1 << self.sign_bit) - 1)
        return -magnitude if number >> self.sign_bit & 1 else magnitude


def complaints(alerts: int) -> list[str]:
    """The alerts in words."""
    return [alert.name.lower() for alert in Alert if alert & alerts and alert.name]


def checksum(body: bytes) -> int:
    """Of everything between header and checksum."""
    return ~sum(body) & 0xFF


def frame(servo: int, code: int, parameters: bytes = b"") -> bytes:
    """The bytes of an instruction, or of a reply."""
    body = bytes((servo, len(parameters) + 2, code)) + parameters
    return HEADER + body + bytes((checksum(body),))


def ping(servo: int) -> bytes:
    """Asks whether a servo is there; its reply has no data."""
    return frame(servo, Instruction.PING)


def read(servo: int, address: int, size: int) -> bytes:
    """Asks one servo for a piece of its memory."""
    return frame(servo, Instruction.READ, bytes((address, size)))


def sync_read(servos: Iterable[int], address: int, size: int) -> bytes:
    """Asks several servos for the same piece; they reply one after the other, in this order."""
    return frame(EVERYBODY, Instruction.SYNC_READ, bytes((address, size, *servos)))


def sync_write(address: int, data: Mapping[int, bytes]) -> bytes:
    """Changes the same piece of several servos' memory at once, all of one size; nobody replies."""
    (size,) = {len(piece) for piece in data.values()}
    pieces = b"".join(bytes((servo,)) + piece for servo, piece in data.items())
    return frame(EVERYBODY, Instruction.SYNC_WRITE, bytes((address, size)) + pieces)


def parse(stream: bytes, size: int) -> tuple[list[Reply], bytes]:
    """Find the replies that carry `size` bytes; whatever else is in the stream is passed over.

    Since only one length counts, noise that looks like the start of a frame never hides a whole one behind it.

    Returns:
        The replies, and the end of the stream that may be the start of another.
    """
    replies: list[Reply] = []
    length, at, used = OVERHEAD + size, 0, 0
    while (at := stream.find(HEADER, at)) >= 0:
        piece = stream[at : at + length]
        expected = piece[3:4] in (b"", bytes((size + 2,))) and piece[2:3] < bytes((EVERYBODY,))
        if expected and len(piece) < length:
            return replies, piece
        if expected and piece[-1] == checksum(piece[2:-1]):
            replies.append(Reply(piece[2], piece[4], piece[5:-1]))
            used = at = at + length
        else:
            at += 1
    # The last byte may be half a header, unless it belongs to a reply.
    return replies, stream[max(used, len(stream) - 1) :] if stream.endswith(HEADER[:1]) else b""

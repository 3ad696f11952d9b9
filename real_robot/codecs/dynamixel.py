"""Robotis' Protocol 2.0 for Dynamixel X servos: bytes to messages and back.

A frame is `FF FF FD 00 | id | length | instruction | parameters | CRC`, and a servo's status has the instruction 55 and
an error byte before its parameters. The length counts what follows it; numbers are little-endian and negative ones in
two's complement. `FF FF FD` behind the length is followed by one more `FD`, so that it looks like no header.

Source: Robotis, e-Manual, "DYNAMIXEL Protocol 2.0" and the control table of the X series.
"""

from collections.abc import Iterable, Mapping
from enum import Enum, IntEnum, IntFlag

from alula.real_robot.codecs.servo import Reply

HEADER = b"\xff\xff\xfd\x00"
LOOKALIKE, STUFFED = b"\xff\xff\xfd", b"\xff\xff\xfd\xfd"
EVERYBODY = 0xFE
"""Number that all servos listen to."""
OVERHEAD = 11
"""Bytes of a status beside its parameters."""
PING_SIZE = 3
"""Bytes of data in the reply to a ping: model and firmware."""
ALERT = 0x80
"""Bit of the error byte that says: look at HARDWARE_ERROR."""
RPM = 0.229
"""Of a count of velocity [rev/min]."""


class Model(IntEnum):
    """What servos say of themselves."""

    XM430_W350 = 1020
    XL430_W250 = 1060
    XM540_W270 = 1120
    XL330_M077 = 1190
    XL330_M288 = 1200


class Instruction(IntEnum):
    """What a frame asks for."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    STATUS = 0x55
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83


class HardwareError(IntFlag):
    """Bits of HARDWARE_ERROR; the servo has taken its torque away and wants to be rebooted."""

    VOLTAGE = 1
    OVERHEATED = 4
    ENCODER = 8
    SHOCK = 16
    OVERLOAD = 32


class Register(Enum):
    """An X servo's memory: address, size in bytes, and whether it can be negative."""

    MODEL = (0, 2, False)
    FIRMWARE = (6, 1, False)
    RETURN_DELAY = (9, 1, False)
    """Pause before a reply [2 us]."""
    DRIVE_MODE = (10, 1, False)
    """Bit 0: the other way round."""
    OPERATING_MODE = (11, 1, False)
    """3: position, 4: position of any number of turns, 5: the same with a limit of the current."""
    SECONDARY_ID = (12, 1, False)
    """Number whose orders it takes beside its own; 255: none."""
    HOMING_OFFSET = (20, 4, True)
    """Added to the encoder's angle [count]."""
    TORQUE_ENABLE = (64, 1, False)
    HARDWARE_ERROR = (70, 1, False)
    BUS_WATCHDOG = (98, 1, True)
    """Time without an instruction after which it stops [20 ms]; 0: off, -1: has stopped, goals cannot be written."""
    GOAL_CURRENT = (102, 2, True)
    PROFILE_ACCELERATION = (108, 4, False)
    PROFILE_VELOCITY = (112, 4, False)
    """Of the servo's own ramp; 0: none."""
    GOAL_POSITION = (116, 4, True)
    TICK = (120, 2, False)
    """Its clock [ms], from 0 to 32767."""
    LOAD = (126, 2, True)
    """Current, in a unit of the model's own; of the XL430 an estimate of the load [0.1 %]."""
    VELOCITY = (128, 4, True)
    """[0.229 rev/min]."""
    POSITION = (132, 4, True)

    def __init__(self, address: int, size: int, signed: bool) -> None:
        self.address, self.size, self.signed = address, size, signed

    def encode(self, value: int) -> bytes:
        """The register's bytes.

        Raises:
            ValueError: the value has no room in it.
        """
        try:
            return value.to_bytes(self.size, "little", signed=self.signed)
        except OverflowError:
            raise ValueError(f"{self.name} cannot hold {value}") from None

    def decode(self, data: bytes) -> int:
        """The value of the register's bytes."""
        return int.from_bytes(data, "little", signed=self.signed)


TICKS = 1 << 15
"""Values of TICK."""


def complaints(errors: int) -> list[str]:
    """Hardware errors in words."""
    return [error.name.lower() for error in HardwareError if error & errors and error.name]


def _remainder(byte: int) -> int:
    """What a byte leaves when it is divided by the CRC's polynomial."""
    value = byte << 8
    for _ in range(8):
        value = (value << 1) ^ 0x8005 if value & 0x8000 else value << 1
    return value & 0xFFFF


REMAINDERS = tuple(map(_remainder, range(256)))


def crc(data: bytes) -> int:
    """CRC-16 with the polynomial 0x8005, from 0, highest bit first."""
    value = 0
    for byte in data:
        value = (value << 8 & 0xFFFF) ^ REMAINDERS[value >> 8 ^ byte]
    return value


def frame(servo: int, instruction: int, parameters: bytes = b"") -> bytes:
    """The bytes of an instruction, or of a status whose first parameter is its error byte."""
    content = (bytes((instruction,)) + parameters).replace(LOOKALIKE, STUFFED)
    body = HEADER + bytes((servo,)) + (len(content) + 2).to_bytes(2, "little") + content
    return body + crc(body).to_bytes(2, "little")


def _place(address: int, size: int) -> bytes:
    return address.to_bytes(2, "little") + size.to_bytes(2, "little")


def ping(servo: int) -> bytes:
    """Asks whether a servo is there; its reply has its model and firmware."""
    return frame(servo, Instruction.PING)


def read(servo: int, address: int, size: int) -> bytes:
    """Asks one servo for a piece of its memory."""
    return frame(servo, Instruction.READ, _place(address, size))


def sync_read(servos: Iterable[int], address: int, size: int) -> bytes:
    """Asks several servos for the same piece; they reply one after the other, in this order."""
    return frame(EVERYBODY, Instruction.SYNC_READ, _place(address, size) + bytes(servos))


def sync_write(address: int, data: Mapping[int, bytes]) -> bytes:
    """Changes the same piece of several servos' memory at once, all of one size; nobody replies."""
    (size,) = {len(piece) for piece in data.values()}
    pieces = b"".join(bytes((servo,)) + piece for servo, piece in data.items())
    return frame(EVERYBODY, Instruction.SYNC_WRITE, _place(address, size) + pieces)


def parse(stream: bytes, size: int) -> tuple[list[Reply], bytes]:
    """Find the replies that carry `size` bytes; whatever else is in the stream is passed over.

    Since only lengths that such a reply can have count, noise that looks like the start of a frame delays a whole one
    behind it by a few bytes at most.

    Returns:
        The replies, and the end of the stream that may be the start of another.
    """
    replies: list[Reply] = []
    at = used = 0
    while (at := stream.find(HEADER, at)) >= 0:
        length = int.from_bytes(stream[at + 5 : at + 7], "little") + 7
        expected = (
            stream[at + 4 : at + 5] < bytes((EVERYBODY,))
            and (len(stream) < at + 7 or OVERHEAD + size <= length <= OVERHEAD + size + (size + 1) // 3)
            and stream[at + 7 : at + 8] in (b"", bytes((Instruction.STATUS,)))
        )
        piece = stream[at : at + length]
        if expected and (len(stream) < at + 7 or len(piece) < length):
            return replies, stream[at:]
        found = _status(piece, size) if expected else None
        if found is not None:
            replies.append(found)
            used = at = at + length
        else:
            at += 1
    left = stream[used:]
    half = next((count for count in (3, 2, 1) if left.endswith(HEADER[:count])), 0)
    return replies, left[len(left) - half :]


def _status(piece: bytes, size: int) -> Reply | None:
    """The reply in a whole frame; None where it is damaged."""
    content = piece[8:-2].replace(STUFFED, LOOKALIKE)
    if crc(piece[:-2]) != int.from_bytes(piece[-2:], "little") or len(content) != 1 + size:
        return None
    return Reply(piece[4], content[0], content[1:])

"""The languages of bus servos: what is sent is received, in pieces, between noise, and never what was not sent."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alula.real_robot.codecs import dynamixel, feetech
from alula.real_robot.codecs.servo import Register, Reply, ServoCodec
from alula.real_robot.serial_bus import SerialBus

SERVO = st.integers(0, 0xFD)
# Bytes of which headers are made are frequent.
BYTES = st.lists(st.one_of(st.sampled_from([0xFF, 0xFD, 0x00]), st.integers(0, 255)), max_size=20).map(bytes)
REPLIES = st.integers(0, 20).flatmap(
    lambda size: st.tuples(
        st.just(size),
        st.lists(
            st.builds(Reply, SERVO, st.integers(0, 255), BYTES.map(lambda data: (data + bytes(size))[:size])),
            max_size=6,
        ),
    )
)


@dataclass
class Language:
    """One of them, as its tests need it."""

    codec: ModuleType
    encoded: Callable[[Reply], bytes]
    """A servo's answer on the wire."""
    header: bytes
    """A byte without which nothing is a header."""
    registers: type[Any]
    span: Callable[[Any], tuple[int, int]]
    """Least and greatest value of a register."""
    reply: str
    """An answer of the manual."""
    size: int
    """Of its data."""
    protected: range
    """Its bytes in which every flipped bit shows."""
    errors: dict[int, list[str]]
    """What alerts mean."""
    sdk: str
    """The vendor's package."""
    protocol: float


def _feetech_span(register: feetech.Register) -> tuple[int, int]:
    top = (1 << (8 * register.size if register.sign_bit is None else register.sign_bit)) - 1
    return 0 if register.sign_bit is None else -top, top


def _dynamixel_span(register: dynamixel.Register) -> tuple[int, int]:
    half = 128 * 256 ** (register.size - 1)
    return (-half, half - 1) if register.signed else (0, 2 * half - 1)


LANGUAGES = {
    "feetech": Language(
        codec=feetech,
        encoded=lambda reply: feetech.frame(reply.servo, reply.alerts, reply.data),
        header=b"\xff",
        registers=feetech.Register,
        span=_feetech_span,
        reply="ff ff 01 04 00 18 05 dd",
        size=2,
        protected=range(2, 8),
        errors={feetech.Alert.OVERLOAD | feetech.Alert.OVERHEATED: ["overheated", "overload"], 0: []},
        sdk="scservo_sdk",
        protocol=0,
    ),
    "dynamixel": Language(
        codec=dynamixel,
        encoded=lambda reply: dynamixel.frame(reply.servo, 0x55, bytes((reply.alerts,)) + reply.data),
        header=b"\xfd",
        registers=dynamixel.Register,
        span=_dynamixel_span,
        reply="ff ff fd 00 01 07 00 55 00 06 04 26 65 5d",
        size=3,
        protected=range(4, 14),
        errors={
            dynamixel.HardwareError.OVERLOAD | dynamixel.HardwareError.OVERHEATED: ["overheated", "overload"],
            0: [],
        },
        sdk="dynamixel_sdk",
        protocol=2.0,
    ),
}


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> Language:
    return LANGUAGES[request.param]


both = pytest.mark.parametrize("name", LANGUAGES)


def test_each_module_is_a_codec(language: Language) -> None:
    assert isinstance(language.codec, ServoCodec)
    assert isinstance(language.registers.MODEL, Register)
    SerialBus("/dev/null", 1_000_000, language.codec)


@both
@given(st.data())
def test_registers_hold_their_values(name: str, data: st.DataObject) -> None:
    language = LANGUAGES[name]
    register = data.draw(st.sampled_from(list(language.registers)))
    low, high = language.span(register)
    value = data.draw(st.integers(low, high))
    assert len(register.encode(value)) == register.size
    assert register.decode(register.encode(value)) == value
    for outside in (low - 1, high + 1):
        with pytest.raises(ValueError, match=register.name):
            register.encode(outside)


@both
@given(REPLIES)
@example((1, [Reply(34, 255, b"\xdc")]))  # whose checksum could begin a header
@example((3, [Reply(1, 0, b"\xff\xff\xfd")]))
@example((2, [Reply(1, 0xFF, b"\xff\xfd")]))
@example((7, [Reply(1, 0, b"\xff\xff\xfd\xfd\xff\xff\xfd")]))
def test_what_is_sent_is_received(name: str, case: tuple[int, list[Reply]]) -> None:
    language, (size, replies) = LANGUAGES[name], case
    assert language.codec.parse(b"".join(map(language.encoded, replies)), size) == (replies, b"")


@both
@given(REPLIES, st.lists(st.integers(1, 7), max_size=60))
def test_it_may_arrive_in_pieces(name: str, case: tuple[int, list[Reply]], pieces: list[int]) -> None:
    language, (size, replies) = LANGUAGES[name], case
    left, rest, found = b"".join(map(language.encoded, replies)), b"", list[Reply]()
    for piece in [*pieces, len(left)]:
        some, rest = language.codec.parse(rest + left[:piece], size)
        found, left = found + some, left[piece:]
    assert found == replies


# What holds no header is noise; with one, a frame is right by chance at times.
@both
@given(REPLIES, st.lists(st.binary(max_size=12), min_size=7))
def test_noise_between_replies_is_passed_over(name: str, case: tuple[int, list[Reply]], noise: list[bytes]) -> None:
    language, (size, replies) = LANGUAGES[name], case
    noise = [some.replace(language.header, b"\x00") for some in noise]
    stream = b"".join(some + language.encoded(reply) for some, reply in zip(noise, replies, strict=False)) + noise[-1]
    assert language.codec.parse(stream, size)[0] == replies


@both
@given(st.binary(max_size=200), st.integers(0, 8))
@example(b"\xff\xff\xff\xff", 0)
@example(b"\xff\xff\xfd\x00" * 3, 0)
def test_no_stream_is_too_bad_to_read(name: str, stream: bytes, size: int) -> None:
    language = LANGUAGES[name]
    found, rest = language.codec.parse(stream, size)
    assert all(language.encoded(reply) in stream and len(reply.data) == size for reply in found)
    assert stream.endswith(rest)


@both
@given(st.data(), st.integers(0, 7))
def test_a_flipped_bit_is_noticed(name: str, data: st.DataObject, bit: int) -> None:
    language = LANGUAGES[name]
    wire = bytearray.fromhex(language.reply)
    assert len(language.codec.parse(bytes(wire), language.size)[0]) == 1
    wire[data.draw(st.sampled_from(language.protected))] ^= 1 << bit
    assert language.codec.parse(bytes(wire), language.size)[0] == []


def test_alerts_have_names(language: Language) -> None:
    for bits, words in language.errors.items():
        assert language.codec.complaints(bits) == words


class _Port:
    """Takes the vendor's packets for a serial port."""

    is_using = False

    def __init__(self) -> None:
        self.written = b""

    def clearPort(self) -> None:  # noqa: N802 - the vendor's name
        """Nothing to clear."""

    def writePort(self, packet: list[int]) -> int:  # noqa: N802 - the vendor's name
        """Keep it."""
        self.written = bytes(packet)
        return len(packet)

    def setPacketTimeout(self, _: int) -> None:  # noqa: N802 - the vendor's name
        """Nothing to wait for."""


@both
@given(st.dictionaries(SERVO, st.binary(min_size=4, max_size=4), min_size=1, max_size=8))
@example({1: b"\x00\x08\x00\x00", 2: b"\xff\xff\xff\xff"})
def test_our_bytes_are_the_vendors(name: str, data: dict[int, bytes]) -> None:
    language = LANGUAGES[name]
    sdk = pytest.importorskip(language.sdk, reason=f"needs pip install {language.sdk.replace('_', '-')}")
    port, packets = _Port(), sdk.PacketHandler(language.protocol)
    write, read = sdk.GroupSyncWrite(port, packets, 116, 4), sdk.GroupSyncRead(port, packets, 126, 10)
    for servo, piece in data.items():
        write.addParam(servo, list(piece))
        read.addParam(servo)
    ours = language.codec.sync_write(116, data)
    write.txPacket()
    # Robotis' own package forgets to stuff what looks like a header.
    assert port.written == ours or b"\xff\xff\xfd" in ours[4:]
    read.txPacket()
    assert port.written == language.codec.sync_read(data, 126, 10)

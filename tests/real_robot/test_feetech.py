"""Feetech's protocol: frames of the vendor's manual, round trips, and replies found in any noise."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alula.real_robot.codecs import feetech
from alula.real_robot.codecs.feetech import Alert, Register
from alula.real_robot.codecs.servo import Reply, ServoCodec
from alula.real_robot.serial_bus import SerialBus

SERVO = st.integers(0, 0xFD)
REPLIES = st.integers(0, 20).flatmap(
    lambda size: st.tuples(
        st.just(size),
        st.lists(st.builds(Reply, SERVO, st.integers(0, 255), st.binary(min_size=size, max_size=size)), max_size=6),
    )
)


def encoded(reply: Reply) -> bytes:
    """A reply on the wire."""
    return feetech.frame(reply.servo, reply.alerts, reply.data)


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (feetech.ping(1), "ff ff 01 02 01 fb"),
        (feetech.read(1, 0x38, 2), "ff ff 01 04 02 38 02 be"),
        (feetech.sync_read([1, 2], 0x38, 8), "ff ff fe 06 82 38 08 01 02 36"),
        (
            feetech.sync_write(0x2A, {servo: bytes.fromhex("00080000e803") for servo in (1, 2, 3, 4)}),
            "ff ff fe 20 83 2a 06 01 00 08 00 00 e8 03 02 00 08 00 00 e8 03 "
            "03 00 08 00 00 e8 03 04 00 08 00 00 e8 03 58",
        ),
    ],
)
def test_messages_are_those_of_the_manual(message: bytes, wire: str) -> None:
    assert message == bytes.fromhex(wire)


def test_a_reply_of_the_manual_is_read() -> None:
    assert feetech.parse(bytes.fromhex("ff ff 01 04 00 18 05 dd"), 2) == ([Reply(1, 0, b"\x18\x05")], b"")
    assert Register.POSITION.decode(b"\x18\x05") == 1304


def test_the_module_is_a_codec() -> None:
    assert isinstance(feetech, ServoCodec)
    SerialBus("/dev/null", 1_000_000, feetech)


@given(st.sampled_from(Register), st.data())
def test_registers_hold_their_values(register: Register, data: st.DataObject) -> None:
    bits = 8 * register.size if register.sign_bit is None else register.sign_bit
    top = (1 << bits) - 1
    value = data.draw(st.integers(0 if register.sign_bit is None else -top, top))
    assert len(register.encode(value)) == register.size
    assert register.decode(register.encode(value)) == value
    with pytest.raises(ValueError, match=register.name):
        register.encode(top + 1)


@pytest.mark.parametrize(
    ("register", "value", "wire"),
    [
        (Register.VELOCITY, -50, "32 80"),
        (Register.LOAD, -50, "32 04"),
        (Register.HOMING_OFFSET, -50, "32 08"),
        (Register.GOAL_POSITION, 2048, "00 08"),
    ],
)
def test_a_sign_is_a_bit_in_front_of_the_magnitude(register: Register, value: int, wire: str) -> None:
    assert register.encode(value) == bytes.fromhex(wire)


@given(REPLIES)
@example((1, [Reply(34, 255, b"\xdc")]))  # whose checksum could begin a header
def test_what_is_sent_is_received(case: tuple[int, list[Reply]]) -> None:
    size, replies = case
    assert feetech.parse(b"".join(map(encoded, replies)), size) == (replies, b"")


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


@given(st.dictionaries(SERVO, st.binary(min_size=2, max_size=2), min_size=1, max_size=8))
def test_our_bytes_are_the_vendors(data: dict[int, bytes]) -> None:
    sdk = pytest.importorskip("scservo_sdk", reason="needs pip install feetech-servo-sdk")
    port, packets = _Port(), sdk.PacketHandler(0)
    write, read = sdk.GroupSyncWrite(port, packets, 42, 2), sdk.GroupSyncRead(port, packets, 56, 6)
    for servo, piece in data.items():
        write.addParam(servo, list(piece))
        read.addParam(servo)
    write.txPacket()
    assert port.written == feetech.sync_write(42, data)
    read.txPacket()
    assert port.written == feetech.sync_read(data, 56, 6)


@given(REPLIES, st.lists(st.integers(1, 7), max_size=60))
def test_it_may_arrive_in_pieces(case: tuple[int, list[Reply]], pieces: list[int]) -> None:
    size, replies = case
    left, rest, found = b"".join(map(encoded, replies)), b"", list[Reply]()
    for piece in [*pieces, len(left)]:
        some, rest = feetech.parse(rest + left[:piece], size)
        found, left = found + some, left[piece:]
    assert found == replies


# Without two bytes 0xFF in a row noise is no header; with them, one frame in 256 is right by chance.
@given(REPLIES, st.lists(st.binary(max_size=12).map(lambda noise: noise.replace(b"\xff", b"\x00")), min_size=7))
def test_noise_between_replies_is_passed_over(case: tuple[int, list[Reply]], noise: list[bytes]) -> None:
    size, replies = case
    stream = b"".join(some + encoded(reply) for some, reply in zip(noise, replies, strict=False)) + noise[-1]
    assert feetech.parse(stream, size)[0] == replies


@pytest.mark.parametrize("before", ["ff", "ff ff", "ff ff 02", "ff ff 02 04", "ff ff 02 04 00 18", "ff ff 02 f0 00"])
def test_a_reply_that_breaks_off_does_not_hide_the_next(before: str) -> None:
    whole = bytes.fromhex("ff ff 01 04 00 18 05 dd")
    assert feetech.parse(bytes.fromhex(before) + whole, 2) == ([Reply(1, 0, b"\x18\x05")], b"")


@given(st.binary(max_size=200), st.integers(0, 8))
@example(bytes.fromhex("ff ff ff ff"), 0)
def test_no_stream_is_too_bad_to_read(stream: bytes, size: int) -> None:
    found, rest = feetech.parse(stream, size)
    assert all(encoded(reply) in stream and len(reply.data) == size for reply in found)
    assert stream.endswith(rest)
    assert len(rest) < feetech.OVERHEAD + size


@given(st.integers(2, 7), st.integers(0, 7))
def test_a_flipped_bit_is_noticed(position: int, bit: int) -> None:
    wire = bytearray.fromhex("ff ff 01 04 00 18 05 dd")
    wire[position] ^= 1 << bit
    assert feetech.parse(bytes(wire), 2)[0] == []


def test_alerts_have_names() -> None:
    assert feetech.complaints(Alert.OVERLOAD | Alert.OVERHEATED) == ["overheated", "overload"]
    assert feetech.complaints(0) == []

"""CRTP: bytes as Bitcraze's own library sends them, and back again what was put in."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alula.real_robot.codecs import crtp
from alula.real_robot.codecs.crtp import Info, Packet, Port, Type
from alula.real_robot.crtp_link import LogStream
from alula.real_robot.emulators.crazyflie import decode_setpoint

PLACE = np.array([1.25, -0.5, 0.75])
SLOW = np.array([0.25, -0.125, 0.5])
REST = np.zeros(3)
COORDINATE = st.floats(-32.0, 32.0)


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        # Captured from cflib 0.1.34, without the two bits of its headers that the link may use for itself.
        (
            crtp.full_state_setpoint(
                PLACE, SLOW, np.array([1.0, -2.0, 0.5]), np.array([math.sqrt(3) / 2, 0, 0, 0.5]), np.array([0, 0, 0.5])
            ),
            "70 06 e204 0cfe ee02 fa00 83ff f401 e803 30f8 f401 690100c0 0000 0000 f401",
        ),
        (crtp.position_setpoint(PLACE, math.pi / 2), "70 07 0000a03f 000000bf 0000403f 0000b442"),
        (crtp.velocity_setpoint(SLOW, math.pi / 2), "70 08 0000803e 000000be 0000003f 0000b442"),
        (crtp.hover_setpoint(0.25, -0.125, math.pi / 2, 0.75), "70 0a 0000803e 000000be 0000b442 0000403f"),
        (crtp.stop_setpoint(), "70 00"),
        (crtp.end_setpoints(), "71 00 00000000"),
        (crtp.take_off(0.5, 1.0), "80 07 00 0000003f 00000000 01 0000803f"),
        (crtp.land(0.0, 2.0), "80 08 00 00000000 00000000 01 00000040"),
        (crtp.go_to(PLACE, 1.5, 2.0), "80 0c 00 00 00 0000a03f 000000bf 0000403f 0000c03f 00000040"),
        (crtp.stop_high_level(), "80 03 00"),
        (crtp.arm(True), "91 01 01"),
        (crtp.arm(False), "91 01 00"),
        (crtp.recover(), "91 02"),
        (crtp.emergency_stop(), "91 03"),
        (crtp.keep_alive(), "91 04"),
        (crtp.supervisor_info(), "90 0c"),
        (crtp.echo(b"\x01\x02"), "f0 01 02"),
        (crtp.source(), "f1"),
        (crtp.protocol_version(), "d1 00"),
        (crtp.reset_log(), "51 05"),
        (crtp.create_log(1, [(Type.FLOAT, 5), (Type.HALF, 258)]), "51 06 01 07 0500 08 0201"),
        (crtp.start_log(1, 10), "51 08 01 0a00"),
        (crtp.table_size(), "50 03"),
        (crtp.table_entry(258), "50 02 0201"),
        (
            crtp.set_parameter("stabilizer.controller", Type.UINT8, 2),
            "23 00 73746162696c697a6572 00 636f6e74726f6c6c6572 00 08 02",
        ),
    ],
)
def test_golden(packet: Packet, expected: str) -> None:
    assert packet.encode() == bytes.fromhex(expected)


@given(st.integers(0, 15), st.integers(0, 3), st.binary(max_size=30))
def test_packets_come_back(port: int, channel: int, data: bytes) -> None:
    packet = Packet(port, channel, data)
    encoded = packet.encode()
    null = (port, channel) == (15, 3)
    assert Packet.decode(encoded) == (None if null else packet)
    # Two bits of the header are the link's own.
    assert Packet.decode(bytes((encoded[0] | 0x0C,)) + data) == (None if null else packet)


def test_what_is_no_packet() -> None:
    assert Packet.decode(b"") is None
    assert Packet.decode(bytes(32)) is None
    with pytest.raises(ValueError, match="30 bytes, not 31"):
        Packet(Port.LOG, 0, bytes(31)).encode()


@given(st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: sum(value * value for value in q) > 1e-3))
def test_quaternions_lose_little(elements: tuple[float, float, float, float]) -> None:
    """Half a step of 1/(511 sqrt(2)) in three elements, and what follows for the fourth."""
    quaternion = np.array(elements) / np.linalg.norm(elements)
    found = crtp.decompress_quaternion(crtp.compress_quaternion(quaternion))
    angle = 2 * math.acos(min(abs(float(found @ quaternion)), 1.0))
    assert angle < 5e-3
    assert np.linalg.norm(found) == pytest.approx(1.0)


@given(st.tuples(COORDINATE, COORDINATE, COORDINATE), st.floats(-math.pi, math.pi))
def test_the_emulator_reads_what_was_written(place: tuple[float, float, float], yaw: float) -> None:
    """Its decoder shares no line with the codec."""
    quaternion = np.array([math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)])
    turning = np.array([0.0, 0.0, 0.3])
    found = decode_setpoint(crtp.full_state_setpoint(np.array(place), SLOW, -SLOW, quaternion, turning).data)
    assert found is not None
    np.testing.assert_allclose(found.position[:3], place, atol=0.5001e-3)
    assert abs(math.remainder(found.position[3] - yaw, 2 * math.pi)) < 4e-3
    np.testing.assert_allclose(found.velocity, [*SLOW, 0.3], atol=0.5001e-3)
    np.testing.assert_allclose(found.acceleration, [*-SLOW, 0.0], atol=0.5001e-3)
    simple = decode_setpoint(crtp.position_setpoint(np.array(place), yaw).data)
    assert simple is not None
    np.testing.assert_allclose(simple.position, [*place, yaw], rtol=1e-6, atol=1e-6)


def test_numbers_that_do_not_fit_are_no_setpoint() -> None:
    straight = np.array([1.0, 0.0, 0.0, 0.0])
    with pytest.raises(struct.error):
        crtp.full_state_setpoint(np.array([33.0, 0.0, 0.0]), REST, REST, straight, REST)
    with pytest.raises(ValueError, match="NaN"):
        crtp.full_state_setpoint(np.array([np.nan, 0.0, 0.0]), REST, REST, straight, REST)


@given(st.lists(st.sampled_from(list(Type)), max_size=6), st.integers(0, crtp.STAMP_MODULUS - 1), st.data())
def test_log_packets_come_back(types: list[Type], stamp: int, data: st.DataObject) -> None:
    drawn = {
        Type.FLOAT: st.floats(width=32, allow_nan=False),
        Type.HALF: st.floats(width=16, allow_nan=False),
        **{kind: st.integers(0, 127) for kind in Type if kind not in (Type.FLOAT, Type.HALF)},
    }
    values = tuple(data.draw(drawn[kind]) for kind in types)
    code = "<" + "".join(kind.code for kind in types)
    packet = Packet(Port.LOG, 2, b"\x01" + stamp.to_bytes(3, "little") + struct.pack(code, *values))
    assert crtp.decode_log(packet, types) == (stamp, values)
    with pytest.raises(ValueError, match="bytes of values"):
        crtp.decode_log(packet, [*types, Type.UINT8])


def test_tables() -> None:
    assert crtp.decode_table_size(bytes.fromhex("03 0201 aabbccdd 10 80")) == 258
    found = crtp.decode_table_entry(b"\x02\x02\x01\x07pm\0vbat\0")
    assert found == crtp.Variable(258, 7, "pm.vbat")
    for broken in (b"\x02", b"\x02\x02\x01\x07pm\0vb"):
        with pytest.raises(ValueError, match="no entry"):
            crtp.decode_table_entry(broken)


def test_what_the_supervisor_says() -> None:
    assert crtp.decode_info(b"\x8c\x1a\x02") == Info.ARMED | Info.CAN_FLY | Info.FLYING | Info.TRAJECTORY_FINISHED


@pytest.mark.parametrize(
    ("question", "answer", "another"),
    [
        (crtp.table_entry(258), b"\x02\x02\x01\x07pm\0vbat\0", b"\x02\x01\x01\x07pm\0state\0"),
        (crtp.table_size(), b"\x03\x02\x01", b"\x02\x02\x01"),
        (crtp.create_log(3, []), b"\x06\x03\x00", b"\x06\x02\x00"),
        (crtp.reset_log(), b"\x05\x00\x00", b"\x06\x00\x00"),
        (crtp.set_parameter("a.b", Type.UINT8, 1), b"\0a\0b\0\0", b"\0a\0c\0\0"),
        (crtp.arm(True), b"\x81\x01\x01", b"\x82\x01\x01"),
        (crtp.take_off(0.5, 1.0), b"\x07\x00\x00\x00", b"\x08\x00\x00\x00"),
        (crtp.protocol_version(), b"\x00\x0c\0\0\0", b"\x01v\0"),
        (crtp.echo(b"xyz"), b"xyz", b"xyy"),
    ],
)
def test_answers_are_known_by_their_beginning(question: Packet, answer: bytes, another: bytes) -> None:
    assert answer.startswith(crtp.answer_prefix(question))
    assert not another.startswith(crtp.answer_prefix(question))


BLOCKS = ((("a.x", Type.FLOAT),), (("a.y", Type.UINT8),))


def log_packets(stamp: int) -> list[Packet]:
    stamped = (stamp % crtp.STAMP_MODULUS).to_bytes(3, "little")
    return [
        Packet(5, 2, b"\x00" + stamped + struct.pack("<f", stamp)),
        Packet(5, 2, b"\x01" + stamped + bytes((7,))),
    ]


def test_a_set_of_values_is_one_packet_of_every_block() -> None:
    stream = LogStream(BLOCKS)
    first, second = log_packets(10)
    assert stream.take(first, 1_000) is None
    assert stream.take(second, 2_000) == [10.0, 7]
    assert (stream.sequence, stream.received_ns) == (1, 2_000)
    # The same again, something else, and what is too short mean nothing.
    for packet in (first, second, Packet(15, 0, b"\x00"), Packet(5, 2, b"\x00\x01"), Packet(5, 2, b"\x05\x01\x01\x01")):
        assert stream.take(packet, 3_000) is None
    assert stream.sequence == 1


def test_stamps_begin_anew_and_never_go_back() -> None:
    stream, now = LogStream(BLOCKS), 0
    begin = crtp.STAMP_MODULUS - 55
    for stamp in range(begin, begin + 110, 10):
        now += 10_000_000
        for packet in log_packets(stamp):
            stream.take(packet, now)
    assert stream.sequence == 11
    for stamp in (begin + 95, begin, begin + 110 + 5_000_000):
        for packet in log_packets(stamp):
            assert stream.take(packet, now + 1) is None, "late, late, and from the future"
    for packet in log_packets(begin + 110):
        stream.take(packet, now + 10_000_000)
    assert stream.sequence == 12

"""PX4's MAVLink: frames against their definition, messages against the bytes of the protocol."""

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray
from pymavlink.dialects.v20 import common

from alula.core.geometry import rotation_from_quaternion
from alula.real_robot.codecs import mavlink
from alula.real_robot.codecs.mavlink import Mode

NORTH, EAST, DOWN = np.eye(3)
FORWARD, RIGHT, BELOW = np.eye(3)
TURN = math.sqrt(0.5)
NUMBER = st.floats(-50, 50, width=32)
VECTOR = st.lists(NUMBER, min_size=3, max_size=3).map(np.array)
PLACE = st.lists(NUMBER, min_size=4, max_size=4).map(np.array)
QUATERNION = (
    st.lists(st.floats(-1, 1), min_size=4, max_size=4)
    .map(np.array)
    .filter(lambda q: float(np.linalg.norm(q)) > 0.1)
    .map(lambda q: q / np.linalg.norm(q))
)


def crc(data: bytes, extra: int) -> int:
    """CRC-16/MCRF4XX, of a frame without its first byte and of the message's own byte."""
    value = 0xFFFF
    for byte in data[1:] + bytes((extra,)):
        mixed = byte ^ (value & 0xFF)
        mixed ^= mixed << 4 & 0xFF
        value = value >> 8 ^ mixed << 8 ^ mixed << 3 ^ mixed >> 4
    return value


def wire(message: Any) -> bytes:
    """As it is sent first."""
    return message.pack(common.MAVLink(None, mavlink.OWN_SYSTEM, mavlink.OWN_COMPONENT))


def arrived(message: Any) -> Any:
    """What the other side reads."""
    (found,) = common.MAVLink(None).parse_buffer(wire(message))
    return found


def odometry(
    position: ndarray = np.zeros(3),  # noqa: B008
    quaternion: ndarray = np.array([1.0, 0.0, 0.0, 0.0]),  # noqa: B008
    velocity: ndarray = np.zeros(3),  # noqa: B008
    rates: ndarray = np.zeros(3),  # noqa: B008
    child: int = common.MAV_FRAME_LOCAL_NED,
    frame: int = common.MAV_FRAME_LOCAL_NED,
) -> Any:
    """PX4's message, in PX4's frames."""
    unknown = [math.nan] * 21
    return arrived(
        common.MAVLink_odometry_message(
            5, frame, child, *position, quaternion.tolist(), *velocity, *rates, unknown, unknown
        )
    )


def read(message: Any) -> mavlink.Motion:
    found = mavlink.motion(message)
    assert found is not None
    return found


def test_a_setpoint_is_laid_out_as_the_protocol_says() -> None:
    place, velocity, acceleration = np.array([1.0, 2.0, 3.0, 0.5]), np.array([0.1, 0.2, 0.3, 0.4]), np.arange(4.0)
    payload = struct.pack(
        "<I11fHBBB", 7, *(2, 1, -3), *(0.2, 0.1, -0.3), *(1, 0, -2), math.pi / 2 - 0.5, -0.4, 0, 9, 1, 1
    )
    head = bytes((0xFD, len(payload), 0, 0, 0, 245, 191)) + (84).to_bytes(3, "little")
    frame = head + payload
    expected = frame + crc(frame, 143).to_bytes(2, "little")
    assert wire(mavlink.motion_target(9, 7, place, velocity, acceleration)) == expected


def test_a_heartbeat_is_laid_out_as_the_protocol_says() -> None:
    frame = bytes.fromhex("fd 09 00 00 00 f5 bf 00 00 00 00 00 00 00 12 08 00 04 03")
    assert wire(mavlink.heartbeat()) == frame + crc(frame, 50).to_bytes(2, "little")


def test_a_position_alone_says_that_the_rest_is_to_be_ignored() -> None:
    message = arrived(mavlink.position_target(1, 0, np.array([1.0, 2.0, 3.0, 0.0])))
    ignored = common.POSITION_TARGET_TYPEMASK_VX_IGNORE | common.POSITION_TARGET_TYPEMASK_VY_IGNORE
    ignored |= common.POSITION_TARGET_TYPEMASK_VZ_IGNORE | common.POSITION_TARGET_TYPEMASK_AX_IGNORE
    ignored |= common.POSITION_TARGET_TYPEMASK_AY_IGNORE | common.POSITION_TARGET_TYPEMASK_AZ_IGNORE
    assert message.type_mask == ignored | common.POSITION_TARGET_TYPEMASK_YAW_RATE_IGNORE
    assert arrived(mavlink.motion_target(1, 0, *np.zeros((3, 4)))).type_mask == 0


@given(PLACE, PLACE, PLACE)
def test_a_setpoint_means_what_was_meant(place: ndarray, velocity: ndarray, acceleration: ndarray) -> None:
    message = arrived(mavlink.motion_target(1, 0, place, velocity, acceleration))
    for given_, (north, east, down) in (
        (place, (message.x, message.y, message.z)),
        (velocity, (message.vx, message.vy, message.vz)),
        (acceleration, (message.afx, message.afy, message.afz)),
    ):
        # In single precision without any rounding, since the numbers are.
        assert [east, north, -down] == given_[:3].tolist()
    # The nose points the same way: from east to north is the other way round, and a quarter turn apart.
    assert math.cos(place[3]) == pytest.approx(math.sin(message.yaw), abs=1e-5)
    assert math.sin(place[3]) == pytest.approx(math.cos(message.yaw), abs=1e-5)
    assert abs(message.yaw) <= math.pi + 1e-6
    assert message.yaw_rate == -velocity[3]


@given(st.floats(-20, 20))
def test_a_heading_is_its_own_inverse(yaw: float) -> None:
    assert math.remainder(mavlink.heading(mavlink.heading(yaw)) - yaw, 2 * math.pi) == pytest.approx(0, abs=1e-12)


def test_milliseconds_wrap() -> None:
    assert arrived(mavlink.position_target(1, (1 << 32) + 5, np.zeros(4))).time_boot_ms == 5
    assert arrived(mavlink.position_target(1, (1 << 32) - 1, np.zeros(4))).time_boot_ms == (1 << 32) - 1


@pytest.mark.parametrize(
    ("ned", "nose", "left_wing"),
    [
        ([1, 0, 0, 0], "north", "west"),
        ([TURN, 0, 0, TURN], "east", "north"),
        ([0, 0, 0, 1], "south", "east"),
        ([TURN, 0, TURN, 0], "up", "west"),  # pitched up by a quarter turn
        ([TURN, TURN, 0, 0], "north", "up"),  # rolled to the right by a quarter turn
        ([-TURN, 0, 0, -TURN], "east", "north"),  # the other sign means the same
    ],
)
def test_known_attitudes(ned: list[float], nose: str, left_wing: str) -> None:
    """Of PX4's, with the nose and the left wing where they are in our world."""
    compass = {"north": [0, 1, 0], "south": [0, -1, 0], "east": [1, 0, 0], "west": [-1, 0, 0], "up": [0, 0, 1]}
    rotation = rotation_from_quaternion(read(odometry(quaternion=np.array(ned))).quaternion[None])[0]
    np.testing.assert_allclose(rotation[:, 0], compass[nose], atol=1e-6)
    np.testing.assert_allclose(rotation[:, 1], compass[left_wing], atol=1e-6)


def test_known_motions() -> None:
    found = read(odometry(position=NORTH + 2 * EAST + 3 * DOWN, velocity=NORTH - DOWN, rates=np.array([1.0, 2.0, 3.0])))
    assert found.position.tolist() == [2, 1, -3]
    assert found.velocity.tolist() == [0, 1, 1]
    # To roll right is positive for both; nose up and turning right are only for PX4.
    assert found.rates.tolist() == [1, -2, -3]


@given(QUATERNION, VECTOR)
def test_an_arrow_in_the_body_is_the_same_arrow_in_either_world(quaternion: ndarray, arrow: ndarray) -> None:
    """What PX4's attitude does to a vector of its body, ours does to the same vector of our body."""
    there = rotation_from_quaternion(quaternion[None])[0] @ arrow
    ours = rotation_from_quaternion(read(odometry(quaternion=quaternion)).quaternion[None])[0]
    np.testing.assert_allclose(ours @ (arrow * [1, -1, -1]), [there[1], there[0], -there[2]], atol=2e-4)


@given(QUATERNION, VECTOR)
def test_a_velocity_in_the_body_is_one_in_the_world(quaternion: ndarray, velocity: ndarray) -> None:
    world = rotation_from_quaternion(quaternion[None])[0] @ velocity
    body = read(odometry(quaternion=quaternion, velocity=velocity, child=common.MAV_FRAME_BODY_FRD))
    same = read(odometry(quaternion=quaternion, velocity=world))
    np.testing.assert_allclose(body.velocity, same.velocity, atol=2e-4)


@pytest.mark.parametrize(
    ("frame", "child"),
    [
        (common.MAV_FRAME_LOCAL_FRD, common.MAV_FRAME_LOCAL_NED),
        (common.MAV_FRAME_LOCAL_NED, common.MAV_FRAME_LOCAL_FLU),
    ],
)
def test_other_frames_are_not_guessed_at(frame: int, child: int) -> None:
    assert mavlink.motion(odometry(frame=frame, child=child)) is None


@given(st.integers(-(1 << 22), 1 << 22))
def test_whole_parameters_travel_as_the_bytes_of_a_real_one(value: int) -> None:
    (field,) = struct.unpack("<f", struct.pack("<i", value))
    whole = common.MAVLink_param_value_message(b"COM_OBL_RC_ACT", field, common.MAV_PARAM_TYPE_INT32, 1, 0)
    assert mavlink.parameter(arrived(whole)) == value
    real = common.MAVLink_param_value_message(b"COM_OF_LOSS_T", float(value), common.MAV_PARAM_TYPE_REAL32, 1, 0)
    assert mavlink.parameter(arrived(real)) == value


def test_modes_are_asked_for_by_their_two_numbers() -> None:
    message = arrived(mavlink.set_mode(1, Mode.LAND))
    assert (message.command, message.param1, message.param2, message.param3) == (176, 1, 4, 6)
    message = arrived(mavlink.set_mode(1, Mode.OFFBOARD))
    assert (message.param1, message.param2, message.param3) == (1, 6, 0)
    assert mavlink.mode_name(Mode.HOLD) == "HOLD"
    assert mavlink.mode_name(99 << 16) == "0x630000"


def test_rotors_stop_in_the_air_only_by_force() -> None:
    gentle, hard = arrived(mavlink.disarm(1)), arrived(mavlink.disarm(1, force=True))
    assert (gentle.command, gentle.param1, gentle.param2) == (400, 0, 0)
    assert (hard.command, hard.param1, hard.param2) == (400, 0, 21196)


def test_questions_and_answers_have_words() -> None:
    stream = arrived(mavlink.ask_for_stream(1, 331, 100.0))
    assert (stream.command, stream.param1, stream.param2) == (511, 331, 10_000)
    once = arrived(mavlink.ask_for(1, 148))
    assert (once.command, once.param1) == (512, 148)
    assert arrived(mavlink.ask_for_parameter(1, "COM_OF_LOSS_T")).param_id == "COM_OF_LOSS_T"
    assert mavlink.result_name(1) == "temporarily rejected"
    assert mavlink.result_name(77) == "result 77"
    assert mavlink.version(1 << 24 | 15 << 16 | 4 << 8 | 255) == (1, 15, 4)

"""MAVLink 2 as PX4 speaks it: messages to what they mean in our frames, and back.

PX4's world is north-east-down and its body front-right-down; ours are east-north-up and front-left-up. A heading of
PX4's is counted from north to east, ours from east to north. The bytes themselves are pymavlink's; nothing here sends
or receives.

Sources: mavlink.io/en/messages/common.html; PX4, px4_custom_mode.h and "Offboard mode".
"""

import math
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from pymavlink.dialects.v20 import common

from alula.core.geometry import attitude_enu_from_ned, enu_from_ned, flu_from_frd, rotation_from_quaternion

Message = Any
"""A message of pymavlink's, which has no types."""
Vector = Float64[ndarray, "3"]

OWN_SYSTEM, OWN_COMPONENT = 245, common.MAV_COMP_ID_ONBOARD_COMPUTER
"""What we call ourselves: a companion computer, before it knows its vehicle's number in a system of its own."""
FORCE = 21196
"""Makes PX4 disarm in the air."""
ONLY_POSITION = 0b1001_1111_1000
"""Type mask: velocity, acceleration and yaw rate are to be ignored."""
EVERYTHING = 0
"""Type mask: position, velocity, acceleration, yaw and yaw rate all count."""
WRAP_MS = 1 << 32
"""Milliseconds since boot are counted in 32 bits."""


class Mode(IntEnum):
    """Flight modes: main mode from bit 16 on, sub mode from bit 24 on."""

    MANUAL = 1 << 16
    ALTITUDE = 2 << 16
    POSITION = 3 << 16
    TAKEOFF = 4 << 16 | 2 << 24
    HOLD = 4 << 16 | 3 << 24
    MISSION = 4 << 16 | 4 << 24
    RETURN = 4 << 16 | 5 << 24
    LAND = 4 << 16 | 6 << 24
    ACRO = 5 << 16
    OFFBOARD = 6 << 16
    STABILIZED = 7 << 16


def mode_name(mode: int) -> str:
    """In words."""
    return Mode(mode).name if mode in list(Mode) else f"{mode:#x}"


def heading(yaw: float) -> float:
    """A yaw of ours as PX4's and the other way round, in [-pi, pi] [rad]."""
    return math.remainder(math.pi / 2 - yaw, 2 * math.pi)


def heartbeat() -> Message:
    """We are there."""
    kind, none = common.MAV_TYPE_ONBOARD_CONTROLLER, common.MAV_AUTOPILOT_INVALID
    return common.MAVLink_heartbeat_message(kind, none, 0, 0, common.MAV_STATE_ACTIVE, 3)


def position_target(system: int, time_ms: int, place: Float64[ndarray, "4"]) -> Message:
    """Go there, however.

    Args:
        system: Number of the vehicle.
        time_ms: Since any moment [ms].
        place: x, y, z [m] and yaw [rad].
    """
    zero = np.zeros(4)
    return _target(system, time_ms, ONLY_POSITION, place, zero, zero)


def motion_target(
    system: int,
    time_ms: int,
    place: Float64[ndarray, "4"],
    velocity: Float64[ndarray, "4"],
    acceleration: Float64[ndarray, "4"],
) -> Message:
    """Be there, with this velocity and acceleration.

    Args:
        system: Number of the vehicle.
        time_ms: Since any moment [ms].
        place: x, y, z [m] and yaw [rad].
        velocity: Of these [m/s, rad/s].
        acceleration: Of these [m/s², rad/s²]; that of the yaw has no field and is left out.
    """
    return _target(system, time_ms, EVERYTHING, place, velocity, acceleration)


def _target(system: int, time_ms: int, mask: int, place: ndarray, velocity: ndarray, acceleration: ndarray) -> Message:
    vectors = enu_from_ned(np.stack([place[:3], velocity[:3], acceleration[:3]])).ravel().tolist()
    return common.MAVLink_set_position_target_local_ned_message(
        time_ms % WRAP_MS,
        system,
        common.MAV_COMP_ID_AUTOPILOT1,
        common.MAV_FRAME_LOCAL_NED,
        mask,
        *vectors,
        heading(float(place[3])),
        -float(velocity[3]),
    )


@dataclass(frozen=True)
class Motion:
    """Where a vehicle is and how it moves, in our frames."""

    position: Vector
    """[m]"""
    quaternion: Float64[ndarray, "4"]
    """wxyz, of the length that was sent."""
    velocity: Vector
    """In the world [m/s]."""
    rates: Vector
    """In the body [rad/s]."""


def motion(odometry: Message) -> Motion | None:
    """What an ODOMETRY message says; None where it is about another frame than the local one."""
    if odometry.frame_id != common.MAV_FRAME_LOCAL_NED:
        return None
    quaternion = attitude_enu_from_ned(np.array([odometry.q], dtype=np.float64))[0]
    position = enu_from_ned(np.array([[odometry.x, odometry.y, odometry.z]]))[0]
    velocity = np.array([[odometry.vx, odometry.vy, odometry.vz]])
    rates = flu_from_frd(np.array([[odometry.rollspeed, odometry.pitchspeed, odometry.yawspeed]]))[0]
    if odometry.child_frame_id == common.MAV_FRAME_LOCAL_NED:
        return Motion(position, quaternion, enu_from_ned(velocity)[0], rates)
    if odometry.child_frame_id == common.MAV_FRAME_BODY_FRD:
        unit = quaternion / max(float(np.linalg.norm(quaternion)), np.finfo(float).tiny)
        return Motion(position, quaternion, rotation_from_quaternion(unit[None])[0] @ flu_from_frd(velocity)[0], rates)
    return None


def command(system: int, code: int, *parameters: float) -> Message:
    """A command to the autopilot, which answers with COMMAND_ACK; missing parameters are 0."""
    seven = (*parameters, *(0.0,) * (7 - len(parameters)))
    return common.MAVLink_command_long_message(system, common.MAV_COMP_ID_AUTOPILOT1, code, 0, *seven)


def set_mode(system: int, mode: Mode) -> Message:
    """Change the flight mode."""
    custom = common.MAV_MODE_FLAG_CUSTOM_MODE_ENABLED
    return command(system, common.MAV_CMD_DO_SET_MODE, custom, mode >> 16 & 0xFF, mode >> 24)


def arm(system: int) -> Message:
    """Rotors on."""
    return command(system, common.MAV_CMD_COMPONENT_ARM_DISARM, 1)


def disarm(system: int, force: bool = False) -> Message:
    """Rotors off; in the air only by force."""
    return command(system, common.MAV_CMD_COMPONENT_ARM_DISARM, 0, FORCE if force else 0)


def ask_for(system: int, message: int) -> Message:
    """Send this message once."""
    return command(system, common.MAV_CMD_REQUEST_MESSAGE, message)


def ask_for_stream(system: int, message: int, rate: float) -> Message:
    """Send this message again and again [Hz]."""
    return command(system, common.MAV_CMD_SET_MESSAGE_INTERVAL, message, 1e6 / rate)


def ask_for_parameter(system: int, name: str) -> Message:
    """Tell the value of a parameter; the answer is PARAM_VALUE."""
    return common.MAVLink_param_request_read_message(system, common.MAV_COMP_ID_AUTOPILOT1, name.encode(), -1)


def parameter(answer: Message) -> float:
    """The value in a PARAM_VALUE: PX4 puts the bytes of whole numbers into the field of the real one."""
    if answer.param_type == common.MAV_PARAM_TYPE_REAL32:
        return float(answer.param_value)
    (whole,) = struct.unpack("<i", struct.pack("<f", answer.param_value))
    return float(whole)


def result_name(result: int) -> str:
    """What a COMMAND_ACK says, in words."""
    entry = common.enums["MAV_RESULT"].get(result)
    return entry.name.removeprefix("MAV_RESULT_").lower().replace("_", " ") if entry else f"result {result}"


def version(flight_sw_version: int) -> tuple[int, int, int]:
    """Major, minor and patch of AUTOPILOT_VERSION's number."""
    return flight_sw_version >> 24 & 0xFF, flight_sw_version >> 16 & 0xFF, flight_sw_version >> 8 & 0xFF

"""The Franka Control Interface's messages, read and written from the robot's side: little-endian and packed.

Commands go over TCP to port 1337; states come by UDP once a millisecond, and each is answered by a datagram with the
next set point. Nothing of libfranka or the driver is used here.

Sources:
    libfranka: `research_interface/robot/{rbk_types,service_types,error}.h` of libfranka-common, for the layout and the
        numbers of commands; version 10 sends states in single precision and counts commands anew (observed).
    FR3: Franka Research 3, "Robot and interface specifications" and `franka_description`, robots/fr3/joint_limits.yaml.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from math import atan2

from alula.sims.robots.panda.panda import PANDA

PORT = 1337
VERSION = 10
"""Of the robot's server that libfranka 0.21 expects."""
JOINTS = 7
LOW = (-2.9007, -1.8361, -2.9007, -3.0770, -2.8763, 0.4398, -3.0508)
HIGH = (2.9007, 1.8361, 2.9007, -0.1169, 2.8763, 4.6216, 3.0508)
"""Joint positions beyond which the robot stops by itself [rad] (FR3)."""
VELOCITY = (2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26)
"""[rad/s] (FR3)"""
ACCELERATION, JERK = 10.0, 5000.0
"""[rad/s^2, rad/s^3] (FR3)"""
TORQUE = (87, 87, 87, 87, 12, 12, 12)
"""[N m] (FR3)"""
SLOWING = ((6.0, 0.652), (2.585, 0.25), (3.5, 0.2005), (4.0, 0.3542), (17.0, 0.5738), (5.5, 0.4885), (17.0, 0.4592))
"""Per joint: deceleration [rad/s^2] and offset [rad/s] of the velocity that is allowed near the ends (FR3)."""

HEADER = struct.Struct("<III")
"""Command, number, size of the whole message."""
CONNECT = struct.Struct("<HH")
"""Version of the client's library and its UDP port."""
MOVE = struct.Struct("<II")
"""Controller and motion generator."""
JOINT_IMPEDANCE, POSITIONS, VELOCITIES = 0, 0, 1
"""The only controller that is emulated, and the motion generators."""
NOT_RECOVERED = 2
"""Status of a recovery that is refused because of the user stop."""
COLLISION = struct.Struct("<7d 7d 7d 7d 6d 6d 6d 6d")
STATE = struct.Struct(
    "<Q" + "96f" + "26f" + "4f" + "56f" + "26f" + "7f" + "18f" + "3f6f" + "28f" + "50f" + "BB41B41BBf"
)
COMMAND = struct.Struct("<Q 7d 7d 16d 6d 2d ? ? 7d ?")


class Command(IntEnum):
    """What a client asks for over TCP."""

    CONNECT = 0
    MOVE = 1
    STOP_MOVE = 2
    SET_COLLISION_BEHAVIOR = 3
    SET_JOINT_IMPEDANCE = 4
    SET_CARTESIAN_IMPEDANCE = 5
    SET_GUIDING_MODE = 6
    SET_EE_TO_K = 7
    SET_NE_TO_EE = 8
    SET_LOAD = 9
    RECOVER = 10
    GET_MODEL = 11


class Mode(IntEnum):
    """What the robot is doing."""

    OTHER = 0
    IDLE = 1
    MOVE = 2
    GUIDING = 3
    REFLEX = 4
    USER_STOPPED = 5


class MoveStatus(IntEnum):
    """How a motion begins and ends."""

    SUCCESS = 0
    STARTED = 1
    PREEMPTED = 2
    NOT_POSSIBLE = 5
    INVALID = 7
    REFLEX = 8
    EMERGENCY = 9


ERRORS = {
    "joint_reflex": 6,
    "cartesian_reflex": 7,
    "joint_position_motion_generator_start_pose_invalid": 11,
    "joint_motion_generator_position_limits_violation": 12,
    "joint_motion_generator_velocity_limits_violation": 13,
    "joint_motion_generator_velocity_discontinuity": 14,
    "joint_motion_generator_acceleration_discontinuity": 15,
    "communication_constraints_violation": 25,
}
"""Places of the errors that the emulator can have among the 41."""


@dataclass(frozen=True)
class SetPoint:
    """A client's answer to a state."""

    message_id: int
    position: tuple[float, ...]
    velocity: tuple[float, ...]
    """Of the joints [rad, rad/s]; what counts is which of them the motion is made of."""
    finished: bool


def read_set_point(data: bytes) -> SetPoint:
    """Take a datagram apart."""
    values = COMMAND.unpack(data)
    return SetPoint(values[0], values[1:8], values[8:15], values[40])


class Stream:
    """Puts a TCP stream's pieces together."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> Iterator[tuple[Command, int, bytes]]:
        """Command, number and content of every message that is complete."""
        self._data += data
        while len(self._data) >= HEADER.size:
            command, number, size = HEADER.unpack_from(self._data)
            if len(self._data) < size:
                return
            yield Command(command), number, self._data[HEADER.size : size]
            self._data = self._data[size:]


def reply(command: Command, number: int, status: int, content: bytes = b"") -> bytes:
    """Answer to a command."""
    return HEADER.pack(command, number, HEADER.size + 1 + len(content)) + bytes((status,)) + content


def connected(number: int, theirs: int, ours: int) -> bytes:
    """Answer to `CONNECT`: whether the client's version is ours, and ours."""
    return reply(Command.CONNECT, number, int(theirs != ours), struct.pack("<H", ours))


@dataclass
class Telemetry:
    """What a state says; the rest of the 337 numbers is constant or zero."""

    message_id: int
    mode: Mode
    generator: int
    """What the motion is made of, counted from 1; 0: there is none."""
    position: tuple[float, ...]
    velocity: tuple[float, ...]
    torque: tuple[float, ...]
    desired: tuple[float, ...]
    desired_velocity: tuple[float, ...]
    desired_acceleration: tuple[float, ...]
    wrench: tuple[float, ...]
    """Force [N] and torque [N m] of the robot on its surroundings, in the frame of the tool."""
    pose: tuple[float, ...]
    """Of the end effector in the base, 4 x 4 column by column."""
    errors: frozenset[str]
    reasons: frozenset[str]
    """Errors that ended the last motion."""
    success_rate: float

    def pack(self) -> bytes:
        """The datagram."""
        unit = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
        elbow = (self.position[2], 1.0 if self.position[3] > 0 else -1.0)
        zeros = (0.0,) * 16
        wanted_elbow = (self.desired[2], elbow[1], self.desired_velocity[2], 0.0, self.desired_acceleration[2], 0.0)
        return STATE.pack(
            self.message_id,
            *(*self.pose, *self.pose, *unit, *unit, *unit, *unit),
            *(0.73, 1e-3, 0.0, 0.0, 0.0, 2.5e-3, 0.0, 0.0, 0.0, 1.7e-3, -0.01, 0.0, 0.03),  # the hand: data sheet
            *(0.0,) * 13,
            *(*elbow, *elbow),
            *(*self.torque, *self.torque, *zeros[:7], *self.position, *self.desired),
            *(*self.velocity, *self.desired_velocity, *self.desired_acceleration),
            *(*zeros, *zeros[:10]),
            *zeros[:7],
            *(*zeros[:6], *self.wrench, *zeros[:6]),
            *(0.0, 0.0, -9.81, *wanted_elbow),
            *(*self.pose, *zeros[:12]),
            *(*self.position, *self.velocity, *zeros, *zeros, *zeros[:4]),
            *(self.generator, 0 if self.generator else 3),
            *_flags(self.errors),
            *_flags(self.reasons),
            self.mode,
            self.success_rate,
        )


def _flags(names: frozenset[str]) -> bytes:
    flags = bytearray(41)
    for name in names:
        flags[ERRORS[name]] = 1
    return bytes(flags)


def description(name: str) -> str:
    """The robot's description of itself (URDF): the Panda's links, which the FR3 shares, without their looks.

    libfranka looks for `link8`, and reads memory that is not its own where there is none.
    """
    lines = [f'<robot name="{name}"><link name="base"/>', _fixed("base_joint", "base", "link0", "0 0 0")]
    lines.append(f'<link name="link0">{_inertial(2.4, (-0.017, 0.0, 0.0745), (0.009, 0.0115, 0.0085))}</link>')
    for index, link in enumerate(PANDA.links):
        w, x, _, _ = link.quaternion
        roll, (deceleration, offset) = 2 * atan2(x, w), SLOWING[index]
        lines.append(
            f'<link name="link{index + 1}">{_inertial(link.mass, link.center, link.inertia)}</link>'
            f'<joint name="joint{index + 1}" type="revolute"><axis xyz="0 0 1"/>'
            f'<origin rpy="{roll} 0 0" xyz="{_text(link.position)}"/>'
            f'<parent link="link{index}"/><child link="link{index + 1}"/>'
            f'<limit effort="{TORQUE[index]}" lower="{LOW[index]}" upper="{HIGH[index]}" velocity="{VELOCITY[index]}"/>'
            f'<position_based_velocity_limits deceleration_limit="{deceleration}" velocity_offset="{offset}"/></joint>'
        )
    lines.append(f'<link name="link8"/>{_fixed("joint8", "link7", "link8", _text(PANDA.flange))}')
    return "\n".join((*lines, "</robot>"))


def _fixed(name: str, parent: str, child: str, position: str) -> str:
    return (
        f'<joint name="{name}" type="fixed"><parent link="{parent}"/><child link="{child}"/>'
        f'<origin rpy="0 0 0" xyz="{position}"/></joint>'
    )


def _inertial(mass: float, center: tuple[float, ...], moments: tuple[float, ...]) -> str:
    xx, yy, zz = moments
    return (
        f'<inertial><origin rpy="0 0 0" xyz="{_text(center)}"/><mass value="{mass}"/>'
        f'<inertia ixx="{xx}" ixy="0" ixz="0" iyy="{yy}" iyz="0" izz="{zz}"/></inertial>'
    )


def _text(vector: tuple[float, ...]) -> str:
    return " ".join(str(value) for value in vector)

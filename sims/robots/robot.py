"""Robot arms as data: links, limits, servos and gripper, and how they are added to a scene."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import mujoco
import numpy as np

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]
Actuation = Literal["position", "torque"]
"""Position servos, or motors that take torques."""


@dataclass(frozen=True)
class Link:
    """One moving link and the hinge that carries it, which turns about the link frame's z axis."""

    position: Vector
    """Origin of this link's frame in the previous one [m]."""
    quaternion: Quaternion
    """Its orientation at joint angle zero, wxyz."""
    low: float
    """Lower position limit [rad]."""
    high: float
    """Upper position limit [rad]."""
    velocity: float
    """Velocity limit [rad/s]."""
    torque: float
    """Torque limit [N m]."""
    mass: float
    """[kg]"""
    center: Vector
    """Centre of mass in the link frame [m]."""
    inertia: Vector
    """Principal moments about the centre of mass [kg m^2]."""
    armature: float
    """Rotor inertia seen at the joint [kg m^2]."""
    stiffness: float
    """Gain of the position servo [N m/rad]."""
    damping: float
    """Velocity gain of the position servo [N m s/rad]."""
    radius: float
    """Of the drawing [m]."""
    via: tuple[Vector, ...] = ()
    """Corners of the drawing on its way to the next link [m]."""


@dataclass(frozen=True)
class Gripper:
    """A parallel gripper: a housing along the tool's +z axis and two fingers that slide along its y axis."""

    length: float
    """From the flange to the point between the fingertips [m]."""
    finger_length: float
    """Free length of the fingers [m]."""
    finger_width: float
    """Width of the pads, along the tool's x axis [m]."""
    stroke: float
    """Largest distance of each finger from the middle [m]."""
    force: float
    """Grasping force per finger [N]."""
    mass: float
    """Housing and fingers together [kg]."""
    housing: tuple[float, float]
    """Half-sizes of the housing along the tool's x and y [m]."""
    turn: float = 0.0
    """From the flange to the gripper about the tool's axis [rad]."""


@dataclass(frozen=True)
class Robot:
    """An arm with a gripper. Sources of the numbers are in the robot's own file."""

    name: str
    links: tuple[Link, ...]
    flange: Vector
    """Flange in the last link's frame [m]."""
    flange_quaternion: Quaternion
    """Orientation of the flange in the last link's frame, its +z pointing away from the arm, wxyz."""
    gripper: Gripper
    home: tuple[float, ...]
    """Posture with the tool pointing down over the workspace [rad]."""
    workspace: Vector
    """Centre of the workspace on the table, before the base [m, m], and half-width of its square [m]."""
    color: tuple[float, float, float, float]
    stand: float = 0.0
    """Height of the block under the base [m]."""

    def joint_names(self, prefix: str = "") -> tuple[str, ...]:
        """Hinges from base to flange."""
        return tuple(f"{prefix}joint{index}" for index in range(1, len(self.links) + 1))


def modified_denavit_hartenberg(a: float, d: float, alpha: float) -> tuple[Vector, Quaternion]:
    """Pose of a link in the previous one from Denavit-Hartenberg parameters in Craig's convention [m, m, rad]."""
    cos, sin = np.cos(alpha), np.sin(alpha)
    return (a, -d * sin, d * cos), (np.cos(alpha / 2), np.sin(alpha / 2), 0.0, 0.0)


def turned(quaternion: Quaternion, vector: Vector) -> Vector:
    """A vector after the rotation `quaternion`."""
    result = np.empty(3)
    mujoco.mju_rotVecQuat(result, np.array(vector, dtype=float), np.array(quaternion))
    return (float(result[0]), float(result[1]), float(result[2]))


def add_arm(
    spec: mujoco.MjSpec,
    robot: Robot,
    prefix: str = "",
    base: Vector = (0.0, 0.0, 0.0),
    yaw: float = 0.0,
    actuation: Actuation = "position",
) -> mujoco.MjsBody:
    """Add the arm without its gripper; returns the flange body, tool axis along +z.

    Arm links are drawn but do not collide: the tasks' contacts are at the tool. The drives are assumed to
    compensate the arm's weight, as the vendors' do (`gravcomp`). The specification's angles become radians.

    Args:
        spec: Scene to add to.
        robot: What to add.
        prefix: Put before every name.
        base: Position of the base, or of the block under it, in the world [m].
        yaw: Direction of the base's x axis [rad].
        actuation: What the commands are.
    """
    spec.compiler.degree = False
    turn = [np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
    parent = spec.worldbody.add_body(name=f"{prefix}link0", pos=[base[0], base[1], base[2] + robot.stand], quat=turn)
    first = robot.links[0]
    _draw(parent, (0, 0, -robot.stand), (0, 0, 0), 1.2 * first.radius, robot.color)
    _draw(parent, (0, 0, 0), _towards(first.position, 0.06), 1.2 * first.radius, robot.color)
    followers = [link.position for link in robot.links[1:]] + [robot.flange]
    for index, (link, following) in enumerate(zip(robot.links, followers, strict=True), start=1):
        body = parent.add_body(
            name=f"{prefix}link{index}",
            pos=list(link.position),
            quat=list(link.quaternion),
            mass=link.mass,
            ipos=list(link.center),
            inertia=list(link.inertia),
            explicitinertial=True,
            gravcomp=1.0,
        )
        body.add_joint(
            name=f"{prefix}joint{index}",
            type=mujoco.mjtJoint.mjJNT_HINGE,
            axis=[0, 0, 1],
            range=[link.low, link.high],
            armature=link.armature,
        )
        _draw(body, (0, 0, -link.radius), (0, 0, link.radius), link.radius, robot.color)
        end = _towards(following, 0.03 if index == len(robot.links) else 0.0)
        for corner, next_corner in pairwise(((0.0, 0.0, 0.0), *link.via, end)):
            _draw(body, corner, next_corner, 0.9 * link.radius, robot.color)
        _add_drive(spec, f"{prefix}joint{index}", f"{prefix}servo{index}", link, actuation)
        parent = body
    flange = parent.add_body(name=f"{prefix}flange", pos=list(robot.flange), quat=list(robot.flange_quaternion))
    _draw(flange, (0, 0, -0.03), (0, 0, 0), 0.8 * robot.links[-1].radius, robot.color)
    return flange


def _add_drive(spec: mujoco.MjSpec, joint: str, name: str, link: Link, actuation: Actuation) -> None:
    """Position servo: torque = stiffness (target - position) - damping velocity, within the torque limit; or a motor."""
    actuator = spec.add_actuator(name=name, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    if actuation == "position":
        actuator.set_to_position(kp=link.stiffness, kv=link.damping)
        actuator.ctrlrange = [link.low, link.high]
    else:
        actuator.set_to_motor()
        actuator.ctrlrange = [-link.torque, link.torque]
    actuator.ctrllimited = True
    actuator.forcerange = [-link.torque, link.torque]
    actuator.forcelimited = True


def add_gripper(spec: mujoco.MjSpec, robot: Robot, flange: mujoco.MjsBody, prefix: str = "") -> None:
    """Add the gripper with its site `tool` between the fingertips, joints and servos `left` and `right`.

    A servo's target is its finger's distance from the middle [m]. A gear keeps both fingers equally far from it.
    """
    gripper = robot.gripper
    turn = [np.cos(gripper.turn / 2), 0, 0, np.sin(gripper.turn / 2)]
    hand = flange.add_body(name=f"{prefix}hand", quat=turn, gravcomp=1.0)
    palm = gripper.length - gripper.finger_length
    _draw_box(hand, palm / 2, (*gripper.housing, palm / 2), 0.9 * gripper.mass)
    rail = FINGER_THICKNESS / 2
    _draw_box(hand, palm - rail, (0.8 * gripper.housing[0], gripper.stroke + FINGER_THICKNESS, rail), 0.0)
    hand.add_site(name=f"{prefix}tool", pos=[0, 0, gripper.length], size=[0.004, 0.004, 0.004], rgba=[0, 0, 0, 0])
    for name, side in (("left", 1.0), ("right", -1.0)):
        _add_finger(spec, hand, prefix + name, side, gripper)
    spec.add_equality(
        name=f"{prefix}fingers",
        type=mujoco.mjtEq.mjEQ_JOINT,
        objtype=mujoco.mjtObj.mjOBJ_JOINT,
        name1=f"{prefix}left",
        name2=f"{prefix}right",
        solref=COUPLING,
    )


def _add_finger(spec: mujoco.MjSpec, hand: mujoco.MjsBody, name: str, side: float, gripper: Gripper) -> None:
    """A finger that slides towards `side` times the hand's y axis, and its servo."""
    finger = hand.add_body(name=f"{name}_finger", pos=[0, 0, gripper.length - gripper.finger_length], gravcomp=1.0)
    finger.add_joint(
        name=name,
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=[0, side, 0],
        range=[0, gripper.stroke],
        armature=FINGER_ARMATURE,
        damping=gripper.force / FINGER_SPEED,
    )
    half_sizes = (gripper.finger_width / 2, FINGER_THICKNESS / 2, (gripper.finger_length + FINGERTIP) / 2)
    finger.add_geom(
        name=f"{name}_pad",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=[0, side * half_sizes[1], half_sizes[2]],
        size=list(half_sizes),
        mass=0.05 * gripper.mass,
        rgba=[0.45, 0.47, 0.50, 1],
        friction=[PAD_FRICTION, 0.02, 0.001],
        condim=4,
        solref=[0.01, 1.0],
    )
    actuator = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    actuator.set_to_position(kp=gripper.force / FULL_FORCE_AT)
    actuator.ctrlrange = [0, gripper.stroke]
    actuator.ctrllimited = True
    actuator.forcerange = [-gripper.force, gripper.force]
    actuator.forcelimited = True


FINGER_THICKNESS = 0.012
"""Depth of a finger, along the tool's y axis [m]: our choice."""
FINGERTIP = 0.008
"""How far the fingers reach beyond the tool point [m]: our choice."""
FINGER_ARMATURE = 0.2
"""Inertia of a finger's drive [kg]: our choice."""
FINGER_SPEED = 0.1
"""Speed of a finger that moves freely with its full force [m/s]: our choice; the hands' makers permit 0.05 to 0.075."""
FULL_FORCE_AT = 0.005
"""Distance from its target at which a finger presses with its full force [m]: our choice."""
COUPLING = (0.005, 1.0)
"""Time constant [s] and damping ratio of the gear between the fingers: as stiff as the usual step of 2.5 ms permits."""
PAD_FRICTION = 1.0
"""Sliding friction of rubber pads on plastic, of the order of tribology tables."""


def _towards(end: Vector, shorter: float) -> Vector:
    """The point `shorter` [m] before `end` on the way from the origin."""
    length = float(np.linalg.norm(end))
    share = max(0.0, 1.0 - shorter / length) if length > 0 else 0.0
    return (end[0] * share, end[1] * share, end[2] * share)


def _draw(body: mujoco.MjsBody, start: Vector, end: Vector, radius: float, color: tuple[float, ...]) -> None:
    """A capsule that suggests the real arm's shape; it carries no mass and touches nothing."""
    if np.allclose(start, end):
        return
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=[*start, *end],
        size=[radius, 0, 0],
        mass=0,
        contype=0,
        conaffinity=0,
        group=1,
        rgba=list(color),
    )


def _draw_box(hand: mujoco.MjsBody, height: float, half_sizes: Vector, mass: float) -> None:
    """A box on the tool's axis that touches nothing."""
    hand.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=[0, 0, height],
        size=list(half_sizes),
        mass=mass,
        contype=0,
        conaffinity=0,
        rgba=[0.25, 0.27, 0.30, 1],
    )

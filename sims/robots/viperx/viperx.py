"""Trossen ViperX 300 6DOF: kinematics, limits and inertia, with the source of every number.

Sources:
    URDF: Interbotix/interbotix_ros_manipulators, interbotix_xsarm_descriptions/urdf/vx300s.urdf.xacro (origins, axes
        and limits of the joints, masses, centres of mass, inertia, gripper).
    Trossen: ViperX-300 6DOF specifications (which servos drive a joint).
    Robotis: DYNAMIXEL e-Manual, at 12 V (stall torque 10.6 N m of the XM540-W270, 4.1 N m of the XM430-W350).
"""

import mujoco
import numpy as np

from alula.sims.robots.robot import Gripper, Link, Quaternion, Robot, Vector, turned

XM540, XM430 = 10.6, 4.1
"""Stall torque of the servos [N m] (Robotis)."""
ARMATURE = 0.05
"""Rotor inertia seen at the joint per servo [kg m^2]: our choice, twice that of the SO-101's smaller servos."""
DAMPING_TIME = 0.05
"""Ratio of servo damping to stiffness [s]: our choice, near critical damping at the pose `home`."""
SPEED = np.pi
"""Velocity limit of every joint [rad/s] (URDF)."""
HINGES: dict[str, Quaternion] = {
    "x": (np.sqrt(0.5), 0.0, np.sqrt(0.5), 0.0),
    "y": (np.sqrt(0.5), -np.sqrt(0.5), 0.0, 0.0),
    "z": (1.0, 0.0, 0.0, 0.0),
}
"""Rotation that brings the z axis onto the hinge's axis."""


def _link(
    axes: str,
    origin: Vector,
    limits_deg: tuple[float, float],
    servos: tuple[int, float],
    stiffness: float,
    mass: float,
    center: Vector,
    inertia: Vector,
    radius: float,
    via: tuple[Vector, ...] = (),
) -> Link:
    """One row of the table: the URDF's frames are all parallel at zero, and its hinges turn about x, y or z.

    Args:
        axes: Axis of the hinge before and of this one (URDF).
        origin: Of the joint in the link before [m] (URDF).
        limits_deg: Position [degrees] (URDF, which takes 0.00001 rad off half turns).
        servos: How many (Trossen), and the stall torque of one [N m] (Robotis).
        stiffness: Servo gain [N m/rad]: our choice.
        mass: [kg] (URDF).
        center: Centre of mass [m] (URDF).
        inertia: Moments about the URDF's axes [kg m^2] (URDF, off-diagonal terms left out).
        radius: Of the drawing [m].
        via: Of the drawing [m].
    """
    from_before, into_link = _inverse(HINGES[axes[0]]), _inverse(HINGES[axes[1]])
    position, quaternion = turned(from_before, origin), _product(from_before, HINGES[axes[1]])
    low, high = np.radians(limits_deg).tolist()
    count, torque = servos
    limits = (low, high, SPEED, count * torque)
    ixx, iyy, izz = map(abs, turned(into_link, inertia))
    servo = (count * ARMATURE, stiffness, stiffness * DAMPING_TIME)
    center, via = turned(into_link, center), tuple(turned(into_link, corner) for corner in via)
    return Link(position, quaternion, *limits, mass, center, (ixx, iyy, izz), *servo, radius, via)


def _product(first: Quaternion, second: Quaternion) -> Quaternion:
    result = np.empty(4)
    mujoco.mju_mulQuat(result, np.array(first), np.array(second))
    w, x, y, z = result.tolist()
    return (w, x, y, z)


def _inverse(quaternion: Quaternion) -> Quaternion:
    w, x, y, z = quaternion
    return (w, -x, -y, -z)


VIPERX = Robot(
    name="viperx",
    links=(
        _link("zz", (0, 0, 0.079), (-180, 180), (1, XM540), 200, 0.798614, (0.000259233, -0.0000033552, 0.0116129), (0.001138, 0.0009388, 0.001201), 0.035),
        _link("zy", (0, 0, 0.04805), (-106, 72), (2, XM540), 400, 0.792592, (0.0206949, 0.0000000004, 0.226459), (0.008937, 0.008925, 0.0009357), 0.028, ((0, 0, 0.3),)),
        _link("yy", (0.05955, 0, 0.3), (-101, 92), (2, XM540), 300, 0.322228, (0.105723, 0, 0), (0.0001524, 0.001342, 0.001441), 0.026),
        _link("yx", (0.2, 0, 0), (-180, 180), (1, XM540), 80, 0.414823, (0.0513477, 0.00680462, 0), (0.0001753, 0.0005269, 0.0005911), 0.024),
        _link("xy", (0.1, 0, 0), (-107, 128), (1, XM540), 80, 0.115395, (0.046743, -0.0000076652, 0.010565), (0.00004514, 0.00004631, 0.0000527), 0.024),
        _link("yx", (0.069744, 0, 0), (-180, 180), (1, XM430), 80, 0.097666, (0.023001, 0, 0.011523), (0.00002436, 0.00003268, 0.00002119), 0.022),
    ),
    flange=(0.0, 0.0, 0.042825),  # URDF: ee_arm
    flange_quaternion=(1.0, 0.0, 0.0, 0.0),
    gripper=Gripper(
        length=0.064375,  # URDF: from ee_arm to ee_gripper
        finger_length=0.0385,  # URDF: from fingers_link to ee_gripper
        finger_width=0.02,  # our choice
        stroke=0.036,  # URDF: the fingers' joints move from 21 to 57 mm
        force=20.0,  # our choice: what the XM430 gives at a small part of its stall torque
        mass=0.228587,  # URDF: bar, propeller and fingers
        housing=(0.02, 0.045),  # our choice
        turn=np.pi,  # our choice, so that the tool's yaw is zero at zero
    ),
    home=(0.0, 0.0, 0.2, 0.0, np.pi / 2 - 0.2, 0.0),
    workspace=(0.35, 0.0, 0.12),
    color=(0.16, 0.17, 0.19, 1.0),
)  # fmt: skip

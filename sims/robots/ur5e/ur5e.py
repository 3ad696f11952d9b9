"""Universal Robots UR5e with a Robotiq 2F-85: kinematics, limits and inertia, with the source of every number.

Sources:
    DH: Universal Robots support article "DH Parameters for calculations of kinematics and dynamics"
        (Denavit-Hartenberg parameters in the classic convention, masses, centres of mass).
    ROS: Universal_Robots_ROS2_Description, config/ur5e: inertia, and limits, which it takes from the user manual 5.8
        and the support article "Max. joint torques"; the elbow is held to half its range, as the links would collide.
    Robotiq: 2F-85 instruction manual (stroke, force, mass).
    Menagerie: MuJoCo Menagerie, robotiq_2f85 (size of the pads; where they are when open, from its joints' origins).
"""

import numpy as np

from alula.sims.robots.robot import Gripper, Link, Robot, Vector, modified_denavit_hartenberg, turned

ARMATURE = 0.1
"""Rotor inertia seen at the joint [kg m^2]: our choice, as for the Panda."""
DAMPING_TIME = 0.04
"""Ratio of servo damping to stiffness [s]: our choice, near critical damping at the pose `home`."""
TURN, HALF_TURN, QUARTER = 2 * np.pi, np.pi, np.pi / 2
FRAMES = (
    (0, 0, 0),
    (0, 0.1625, QUARTER),
    (-0.425, 0, 0),
    (-0.3922, 0, 0),
    (0, 0.1333, QUARTER),
    (0, 0.0997, -QUARTER),
    (0, 0.0996, 0),
)
"""Base, then a [m], d [m] and alpha [rad] of each joint in the classic convention (DH)."""
SIDE = 0.138
"""Offset of the upper arm's tube along its axis [m] (ROS); only drawn."""


def _link(
    joint: int,
    limits: tuple[float, float, float, float],
    stiffness: float,
    mass: float,
    center: Vector,
    inertia: Vector,
    radius: float,
    via: tuple[Vector, ...] = (),
) -> Link:
    """One row of the table.

    The classic convention puts frame i behind joint i, where Craig's has a and alpha of the row before.

    Args:
        joint: Row of `FRAMES`.
        limits: Position [rad, rad], velocity [rad/s] and torque [N m] (ROS).
        stiffness: Servo gain [N m/rad]: our choice.
        mass: [kg] (DH).
        center: Centre of mass in the classic frame [m] (DH).
        inertia: Moments about axes of the classic frame [kg m^2] (ROS, off-diagonal terms left out).
        radius: Of the drawing [m].
        via: Of the drawing [m].
    """
    (a_before, _, alpha_before), (a, d, alpha) = FRAMES[joint - 1], FRAMES[joint]
    position, quaternion = modified_denavit_hartenberg(a_before, d, alpha_before)
    tilt = (np.cos(alpha / 2), np.sin(alpha / 2), 0.0, 0.0)
    x, y, z = turned(tilt, center)
    ixx, iyy, izz = map(abs, turned(tilt, inertia))
    servo = (ARMATURE, stiffness, stiffness * DAMPING_TIME)
    return Link(position, quaternion, *limits, mass, (a + x, y, z), (ixx, iyy, izz), *servo, radius, via)


UR5E = Robot(
    name="ur5e",
    links=(
        _link(1, (-TURN, TURN, np.pi, 150), 4000, 3.761, (0, -0.02561, 0.00193), (0.0070021, 0.00648091, 0.00657286), 0.058),
        _link(2, (-TURN, TURN, np.pi, 150), 4000, 8.058, (0.2125, 0, 0.11336), (0.01505885, 0.33388086, 0.33247207), 0.055, ((0, 0, SIDE), (-0.425, 0, SIDE))),
        _link(3, (-HALF_TURN, HALF_TURN, np.pi, 150), 4000, 2.846, (0.15, 0, 0.0265), (0.00399632, 0.07879254, 0.0784851), 0.045, ((-0.3922, 0, 0),)),
        _link(4, (-TURN, TURN, np.pi, 28), 800, 1.37, (0, -0.0018, 0.01634), (0.00165491, 0.00135962, 0.00126279), 0.040),
        _link(5, (-TURN, TURN, np.pi, 28), 800, 1.3, (0, 0.0018, 0.01634), (0.00135617, 0.00127827, 0.00096614), 0.040),
        _link(6, (-TURN, TURN, np.pi, 28), 400, 0.365, (0, 0, -0.001159), (0.00018694, 0.00018908, 0.00025756), 0.032),
    ),
    flange=(0.0, 0.0, 0.0),
    flange_quaternion=(1.0, 0.0, 0.0, 0.0),
    gripper=Gripper(
        length=0.152,  # Menagerie: the open pads end 160.2 mm from the flange; the tool point is 8 mm inside
        finger_length=0.05,  # our choice: what stands out of the housing; the pads are 37.5 mm long (Menagerie)
        finger_width=0.022,  # Menagerie
        stroke=0.0425,  # Robotiq: 85 mm in all
        force=40.0,  # our choice; Robotiq: adjustable from 20 to 235 N
        mass=0.925,  # Robotiq
        housing=(0.0375, 0.0375),  # our choice
    ),
    home=(2.87, -1.59, 1.68, -QUARTER - 0.09, -QUARTER, 2.87 - 3 * QUARTER),
    workspace=(0.5, 0.0, 0.15),
    color=(0.72, 0.75, 0.78, 1.0),
)  # fmt: skip

"""TheRobotStudio SO-101: kinematics, limits and inertia, with the source of every number.

Its five joints leave one direction fixed: where the tool points down, its position and yaw are free. The real gripper
has one fixed jaw and one that turns by a hinge; here two fingers slide, as far as the real jaws open, and meet on the
axis of the wrist's roll instead of 7.9 mm beside it.

Sources:
    URDF: TheRobotStudio/SO-ARM100, Simulation/SO101/so101_new_calib.urdf (origins and limits of the joints, masses,
        centres of mass, inertia, shape of the jaws), and so101_new_calib.xml beside it (rotor inertia).
    STS3215: Feetech's data of the 12 V servo (stall torque 30 kg cm, no-load speed 45 rev/min).
"""

import mujoco
import numpy as np

from alula.sims.robots.robot import Gripper, Link, Quaternion, Robot, Vector

ARMATURE = 0.028
"""Rotor inertia seen at the joint [kg m^2] (URDF)."""
TORQUE = 2.94
"""Stall torque [N m] (STS3215)."""
SPEED = 45 * 2 * np.pi / 60
"""No-load speed [rad/s] (STS3215)."""
DAMPING_TIME = 0.05
"""Ratio of servo damping to stiffness [s]: our choice, near critical damping at the pose `home`."""
PLANE = 0.0182
"""Middle of the links along their joints' axes [m]; only drawn."""
HALF_TURN, QUARTER = np.pi, np.pi / 2


def _fixed_axes(angles: Vector) -> Quaternion:
    """Orientation from a URDF's roll, pitch and yaw about fixed axes [rad]."""
    quaternion = np.empty(4)
    mujoco.mju_euler2Quat(quaternion, np.array(angles), "XYZ")
    w, x, y, z = quaternion.tolist()
    return (w, x, y, z)


def _link(
    origin: Vector,
    angles: Vector,
    limits: tuple[float, float],
    stiffness: float,
    mass: float,
    center: Vector,
    inertia: Vector,
    radius: float,
    via: tuple[Vector, ...] = (),
) -> Link:
    """One row of the table.

    Args:
        origin: Of the joint in the link before [m] (URDF).
        angles: Roll, pitch and yaw of the joint [rad] (URDF).
        limits: Position [rad, rad] (URDF).
        stiffness: Servo gain [N m/rad]: our choice.
        mass: [kg] (URDF).
        center: Centre of mass [m] (URDF).
        inertia: Moments [kg m^2] (URDF, off-diagonal terms left out).
        radius: Of the drawing [m].
        via: Of the drawing [m].
    """
    servo = (ARMATURE, stiffness, stiffness * DAMPING_TIME)
    return Link(origin, _fixed_axes(angles), *limits, SPEED, TORQUE, mass, center, inertia, *servo, radius, via)


SO101 = Robot(
    name="so101",
    links=(
        _link((0.0388353, 0, 0.0624), (HALF_TURN, 0, -HALF_TURN), (-1.91986, 1.91986), 60, 0.100006, (-0.0307604, -0.0000166727, -0.0252713), (8.3759e-05, 8.10403e-05, 2.39783e-05), 0.022, ((0, 0, -0.0542),)),
        _link((-0.0303992, -0.0182778, -0.0542), (-QUARTER, -QUARTER, 0), (-1.74533, 1.74533), 60, 0.103, (-0.0898471, -0.00838224, 0.0184089), (4.08002e-05, 0.000147318, 0.000142487), 0.018, ((0, 0, PLANE), (-0.11257, -0.028, PLANE))),
        _link((-0.11257, -0.028, 0), (0, 0, QUARTER), (-1.69, 1.69), 60, 0.104, (-0.0980701, 0.00324376, 0.0182831), (2.87438e-05, 0.000159844, 0.00014529), 0.016, ((0, 0, PLANE), (-0.1349, 0.0052, PLANE))),
        _link((-0.1349, 0.0052, 0), (0, 0, -QUARTER), (-1.65806, 1.65806), 60, 0.079, (-0.000103312, -0.0386143, 0.0281156), (3.68263e-05, 2.5391e-05, 2.1e-05), 0.016, ((0, 0, PLANE),)),
        _link((0, -0.0611, 0.0181), (QUARTER, 0.0486795, HALF_TURN), (-2.74385, 2.84121), 60, 0.087, (0.000213627, 0.000245138, -0.025187), (2.75087e-05, 4.33657e-05, 3.45059e-05), 0.018),
    ),
    flange=(0.0, 0.0, 0.0),
    flange_quaternion=(0.0, np.sqrt(0.5), np.sqrt(0.5), 0.0),  # z out of the arm, y where the jaw opens (URDF)
    gripper=Gripper(
        length=0.0981274,  # URDF: frame of the gripper
        finger_length=0.055,  # our choice: what stands out of the housing
        finger_width=0.014,  # URDF: tip of the fixed jaw
        stroke=0.035,  # URDF: its tips are 70 mm apart with the jaw at 0.67 rad of its 1.75
        force=15.0,  # our choice: 40 % of the stall torque at the jaw's 83 mm
        mass=0.012,  # URDF: the jaw; the rest belongs to the last link
        housing=(0.02, 0.026),  # our choice
    ),
    home=(0.0, -0.1, 0.54, QUARTER - 0.44, 0.0486795),
    workspace=(0.21, 0.0, 0.06),
    stand=0.10,  # our choice: the limit of the wrist keeps the tool from pointing down more than 80 mm above the base
    color=(0.98, 0.80, 0.15, 1.0),
)  # fmt: skip

"""Franka Emika Panda: kinematics, limits and inertia, with the source of every number.

Sources:
    FCI: Franka Control Interface documentation, "Robot and interface specifications" (Denavit-Hartenberg
        parameters in Craig's convention, joint limits).
    Gaz: Gaz, Cognetti, Oliva, Robuffo Giordano & De Luca 2019, "Dynamic identification of the Franka Emika Panda
        robot with retrieval of feasible parameters using penalty-based optimization", RA-L 4(4).
    Hand: Franka Hand product manual (stroke, force, mass).
"""

import numpy as np

from alula.sims.robots.robot import Gripper, Link, Robot, Vector, modified_denavit_hartenberg

ARMATURE = 0.1
"""Rotor inertia seen at the joint [kg m^2]: our choice, in the range identified for harmonic drives of this size."""
DAMPING_TIME = 0.035
"""Ratio of servo damping to stiffness [s]: our choice, near critical damping at the pose `home`."""
HALF_TURN = np.pi / 2


def _link(
    frame: tuple[float, float, float],
    limits: tuple[float, float, float, float],
    stiffness: float,
    mass: float,
    center: Vector,
    inertia: Vector,
    radius: float,
) -> Link:
    """One row of the table.

    Args:
        frame: a [m], d [m] and alpha [rad] (FCI).
        limits: Position [rad, rad], velocity [rad/s] and torque [N m] (FCI).
        stiffness: Servo gain [N m/rad]: our choice, of the order of the vendor's joint impedance controller.
        mass: [kg] (Gaz).
        center: Centre of mass [m] (Gaz).
        inertia: Principal moments [kg m^2] (Gaz, off-diagonal terms left out).
        radius: Of the drawing [m].
    """
    position, quaternion = modified_denavit_hartenberg(*frame)
    servo = (ARMATURE, stiffness, stiffness * DAMPING_TIME)
    return Link(position, quaternion, *limits, mass, center, inertia, *servo, radius)


PANDA = Robot(
    name="panda",
    links=(
        _link((0, 0.333, 0), (-2.8973, 2.8973, 2.175, 87), 2000, 4.970684, (0.003875, 0.002081, -0.1750), (0.70337, 0.70661, 0.009117), 0.058),
        _link((0, 0, -HALF_TURN), (-1.7628, 1.7628, 2.175, 87), 2000, 0.646926, (-0.003141, -0.02872, 0.003495), (0.007962, 0.02811, 0.025995), 0.058),
        _link((0, 0.316, HALF_TURN), (-2.8973, 2.8973, 2.175, 87), 2000, 3.228604, (0.027518, 0.039252, -0.066502), (0.037242, 0.036155, 0.01083), 0.058),
        _link((0.0825, 0, HALF_TURN), (-3.0718, -0.0698, 2.175, 87), 2000, 3.587895, (-0.05317, 0.104419, 0.027454), (0.025853, 0.019552, 0.028323), 0.058),
        _link((-0.0825, 0.384, -HALF_TURN), (-2.8973, 2.8973, 2.61, 12), 800, 1.225946, (-0.011953, 0.041065, -0.038437), (0.035549, 0.029474, 0.008627), 0.048),
        _link((0, 0, HALF_TURN), (-0.0175, 3.7525, 2.61, 12), 800, 1.666555, (0.060149, -0.014117, -0.010517), (0.001964, 0.004354, 0.005433), 0.048),
        _link((0.088, 0, HALF_TURN), (-2.8973, 2.8973, 2.61, 12), 400, 0.735522, (0.010517, -0.004252, 0.061597), (0.012516, 0.010027, 0.004815), 0.048),
    ),
    flange=(0.0, 0.0, 0.107),  # FCI
    flange_quaternion=(1.0, 0.0, 0.0, 0.0),
    gripper=Gripper(
        length=0.1034,  # FCI: flange to tool centre point of the hand
        finger_length=0.045,  # Hand
        finger_width=0.020,  # Hand
        stroke=0.04,  # Hand: 80 mm in all
        force=30.0,  # Hand: 70 N at most
        mass=0.73,  # Hand
        housing=(0.03, 0.10),  # Hand
        turn=-np.pi / 4,  # Hand
    ),
    home=(0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4),  # ready pose of the vendor's examples
    workspace=(0.5, 0.0, 0.12),
    color=(0.93, 0.93, 0.95, 1.0),
)  # fmt: skip

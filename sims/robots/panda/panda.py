"""Franka Emika Panda: kinematics, limits and inertia, with the source of every number.

Sources:
    FCI: Franka Control Interface documentation, "Robot and interface specifications" (Denavit-Hartenberg
        parameters in Craig's convention, joint limits).
    Gaz: Gaz, Cognetti, Oliva, Robuffo Giordano & De Luca 2019, "Dynamic identification of the Franka Emika Panda
        robot with retrieval of feasible parameters using penalty-based optimization", RA-L 4(4).
"""

from dataclasses import dataclass

import mujoco
import numpy as np


@dataclass(frozen=True)
class Link:
    """One moving link and the joint that carries it."""

    a: float
    """Distance to the previous joint axis along its x [m] (FCI)."""
    d: float
    """Offset along this joint's axis [m] (FCI)."""
    alpha: float
    """Twist of this joint's axis against the previous one [rad] (FCI)."""
    low: float
    """Lower position limit [rad] (FCI)."""
    high: float
    """Upper position limit [rad] (FCI)."""
    torque: float
    """Torque limit [N m] (FCI)."""
    mass: float
    """[kg] (Gaz)."""
    center: tuple[float, float, float]
    """Centre of mass in the link frame [m] (Gaz)."""
    inertia: tuple[float, float, float]
    """Principal moments about the centre of mass [kg m^2] (Gaz, off-diagonal terms left out)."""


HALF_TURN = np.pi / 2
LINKS = (
    Link(0, 0.333, 0, -2.8973, 2.8973, 87, 4.970684, (0.003875, 0.002081, -0.1750), (0.70337, 0.70661, 0.009117)),
    Link(0, 0, -HALF_TURN, -1.7628, 1.7628, 87, 0.646926, (-0.003141, -0.02872, 0.003495), (0.007962, 0.02811, 0.025995)),
    Link(0, 0.316, HALF_TURN, -2.8973, 2.8973, 87, 3.228604, (0.027518, 0.039252, -0.066502), (0.037242, 0.036155, 0.01083)),
    Link(0.0825, 0, HALF_TURN, -3.0718, -0.0698, 87, 3.587895, (-0.05317, 0.104419, 0.027454), (0.025853, 0.019552, 0.028323)),
    Link(-0.0825, 0.384, -HALF_TURN, -2.8973, 2.8973, 12, 1.225946, (-0.011953, 0.041065, -0.038437), (0.035549, 0.029474, 0.008627)),
    Link(0, 0, HALF_TURN, -0.0175, 3.7525, 12, 1.666555, (0.060149, -0.014117, -0.010517), (0.001964, 0.004354, 0.005433)),
    Link(0.088, 0, HALF_TURN, -2.8973, 2.8973, 12, 0.735522, (0.010517, -0.004252, 0.061597), (0.012516, 0.010027, 0.004815)),
)  # fmt: skip
FLANGE = 0.107
"""Distance from the last joint's frame to the flange along its axis [m] (FCI)."""
VELOCITY_LIMITS = (2.1750, 2.1750, 2.1750, 2.1750, 2.6100, 2.6100, 2.6100)
"""Joint velocity limits [rad/s] (FCI)."""
HOME = (0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4)
"""Ready pose of the vendor's examples [rad]: tool pointing down in front of the base."""
JOINT_NAMES = tuple(f"joint{index}" for index in range(1, 8))
ARMATURE = 0.1
"""Rotor inertia seen at the joint [kg m^2]: our choice, in the range identified for harmonic drives of this size."""
STIFFNESS = (2000.0, 2000.0, 2000.0, 2000.0, 800.0, 800.0, 400.0)
"""Servo gains [N m/rad]: our choice, of the order of the vendor's joint impedance controller."""
DAMPING_TIME = 0.035
"""Ratio of servo damping to stiffness [s]: our choice, near critical damping at the pose HOME."""
COLOR = (0.93, 0.93, 0.95, 1.0)


def add_panda(spec: mujoco.MjSpec) -> mujoco.MjsBody:
    """Add the arm at the world's origin, with position servos; returns the flange body, tool axis along +z.

    Arm links are drawn but do not collide: the tasks' contacts are at the tool. The servos are assumed to
    compensate gravity, as the vendor's do, so models with this arm switch gravity off for it (`gravcomp`).
    The specification's angles become radians.
    """
    spec.compiler.degree = False
    parent = spec.worldbody.add_body(name="link0")
    _draw(parent, (0, 0, 0), (0, 0, LINKS[0].d - 0.06), 0.07)
    for index, link in enumerate(LINKS, start=1):
        cos, sin = np.cos(link.alpha), np.sin(link.alpha)
        body = parent.add_body(
            name=f"link{index}",
            pos=[link.a, -link.d * sin, link.d * cos],
            quat=[np.cos(link.alpha / 2), np.sin(link.alpha / 2), 0, 0],
            mass=link.mass,
            ipos=list(link.center),
            inertia=list(link.inertia),
            explicitinertial=True,
            gravcomp=1.0,
        )
        body.add_joint(
            name=f"joint{index}",
            type=mujoco.mjtJoint.mjJNT_HINGE,
            axis=[0, 0, 1],
            range=[link.low, link.high],
            armature=ARMATURE,
        )
        _draw_link(body, index)
        _add_servo(spec, index, link)
        parent = body
    flange = parent.add_body(name="flange", pos=[0, 0, FLANGE])
    _draw(flange, (0, 0, -0.03), (0, 0, 0), 0.045)
    return flange


def _add_servo(spec: mujoco.MjSpec, index: int, link: Link) -> None:
    """Position servo: torque = stiffness (target - position) - damping velocity, within the torque limit."""
    stiffness = STIFFNESS[index - 1]
    actuator = spec.add_actuator(name=f"servo{index}", target=f"joint{index}", trntype=mujoco.mjtTrn.mjTRN_JOINT)
    actuator.set_to_position(kp=stiffness, kv=stiffness * DAMPING_TIME)
    actuator.ctrlrange = [link.low, link.high]
    actuator.ctrllimited = True
    actuator.forcerange = [-link.torque, link.torque]
    actuator.forcelimited = True


def _draw_link(body: mujoco.MjsBody, index: int) -> None:
    """Capsules that suggest the real arm's shape; they carry no mass and touch nothing."""
    _draw(body, (0, 0, -0.06), (0, 0, 0.06), 0.058 if index < 5 else 0.048)
    if index < len(LINKS):
        following = LINKS[index]
        end = (following.a, -following.d * np.sin(following.alpha), following.d * np.cos(following.alpha))
        _draw(body, (0, 0, 0), end, 0.052 if index < 5 else 0.042)
    else:
        _draw(body, (0, 0, 0), (0, 0, FLANGE - 0.03), 0.042)


def _draw(
    body: mujoco.MjsBody, start: tuple[float, float, float], end: tuple[float, float, float], radius: float
) -> None:
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
        rgba=list(COLOR),
    )

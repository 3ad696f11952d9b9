"""Crazyflie 2.x: mass, geometry, rotors and aerodynamic coefficients, with the source of every number.

Sources:
    Förster: Förster 2015, "System identification of the Crazyflie 2.0 nano quadrocopter", bachelor thesis, ETH Zürich.
    Luis: Luis & Le Ny 2016, "Design of a trajectory tracking controller for a nanoquadcopter", arXiv:1608.05786.
    Panerati: Panerati et al. 2021, "Learning to fly: a Gym environment with PyBullet physics for reinforcement
        learning of multi-agent quadcopter control", IROS; the numbers of its model of the Crazyflie in X configuration.
    Bitcraze: the maker's data sheet and pictures of the Crazyflie 2.1.
"""

from dataclasses import dataclass
from functools import cached_property

import mujoco
import numpy as np
from jaxtyping import Float64
from numpy import ndarray

GRAVITY = 9.81
"""[m/s^2]"""
RPM = 2 * np.pi / 60
"""One revolution per minute [rad/s]."""


@dataclass(frozen=True)
class Quadcopter:
    """Parameters of a quadcopter in X configuration; the defaults are the Crazyflie's.

    Body axes: x forward, y left, z up. Rotors, as Bitcraze numbers them: front right, back right, back left, front
    left; the first and third turn counterclockwise seen from above.
    """

    mass: float = 0.027
    """[kg] (Bitcraze: 27 g with battery)."""
    arm_length: float = 0.0397
    """From the centre to a rotor's axis [m] (Luis: 39.73 mm)."""
    inertia: tuple[float, float, float] = (1.4e-5, 1.4e-5, 2.17e-5)
    """Principal moments [kg m^2] (Luis, from the CAD model, as rounded by Panerati)."""
    thrust_coefficient: float = 3.16e-10 / RPM**2
    """Thrust of a rotor over its squared speed [N/(rad/s)^2] (Luis: 3.1582e-10 N/rpm^2)."""
    torque_coefficient: float = 7.94e-12 / RPM**2
    """Reaction torque of a rotor over its squared speed [N m/(rad/s)^2] (Luis: 7.9379e-12 N m/rpm^2)."""
    thrust_to_weight: float = 2.25
    """Largest thrust over weight (Panerati); sets `max_speed`."""
    motor_time_constant: float = 0.065
    """Of the rotors' first-order lag [s].

    Förster identifies a pole at 0.9695404 for 500 Hz from command to thrust; -0.002 s / log(0.9695404) = 64.7 ms.
    """
    drag: tuple[float, float, float] = (9.1785e-7, 9.1785e-7, 10.311e-7)
    """Drag along the body axes, over velocity and the sum of the rotor speeds [N/(m/s)/(rad/s)] (Förster)."""
    rotor_radius: float = 0.0231348
    """[m] (Panerati; Bitcraze: propellers of 45 mm)."""
    ground_effect: float = 11.36859
    """Multiplies (rotor radius / 4 height)^2 (Panerati, fitted to Shi et al. 2019, "Neural lander", ICRA)."""
    ground_effect_limit: float = 4 / 15
    """Largest share by which the floor raises the thrust (Panerati's lowest height, put as a share)."""
    downwash: float = 2267.18
    """Multiplies (rotor radius / 4 separation)^2: force on the drone below [N] (Panerati)."""
    downwash_width: tuple[float, float] = (0.16, -0.11)
    """Slope and intercept [m] of the wash's standard deviation over the separation (Panerati)."""
    collision_radius: float = 0.06
    """Of the upright cylinder that collides [m] (Panerati: arms and propellers)."""
    collision_height: float = 0.025
    """Of that cylinder [m] (Panerati)."""

    @cached_property
    def hover_speed(self) -> float:
        """Speed of all rotors at which thrust balances weight [rad/s]."""
        return float(np.sqrt(self.mass * GRAVITY / (4 * self.thrust_coefficient)))

    @cached_property
    def max_speed(self) -> float:
        """Largest rotor speed [rad/s]."""
        return float(np.sqrt(self.thrust_to_weight)) * self.hover_speed

    @property
    def spins(self) -> Float64[ndarray, "4"]:
        """Sense of rotation of the rotors: 1 is counterclockwise seen from above (Bitcraze)."""
        return np.array([1.0, -1.0, 1.0, -1.0])

    @property
    def rotor_positions(self) -> Float64[ndarray, "4 3"]:
        """Rotor hubs in the body frame [m]."""
        signs = np.array([[1, -1, 0], [-1, -1, 0], [-1, 1, 0], [1, 1, 0]])
        return self.arm_length / np.sqrt(2) * signs

    @property
    def allocation(self) -> Float64[ndarray, "4 4"]:
        """Thrust [N] and torques about body x, y, z [N m] = allocation @ squared rotor speeds [(rad/s)^2].

        A rotor that turns counterclockwise pushes the body clockwise.
        """
        x, y, _ = self.rotor_positions.T
        thrust = self.thrust_coefficient
        return np.stack([np.full(4, thrust), thrust * y, -thrust * x, -self.torque_coefficient * self.spins])


CRAZYFLIE = Quadcopter()
BODY_COLOR, FRONT_COLOR, BACK_COLOR = (0.16, 0.17, 0.20, 1.0), (0.90, 0.35, 0.13, 0.7), (0.55, 0.60, 0.66, 0.7)
ACTUATORS = 8
"""Actuators of one drone, in this order: the rotors, drag along body x, y, z, and downwash."""


def add_crazyflie(spec: mujoco.MjSpec, name: str, position: tuple[float, float, float]) -> mujoco.MjsBody:
    """Add a Crazyflie that floats freely; the engine `sims/quadcopters/mujoco_engine.py` drives its actuators.

    Args:
        spec: The scene. Its drones come before anything else that moves.
        name: Name of the body, and prefix of its parts.
        position: Where it starts, level [m].
    """
    drone = CRAZYFLIE
    body = spec.worldbody.add_body(
        name=name,
        pos=list(position),
        mass=drone.mass,
        inertia=list(drone.inertia),
        ipos=[0.0, 0.0, 0.0],
        explicitinertial=True,
    )
    body.add_freejoint(name=name)
    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[drone.collision_radius, drone.collision_height / 2, 0],
        group=3,  # not drawn
    )
    body.add_site(name=f"{name}/center")
    for index, hub in enumerate(drone.rotor_positions):
        body.add_site(name=f"{name}/rotor{index}", pos=list(hub))
    _add_actuators(spec, name)
    _draw(body)
    return body


def _add_actuators(spec: mujoco.MjSpec, name: str) -> None:
    """Controls: squared rotor speeds, three times the sum of rotor speeds, the wash's force on the drone."""
    drone = CRAZYFLIE
    for index, spin in enumerate(drone.spins):
        gear = [0, 0, drone.thrust_coefficient, 0, 0, -spin * drone.torque_coefficient]
        spec.add_actuator(target=f"{name}/rotor{index}", trntype=mujoco.mjtTrn.mjTRN_SITE, gear=gear)
    for axis, coefficient in enumerate(drone.drag):
        gear = [0.0] * 6
        gear[axis] = 1.0
        spec.add_actuator(
            target=f"{name}/center",
            trntype=mujoco.mjtTrn.mjTRN_SITE,
            gear=gear,
            gaintype=mujoco.mjtGain.mjGAIN_AFFINE,  # of the velocity along the gear's axis
            gainprm=[0, 0, -coefficient] + [0] * 7,
        )
    # A free joint's gear is a force in the world's axes.
    spec.add_actuator(target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT, gear=[0, 0, -1, 0, 0, 0])


def _draw(body: mujoco.MjsBody) -> None:
    """A slab, two crossed arms and four rotor discs, the front ones orange; they weigh and touch nothing."""
    drone = CRAZYFLIE
    ghost = {"contype": 0, "conaffinity": 0, "mass": 0, "group": 1}
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.016, 0.012, 0.008], rgba=list(BODY_COLOR), **ghost)
    front_right, back_right, back_left, front_left = drone.rotor_positions
    for start, end in ((front_right, back_left), (front_left, back_right)):
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=[*start, *end],
            size=[0.003, 0, 0],
            rgba=list(BODY_COLOR),
            **ghost,
        )
    for hub in drone.rotor_positions:
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            pos=[hub[0], hub[1], 0.008],
            size=[drone.rotor_radius, 0.001, 0],
            rgba=list(FRONT_COLOR if hub[0] > 0 else BACK_COLOR),
            **ghost,
        )

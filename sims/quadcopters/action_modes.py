"""What an action may command: any level of the cascade from position to rotor speeds."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from alula.core.spaces import ControlMode, FieldSpec
from alula.sims.quadcopters.controllers import Command, Controller, Memory, Motion
from alula.sims.quadcopters.crazyflie import CRAZYFLIE
from alula.sims.quadcopters.mixer import MAX_THRUST

Stage = Callable[[Controller, Motion, Command, Memory], Command]


@dataclass(frozen=True)
class ActionMode:
    """One level of the cascade: what the four numbers of a drone's command are."""

    control_mode: ControlMode
    elements: tuple[str, str, str, str]
    units: tuple[str, str, str, str]
    low: tuple[float, float, float, float]
    high: tuple[float, float, float, float]

    def field(self, num_drones: int, rate: float) -> FieldSpec:
        """The action of all drones side by side.

        Args:
            num_drones: Drones.
            rate: Control steps per second [Hz].
        """
        return FieldSpec(
            name="action",
            shape=(4 * num_drones,),
            element_names=drone_names(self.elements, num_drones),
            units=self.units * num_drones,
            low=self.low * num_drones,
            high=self.high * num_drones,
            control_mode=self.control_mode,
            rate=rate,
        )


MODES = {
    "position": ActionMode(
        ControlMode.POSITION,
        elements=("x", "y", "z", "yaw"),
        units=("m", "m", "m", "rad"),
        low=(-8.0, -8.0, -1.0, -np.pi),
        high=(8.0, 8.0, 5.0, np.pi),
    ),
    "velocity": ActionMode(
        ControlMode.VELOCITY,
        elements=("velocity_x", "velocity_y", "velocity_z", "yaw_rate"),
        units=("m/s", "m/s", "m/s", "rad/s"),
        low=(-3.0, -3.0, -2.0, -2.0),
        high=(3.0, 3.0, 2.0, 2.0),
    ),
    "attitude_thrust": ActionMode(
        ControlMode.ATTITUDE_THRUST,
        elements=("roll", "pitch", "yaw", "thrust"),
        units=("rad", "rad", "rad", "N"),
        low=(-0.7, -0.7, -np.pi, 0.0),
        high=(0.7, 0.7, np.pi, MAX_THRUST),
    ),
    "thrust_body_rate": ActionMode(
        ControlMode.THRUST_BODY_RATE,
        elements=("thrust", "rate_x", "rate_y", "rate_z"),
        units=("N", "rad/s", "rad/s", "rad/s"),
        low=(0.0, -6.0, -6.0, -2.0),
        high=(MAX_THRUST, 6.0, 6.0, 2.0),
    ),
    "rotor_speed": ActionMode(
        ControlMode.ROTOR_SPEED,
        elements=("rotor_0", "rotor_1", "rotor_2", "rotor_3"),
        units=("rad/s",) * 4,
        low=(0.0,) * 4,
        high=(CRAZYFLIE.max_speed,) * 4,
    ),
}
"""From the highest level to the lowest."""

STAGES: tuple[Stage, ...] = (
    Controller.velocity,
    Controller.attitude_thrust,
    Controller.thrust_body_rate,
    Controller.rotor_speed,
)
"""Each turns commands of one mode into those of the next."""


def drone_names(names: tuple[str, ...], num_drones: int) -> tuple[str, ...]:
    """Element names for every drone, with its number where there are several."""
    prefixes = [f"drone{drone}_" for drone in range(num_drones)] if num_drones > 1 else [""]
    return tuple(prefix + name for prefix in prefixes for name in names)


def convert(
    controller: Controller, motion: Motion, command: Command, memory: Memory, given: str, wanted: str
) -> Command:
    """A command of mode `given` as a command of the mode `wanted`, which is the same or lower.

    The bounds of modes hold inside the cascade, too: no stage asks for more than an action of the next mode could.

    Args:
        controller: Its stages between the two are applied.
        motion: What it measures.
        command: Four numbers per drone.
        memory: The controller's, updated in place.
        given: Mode of `command`.
        wanted: Mode of the result.
    """
    levels, modes = list(MODES), list(MODES.values())
    first, last = levels.index(given), levels.index(wanted)
    for stage, lower in zip(STAGES[first:last], modes[first + 1 : last + 1], strict=True):
        low, high = np.array([lower.low, lower.high])[..., None, None]
        command = np.fmin(np.fmax(stage(controller, motion, command, memory), low), high)
    return command

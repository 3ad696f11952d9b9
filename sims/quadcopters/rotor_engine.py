"""What quadcopter engines outside MuJoCo have in common: rotors, whose response is known before the flight."""

from abc import abstractmethod
from collections.abc import Mapping

import mujoco
from jaxtyping import Bool, Float64
from numpy import ndarray

from alula.sims.array_engine import ArrayEngine, within
from alula.sims.quadcopters.aerodynamics import lag_decays, rotor_response
from alula.sims.quadcopters.config import Aerodynamics
from alula.sims.quadcopters.crazyflie import CRAZYFLIE


class RotorEngine(ArrayEngine):
    """Rotor speeds of every substep; a subclass flies one control step under them.

    Args:
        model: The scene: initial state, timestep, mocap bodies.
        num_envs: Number of environments.
        num_drones: Crazyflies per environment.
        substeps: Physics steps per control step.
        extras: Task-owned arrays by name, and "rotor_speed".
        aerodynamics: Effects that are on.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num_envs: int,
        num_drones: int,
        substeps: int,
        extras: Mapping[str, tuple[int, ...]],
        aerodynamics: Aerodynamics,
    ) -> None:
        super().__init__(model, num_envs, 4 * num_drones, substeps, extras, physical=("rotor_speed",))
        self.aerodynamics, self.num_drones = aerodynamics, num_drones
        self._decays = lag_decays(CRAZYFLIE, model.opt.timestep, substeps, aerodynamics.motor_lag)[:, None]

    def _move(self) -> Bool[ndarray, " num_envs"]:
        rotor_speed = self.state.extras["rotor_speed"]
        speeds = rotor_response(CRAZYFLIE, rotor_speed[:, None], self.state.ctrl[:, None], self._decays)
        diverged = ~within(speeds[:, -1])
        speeds[diverged] = 0.0
        self._fly(speeds)
        rotor_speed[:] = speeds[:, -1]
        return diverged

    @abstractmethod
    def _fly(self, speeds: Float64[ndarray, "num_envs substeps rotors"]) -> None:
        """Advance positions and velocities in the state by one control step, given all rotor speeds [rad/s]."""

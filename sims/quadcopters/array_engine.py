"""What engines have in common that keep the state in arrays of their own and only borrow physics for each step."""

from abc import abstractmethod
from collections.abc import Mapping

import mujoco
import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from alula.sims.engine import BatchState, Engine
from alula.sims.quadcopters.aerodynamics import lag_decays, rotor_response
from alula.sims.quadcopters.config import Aerodynamics
from alula.sims.quadcopters.crazyflie import CRAZYFLIE

BOUND = 1e6
"""An environment with a larger number (or none) in its state, in SI units, has diverged."""


class ArrayEngine(Engine):
    """Rotors, bookkeeping and recovery from divergence; a subclass flies one control step.

    A step is a pure function of the arrays, which the subclass must hand to its physics anew each time.

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
        self.model, self.aerodynamics = model, aerodynamics
        self.num_envs, self.num_drones, self.substeps = num_envs, num_drones, substeps
        self._decays = lag_decays(CRAZYFLIE, model.opt.timestep, substeps, aerodynamics.motor_lag)[:, None]
        self._initial = mujoco.MjData(model)
        self._physics = np.zeros((num_envs, 1 + 17 * num_drones))
        qpos, qvel, rotor_speed = np.split(self._physics[:, 1:], [7 * num_drones, 13 * num_drones], axis=1)
        self.state = BatchState(
            time=self._physics[:, 0],
            qpos=qpos,
            qvel=qvel,
            ctrl=np.zeros((num_envs, 4 * num_drones)),
            mocap_pos=np.zeros((num_envs, model.nmocap, 3)),
            mocap_quat=np.zeros((num_envs, model.nmocap, 4)),
            sensors=np.zeros((num_envs, substeps, 0)),
            extras={name: np.zeros((num_envs, *shape)) for name, shape in extras.items()}
            | {"rotor_speed": rotor_speed},
        )
        self.reset_to_model(np.arange(num_envs))

    def reset_to_model(self, env_ids: Int64[ndarray, " selected"]) -> None:
        """Put the chosen environments in the model's initial state, with rotors at rest."""
        state = self.state
        self._reset_physics(env_ids)
        state.ctrl[env_ids] = 0.0
        state.mocap_pos[env_ids], state.mocap_quat[env_ids] = self._initial.mocap_pos, self._initial.mocap_quat
        for array in state.extras.values():
            array[env_ids] = 0.0

    def _reset_physics(self, env_ids: Int64[ndarray, " selected"]) -> None:
        self._physics[env_ids] = 0.0
        self.state.qpos[env_ids] = self.model.qpos0

    def advance(self) -> Bool[ndarray, " num_envs"]:
        """See `Engine.advance`."""
        insane = ~_within(self._physics)
        if insane.any():
            self._reset_physics(np.flatnonzero(insane))
        rotor_speed = self.state.extras["rotor_speed"]
        speeds = rotor_response(CRAZYFLIE, rotor_speed[:, None], self.state.ctrl[:, None], self._decays)
        diverged = insane | ~_within(speeds[:, -1])
        speeds[diverged] = 0.0
        before = self._physics.copy()
        self._fly(speeds)
        rotor_speed[:] = speeds[:, -1]
        diverged |= ~_within(self._physics)
        if diverged.any():
            self._physics[diverged] = before[diverged]
        self.state.time += self.substeps * self.model.opt.timestep
        return diverged

    @abstractmethod
    def _fly(self, speeds: Float64[ndarray, "num_envs substeps rotors"]) -> None:
        """Advance positions and velocities in the state by one control step, given all rotor speeds [rad/s]."""

    def _arrays(self) -> dict[str, ndarray]:
        state = self.state
        arrays = {"physics": self._physics, "ctrl": state.ctrl}
        arrays |= {"mocap_pos": state.mocap_pos, "mocap_quat": state.mocap_quat}
        return arrays | {f"extras.{name}": array for name, array in state.extras.items()}

    def get_state(self) -> dict[str, ndarray]:
        """Everything that decides the future, copied."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def set_state(self, saved: Mapping[str, ndarray]) -> None:
        """Inverse of `get_state`, exact to the bit."""
        for name, array in self._arrays().items():
            array[:] = saved[name]


def _within(numbers: Float64[ndarray, "num_envs numbers"]) -> Bool[ndarray, " num_envs"]:
    """Whether all of an environment's numbers are finite and bounded."""
    return (np.abs(numbers) < BOUND).all(axis=1)

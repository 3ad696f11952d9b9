"""Quadcopters in MuJoCo: rotors, drag and downwash are actuators of the model, so that C++ does the work.

The model's controls are squared rotor speeds, sums of rotor speeds (a drag actuator's gain is proportional to the
velocity along its axis) and the force of the wash. Rotor speeds follow the commands alone, so those of all substeps are
known beforehand: a control step is one call of `mujoco.rollout`. Ground effect and downwash depend on where the
drones are; with one of them on, every substep is a call of its own.
"""

from collections.abc import Mapping
from dataclasses import replace

import mujoco
import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from alula.sims.engine import BatchState
from alula.sims.mujoco_engine import MujocoEngine
from alula.sims.quadcopters.aerodynamics import downwash, ground_effect, lag_decays, rotor_response
from alula.sims.quadcopters.config import Aerodynamics
from alula.sims.quadcopters.crazyflie import ACTUATORS, CRAZYFLIE


class QuadcopterMujocoEngine(MujocoEngine):
    """`num_envs` copies of a scene with drones; see `make_quadcopter_engine`."""

    def __init__(
        self,
        model: mujoco.MjModel,
        num_envs: int,
        num_drones: int,
        substeps: int,
        extras: Mapping[str, tuple[int, ...]],
        aerodynamics: Aerodynamics,
        num_threads: int | None,
    ) -> None:
        self.num_drones = num_drones
        self.aerodynamics = aerodynamics
        self._decays = lag_decays(CRAZYFLIE, model.opt.timestep, substeps, aerodynamics.motor_lag)[:, None]
        by_substep = aerodynamics.ground_effect or aerodynamics.downwash
        super().__init__(model, num_envs, 1 if by_substep else substeps, extras, num_threads)
        self.substeps = substeps  # The buffers are as long as one call of MuJoCo.
        controls = self._control[..., : ACTUATORS * num_drones]
        self._actuators = controls.reshape(*controls.shape[:2], num_drones, ACTUATORS, copy=False)

    def _views(self, extras: Mapping[str, tuple[int, ...]]) -> BatchState:
        return replace(super()._views(extras), ctrl=np.zeros((self.num_envs, 4 * self.num_drones)))

    def reset_to_model(self, env_ids: Int64[ndarray, " selected"]) -> None:
        """Put the chosen environments in the model's initial state, with rotors at rest."""
        super().reset_to_model(env_ids)
        self.state.ctrl[env_ids] = 0.0

    def advance(self) -> Bool[ndarray, " num_envs"]:
        """See `Engine.advance`."""
        rotor = self.state.extras["rotor_speed"]
        start = rotor.copy()
        diverged = super().advance()
        rotor[diverged] = np.where(np.abs(start) < mujoco.mjMAXVAL, start, 0.0)[diverged]
        return diverged

    def _simulate(self) -> Float64[ndarray, "num_envs physics"]:
        """Physics states after one control step; the clock of those that diverged is not finite."""
        rotor, timestep = self.state.extras["rotor_speed"], self.model.opt.timestep
        speeds = rotor_response(CRAZYFLIE, rotor[:, None], self.state.ctrl[:, None], self._decays)
        rotor[:] = speeds[:, -1]
        broken = ~np.isfinite(rotor).all(axis=1)
        self._control[:, 1:] = self._control[:, :1]  # the mocap poses
        physics = self._physics
        steps = self._control.shape[1]
        for first in range(0, self.substeps, steps):
            with np.errstate(invalid="ignore", over="ignore"):  # environments that are about to be found diverged
                self._write_controls(speeds[:, first : first + steps], physics)
            start = physics.copy()
            start[:, 0] = timestep  # A reset in the first of all steps would not show in a clock that begins at zero.
            self._rollout(start)
            physics = self._trajectory[:, -1]
            broken |= ~(np.abs(physics[:, 0] - (1 + steps) * timestep) < 0.5 * timestep)
        physics[:, 0] = np.where(broken, np.nan, self._physics[:, 0] + self.substeps * timestep)
        return physics

    def _write_controls(
        self, speeds: Float64[ndarray, "num_envs steps rotors"], physics: Float64[ndarray, "num_envs physics"]
    ) -> None:
        """Fill the actuators' controls of some substeps, given the physics before them."""
        by_rotor = speeds.reshape(*speeds.shape[:2], self.num_drones, 4)
        poses = physics[:, 1 : 1 + 7 * self.num_drones].reshape(self.num_envs, 1, self.num_drones, 7)
        x, y, z = np.moveaxis(poses[..., :3], -1, 0)
        effects = self.aerodynamics
        self._actuators[..., :4] = by_rotor**2
        if effects.ground_effect:
            self._actuators[..., :4] *= ground_effect(CRAZYFLIE, z)[..., None]
        if effects.drag:
            self._actuators[..., 4:7] = by_rotor.sum(axis=-1, keepdims=True)
        if effects.downwash:
            self._actuators[..., 7] = downwash(CRAZYFLIE, x, y, z)

    def get_state(self) -> dict[str, ndarray]:
        """Everything that decides the future, copied."""
        return super().get_state() | {"ctrl": self.state.ctrl.copy()}

    def set_state(self, saved: Mapping[str, ndarray]) -> None:
        """Inverse of `get_state`, exact to the bit."""
        super().set_state(saved)
        self.state.ctrl[:] = saved["ctrl"]

"""What engines have in common that keep the state in arrays of their own and only borrow physics for each step."""

from abc import abstractmethod
from collections.abc import Mapping

import mujoco
import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from alula.sims.engine import BatchState, Engine

BOUND = 1e6
"""An environment with a larger number (or none) in its state, in SI units, has diverged."""


class ArrayEngine(Engine):
    """Bookkeeping and recovery from divergence; a subclass moves the state by one control step.

    A step is a pure function of the arrays, which the subclass must hand to its physics anew each time.

    Args:
        model: The scene: layout of the state, initial state, timestep, mocap bodies.
        num_envs: Number of environments.
        num_controls: Elements of `state.ctrl`.
        substeps: Physics steps per control step.
        extras: Task-owned arrays by name: shape of one environment's entry.
        physical: Which of them belong to the physics, and are restored with it after divergence.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num_envs: int,
        num_controls: int,
        substeps: int,
        extras: Mapping[str, tuple[int, ...]],
        physical: tuple[str, ...] = (),
    ) -> None:
        self.model, self.num_envs, self.substeps = model, num_envs, substeps
        self._initial = mujoco.MjData(model)
        sizes = [model.nq, model.nv, *(extras[name][0] for name in physical)]
        self._physics = np.zeros((num_envs, 1 + sum(sizes)))
        qpos, qvel, *further = np.split(self._physics[:, 1:], np.cumsum(sizes)[:-1].tolist(), axis=1)
        self.state = BatchState(
            time=self._physics[:, 0],
            qpos=qpos,
            qvel=qvel,
            ctrl=np.zeros((num_envs, num_controls)),
            mocap_pos=np.zeros((num_envs, model.nmocap, 3)),
            mocap_quat=np.zeros((num_envs, model.nmocap, 4)),
            sensors=np.zeros((num_envs, substeps, 0)),
            extras={name: np.zeros((num_envs, *shape)) for name, shape in extras.items()}
            | dict(zip(physical, further, strict=True)),
        )
        self.reset_to_model(np.arange(num_envs))

    def reset_to_model(self, env_ids: Int64[ndarray, " selected"]) -> None:
        """Put the chosen environments in the model's initial state, with all else at zero."""
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
        insane = ~within(self._physics)
        if insane.any():
            self._reset_physics(np.flatnonzero(insane))
        before = self._physics.copy()
        diverged = insane | self._move() | ~within(self._physics)
        self._physics[diverged] = before[diverged]
        self.state.time += self.substeps * self.model.opt.timestep
        return diverged

    @abstractmethod
    def _move(self) -> Bool[ndarray, " num_envs"]:
        """Advance positions and velocities in the state by one control step; tells where that was impossible."""

    def _arrays(self) -> dict[str, ndarray]:
        state = self.state
        own = {"physics": self._physics, "ctrl": state.ctrl, "mocap_pos": state.mocap_pos}
        return (
            own | {"mocap_quat": state.mocap_quat} | {f"extras.{name}": array for name, array in state.extras.items()}
        )

    def get_state(self) -> dict[str, ndarray]:
        """Everything that decides the future, copied."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def set_state(self, saved: Mapping[str, ndarray]) -> None:
        """Inverse of `get_state`, exact to the bit."""
        for name, array in self._arrays().items():
            array[:] = saved[name]


def within(numbers: Float64[ndarray, "num_envs numbers"]) -> Bool[ndarray, " num_envs"]:
    """Whether all of an environment's numbers are finite and bounded."""
    return (np.abs(numbers) < BOUND).all(axis=1)

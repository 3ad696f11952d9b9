"""MuJoCo for many environments at once: their states are rows of one array, advanced by C++ threads.

`mujoco.rollout` has sharp edges, handled here once for all tasks:

* Mocap poses are not part of the physics state; they travel with the controls on every call, or bodies would
  silently return to where the model file put them.
* The solver's warm start is zeroed at each call, so after contact ten plus ten substeps are not twenty. Every
  control step is one call of the same number of substeps; a step is thus a pure function of state and control.
* The sensors of a substep are evaluated before its integration. What must be fresh (positions against a clearance
  of half a millimetre) is computed by tasks from the state; `sensors` keeps all substeps, to be averaged.
* A row that diverges comes back reset to the model's initial state, finite and silent. Its clock tells.
"""

import contextlib
import ctypes
import math
import os
from collections.abc import Mapping

import mujoco
import numpy as np
from jaxtyping import Bool, Float64, Int64
from mujoco import _callbacks
from mujoco.rollout import Rollout
from numpy import ndarray

from alula.sims.engine import BatchState, Engine
from alula.sims.variation import ModelVariation

STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS.value
CONTROL = (
    mujoco.mjtState.mjSTATE_CTRL.value
    | mujoco.mjtState.mjSTATE_MOCAP_POS.value
    | mujoco.mjtState.mjSTATE_MOCAP_QUAT.value
)
PARALLEL_FROM = 8
"""Smaller batches run on the calling thread: waking the pool costs more than it saves."""


def _stop_timers() -> None:
    """Take away the clock with which MuJoCo's Python package times every stage of every step.

    Nobody here reads these times (`MjData.timer`), and taking them costs up to a quarter of the step. The package only
    takes a clock of one's own, so that none is set in the library itself; where there is no such clock, all is well.
    """
    with contextlib.suppress(ValueError):
        ctypes.c_void_p.in_dll(ctypes.CDLL(_callbacks.__file__), "mjcb_time").value = None


_stop_timers()


class MujocoEngine(Engine):
    """`num_envs` copies of one MuJoCo model.

    Args:
        model: Compiled model, shared by all environments.
        num_envs: Number of environments.
        substeps: Physics steps per control step.
        extras: Task-owned arrays by name: shape of one environment's entry.
        num_threads: Physics threads; default all cores. Results do not depend on it.
        chunks_per_thread: Portions of the batch that each thread takes, one after the other. Few spare the threads'
            coordination where all environments take about equally long; None leaves it to MuJoCo (ten).
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num_envs: int,
        substeps: int,
        extras: Mapping[str, tuple[int, ...]],
        num_threads: int | None = None,
        chunks_per_thread: int | None = None,
    ) -> None:
        self.model = model
        self.num_envs = num_envs
        self.substeps = substeps
        threads = (num_threads or os.cpu_count() or 1) if num_envs >= PARALLEL_FROM else 1
        self.num_threads = threads
        self._chunk_size = math.ceil(num_envs / (threads * chunks_per_thread)) if chunks_per_thread else None
        self._models = [model] * num_envs
        self._variation: ModelVariation | None = None
        self._data = [mujoco.MjData(model) for _ in range(threads)]
        self._pool = Rollout(nthread=threads if threads > 1 else 0)
        self._physics = np.zeros((num_envs, mujoco.mj_stateSize(model, STATE)))
        self._trajectory = np.zeros((num_envs, substeps, self._physics.shape[1]))
        self._control = np.zeros((num_envs, substeps, mujoco.mj_stateSize(model, CONTROL)))
        self._initial_physics, self._initial_control = _initial(model, STATE), _initial(model, CONTROL)
        self.state = self._views(extras)
        self.reset_to_model(np.arange(num_envs))

    def _views(self, extras: Mapping[str, tuple[int, ...]]) -> BatchState:
        model, n = self.model, self.num_envs
        nq, nv, nu, nmocap = model.nq, model.nv, model.nu, model.nmocap
        first = self._control[:, 0]
        return BatchState(
            time=self._physics[:, 0],
            qpos=self._physics[:, 1 : 1 + nq],
            qvel=self._physics[:, 1 + nq : 1 + nq + nv],
            ctrl=first[:, :nu],
            mocap_pos=first[:, nu : nu + 3 * nmocap].reshape(n, nmocap, 3, copy=False),
            mocap_quat=first[:, nu + 3 * nmocap : nu + 7 * nmocap].reshape(n, nmocap, 4, copy=False),
            sensors=np.zeros((n, self.substeps, model.nsensordata)),
            extras={name: np.zeros((n, *shape)) for name, shape in extras.items()},
        )

    def reset_to_model(self, env_ids: Int64[ndarray, " selected"]) -> None:
        """Put the chosen environments in the model's initial state, with sensors at zero."""
        self._physics[env_ids] = self._initial_physics
        self._control[env_ids, 0] = self._initial_control
        self.state.sensors[env_ids] = 0.0
        for array in self.state.extras.values():
            array[env_ids] = 0.0

    def _simulate(self) -> Float64[ndarray, "num_envs physics"]:
        """Physics states after one control step; those that diverged have a wrong clock or are not finite."""
        self._control[:, 1:] = self._control[:, :1]
        self._rollout(self._physics)
        return self._trajectory[:, -1]

    def _rollout(self, start: Float64[ndarray, "num_envs physics"]) -> None:
        """Fill the trajectory (and sensors) from `start` under the controls."""
        self._pool.rollout(
            self._models,
            self._data,
            start,
            self._control,
            control_spec=CONTROL,
            skip_checks=True,
            nstep=self._control.shape[1],
            chunk_size=self._chunk_size,
            state=self._trajectory,
            sensordata=self.state.sensors,
        )

    def vary(self, widths: Mapping[str, float]) -> Float64[ndarray, " factors"]:
        """See `Engine.vary`."""
        self._variation = ModelVariation(self.model, self.num_envs, widths)
        self._models = self._variation.models
        return self._variation.widths

    def advance(self) -> Bool[ndarray, " num_envs"]:
        """See `Engine.advance`."""
        if self._variation is not None:
            self._variation.apply(self.state.extras["factors"], self._data[0])
        last = self._simulate()
        expected = self._physics[:, 0] + self.substeps * self.model.opt.timestep
        diverged = ~(np.abs(last[:, 0] - expected) < 0.5 * self.model.opt.timestep) | ~np.isfinite(last).all(axis=1)
        if diverged.any():
            sane = (np.abs(self._physics) < mujoco.mjMAXVAL).all(axis=1, keepdims=True)
            last[diverged] = np.where(sane, self._physics, self._initial_physics)[diverged]
            step = self.substeps * self.model.opt.timestep
            last[diverged, 0] = np.where(np.isfinite(expected), expected, step)[diverged]
            self.state.sensors[diverged] = 0.0
        self._physics[:] = last
        return diverged

    @property
    def last_control(self) -> Float64[ndarray, "num_envs substeps control"]:
        """Controls and mocap poses of the last step, as `mujoco.rollout` received them."""
        return np.repeat(self._control[:, -1:], self.substeps, axis=1)

    def get_state(self) -> dict[str, ndarray]:
        """Everything that decides the future, copied: physics, controls and mocap, sensors, task arrays."""
        arrays = {"physics": self._physics, "control": self._control[:, 0], "sensors": self.state.sensors}
        arrays |= {f"extras.{name}": array for name, array in self.state.extras.items()}
        return {name: array.copy() for name, array in arrays.items()}

    def set_state(self, saved: Mapping[str, ndarray]) -> None:
        """Inverse of `get_state`, exact to the bit."""
        self._physics[:] = saved["physics"]
        self._control[:, 0] = saved["control"]
        self.state.sensors[:] = saved["sensors"]
        for name, array in self.state.extras.items():
            array[:] = saved[f"extras.{name}"]

    def close(self) -> None:
        """Stop the threads."""
        self._pool.close()


def _initial(model: mujoco.MjModel, signature: int) -> Float64[ndarray, " size"]:
    """What `signature` covers of the model's initial state."""
    initial = np.zeros(mujoco.mj_stateSize(model, signature))
    mujoco.mj_getState(model, mujoco.MjData(model), initial, signature)
    return initial

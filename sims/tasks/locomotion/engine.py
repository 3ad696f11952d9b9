"""MuJoCo's batch, with what `MjData` holds after a control step beside its state."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import mujoco
from jaxtyping import Bool, Float64
from mujoco.rollout import Rollout
from numpy import ndarray

from alula.sims.mujoco_engine import CONTROL, MujocoEngine

ROWS = 4
"""Environments that a thread simulates in one go."""


class ContactEngine(MujocoEngine):
    """Fills the task's arrays `cfrc_ext` (nbody, 6) and `torso` (3) after every control step.

    Gymnasium's Ant observes `MjData.cfrc_ext`, the external wrenches by `mj_rnePostConstraint` after the last substep,
    and measures its speed by `MjData.xpos`, both as that substep's integrator left them: under Runge-Kutta they belong
    to its fourth stage, which is no state of the trajectory. Sensors are evaluated before the integration, and sensors
    are all that `mujoco.rollout` returns. Therefore the environments are rolled out one by one, on Python threads;
    while MuJoCo computes, these do not hold the interpreter, whose own share is 12 µs of the ant's 0.6 ms.

    Args:
        model: See `MujocoEngine`; body 1 is the torso.
        num_envs: See `MujocoEngine`.
        substeps: See `MujocoEngine`.
        extras: See `MujocoEngine`; with `cfrc_ext` and `torso`.
        num_threads: See `MujocoEngine`.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num_envs: int,
        substeps: int,
        extras: Mapping[str, tuple[int, ...]],
        num_threads: int | None = None,
    ) -> None:
        super().__init__(model, num_envs, substeps, extras, num_threads)
        self._single = Rollout(nthread=0)
        self._workers = ThreadPoolExecutor(self.num_threads)

    def _rollout(self, start: Float64[ndarray, "num_envs physics"]) -> None:
        """As the parent's, bit for bit, plus the two arrays."""
        groups = [slice(first, first + ROWS) for first in range(0, self.num_envs, ROWS)]
        list(self._workers.map(lambda group: self._simulate_group(start, group), groups))

    def _simulate_group(self, start: Float64[ndarray, "num_envs physics"], group: slice) -> None:
        data = self._data.pop()  # there is one for every thread
        for row in range(self.num_envs)[group]:
            only = slice(row, row + 1)
            self._single.rollout(
                self._models[only],
                [data],
                start[only],
                self._control[only],
                control_spec=CONTROL,
                skip_checks=True,
                nstep=self.substeps,
                state=self._trajectory[only],
                sensordata=self.state.sensors[only],
            )
            mujoco.mj_rnePostConstraint(self._models[row], data)
            self.state.extras["cfrc_ext"][row] = data.cfrc_ext
            self.state.extras["torso"][row] = data.xpos[1]
        self._data.append(data)

    def advance(self) -> Bool[ndarray, " num_envs"]:
        """See `Engine.advance`; where physics diverged nothing touches, and the torso is where the state has it."""
        diverged = super().advance()
        self.state.extras["cfrc_ext"][diverged] = 0.0
        self.state.extras["torso"][diverged] = self.state.qpos[diverged, :3]
        return diverged

    def close(self) -> None:
        """Stop the threads."""
        self._workers.shutdown()
        super().close()

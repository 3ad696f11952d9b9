"""What a task is: a model, and functions over the batch of states."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Int64
from numpy import ndarray

from alula.core.seeding import BatchRng
from alula.core.spaces import SpaceSpec
from alula.sims.config import Randomization
from alula.sims.engine import BatchState, Engine
from alula.sims.mujoco_engine import MujocoEngine


@runtime_checkable
class Expert(Protocol):
    """A scripted demonstrator; sees the true state, which a policy does not."""

    def act(self, state: BatchState) -> Float[ndarray, "num_envs action"]:
        """Action of every environment for this step, in the action field's units."""
        ...


class Task(ABC):
    """A model and vectorised functions of the batch of states; holds no state of its own.

    The environment calls, for every control step, `control` → physics → `forward` → `observe`, `reward`, `success`
    and `terminated`; on a reset only `reset`.
    """

    randomization: Randomization = Randomization()
    """How far episodes may differ; what the configuration says, where it says something."""
    model: mujoco.MjModel
    """The scene: what pictures show, and what MuJoCo simulates."""
    observation: SpaceSpec
    action: SpaceSpec
    substeps: int
    """Physics steps per control step."""
    max_episode_steps: int
    """Control steps after which an episode is truncated."""
    extras: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    """Per-environment arrays of the task's own: name and shape of one environment's entry."""
    camera: str
    """Camera of the videos."""

    @property
    def control_rate(self) -> float:
        """Control steps per second [Hz]."""
        return 1.0 / (self.substeps * float(self.model.opt.timestep))

    def make_engine(self, num_envs: int, num_threads: int | None) -> Engine:
        """Physics of `num_envs` environments; by default MuJoCo's."""
        return MujocoEngine(self.model, num_envs, self.substeps, self.extras, num_threads)

    @abstractmethod
    def reset(self, state: BatchState, env_ids: Int64[ndarray, " selected"], rng: BatchRng) -> None:
        """Start a new episode in the chosen environments, which are already in the model's initial state.

        What `forward` derives must be right afterwards, too.
        """

    @abstractmethod
    def control(self, state: BatchState, action: Float[ndarray, "num_envs action"]) -> None:
        """Write the actuator commands for one control step into `state.ctrl`."""

    def forward(self, state: BatchState) -> None:
        """Recompute what is derived from the state, such as kinematics; nothing else may change."""
        del state

    @abstractmethod
    def observe(self, state: BatchState) -> dict[str, Float[ndarray, "num_envs field"]]:
        """What a policy may see."""

    @abstractmethod
    def success(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """Whether the goal is reached in the present state."""

    def reward(self, state: BatchState, success: Bool[ndarray, " num_envs"]) -> Float[ndarray, " num_envs"]:
        """Reward of the step that led here; by default 1 on success."""
        del state
        return success.astype(float)

    def terminated(self, state: BatchState, success: Bool[ndarray, " num_envs"]) -> Bool[ndarray, " num_envs"]:
        """Whether the episode ends here for reasons of the task; by default on success."""
        del state
        return success

    def tracked(self, state: BatchState) -> dict[str, Float[ndarray, "num_envs 7"]]:
        """Poses of the scene's things, as a camera or a tracking system would measure them.

        By default those of all bodies that move freely or are placed anew in each episode.

        Returns:
            Position [m] and quaternion wxyz in the world, by the body's name.
        """
        free, placed = _things(self.model)
        poses = {name: state.qpos[:, first : first + 7].copy() for name, first in free.items()}
        for name, index in placed.items():
            poses[name] = np.concatenate([state.mocap_pos[:, index], state.mocap_quat[:, index]], axis=1)
        return poses

    def place(self, state: BatchState, poses: Mapping[str, Float[ndarray, "num_envs 7"]]) -> None:
        """Put things where they were measured, so that `observe` sees them there: the inverse of `tracked`.

        Whoever runs a policy on a real robot gives the task what is known of its world, and asks it what the policy
        would see. Things that are not named stay where they are.
        """
        free, placed = _things(self.model)
        for name, pose in poses.items():
            if name in free:
                state.qpos[:, free[name] : free[name] + 7] = pose
            else:
                index = placed[name]
                state.mocap_pos[:, index], state.mocap_quat[:, index] = pose[:, :3], pose[:, 3:]

    def metrics(self, state: BatchState) -> dict[str, Float[ndarray, " num_envs"]]:
        """Further numbers about the present state, which `info` carries beside success; by default none."""
        del state
        return {}

    @abstractmethod
    def expert(self, noise: float, seed: int) -> Expert:
        """Scripted demonstrator with adjustable imperfection.

        Args:
            noise: Standard deviation of the action noise, as a share of the action range; 0 is the expert's best.
            seed: Seed of that noise.
        """


def _things(model: mujoco.MjModel) -> tuple[dict[str, int], dict[str, int]]:
    """Bodies that move freely and are not driven, with their place in `qpos`; and mocap bodies, with their index."""
    joint_drives = model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT
    driven = set(model.actuator_trnid[joint_drives, 0].tolist())
    free, placed = {}, {}
    for body in range(model.nbody):
        name, joint, mocap = model.body(body).name, int(model.body_jntadr[body]), int(model.body_mocapid[body])
        if joint >= 0 and model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE and joint not in driven:
            free[name] = int(model.jnt_qposadr[joint])
        if mocap >= 0:
            placed[name] = mocap
    return free, placed

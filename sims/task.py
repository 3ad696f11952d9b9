"""What a task is: a model, and functions over the batch of states."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import mujoco
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

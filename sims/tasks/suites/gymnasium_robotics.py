"""Adapters: Fetch and FrankaKitchen of Gymnasium-Robotics.

Plappert et al. 2018, "Multi-goal reinforcement learning" (arXiv 1802.09464); Gupta et al. 2019, "Relay policy
learning" (arXiv 1910.11956).
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.core.spaces import ControlMode
from alula.sims.tasks.suites.config import FetchConfig, FrankaKitchenConfig
from alula.sims.tasks.suites.original import MujocoOriginal, Outcome
from alula.sims.tasks.suites.task import ENVIRONMENT, STATE, Part, SuiteTask, furnish

FETCH_CLASSES = {
    "reach": ("reach", "MujocoFetchReachEnv"),
    "push": ("push", "MujocoFetchPushEnv"),
    "slide": ("slide", "MujocoFetchSlideEnv"),
    "pick_and_place": ("pick_and_place", "MujocoFetchPickAndPlaceEnv"),
}
# What the original calls velocities are displacements in one control step.
GRIPPER, FINGERS = Part(STATE, "gripper", 3, "m"), Part(STATE, "finger", 2, "m")
GRIPPER_MOTION, FINGER_MOTION = Part(STATE, "gripper_step", 3, "m"), Part(STATE, "finger_step", 2, "m")
GOAL = Part(ENVIRONMENT, "goal", 3, "m")
EMPTY_HANDED = (GRIPPER, FINGERS, GRIPPER_MOTION, FINGER_MOTION, GOAL)
WITH_OBJECT = (
    GRIPPER,
    Part(ENVIRONMENT, "object", 3, "m"),
    Part(ENVIRONMENT, "object_from_gripper", 3, "m"),
    FINGERS,
    Part(ENVIRONMENT, "object_angle", 3, "rad"),
    Part(ENVIRONMENT, "object_step_from_gripper", 3, "m"),
    Part(ENVIRONMENT, "object_turn", 3, "rad"),
    GRIPPER_MOTION,
    FINGER_MOTION,
    GOAL,
)
"""In the original's order."""

FURNITURE = (
    *((f"{kind}_{number}", unit) for number in range(1, 5) for kind, unit in (("knob", "rad"), ("burner", "m"))),
    *(("light_switch", "rad"), ("light", "m"), ("slide_cabinet", "m")),
    *(("left_hinge_cabinet", "rad"), ("right_hinge_cabinet", "rad"), ("microwave", "rad")),
)
KITCHEN = (
    Part(STATE, "joint", 7, "rad"),
    Part(STATE, "finger", 2, "m"),
    Part(STATE, "joint_velocity", 7, "rad/s"),
    Part(STATE, "finger_velocity", 2, "m/s"),
    *(Part(ENVIRONMENT, name, 1, unit) for name, unit in FURNITURE),
    Part(ENVIRONMENT, "kettle", 3, "m"),
    Part(ENVIRONMENT, "kettle_orientation", 4, "1"),
    *(Part(ENVIRONMENT, f"{name}_velocity", 1, f"{unit}/s") for name, unit in FURNITURE),
    Part(ENVIRONMENT, "kettle_velocity", 3, "m/s"),
    Part(ENVIRONMENT, "kettle_rotation", 3, "rad/s"),
)


class GymnasiumRoboticsTask(SuiteTask):
    """What the suite's tasks share."""

    suite, package = "Gymnasium-Robotics", "gymnasium_robotics"

    @classmethod
    def require(cls, module: str) -> Any:
        """A module of the suite, whose search for joint types is mended first.

        Up to version 1.4.2 it looks them up with `in`, but since MuJoCo 3.12 its enumerations no longer equal NumPy's
        integers when they stand on the left (Gymnasium-Robotics, pull request 330).
        """
        found = super().require(module)
        plain = SimpleNamespace(**vars(mujoco))
        plain.mjtJoint = SimpleNamespace(**{name: int(value) for name, value in mujoco.mjtJoint.__members__.items()})
        super().require("gymnasium_robotics.utils.mujoco_utils").mujoco = plain
        return found


class Fetch(GymnasiumRoboticsTask):
    """Displacements of the gripper (5 cm at 1) and its opening; only the time limit ends an episode."""

    def __init__(self, config: FetchConfig) -> None:
        super().__init__(config, EMPTY_HANDED if config.name == "reach" else WITH_OBJECT)
        module, name = FETCH_CLASSES[config.name]
        self._class = getattr(self.require(f"gymnasium_robotics.envs.fetch.{module}"), name)
        self._reward = config.reward
        first = self._class()
        spec = mujoco.MjSpec.from_file(first.fullpath)
        spec.site("target0").rgba = [0.0] * 4  # stays where the file has it; the goal is a mark of ours
        self.model = furnish(spec, ((2.4, 0.0, 1.2), (1.3, 0.75, 0.5)), marks=1)
        self.substeps = first.n_substeps
        self.action = self.action_space(("x", "y", "z", "gripper"), ControlMode.END_EFFECTOR_POSE_DELTA)

    def make(self) -> MujocoOriginal:
        """One more of the same kind."""
        environment = self._class(reward_type=self._reward)
        return _FetchOriginal(environment, environment, self.model)


class _FetchOriginal(MujocoOriginal):
    def marks(self) -> Float64[ndarray, "1 3"]:
        return self.environment.goal[None]

    def begin(self, seed: int) -> Float64[ndarray, " numbers"]:
        return _fetched(self.environment.reset(seed=seed)[0])

    def step(self, action: Float64[ndarray, " action"]) -> Outcome:
        observation, reward, _, _, info = self.environment.step(action.astype(np.float32))
        return Outcome(_fetched(observation), float(reward), bool(info["is_success"]), False)


def _fetched(observation: Mapping[str, ndarray]) -> Float64[ndarray, " numbers"]:
    return np.concatenate([observation["observation"], observation["desired_goal"]])


class FrankaKitchen(GymnasiumRoboticsTask):
    """Joint velocities (2 rad/s at 1) by position servos; a step's reward is the number of chores it completed.

    Success is when all are done, which ends the episode.
    """

    def __init__(self, config: FrankaKitchenConfig) -> None:
        super().__init__(config, KITCHEN)
        self._chores = list(config.chores)
        self._class = self.require("gymnasium_robotics.envs.franka_kitchen.kitchen_env").KitchenEnv
        first = self._class().robot_env
        spec = mujoco.MjSpec.from_file(first.fullpath)
        self.model, self.substeps = furnish(spec, ((-1.1, -1.3, 2.9), (-0.1, 0.5, 1.9))), first.frame_skip
        joints = (*(f"joint_{number}" for number in range(1, 8)), "finger_1", "finger_2")
        self.action = self.action_space(joints, ControlMode.JOINT_VELOCITY)

    def make(self) -> MujocoOriginal:
        """One more of the same kind."""
        environment = self._class(tasks_to_complete=self._chores)
        return _KitchenOriginal(environment, environment.robot_env, self.model)


class _KitchenOriginal(MujocoOriginal):
    def marks(self) -> Float64[ndarray, "0 3"]:
        return np.zeros((0, 3))

    def begin(self, seed: int) -> Float64[ndarray, " numbers"]:
        return self.environment.reset(seed=seed)[0]["observation"]

    def step(self, action: Float64[ndarray, " action"]) -> Outcome:
        observation, reward, terminated, _, _ = self.environment.step(action)
        return Outcome(observation["observation"], reward, terminated, terminated)

    def save(self) -> dict[str, ndarray]:
        done = [chore in self.environment.episode_task_completions for chore in self.environment.goal]
        return super().save() | {"done": np.array(done)}

    def load(self, saved: Mapping[str, ndarray]) -> None:
        super().load(saved)
        done = [chore for chore, yes in zip(self.environment.goal, saved["done"], strict=True) if yes]
        self.environment.episode_task_completions[:] = done
        self.environment.tasks_to_complete = set(self.environment.goal) - set(done)

"""Adapter: robosuite (Zhu et al. 2020, arXiv 2009.12293) with one arm and its default controller."""

import logging
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.core.errors import ConfigError, unknown_name
from alula.core.spaces import ControlMode
from alula.sims.tasks.suites.config import RobosuiteConfig
from alula.sims.tasks.suites.engine import ReplayEngine
from alula.sims.tasks.suites.original import Original, Outcome, Pose
from alula.sims.tasks.suites.task import ENVIRONMENT, STATE, Part, SuiteTask

UNITS = {"joint_pos": "rad", "joint_vel": "rad/s", "pos": "m"}
"""By how the name of an observed quantity ends; all others are pure numbers, or depend on the gripper."""


class Robosuite(SuiteTask):
    """Displacement and rotation of the gripper by operational-space control, and its opening.

    Only the time limit ends an episode. What robosuite draws when it builds a model (the size of Lift's cube) is the
    same in all (`hard_reset=False`). Its controllers remember much, therefore states are restored by replaying.
    """

    suite, package = "robosuite", "robosuite"
    remedy = "pip install 'alula[robosuite]'"
    engine_class = ReplayEngine
    camera = "frontview"

    def __init__(self, config: RobosuiteConfig) -> None:
        suite = self.require("robosuite")
        _mend(self.require)
        known = [name for name in suite.ALL_ENVIRONMENTS if not name.startswith("TwoArm")]
        if config.name not in known:
            raise ConfigError(unknown_name("task.name", config.name, known))
        settings = {"reward_shaping": config.reward == "dense", "ignore_done": True, "hard_reset": False}
        unseen = {"has_renderer": False, "has_offscreen_renderer": False, "use_camera_obs": False}
        self._make = partial(_seeded, 0, partial(suite.make, config.name, robots=config.robot, **settings, **unseen))
        first = self._make()
        super().__init__(config, [_part(name, value) for name, value in _quantities(first.reset())])
        self.model = first.sim.model._model
        self.substeps = round(1.0 / (first.control_freq * self.model.opt.timestep))
        low, _ = first.action_spec
        self.action = self.action_space([f"action_{i}" for i in range(len(low))], ControlMode.END_EFFECTOR_POSE_DELTA)

    def make(self) -> Original:
        """One more of the same kind."""
        return _RobosuiteOriginal(self._make())


def _mend(require: Any) -> None:
    """Make robosuite 1.5 run on MuJoCo 3.12 and later, and keep its log for errors.

    It looks up joint types with `in`, for which MuJoCo's enumerations no longer equal NumPy's integers, and wants the
    mass matrix from `mj_fullM(model, result, data.qM)`, which now reads `mj_fullM(model, data, result)`.
    """
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    plain = SimpleNamespace(**vars(mujoco))
    plain.mjtJoint = SimpleNamespace(**{name: int(value) for name, value in mujoco.mjtJoint.__members__.items()})
    plain.mj_fullM = lambda model, result, data: mujoco.mj_fullM(model, data, result)
    bindings = require("robosuite.utils.binding_utils")
    bindings.mujoco = require("robosuite.controllers.parts.controller").mujoco = plain
    bindings.MjData.qM = property(lambda data: data._data)


class _RobosuiteOriginal(Original):
    def __init__(self, environment: Any) -> None:
        self.environment = environment

    def begin(self, seed: int) -> Float64[ndarray, " numbers"]:
        return _joined(_seeded(seed, self.environment.reset))

    def step(self, action: Float64[ndarray, " action"]) -> Outcome:
        observation, reward, done, _ = self.environment.step(action)
        return Outcome(_joined(observation), float(reward), bool(self.environment._check_success()), bool(done))

    def pose(self) -> Pose:
        data = self.environment.sim.data
        return Pose(data.qpos, data.qvel, data.mocap_pos, data.mocap_quat)


def _seeded(seed: int, draw: Callable[[], Any]) -> Any:
    """What `draw` makes of a seed: robosuite draws from NumPy's global stream, which is put back for the others."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    drawn = draw()
    np.random.set_state(before)  # noqa: NPY002
    return drawn


def _quantities(observation: dict[str, Any]) -> list[tuple[str, ndarray]]:
    """Without those that repeat others."""
    return [(name, np.ravel(value)) for name, value in observation.items() if not name.endswith("-state")]


def _joined(observation: dict[str, Any]) -> Float64[ndarray, " numbers"]:
    return np.concatenate([value for _, value in _quantities(observation)])


def _part(name: str, value: ndarray) -> Part:
    unit = next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "1")
    return Part(STATE if name.startswith("robot") else ENVIRONMENT, name.removeprefix("robot0_"), len(value), unit)

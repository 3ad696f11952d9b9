"""Adapter: the fifty tasks of Meta-World (Yu et al. 2019, arXiv 1910.10897; McLean et al. 2025, arXiv 2505.11289)."""

from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.core.errors import ConfigError, unknown_name
from alula.core.spaces import ControlMode
from alula.sims.tasks.suites.config import MetaWorldConfig
from alula.sims.tasks.suites.original import MujocoOriginal, Outcome
from alula.sims.tasks.suites.task import ENVIRONMENT, STATE, Part, SuiteTask, furnish

FRAMES = ("", "_before")
"""The present control step and the last."""
PARTS = (
    *(
        part
        for suffix in FRAMES
        for part in (
            Part(STATE, f"hand{suffix}", 3, "m"),
            Part(STATE, f"opening{suffix}", 1, "1"),
            Part(ENVIRONMENT, f"object_1{suffix}", 3, "m"),
            Part(ENVIRONMENT, f"object_1_orientation{suffix}", 4, "1"),
            Part(ENVIRONMENT, f"object_2{suffix}", 3, "m"),
            Part(ENVIRONMENT, f"object_2_orientation{suffix}", 4, "1"),
        )
    ),
    Part(ENVIRONMENT, "goal", 3, "m"),
)
WELD = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0)
"""What Meta-World writes into the weld between mocap body and hand."""


class MetaWorld(SuiteTask):
    """Displacements of the hand (1 cm at 1) and the gripper's effort; only the time limit ends an episode.

    Goals and objects are placed at random, drawn from the seed, and the goal is observed (Meta-World's MT1). A part of
    `environment_state` that a task has no object for is zero.
    """

    suite, package = "Meta-World", "metaworld"

    def __init__(self, config: MetaWorldConfig) -> None:
        super().__init__(config, PARTS)
        known = self.require("metaworld.env_dict").ALL_V3_ENVIRONMENTS
        if config.name not in known:
            raise ConfigError(unknown_name("task.name", config.name, known))
        self._class = type("Mended", (known[config.name],), {"reset_mocap_welds": _reset_mocap_welds})
        first = self._class()
        spec = mujoco.MjSpec.from_file(first.model_name)
        for body in spec.worldbody.bodies:  # resets move the furniture
            body.mocap = body.mocap or not body.joints
        self.model, self.substeps = furnish(spec, ((1.0, -0.1, 0.9), (0.0, 0.65, 0.15)), marks=1), first.frame_skip
        self.action = self.action_space(("x", "y", "z", "effort"), ControlMode.END_EFFECTOR_POSE_DELTA)

    def make(self) -> MujocoOriginal:
        """One more of the same kind."""
        environment = self._class()
        environment._partially_observable, environment._freeze_rand_vec = False, False
        environment._set_task_called, environment.seeded_rand_vec = True, True
        environment.max_path_length = 10**9  # the time limit is ours
        del environment.sawyer_observation_space  # cached, without the goal
        return _MetaWorldOriginal(environment, environment, self.model)


def _reset_mocap_welds(environment: Any) -> None:
    """As the original, for a MuJoCo whose constraints have more than eleven numbers."""
    model = environment.model
    model.eq_data[model.eq_type == int(mujoco.mjtEq.mjEQ_WELD), : len(WELD)] = WELD


class _MetaWorldOriginal(MujocoOriginal):
    def marks(self) -> Float64[ndarray, "1 3"]:
        return self.environment._target_pos[None]

    def begin(self, seed: int) -> Float64[ndarray, " numbers"]:
        self.environment.seed(seed)
        return self.environment.reset()[0]

    def step(self, action: Float64[ndarray, " action"]) -> Outcome:
        observation, reward, _, _, info = self.environment.step(action.astype(np.float32))
        return Outcome(observation, float(reward), bool(info["success"]), False)

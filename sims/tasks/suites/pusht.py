"""Adapter: gym-pusht (Chi et al. 2023, "Diffusion policy", arXiv 2303.04137, after Florence et al. 2021)."""

import os
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.core.spaces import ControlMode
from alula.sims.scenery import add_camera, lit_scene
from alula.sims.tasks.suites.config import PushTGymConfig
from alula.sims.tasks.suites.engine import ReplayEngine
from alula.sims.tasks.suites.original import Original, Outcome, Pose
from alula.sims.tasks.suites.task import CAMERA, ENVIRONMENT, STATE, Part, SuiteTask

BOARD = 512.0
"""Side of the board [px]."""
METERS = 1e-3
"""Per pixel, in pictures."""
GOAL = (256.0, 256.0, np.pi / 4)
"""Position [px] and angle [rad] of the mark."""
BAR, STEM = ((0.0, 15.0), (60.0, 15.0)), ((0.0, 75.0), (15.0, 45.0))
"""Centre and half-sizes [px] of the T's two boxes in its frame."""
AGENT_RADIUS = 15.0
"""[px]"""


class PushTGym(SuiteTask):
    """Target positions of a disc that pushes the T; success, which ends the episode, is 95 % of the mark covered.

    Positions in pixels, y downwards, as in the published demonstrations. Chipmunk's contacts remember what cannot be
    read out, therefore states are restored by replaying.
    """

    suite, package = "gym-pusht", "gym_pusht"
    engine_class = ReplayEngine
    substeps = 10

    def __init__(self, config: PushTGymConfig) -> None:
        super().__init__(config, (Part(ENVIRONMENT, "corner", 16, "px"), Part(STATE, "agent", 2, "px")))
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        self._suite = self.require("gym_pusht.envs.pusht")
        self.model = build_scene()
        self.action = self.action_space(("x", "y"), ControlMode.POSITION, unit="px", low=0.0, high=BOARD)

    def make(self) -> Original:
        """One more of the same kind."""
        environment = self._suite.PushTEnv(obs_type="environment_state_agent_pos")
        environment._get_coverage = lambda: _coverage(environment, self._suite.pymunk_to_shapely)
        return _PushTOriginal(environment)


class _PushTOriginal(Original):
    def __init__(self, environment: Any) -> None:
        self.environment = environment

    def begin(self, seed: int) -> Float64[ndarray, " numbers"]:
        return _joined(self.environment.reset(seed=seed)[0])

    def step(self, action: Float64[ndarray, " action"]) -> Outcome:
        observation, reward, terminated, _, info = self.environment.step(action.astype(np.float32))
        return Outcome(_joined(observation), float(reward), bool(info["is_success"]), bool(terminated))

    def pose(self) -> Pose:
        agent, block = self.environment.agent, self.environment.block
        position = (agent.position.x, -agent.position.y, block.position.x, -block.position.y)
        velocity = (agent.velocity.x, -agent.velocity.y, block.velocity.x, -block.velocity.y)
        qpos = np.array([*(METERS * number for number in position), -block.angle])
        qvel = np.array([*(METERS * number for number in velocity), -block.angular_velocity])
        return Pose(qpos, qvel, np.zeros((0, 3)), np.zeros((0, 4)))


def _coverage(environment: Any, outline: Callable[[Any, Any], Any]) -> float:
    """Share of the mark that the T covers, as in the original, but with its two boxes always in the same order.

    The original goes through a set, in the order of addresses, and the last digit is another in every process.
    """
    boxes = environment._block_shapes
    mark = outline(environment.get_goal_pose_body(environment.goal_pose), boxes)
    return mark.intersection(outline(environment.block, boxes)).area / mark.area


def _joined(observation: dict[str, ndarray]) -> Float64[ndarray, " numbers"]:
    return np.concatenate([observation["environment_state"], observation["agent_pos"]])


def build_scene() -> mujoco.MjModel:
    """The board from above, y upwards: disc and T on joints, the mark fixed; nothing touches anything."""
    spec = lit_scene(0.01, brightness=0.5)
    world, half = spec.worldbody, 0.5 * BOARD * METERS
    _box(world, (half, -half, -0.01), (half, half, 0.005), (0.95, 0.95, 0.93, 1.0))
    x, y, angle = GOAL
    mark = world.add_body(
        name="mark", pos=[METERS * x, -METERS * y, -0.004], quat=[np.cos(angle / 2), 0.0, 0.0, -np.sin(angle / 2)]
    )
    agent, block = world.add_body(name="agent"), world.add_body(name="block")
    agent.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[METERS * AGENT_RADIUS, 0.006, 0.0],
        contype=0,
        conaffinity=0,
        rgba=[0.25, 0.41, 0.88, 1.0],
    )
    for body in (agent, block):
        for axis in ([1, 0, 0], [0, 1, 0]):
            body.add_joint(type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis)
    block.add_joint(type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 0, 1])
    for body, color in ((mark, (0.56, 0.93, 0.56, 1.0)), (block, (0.47, 0.53, 0.60, 1.0))):
        for (center_x, center_y), size in (BAR, STEM):
            center = (METERS * center_x, -METERS * center_y, 0.0)
            _box(body, center, (METERS * size[0], METERS * size[1], 0.004), color)
    add_camera(world, CAMERA, (half, -half - 1e-4, 0.75), (half, -half, 0.0), fovy=40)
    return spec.compile()


def _box(
    body: mujoco.MjsBody,
    center: tuple[float, float, float],
    size: tuple[float, float, float],
    color: tuple[float, float, float, float],
) -> None:
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, pos=center, size=size, contype=0, conaffinity=0, rgba=list(color))

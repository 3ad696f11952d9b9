"""The tabletop in Bullet: the same task, other physics."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pybullet
import pytest
from gymnasium.vector import AutoresetMode

from alula.core.errors import ConfigError
from alula.sims.registry import TASKS, make_task
from alula.sims.robots.bullet_engine import BulletTabletop
from alula.sims.tasks.tabletop.base import TabletopTask
from alula.sims.vector import TaskVectorEnv


def make(name: str, **settings: Any) -> TabletopTask:
    """A task in Bullet."""
    task: TabletopTask = make_task(TASKS[name].config(engine="bullet", **settings))
    return task


def rolled(env: TaskVectorEnv, actions: np.ndarray) -> list[Any]:
    """What steps under these actions return."""
    return [env.step(action) for action in actions]


def random_actions(task: TabletopTask, steps: int, num_envs: int) -> np.ndarray:
    """Anywhere in the action space."""
    low, high = task.action["action"].bounds()
    return np.random.default_rng(0).uniform(low, high, (steps, num_envs, len(low))).astype(np.float32)


def test_the_spaces_are_those_of_mujoco() -> None:
    """So that policies and datasets fit both."""
    other = make_task(TASKS["pick_place"].config())
    task = make("pick_place")
    assert task.observation == other.observation
    assert task.action == other.action


def test_bullet_s_arm_is_ours() -> None:
    """Its URDF puts the hand where our kinematics has the tool, 1.6 mm further out, at random postures."""
    task = make("lift")
    engine = task.make_engine(1, None)
    assert isinstance(engine, BulletTabletop)
    world, arm = engine._worlds[0], task.arms[0]
    hand = next(
        joint
        for joint in range(pybullet.getNumJoints(world.arm, world.client))
        if pybullet.getJointInfo(world.arm, joint, world.client)[12] == b"panda_grasptarget"
    )
    qpos = task.model.qpos0.copy()
    for posture in np.random.default_rng(0).uniform(arm.low, arm.high, (5, 7)):
        qpos[:7] = posture
        world.place(qpos.tolist(), [0.0] * task.model.nv)
        position = pybullet.getLinkState(world.arm, hand, computeForwardKinematics=1, physicsClientId=world.client)[4]
        pose = arm.chain.forward(posture[None])
        expected = pose.position[0] + 0.0016 * pose.rotation[0, :, 2]
        np.testing.assert_allclose(position, expected, atol=1e-5)
    engine.close()


def test_the_expert_solves_it_without_retraining() -> None:
    """What was written for one simulator works in the other."""
    env = TaskVectorEnv(make("pick_place"), 8, AutoresetMode.DISABLED)
    env.reset(seed=100)
    expert, done = env.task.expert(0.0, 0), np.zeros(8, dtype=bool)
    for _ in range(60):
        *_, info = env.step(expert.act(env.engine.state).astype(np.float32))
        done |= info["success"]
    env.close()
    assert done.all()


def test_a_saved_state_continues_exactly(assert_identical: Callable[[Any, Any], None]) -> None:
    """With the cube in the gripper, alone or among others, here and in worlds that never saw it."""
    task = make("lift", max_episode_steps=25)
    env, other = TaskVectorEnv(task, 3), TaskVectorEnv(task, 1)
    env.reset(seed=0)
    expert = task.expert(0.0, 0)
    for _ in range(14):
        env.step(expert.act(env.engine.state).astype(np.float32))
    saved, actions = env.get_state(), random_actions(task, 15, 3)
    first = rolled(env, actions)
    env.set_state(saved)
    assert_identical(rolled(env, actions), first)
    other.set_state({name: array[1:2] for name, array in saved.items()})
    for (got, *_), (wanted, *_) in zip(rolled(other, actions[:, 1:2]), first, strict=True):
        assert_identical(got, {name: value[1:2] for name, value in wanted.items()})
    env.close()
    other.close()


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("lift", {"robot": "ur5e"}, "has only the panda, not the ur5e"),
        ("lift", {"action_mode": "torque"}, "one arm with position servos and free boxes"),
        ("door_open", {}, "one arm with position servos and free boxes"),
        ("bimanual_transfer", {}, "one arm with position servos and free boxes"),
    ],
)
def test_what_bullet_does_not_know_is_refused(task: str, settings: dict[str, str], message: str) -> None:
    """By name, with the remedy."""
    with pytest.raises(ConfigError, match=message):
        make(task, **settings).make_engine(1, None)
    with pytest.raises(ConfigError, match=r"use task\.engine=mujoco"):
        make(task, **settings).make_engine(1, None)

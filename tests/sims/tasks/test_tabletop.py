"""Reach, Lift, PickPlace, Stack, TabletopLanguage: layouts, success, action modes and experts."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from alula.core.errors import ConfigError
from alula.sims.engine import BatchState
from alula.sims.registry import TASKS, make_task
from alula.sims.robots.kinematics import yaw_of
from alula.sims.tasks.tabletop.base import TabletopTask
from alula.sims.vector import TaskVectorEnv

Same = Callable[[Any, Any], None]
NAMES = ("reach", "lift", "pick_place", "stack", "tabletop_language")
EDGE = 0.04
"""Of the cubes [m]."""


@cache
def tabletop(name: str, action_mode: str = "end_effector_pose_delta", robot: str = "panda") -> TabletopTask:
    """The task; tasks hold no state, so tests share them."""
    made: TabletopTask = make_task(TASKS[name].config(action_mode=action_mode, robot=robot))
    return made


def begun(task: TabletopTask, num_envs: int, seed: int | list[int] = 0) -> TaskVectorEnv:
    """Environments at the start of an episode, which never reset by themselves."""
    env = TaskVectorEnv(task, num_envs, AutoresetMode.DISABLED, num_threads=1)
    env.reset(seed=seed)
    return env


def put_tool(task: TabletopTask, state: BatchState, position: np.ndarray, opening: np.ndarray) -> None:
    """Tool there, pointing down, gripper that far open [m]."""
    arm = task.arms[0]
    state.qpos[:, arm.qpos] = arm.postures(position, np.full(len(position), task.home_yaw[0]))
    for finger, _ in arm.fingers:
        state.qpos[:, finger] = opening / 2
    task.forward(state)
    np.testing.assert_allclose(state.extras["tool_position"], position, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "distance"), [("lift", 0.0), ("pick_place", 0.08), ("stack", 0.085), ("tabletop_language", 0.065)]
)
def test_things_lie_in_the_workspace_and_apart(name: str, distance: float) -> None:
    """On the table, in the square, with room between them, spread over all of it; and nothing is solved yet."""
    task = tabletop(name)
    env = begun(task, 400)
    state = env.engine.state
    places = [body.position(state) for body in (*task.things.values(), *task.fixtures.values())]
    for place in places:
        inside = (place[:, :2] - task.center) / task.half
        assert np.abs(inside).max() <= 1.0 + 1e-9
        assert (inside.min(axis=0) < -0.95).all()
        assert (inside.max(axis=0) > 0.95).all()
    for first, place in enumerate(places):
        for other in places[:first]:
            gap = np.linalg.norm((place - other)[:, :2], axis=1)
            assert np.mean(gap > distance - 1e-9) > 0.99
            assert gap.min() > 0.8 * distance
    tool = state.extras["tool_position"]
    assert tool[:, 2].min() > 0.05
    assert not task.success(state).any()
    env.close()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_moves_before_the_arm_does(name: str) -> None:
    """Things begin at rest on the table: a second later, with the arm held still, they are where they were."""
    task = tabletop(name, "end_effector_pose_absolute")
    env = begun(task, 8)
    state = env.engine.state
    start = state.extras["tool_position"].copy(), yaw_of(state.extras["tool_rotation"])
    before = [thing.position(state).copy() for thing in task.things.values()]
    for _ in range(20):
        env.step(np.column_stack([*start, np.ones(8)]))
    for thing, position in zip(task.things.values(), before, strict=True):
        assert np.abs(thing.position(state) - position).max() < 0.001
        assert np.abs(thing.velocity(state)).max() < 0.001
    assert np.abs(state.extras["tool_position"] - start[0]).max() < 0.001
    env.close()


@pytest.mark.parametrize("name", NAMES)
def test_observed_positions_from_the_tool_are_differences(name: str) -> None:
    """Each observed vector from tool to thing is the difference of the two observed positions."""
    task = tabletop(name)
    env = begun(task, 5)
    seen = env.step(np.tile(task.action["action"].bounds()[1], (5, 1)))[0]
    own = dict(zip(task.observation["observation.state"].element_names, seen["observation.state"].T, strict=True))
    environment = task.observation["observation.environment_state"].element_names
    other = dict(zip(environment, seen["observation.environment_state"].T, strict=True))
    relative = [element for element in environment if element.startswith("to_")]
    assert len(relative) == 3 * (len(task.things) + len(task.fixtures))
    for element in relative:
        wanted = other[element.removeprefix("to_")] - own[f"tool_{element[-1]}"]
        np.testing.assert_allclose(other[element], wanted, atol=1e-6)
    env.close()


def test_reach_counts_within_a_centimetre() -> None:
    """In any direction, and not beyond."""
    task = tabletop("reach")
    env = begun(task, 4)
    state = env.engine.state
    ways = np.array([[1.0, 0, 0], [0, 0, -1], [0.6, 0.8, 0], [0, 0.6, -0.8]])
    for distance, wanted in ((0.0099, True), (0.0101, False)):
        put_tool(task, state, task.fixtures["target"].position(state) + distance * ways, np.full(4, 0.08))
        assert task.success(state).tolist() == [wanted] * 4
    env.close()


def test_lift_counts_from_eight_centimetres() -> None:
    """Of the cube's height above where it lay."""
    task = tabletop("lift")
    env = begun(task, 2)
    state = env.engine.state
    task.things["cube"].position(state)[:, 2] = EDGE / 2 + np.array([0.0799, 0.0801])
    assert task.success(state).tolist() == [False, True]
    env.close()


CASES = {
    "there, gripper away": (0.0, 0.0, 0.0, 0.10, 0.00, True),
    "there, in the open gripper": (0.0, 0.0, 0.0, 0.00, 0.08, True),
    "19 mm off": (0.019, 0.0, 0.0, 0.10, 0.08, True),
    "still gripped": (0.0, 0.0, 0.0, 0.00, EDGE, False),
    "21 mm off": (0.021, 0.0, 0.0, 0.10, 0.08, False),
    "in the air": (0.0, 0.01, 0.0, 0.10, 0.08, False),
    "moving": (0.0, 0.0, 0.05, 0.10, 0.08, False),
}
"""Cube beside and above the goal [m], its speed [m/s], tool above the cube, opening [m]; whether that is success."""


@pytest.mark.parametrize(("name", "cube"), [("pick_place", "cube"), ("stack", "red")])
def test_success_means_there_at_rest_and_let_go(name: str, cube: str) -> None:
    """Each condition alone decides."""
    task, cases = tabletop(name), np.array(list(CASES.values()))
    beside, above, speed, tool, opening, wanted = cases.T
    env = begun(task, len(cases))
    state = env.engine.state
    if name == "pick_place":
        goal = task.fixtures["goal"].position(state) + np.array([0.0, 0.0, EDGE / 2])
    else:
        goal = task.things["green"].position(state) + np.array([0.0, 0.0, EDGE])
    position = goal + np.column_stack([0.6 * beside, -0.8 * beside, above])
    task.things[cube].position(state)[:] = position
    task.things[cube].velocity(state)[:, 1] = speed
    put_tool(task, state, position + np.column_stack([0 * tool, 0 * tool, tool]), opening)
    assert dict(zip(CASES, task.success(state), strict=True)) == dict(zip(CASES, wanted == 1, strict=True))
    env.close()


@pytest.mark.parametrize("name", NAMES)
def test_the_expert_succeeds(name: str, share_of_successes: Callable[[TabletopTask, int, float], float]) -> None:
    """At 20 seeds, within the time limit, with and without noise."""
    assert share_of_successes(tabletop(name), 20, 0.0) >= 0.95
    assert share_of_successes(tabletop(name), 20, 0.4) >= 0.95


@pytest.mark.parametrize("name", ["pick_place", "stack"])
def test_the_expert_begins_anew_when_the_cube_slips(name: str) -> None:
    """Put back on the table while it is carried, the cube is fetched again."""
    task = tabletop(name)
    env = begun(task, 4)
    state, cube = env.engine.state, next(iter(tabletop(name).things.values()))
    start, expert = state.qpos[:, cube.qpos : cube.qpos + 7].copy(), task.expert(0.0, seed=0)
    succeeded = np.zeros(4, dtype=bool)
    for step in range(task.max_episode_steps):
        if step == 22:
            assert (cube.position(state)[:, 2] > EDGE).all()
            state.qpos[:, cube.qpos : cube.qpos + 7] = start
            state.qvel[:, cube.qvel : cube.qvel + 6] = 0.0
        succeeded |= env.step(expert.act(state))[4]["success"]
        if succeeded.all():
            break
    assert step > 22
    assert succeeded.all()
    env.close()


@pytest.mark.parametrize("name", NAMES)
def test_the_expert_does_not_depend_on_the_batch(name: str, assert_identical: Same) -> None:
    """The same actions, bit for bit, alone and among others."""
    task, seeds = tabletop(name), [3, 1, 4, 15, 9]

    def run(chosen: list[int]) -> np.ndarray:
        env, actions = begun(task, len(chosen), chosen), []
        expert = task.expert(0.0, seed=0)
        for _ in range(28):
            actions.append(expert.act(env.engine.state))
            env.step(actions[-1])
        env.close()
        return np.stack(actions)

    together = run(seeds)
    for index, seed in enumerate(seeds[:3]):
        assert_identical(run([seed]), together[:, [index]])


@pytest.mark.parametrize("robot", ["panda", "ur5e", "viperx"])
def test_commanded_steps_displace_the_tool(robot: str) -> None:
    """Ten steps of 5 mm move the tool that way and no other, 5 cm in the end; ten of 0.04 rad turn it by 0.4 rad."""
    task = tabletop("reach", robot=robot)
    steps = np.array([[0.005, 0, 0, 0], [0, -0.005, 0, 0], [0, 0, 0.005, 0], [0, 0, 0, 0.04]])
    env = begun(task, 4, [1, 1, 1, 1])
    state = env.engine.state
    start = np.column_stack([state.extras["tool_position"], yaw_of(state.extras["tool_rotation"])])
    for step in range(25):
        env.step(np.column_stack([steps * (step < 10), np.ones(4)]))
    moved = np.column_stack([state.extras["tool_position"], yaw_of(state.extras["tool_rotation"])]) - start
    np.testing.assert_allclose(moved[:, :3], 10 * steps[:, :3], atol=0.006)
    np.testing.assert_allclose(moved[:, 3], 10 * steps[:, 3], atol=0.03)
    assert (state.extras["tool_rotation"][:, 2, 2] < -0.999).all()
    env.close()


def test_commanded_poses_are_reached() -> None:
    """In absolute poses, the tool arrives within 2 mm and 0.01 rad, from anywhere, and stays."""
    task = tabletop("reach", "end_effector_pose_absolute")
    env = begun(task, 6)
    state = env.engine.state
    goal = np.array([[*task.center, 0.1, task.home_yaw[0]]]) + 0.05 * np.random.default_rng(0).uniform(-1, 1, (6, 4))
    for _ in range(60):
        env.step(np.column_stack([goal, np.zeros(6)]))
    np.testing.assert_allclose(state.extras["tool_position"], goal[:, :3], atol=0.002)
    np.testing.assert_allclose(yaw_of(state.extras["tool_rotation"]), goal[:, 3], atol=0.01)
    assert (task.arms[0].opening(state) < 0.001).all()
    env.close()


def test_commanded_joints_are_reached() -> None:
    """Absolute joint positions are taken; of steps each joint takes its own, and no other moves."""
    absolute = tabletop("reach", "joint_position_absolute")
    env = begun(absolute, 7)
    arm, state = absolute.arms[0], env.engine.state
    goal = state.qpos[:, arm.qpos] + 0.1 * np.eye(7)
    for _ in range(30):
        env.step(np.column_stack([goal, np.ones(7)]))
    np.testing.assert_allclose(state.qpos[:, arm.qpos], goal, atol=0.002)
    env.close()
    delta = tabletop("reach", "joint_position_delta")
    env = begun(delta, 7, [2] * 7)
    state = env.engine.state
    start = state.qpos[:, arm.qpos].copy()
    for step in range(30):
        env.step(np.column_stack([0.02 * np.eye(7) * (step < 5), np.ones(7)]))
    np.testing.assert_allclose(state.qpos[:, arm.qpos] - start, 0.1 * np.eye(7), atol=0.02)
    env.close()


def test_torques_accelerate_joints() -> None:
    """Weight is compensated: without torque the arm rests; a torque turns its joint, at 200 Hz for equal episodes."""
    task = tabletop("reach", "torque")
    assert task.control_rate == 200.0
    assert task.max_episode_steps / task.control_rate == tabletop("reach").max_episode_steps / 20.0
    env = begun(task, 8, [3] * 8)
    arm, state = task.arms[0], env.engine.state
    start = state.qpos[:, arm.qpos].copy()
    torque = np.vstack([np.eye(7), np.zeros((1, 7))])
    for _ in range(20):
        env.step(np.column_stack([torque, np.ones(8)]))
    turned = state.qpos[:, arm.qpos] - start
    assert np.abs(turned[7]).max() < 1e-5
    assert (np.diag(turned) > 1e-3).all()
    env.close()
    with pytest.raises(ConfigError, match="poses and joints, not torques"):
        task.expert(0.0, 0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"robot": "pandda"}, "panda"),
        ({"action_mode": "end_effector"}, "end_effector_pose_delta"),
        ({"max_episode_steps": 0}, "at least 1"),
    ],
)
def test_unknown_names_are_refused_with_the_valid_ones(setting: dict[str, Any], message: str) -> None:
    """Robots, action modes and time limits."""
    with pytest.raises(ConfigError, match=message):
        TASKS["reach"].config(**setting)

"""The locomotion tasks against the environments of Gymnasium that they adapt."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from alula.core.errors import ConfigError
from alula.core.spaces import ControlMode
from alula.sims.registry import TASKS, make_task
from alula.sims.tasks.locomotion.base import LocomotionTask
from alula.sims.tasks.locomotion.config import HopperConfig
from alula.sims.vector import TaskVectorEnv

ORIGINALS = {"hopper": "Hopper-v5", "walker2d": "Walker2d-v5", "half_cheetah": "HalfCheetah-v5", "ant": "Ant-v5"}
FALLING = ("hopper", "walker2d", "ant")
FASTEST = {"hopper": 200.0, "walker2d": 50.0, "half_cheetah": 50.0, "ant": 20.0}
"""Speeds that physics survives [m/s, rad/s]; Hopper counts as fallen above 100."""
TOLERANCE = 1e-9


@pytest.fixture(scope="module", params=sorted(ORIGINALS))
def name(request: pytest.FixtureRequest) -> str:
    """Every locomotion task."""
    return str(request.param)


@pytest.fixture(scope="module")
def task(name: str) -> LocomotionTask:
    """With its defaults."""
    made: LocomotionTask = make_task(TASKS[name].config())
    return made


@pytest.fixture(scope="module")
def original(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Gymnasium's own environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("log"))  # MuJoCo writes its opinion of HalfCheetah's file there.
        env: Any = gymnasium.make(ORIGINALS[name]).unwrapped
    yield env
    env.close()


def place(env: TaskVectorEnv, qpos: np.ndarray, qvel: np.ndarray) -> None:
    """Start the first environment here."""
    state = env.engine.state
    state.qpos[0], state.qvel[0] = qpos, qvel
    if "torso" in state.extras:
        state.extras["torso"][0] = qpos[:3]


def step_both(env: TaskVectorEnv, original: Any, action: np.ndarray) -> bool:
    """The same step here and there gives the same; returns whether it terminated."""
    wanted, wanted_reward, wanted_terminated, _, wanted_info = original.step(action)
    observation, reward, terminated, _, info = env.step(action[None])
    np.testing.assert_allclose(observation["observation.state"][0], wanted, rtol=0, atol=TOLERANCE)
    assert reward[0] == pytest.approx(wanted_reward, rel=0, abs=TOLERANCE)
    assert terminated[0] == wanted_terminated
    shared = {"x_position", "x_velocity", "reward_forward", "reward_ctrl", "reward_survive", "reward_contact"}
    for key in shared & wanted_info.keys():
        assert info[key][0] == pytest.approx(wanted_info[key], rel=0, abs=TOLERANCE), key
    return bool(wanted_terminated)


def test_random_episodes_are_gymnasium_s(name: str, task: LocomotionTask, original: Any) -> None:
    """From the same starts, under 250 random actions: never brought into line, observations and rewards stay equal.

    The solver begins cold in each of our control steps, and warm in Gymnasium, unless forbidden as here: of the two
    solutions, equal to 1e-12, chaos would make two episodes.
    """
    env = TaskVectorEnv(task, 1, AutoresetMode.DISABLED)
    env.reset(seed=0)
    env.single_action_space.seed(0)
    original.reset(seed=0)
    place(env, original.data.qpos, original.data.qvel)
    falls = 0
    for _ in range(250):
        original.data.qacc_warmstart[:] = 0.0
        if step_both(env, original, env.single_action_space.sample()):
            falls += 1
            original.reset()
            env.reset()
            place(env, original.data.qpos, original.data.qvel)
    assert (falls > 0) == (name in FALLING)
    env.close()


def test_one_step_from_any_state_is_gymnasium_s(name: str, task: LocomotionTask, original: Any) -> None:
    """From 200 states of all heights, attitudes and speeds, healthy or not; Gymnasium's warm start is left to it."""
    env = TaskVectorEnv(task, 1, AutoresetMode.DISABLED)
    env.reset(seed=0)
    env.single_action_space.seed(1)
    generator = np.random.default_rng(1)
    spread = np.concatenate((np.full(task.hidden, 100.0), np.full(task.model.nq - task.hidden, 0.3)))
    ends = []
    for speed in np.geomspace(0.1, FASTEST[name], 200):
        qpos = task.model.qpos0 + spread * generator.uniform(-1, 1, task.model.nq)
        qvel = speed * generator.uniform(-1, 1, task.model.nv)
        place(env, qpos, qvel)
        original.set_state(qpos, qvel)
        ends.append(step_both(env, original, env.single_action_space.sample()))
    assert set(ends) == ({True, False} if name in FALLING else {False})
    env.close()


def kurtosis(values: np.ndarray) -> float:
    """Average over the columns."""
    deviation = values - values.mean(axis=0)
    return float(((deviation**4).mean(axis=0) / (deviation**2).mean(axis=0) ** 2).mean())


def test_starts_are_distributed_as_gymnasium_s(task: LocomotionTask, original: Any) -> None:
    """500 starts have Gymnasium's mean and spread in every element, within five standard errors, and its kurtosis.

    That is 1.8 of uniform and 3 of normal numbers, here averaged over positions and over velocities.
    """
    env = TaskVectorEnv(task, 500)
    ours, _ = env.reset(seed=0)
    theirs = np.array([original.reset(seed=seed)[0] for seed in range(500)])
    got = ours["observation.state"]
    spread = theirs.std(axis=0)
    assert np.array_equal(got.std(axis=0) > 0, spread > 0)
    np.testing.assert_array_less(np.abs(got.mean(axis=0) - theirs.mean(axis=0)), 5 * spread * np.sqrt(2 / 500) + 1e-12)
    np.testing.assert_array_less(np.abs(got.std(axis=0) - spread), 5 * spread * np.sqrt(1 / 500) + 1e-12)
    random, moving = spread > 0, np.arange(got.shape[1]) >= task.model.nq - task.hidden
    for part in (random & moving, random & ~moving):
        ours_kurtosis, wanted = kurtosis(got[:, part]), kurtosis(theirs[:, part])
        assert ours_kurtosis == pytest.approx(wanted, abs=0.4)
    env.close()


def test_fields_say_what_they_are(name: str, task: LocomotionTask, original: Any) -> None:
    """Gymnasium's sizes, type, bounds and rate, with a unit and an own name for every element."""
    state, action = task.observation["observation.state"], task.action["action"]
    assert (state.shape, state.dtype) == (original.observation_space.shape, "float64")
    assert len(set(state.element_names)) == len(state.units) == state.size
    assert action.control_mode == ControlMode.TORQUE
    assert action.rate == pytest.approx(original.metadata["render_fps"])
    assert len(set(action.element_names)) == action.size
    for bound, wanted in zip(action.bounds(), (original.action_space.low, original.action_space.high), strict=True):
        np.testing.assert_array_equal(bound, wanted)
    units = dict(zip(state.element_names, state.units, strict=True))
    expected = {
        "hopper": {"rootz": "m", "rooty": "rad", "rootx_velocity": "m/s", "foot_joint_velocity": "rad/s"},
        "walker2d": {"thigh_left_joint": "rad", "rootz_velocity": "m/s"},
        "half_cheetah": {"rootz": "m", "bfoot_velocity": "rad/s"},
        "ant": {
            "z": "m",
            "qw": "1",
            "ankle_4": "rad",
            "rate_z": "rad/s",
            "torso_torque_x": "N m",
            "aux_1_force_z": "N",
        },
    }
    assert expected[name].items() <= units.items()
    assert not {"x", "rootx"} & units.keys()


def test_success_is_a_distance_and_ends_nothing(task: LocomotionTask) -> None:
    """True from the configured distance on, for neither a reward nor the end of the episode."""
    env = TaskVectorEnv(task, 3)
    env.reset(seed=[7, 7, 7])
    state, distance = env.engine.state, task.config.success_distance
    x = np.array([0.0, distance - 1.0, distance + 1.0])
    state.qpos[:, 0] = x
    if "torso" in state.extras:
        state.extras["torso"][:, 0] = x
    _, reward, terminated, truncated, info = env.step(np.zeros(env.action_space.shape))
    assert info["success"].tolist() == [False, False, True]
    np.testing.assert_allclose(info["x_position"], x, atol=0.1)
    np.testing.assert_allclose(reward, reward[0], atol=1e-9)
    assert not terminated.any()
    assert not truncated.any()
    env.close()


def test_a_diverged_ant_feels_nothing() -> None:
    """Its contacts are those of no step, and its speed in the next one is that of its torso."""
    task = make_task(TASKS["ant"].config())
    env = TaskVectorEnv(task, 2, AutoresetMode.DISABLED)
    env.reset(seed=0)
    for _ in range(30):
        env.step(np.zeros(env.action_space.shape))
    assert env.engine.state.extras["cfrc_ext"].any(axis=(1, 2)).all()
    env.engine.state.qvel[1, 3] = 1e12
    observation, reward, _, _, info = env.step(np.zeros(env.action_space.shape))
    assert info["diverged"].tolist() == [False, True]
    felt = observation["observation.state"][:, -6 * 13 :]
    assert felt[0].any()
    assert not felt[1].any()
    assert reward[1] == 0.0
    *_, info = env.step(np.zeros(env.action_space.shape))
    assert np.abs(info["x_velocity"]).max() < 1.0
    env.close()


def test_loading_is_quiet(task: LocomotionTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """MuJoCo's opinion of Gymnasium's files reaches neither the terminal nor its log."""
    monkeypatch.chdir(tmp_path)
    type(task)(task.config)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_impossible_settings_are_refused() -> None:
    """With what is allowed."""
    with pytest.raises(ConfigError, match=r"task\.success_distance is 0 m; it must be above 0"):
        HopperConfig(success_distance=0)
    with pytest.raises(ConfigError, match="max_episode_steps is 0; at least 1"):
        HopperConfig(max_episode_steps=0)

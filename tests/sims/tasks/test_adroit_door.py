"""AdroitDoor against the environment that it adapts."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from alula.core.errors import ConfigError
from alula.sims.tasks.adroit_door.config import AdroitDoorConfig
from alula.sims.vector import TaskVectorEnv

gymnasium_robotics = pytest.importorskip("gymnasium_robotics", reason="the model of the door comes with it")
from alula.sims.tasks.adroit_door.task import AdroitDoor  # noqa: E402

# Recordings of people, kept beside the checkout where there are any.
DEMONSTRATIONS = Path(__file__).parents[4] / "shared/data/adroit_door_human.npz"


@pytest.fixture(scope="module")
def dense() -> AdroitDoor:
    """The task with the shaped reward, which never terminates."""
    return AdroitDoor(AdroitDoorConfig(reward="dense", max_episode_steps=400))


@pytest.fixture(scope="module")
def original() -> Iterator[Any]:
    """Gymnasium-Robotics' own environment."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Theirs.
        gymnasium.register_envs(gymnasium_robotics)
        env = gymnasium.make("AdroitHandDoor-v1", reward_type="dense").unwrapped
        env.reset(seed=0)
    yield env
    env.close()


def smooth_actions(steps: int, seed: int) -> np.ndarray:
    """A random walk within [-1, 1], as no person moves, but as smoothly."""
    generator = np.random.default_rng(seed)
    walk = np.cumsum(generator.normal(0, 0.08, (steps, 28)), axis=0)
    return np.clip(walk, -1, 1).astype(np.float32)


def joined(observation: dict[str, np.ndarray]) -> np.ndarray:
    """Our fields in the order of the original's 39 numbers."""
    return np.concatenate([*observation.values()], axis=-1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("seed", [0, 1])
def test_same_actions_give_the_original_s_observations_and_rewards(dense: AdroitDoor, original: Any, seed: int) -> None:
    """From the same start, observations to 1e-5 and shaped rewards to 1e-6 over 100 steps."""
    env = TaskVectorEnv(dense, 2)
    env.reset(seed=seed)
    state = env.engine.state
    original.set_env_state(
        {"qpos": state.qpos[1], "qvel": state.qvel[1], "door_body_pos": state.mocap_pos[1, dense.frame]}
    )
    moved = 0.0
    for action in smooth_actions(100, seed):
        wanted, wanted_reward, terminated, *_ = original.step(action)
        observation, reward, ended, *_ = env.step(np.stack([-action, action]))
        np.testing.assert_allclose(joined(observation)[1], wanted, atol=1e-5)
        assert reward[1] == pytest.approx(wanted_reward, abs=1e-6)
        assert bool(ended[1]) == terminated
        moved = max(moved, float(np.abs(state.qvel[1]).max()))
    assert moved > 1.0  # [rad/s]
    env.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_open_door_is_rewarded_and_counts_as_in_the_original(dense: AdroitDoor, original: Any) -> None:
    """Door angles around every threshold: same reward, same success, same observed flag."""
    env = TaskVectorEnv(dense, 1)
    successes = []
    for angle in (0.0, *np.arange(0.15, 0.26, 0.01), *np.arange(0.95, 1.06, 0.01), *np.arange(1.3, 1.41, 0.01)):
        env.reset(seed=0)
        state = env.engine.state
        state.qpos[0, dense.door] = angle
        original.set_env_state(
            {"qpos": state.qpos[0], "qvel": state.qvel[0], "door_body_pos": state.mocap_pos[0, dense.frame]}
        )
        action = np.zeros(28, dtype=np.float32)
        wanted, wanted_reward, _, _, wanted_info = original.step(action)
        observation, reward, _, _, info = env.step(action[None])
        np.testing.assert_allclose(joined(observation)[0], wanted, atol=1e-5)
        assert reward[0] == pytest.approx(wanted_reward, abs=1e-6)
        assert bool(info["success"][0]) == bool(wanted_info["success"])
        successes.append(bool(info["success"][0]))
    assert successes == sorted(successes)
    assert {True, False} == set(successes)
    env.close()


def test_the_sparse_reward_ends_the_episode_on_success() -> None:
    """One and terminated where the door stands open, zero and going on where not."""
    task = AdroitDoor(AdroitDoorConfig())
    env = TaskVectorEnv(task, 2)
    env.reset(seed=0)
    env.engine.state.qpos[1, task.door] = 1.5
    _, reward, terminated, truncated, info = env.step(np.zeros((2, 28)))
    assert reward.tolist() == [0.0, 1.0]
    assert terminated.tolist() == info["success"].tolist() == [False, True]
    assert not truncated.any()
    env.close()


def test_the_first_observation_is_mujoco_s(dense: AdroitDoor) -> None:
    """Palm and handle at reset are where `mj_forward` has them, for doors all over their range."""
    env = TaskVectorEnv(dense, 30)
    observation, _ = env.reset(seed=0)
    palms, handles = np.split(observation["observation.environment_state"][:, 2:8], 2, axis=1)
    state, data = env.engine.state, mujoco.MjData(dense.model)
    for row in range(30):
        data.qpos[:], data.mocap_pos[:] = state.qpos[row], state.mocap_pos[row]
        mujoco.mj_forward(dense.model, data)
        np.testing.assert_allclose(palms[row], data.site("S_grasp").xpos, atol=1e-6)
        np.testing.assert_allclose(handles[row], data.site("S_handle").xpos, atol=1e-6)
    frame = state.mocap_pos[:, dense.frame]
    low, high = np.array([[-0.3, 0.25, 0.252], [-0.2, 0.35, 0.35]])
    assert (frame >= low).all()
    assert (frame <= high).all()
    assert (np.ptp(frame, axis=0) > 0.7 * (high - low)).all()
    env.close()


def test_impossible_settings_are_refused() -> None:
    """With what is allowed, and there is no expert to ask."""
    with pytest.raises(ConfigError, match=r"task\.reward is 'shaped'; allowed are sparse and dense"):
        AdroitDoorConfig(reward="shaped")
    with pytest.raises(ConfigError, match="max_episode_steps is 0; at least 1"):
        AdroitDoorConfig(max_episode_steps=0)
    with pytest.raises(ConfigError, match="no scripted expert; give human demonstrations"):
        AdroitDoor(AdroitDoorConfig()).expert(0.0, 0)


@pytest.mark.skipif(not DEMONSTRATIONS.exists(), reason="no human demonstrations beside the checkout")
def test_replaying_people_opens_as_many_doors_as_in_the_original() -> None:
    """The 25 recorded action sequences, open loop from their initial states, succeed 8 times."""
    recorded = np.load(DEMONSTRATIONS)
    ends = recorded["episode_ends"]
    starts = np.append(0, ends[:-1])
    task = AdroitDoor(AdroitDoorConfig(max_episode_steps=400))
    env = TaskVectorEnv(task, len(ends), AutoresetMode.DISABLED)
    env.reset(seed=0)
    state = env.engine.state
    state.qpos[:], state.qvel[:] = recorded["init_qpos"], recorded["init_qvel"]
    state.mocap_pos[:, task.frame] = recorded["init_door_body_pos"]
    succeeded = np.zeros(len(ends), dtype=bool)
    for step in range((ends - starts).max()):
        succeeded |= env.step(recorded["action"][np.minimum(starts + step, ends - 1)])[4]["success"]
    assert (len(ends), succeeded.sum()) == (25, 8)
    env.close()

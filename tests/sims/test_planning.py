"""The planner, on HalfCheetah and on rewards whose best action is known."""

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from alula.sims.planning import Planner
from alula.sims.tasks.locomotion.config import HalfCheetahConfig
from alula.sims.tasks.locomotion.task import HalfCheetah
from alula.sims.vector import TaskVectorEnv


@pytest.fixture
def task() -> HalfCheetah:
    """A task whose reward can be replaced."""
    return HalfCheetah(HalfCheetahConfig())


@pytest.fixture
def env(task: HalfCheetah) -> TaskVectorEnv:
    """Two environments that have moved."""
    made = TaskVectorEnv(task, 2, AutoresetMode.DISABLED)
    made.reset(seed=0)
    made.step(np.zeros(made.action_space.shape))
    return made


def planner(task: HalfCheetah, seed: int = 0, horizon: int = 4) -> Planner:
    """With many samples of a short plan."""
    return Planner(task, 0.0, seed, horizon=horizon, samples=64, spread=0.3, hold=2)


def test_the_expert_runs(task: HalfCheetah) -> None:
    """Two seconds from rest it is well under way, while doing nothing leads nowhere."""
    env = TaskVectorEnv(task, 2, AutoresetMode.DISABLED)
    env.reset(seed=0)
    expert = task.expert(0.0, 0)
    for _ in range(40):
        *_, info = env.step(expert.act(env.engine.state))
    assert (info["x_position"] > 1.0).all()
    env.close()


def test_it_finds_the_best_action(task: HalfCheetah, env: TaskVectorEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a reward that is a parabola, with its top within the bounds for one motor and beyond them for another."""
    best = np.array([0.7, -0.4, 0.0, 0.2, 3.0, -3.0])
    monkeypatch.setattr(task, "reward", lambda state, success: -((state.ctrl - best) ** 2).sum(axis=1))
    expert = planner(task)
    for _ in range(60):
        action = expert.act(env.engine.state)
    np.testing.assert_allclose(action, np.tile(np.clip(best, -1, 1), (2, 1)), atol=0.15)
    env.close()


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_nothing_is_earned_after_the_end(
    task: HalfCheetah, env: TaskVectorEnv, sign: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the first motor's wrong sign ends an episode of equal rewards, it has the right one."""
    monkeypatch.setattr(task, "reward", lambda state, success: np.ones(len(state.time)))
    monkeypatch.setattr(task, "terminated", lambda state, success: sign * state.ctrl[:, 0] < 0)
    expert = planner(task)
    for _ in range(5):
        action = expert.act(env.engine.state)
    assert (sign * action[:, 0] > 0).all()
    env.close()


def test_it_only_looks(task: HalfCheetah, env: TaskVectorEnv, assert_identical: Any) -> None:
    """Not a bit of the environments changes; equal seeds give equal actions, other seeds others."""
    before = env.get_state()
    actions = [planner(task, seed).act(env.engine.state) for seed in (1, 1, 2)]
    assert_identical(env.get_state(), before)
    assert_identical(actions[0], actions[1])
    assert (actions[0] != actions[2]).any(axis=1).all()
    env.close()


def test_a_new_episode_begins_with_a_new_plan(task: HalfCheetah, env: TaskVectorEnv, assert_identical: Any) -> None:
    """Where the clock is at zero, the old plan is forgotten, and only there."""
    old, new = planner(task), planner(task)
    for _ in range(3):
        old.act(env.engine.state)
    env.reset(options={"reset_mask": np.array([True, False])})
    old.generator, new.generator = np.random.default_rng(5), np.random.default_rng(5)
    kept, fresh = old.act(env.engine.state), new.act(env.engine.state)
    assert_identical(kept[0], fresh[0])
    assert (kept[1] != fresh[1]).any()
    env.close()


def test_noise_makes_it_tremble_within_the_bounds(task: HalfCheetah, env: TaskVectorEnv) -> None:
    """By that share of the action range: at rest, where its own plan is nought, noise is all that there is."""
    expert = Planner(task, 0.05, 0, horizon=2, samples=1, spread=0.3, hold=1)
    actions = np.concatenate([expert.act(env.engine.state) for _ in range(300)])
    assert actions.std() == pytest.approx(0.1, rel=0.05)
    wild = Planner(task, 5.0, 0, horizon=2, samples=1, spread=0.3, hold=1)
    assert np.abs(wild.act(env.engine.state)).max() == 1.0
    env.close()

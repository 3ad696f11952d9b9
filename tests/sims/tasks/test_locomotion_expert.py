"""The locomotion tasks' expert: a clock and linear feedback."""

from collections.abc import Callable

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from alula.sims.registry import TASKS, make_task
from alula.sims.task import Task
from alula.sims.tasks.locomotion.base import LocomotionTask
from alula.sims.tasks.locomotion.expert import VELOCITY_SCALE, Gait, GaitExpert
from alula.sims.vector import TaskVectorEnv

NAMES = ("hopper", "walker2d", "half_cheetah", "ant")


def make(name: str) -> LocomotionTask:
    """With its defaults."""
    task: LocomotionTask = make_task(TASKS[name].config())
    return task


def moved(task: Task, num_envs: int) -> TaskVectorEnv:
    """Environments in different states."""
    env = TaskVectorEnv(task, num_envs, AutoresetMode.DISABLED)
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(5):
        env.step(env.action_space.sample())
    return env


@pytest.mark.parametrize("name", NAMES)
def test_it_succeeds(name: str, share_of_successes: Callable[[Task, int, float], float]) -> None:
    """On every one of 4 seeds; benchmarks/experts scores 100."""
    assert share_of_successes(make(name), 4, 0.0) == 1.0


def test_features_are_clock_positions_and_velocities() -> None:
    """At a quarter of the clock's period, from the model's initial state, without how far it has come."""
    task = make("hopper")
    env = TaskVectorEnv(task, 1, AutoresetMode.DISABLED)
    state = env.engine.state
    state.time[:] = 0.125
    state.qpos[0] = task.model.qpos0 + np.array([7.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    state.qvel[0] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    expert = GaitExpert(task, 1, Gait(np.array(2.0), np.zeros((3, 14))), 0.0, 0)
    wanted = [1.0, 0.1, 0.2, 0.3, 0.4, 0.5, *(VELOCITY_SCALE * state.qvel[0]), 1.0, 0.0]
    np.testing.assert_allclose(expert.features(state)[0], wanted, atol=1e-12)
    env.close()


def test_every_environment_may_have_its_own_gait() -> None:
    """As in the search: each acts as it would alone, bit for bit, whatever acts beside it."""
    task = make("half_cheetah")
    env = moved(task, 5)
    generator = np.random.default_rng(0)
    gaits = Gait(generator.uniform(1, 3, 5), generator.normal(0, 0.3, (5, 6, 20)))
    together = GaitExpert(task, 1, gaits, 0.0, 0).act(env.engine.state)
    for row in range(5):
        own = Gait(gaits.frequency[[row]], gaits.weights[[row]])
        alone = GaitExpert(task, 1, own, 0.0, 0).act(env.engine.state.rows(np.array([row])))
        np.testing.assert_array_equal(alone[0], together[row])
    env.close()


def test_noise_makes_it_tremble_within_the_bounds() -> None:
    """By that share of the action range; equal seeds give equal noise, other seeds another."""
    task = make("hopper")
    env = moved(task, 2000)
    still = Gait(np.array(1.0), np.zeros((3, 14)))
    one, same, other = (GaitExpert(task, 1, still, 0.05, seed).act(env.engine.state) for seed in (1, 1, 2))
    assert one.std() == pytest.approx(0.05 * 2.0, rel=0.05)
    np.testing.assert_array_equal(one, same)
    assert (one != other).all()
    assert np.abs(GaitExpert(task, 1, still, 5.0, 0).act(env.engine.state)).max() == 1.0
    env.close()


@pytest.mark.parametrize("name", NAMES)
def test_it_only_looks(name: str) -> None:
    """Not a bit of the environments changes."""
    env = moved(make(name), 3)
    before = env.get_state()
    env.task.expert(0.1, 0).act(env.engine.state)
    for key, array in env.get_state().items():
        np.testing.assert_array_equal(array, before[key])
    env.close()

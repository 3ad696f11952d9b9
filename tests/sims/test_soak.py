"""What others' training code and long runs need."""

import gc
import resource

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import FlattenObservation
from stable_baselines3 import PPO, SAC

import alula.sims  # noqa: F401  # registers the tasks with Gymnasium
from alula.sims.registry import TASKS, make_task
from alula.sims.tasks.suites.task import SuiteTask
from alula.sims.vector import TaskVectorEnv

STEPS = 1_000_000
"""Random steps over all tasks."""
NUM_ENVS, NUM_SLOW_ENVS = 256, 8
"""Environments; fewer where each is one of another suite's."""
LEAK = 30
"""Most memory that may be gained after the first tenth of a task's steps [MiB]."""


@pytest.mark.parametrize("algorithm", [PPO, SAC])
def test_stable_baselines_trains_on_an_unchanged_task(algorithm: type[PPO] | type[SAC]) -> None:
    """From Gymnasium's registry, with Gymnasium's own flattening of dictionaries."""
    env = FlattenObservation(gymnasium.make("alula/Lift-v0", max_episode_steps=20))
    settings = {"n_steps": 64, "batch_size": 32} if algorithm is PPO else {"learning_starts": 50, "batch_size": 32}
    model = algorithm("MlpPolicy", env, seed=0, **settings)  # type: ignore[arg-type]
    model.learn(total_timesteps=128)
    action, _ = model.predict(env.reset(seed=0)[0], deterministic=True)
    assert action in env.action_space
    env.close()


@pytest.mark.slow
def test_a_million_random_steps_give_no_nan_and_no_leak(task_name: str) -> None:
    """Each task takes its share; episodes of the usual length begin and end on the way."""
    task = make_task(TASKS[task_name].config())
    num_envs = NUM_SLOW_ENVS if isinstance(task, SuiteTask) else NUM_ENVS
    env = TaskVectorEnv(task, num_envs, AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    env.randomize_clocks(np.random.default_rng(0))
    low, high = task.action["action"].bounds()
    generator, steps = np.random.default_rng(0), -(-STEPS // (len(TASKS) * num_envs))
    resets = 0
    for step in range(steps):
        if step == steps // 10:
            gc.collect()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        actions = generator.uniform(low, high, (num_envs, *low.shape)).astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(actions)
        resets += int((terminated | truncated).sum())
        assert all(np.isfinite(value).all() for value in observation.values())
        assert np.isfinite(reward).all()
        assert not info["diverged"].any()
    env.close()
    gained = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert gained < LEAK, f"{gained:.0f} MiB more than after the first tenth"
    assert resets > 0

"""How well an expert does its task."""

from collections.abc import Callable

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from alula.sims.task import Task
from alula.sims.vector import TaskVectorEnv


@pytest.fixture(scope="session")
def share_of_successes() -> Callable[[Task, int, float], float]:
    """`share_of_successes(task, num_envs, noise)` of its expert, on distinct seeds, within the time limit."""

    def demonstrate(task: Task, num_envs: int, noise: float) -> float:
        env = TaskVectorEnv(task, num_envs, AutoresetMode.DISABLED)
        env.reset(seed=10000)
        expert = task.expert(noise, seed=0)
        succeeded, running = np.zeros(num_envs, dtype=bool), np.ones(num_envs, dtype=bool)
        while running.any():
            _, _, terminated, truncated, info = env.step(expert.act(env.engine.state))
            succeeded |= info["success"] & running
            running &= ~(terminated | truncated)
        env.close()
        return float(succeeded.mean())

    return demonstrate

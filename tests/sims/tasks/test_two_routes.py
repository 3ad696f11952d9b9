"""TwoRoutes: two equal ways, which the expert takes equally often."""

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from alula.core.errors import ConfigError
from alula.sims.tasks.two_routes.config import TwoRoutesConfig
from alula.sims.tasks.two_routes.task import NEAR, OBSTACLE_RADIUS, RADIUS, SPREAD, TwoRoutes
from alula.sims.vector import TaskVectorEnv


def driven(task: TwoRoutes, num_envs: int, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Success and way of the expert's episodes on distinct seeds."""
    env = TaskVectorEnv(task, num_envs, AutoresetMode.DISABLED)
    env.reset(seed=10000)
    expert, running = task.expert(noise, seed=0), np.ones(num_envs, dtype=bool)
    succeeded, route = np.zeros(num_envs, dtype=bool), np.zeros(num_envs)
    while running.any():
        _, _, terminated, truncated, info = env.step(expert.act(env.engine.state))
        succeeded |= info["success"] & running
        route = np.where(running, info["route"], route)
        running &= ~(terminated | truncated)
    env.close()
    return succeeded, route


def placed(task: TwoRoutes, positions: np.ndarray) -> TaskVectorEnv:
    """The disc at these places, at rest."""
    env = TaskVectorEnv(task, len(positions), AutoresetMode.DISABLED)
    env.reset(seed=0)
    env.engine.state.qpos[:] = positions
    return env


def test_the_expert_takes_both_ways_equally_often_and_arrives() -> None:
    """Of 400 episodes each way has 160 to 240 (four standard deviations); all arrive, by either way."""
    succeeded, route = driven(TwoRoutes(TwoRoutesConfig()), 400)
    assert succeeded.all()
    assert (np.abs(route) == 1.0).all()
    assert 160 <= (route == 1.0).sum() <= 240
    succeeded, _ = driven(TwoRoutes(TwoRoutesConfig()), 400, noise=0.4)
    assert succeeded.mean() > 0.95


@pytest.mark.parametrize(("left_share", "expected"), [(0.0, -1.0), (1.0, 1.0)])
def test_the_share_of_the_ways_can_be_chosen(left_share: float, expected: float) -> None:
    """None or all on the left; left is y > 0."""
    succeeded, route = driven(TwoRoutes(TwoRoutesConfig(left_share=left_share)), 50)
    assert succeeded.all()
    assert (route == expected).all()
    with pytest.raises(ConfigError, match=r"task.left_share is 1.5; allowed is a probability"):
        TwoRoutesConfig(left_share=1.5)


def test_the_mean_of_both_ways_ends_at_the_obstacle() -> None:
    """Straight ahead, as the mean of both demonstrations says: every episode ends, and none with success."""
    task = TwoRoutes(TwoRoutesConfig())
    env = TaskVectorEnv(task, 50, AutoresetMode.DISABLED)
    env.reset(seed=0)
    ended, succeeded = np.zeros(50, dtype=bool), np.zeros(50, dtype=bool)
    for _ in range(task.max_episode_steps):
        _, _, terminated, _, info = env.step(np.tile([0.6, 0.0], (50, 1)))
        succeeded |= info["success"] & ~ended
        ended |= terminated
    assert ended.all()
    assert not succeeded.any()
    env.close()


def test_neither_way_is_better() -> None:
    """The mirror image of a start and of its actions is a mirror image, with the other way, bit for bit."""
    task = TwoRoutes(TwoRoutesConfig())
    env = TaskVectorEnv(task, 2, AutoresetMode.DISABLED)
    env.reset(seed=[3, 3])
    state, mirror = env.engine.state, np.array([1.0, -1.0])
    state.qpos[1, 1] *= -1.0
    state.mocap_pos[1, 0, 1] *= -1.0
    generator = np.random.default_rng(0)
    for _ in range(40):
        action = generator.uniform(-0.6, 0.6, 2) + np.array([0.2, 0.1])
        *_, info = env.step(np.stack([action, action * mirror]))
        np.testing.assert_array_equal(state.qpos[1], state.qpos[0] * mirror)
        assert info["route"][1] == -info["route"][0]
    assert info["route"][0] != 0.0
    env.close()


def test_touching_and_arriving_are_distances() -> None:
    """Just inside and outside both radii."""
    task, touch = TwoRoutes(TwoRoutesConfig()), RADIUS + OBSTACLE_RADIUS
    env = placed(task, np.array([[touch + 1e-4, 0.0], [0.0, touch - 1e-4], [0.0, 0.0], [0.0, 0.0], [-0.5, 0.3]]))
    state = env.engine.state
    goal = state.mocap_pos[:, 0, :2]
    state.qpos[2], state.qpos[3] = goal[2] + [0.0, NEAR - 1e-4], goal[3] - [NEAR + 1e-4, 0.0]
    success = task.success(state)
    assert success.tolist() == [False, False, True, False, False]
    assert task.terminated(state, success).tolist() == [False, True, True, False, False]
    env.close()


def test_the_way_is_remembered_until_the_reset() -> None:
    """It is none before the obstacle, that of the passage afterwards, wherever the disc goes then."""
    task = TwoRoutes(TwoRoutesConfig())
    env = placed(task, np.array([[-0.01, 0.3], [-0.01, -0.3]]))
    task.forward(env.engine.state)
    assert task.metrics(env.engine.state)["route"].tolist() == [0.0, 0.0]
    for position in ([0.01, 0.3], [0.01, -0.3], [-0.2, 0.0]):
        env.engine.state.qpos[:] = np.array([position, position]) * [[1.0, 1.0], [1.0, -1.0]]
        task.forward(env.engine.state)
        assert task.metrics(env.engine.state)["route"].tolist() == [1.0, -1.0]
    env.reset(seed=1)
    assert task.metrics(env.engine.state)["route"].tolist() == [0.0, 0.0]
    assert (np.abs(env.engine.state.qpos[:, 1]) <= SPREAD).all()
    env.close()

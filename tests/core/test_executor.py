"""Chunk executor: against a queue of Python lists, and as a value."""

from collections import deque
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alula.core.errors import ActionError
from alula.core.executor import ChunkExecutor, ChunkQueue


class CountingPlanner:
    """Plans chunks whose every action names the call, the environment and the step in the chunk."""

    def __init__(self, horizon: int) -> None:
        self.horizon = horizon
        self.asked: list[list[int]] = []

    def __call__(self, env_ids: np.ndarray) -> np.ndarray:
        call = len(self.asked)
        self.asked.append(env_ids.tolist())
        return np.array([[[call, env, step] for step in range(self.horizon)] for env in env_ids], dtype=np.float32)


@dataclass
class Case:
    """A batch, a policy's horizon and a history of resets."""

    num_envs: int
    execute_steps: int
    horizon: int
    ended: list[list[bool]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Small cases of every kind."""
    num_envs, execute_steps = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    mask = st.lists(st.booleans(), min_size=num_envs, max_size=num_envs)
    return Case(num_envs, execute_steps, draw(st.integers(execute_steps, 6)), draw(st.lists(mask, max_size=12)))


@given(cases())
def test_it_agrees_with_one_python_queue_per_environment(case: Case) -> None:
    """Actions and planning calls equal those of the obvious program, whatever ends when."""
    executor = ChunkExecutor(case.execute_steps, 3)
    planner, model = CountingPlanner(case.horizon), CountingPlanner(case.horizon)
    queue = executor.empty(case.num_envs)
    pending: list[deque[list[float]]] = [deque() for _ in range(case.num_envs)]
    for ended in case.ended:
        actions, queue = executor.step(queue, planner)
        empty = [env for env in range(case.num_envs) if not pending[env]]
        if empty:
            for env, chunk in zip(empty, model(np.array(empty)).tolist(), strict=True):
                pending[env].extend(chunk[: case.execute_steps])
        assert actions.tolist() == [queue_of_env.popleft() for queue_of_env in pending]
        queue = executor.reset(queue, np.array(ended))
        for env in np.flatnonzero(ended):
            pending[env].clear()
    assert planner.asked == model.asked


def test_receding_horizon_by_hand() -> None:
    """Chunks of three of which two are executed: steps 0, 1 of each plan, a plan every second step."""
    executor, planner = ChunkExecutor(2, 3), CountingPlanner(3)
    queue, seen = executor.empty(1), []
    for _ in range(5):
        actions, queue = executor.step(queue, planner)
        seen.append(actions[0].tolist())
    assert seen == [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1], [2, 0, 0]]


def test_a_reset_empties_only_the_chosen_queue() -> None:
    """Environment 1 plans anew at once; the others finish their chunks."""
    executor, planner = ChunkExecutor(3, 3), CountingPlanner(3)
    _, queue = executor.step(executor.empty(3), planner)
    actions, _ = executor.step(executor.reset(queue, np.array([False, True, False])), planner)
    assert planner.asked == [[0, 1, 2], [1]]
    assert actions.tolist() == [[0, 0, 1], [1, 1, 0], [0, 2, 1]]


def test_a_queue_is_a_value() -> None:
    """Stepping or resetting a queue leaves it as it was: the same queue gives the same step twice."""
    executor = ChunkExecutor(2, 3)
    _, queue = executor.step(executor.empty(2), CountingPlanner(2))
    queue = executor.reset(queue, np.array([True, False]))
    before = ChunkQueue(queue.chunks.copy(), queue.positions.copy())
    first, after = executor.step(queue, CountingPlanner(2))
    executor.step(after, CountingPlanner(2))
    executor.reset(queue, np.array([True, True]))
    second, _ = executor.step(queue, CountingPlanner(2))
    assert first.tolist() == second.tolist()
    np.testing.assert_array_equal(queue.chunks, before.chunks)
    np.testing.assert_array_equal(queue.positions, before.positions)


def test_planning_is_not_asked_while_actions_are_pending() -> None:
    """Once per step at most, and never with nothing to plan."""
    executor, planner = ChunkExecutor(4, 3), CountingPlanner(4)
    queue = executor.empty(2)
    for _ in range(4):
        _, queue = executor.step(queue, planner)
    assert planner.asked == [[0, 1]]


@pytest.mark.parametrize("shape", [(2, 1, 3), (1, 4, 3), (2, 4, 1)])
def test_chunks_of_the_wrong_shape_are_refused(shape: tuple[int, int, int]) -> None:
    """A short chunk, too few chunks or too few elements would otherwise be repeated silently."""
    executor = ChunkExecutor(4, 3)
    with pytest.raises(ActionError, match=r"expected \(2, 4, 3\)"):
        executor.step(executor.empty(2), lambda _: np.zeros(shape, dtype=np.float32))

"""Chunks on a real clock: every action at its own step or never, whatever planning takes."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray

from alula.core.errors import ActionError, ConfigError
from alula.core.executor import ChunkExecutor
from alula.core.real_time import ChunkBuffer, Committed, Execution, Mode, agreement

Answer = Callable[[int, int, Committed | None], ndarray]
"""(number of the question, its step, what is committed) → chunk."""


def named(horizon: int) -> Answer:
    """Chunks whose every action names its question, the question's step, and its place."""
    return lambda call, step, committed: np.array([[call, step, index] for index in range(horizon)], np.float32)


@dataclass
class Asked:
    """A question as the buffer put it."""

    step: int
    arrival: int
    pending: bool
    """Whether there was something to do in its step."""
    committed: Committed | None


@dataclass
class History:
    """What came of a run."""

    actions: list[ndarray | None] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    @property
    def known(self) -> ndarray:
        """Actions from the first on, none missing."""
        first = next(index for index, action in enumerate(self.actions) if action is not None)
        return np.stack([action for action in self.actions[first:] if action is not None])

    @property
    def pauses(self) -> int:
        """Steps without an action after the first one with."""
        first = next((index for index, action in enumerate(self.actions) if action is not None), len(self.actions))
        return sum(action is None for action in self.actions[first:])


def run(execution: Execution, answer: Answer, delays: list[int], steps: int) -> History:
    """Steps of a robot whose policy takes these delays, the last one from then on."""
    buffer, history = ChunkBuffer(execution), History()
    waiting: list[ndarray] = []
    for step in range(steps):
        if waiting and history.asked[-1].arrival == step:
            buffer.take(waiting.pop(), step)
        if buffer.wants(step):
            pending, call = buffer.action(step) is not None, len(history.asked)
            committed = buffer.ask(step)
            delay = delays[min(call, len(delays) - 1)]
            history.asked.append(Asked(step, step + delay, pending, committed))
            chunk = answer(call, step, committed)
            if delay == 0:
                buffer.take(chunk, step)
            else:
                waiting.append(chunk)
        history.actions.append(buffer.action(step))
    return history


def execution(mode: Mode, horizon: int = 8, execute_steps: int = 4, size: int = 3, **settings: float) -> Execution:
    """Short."""
    return Execution(mode, horizon, execute_steps, size, **settings)  # type: ignore[arg-type]


@st.composite
def executions(draw: st.DrawFn) -> Execution:
    """Every mode, of all small sizes."""
    mode = draw(st.sampled_from(Mode))
    horizon = draw(st.integers(2, 10))
    return execution(mode, horizon, draw(st.integers(1, horizon)), threshold=draw(st.floats(0, 1)))


@given(executions(), st.lists(st.integers(0, 14), min_size=1, max_size=20))
def test_no_action_is_executed_at_another_step_than_its_own(setting: Execution, delays: list[int]) -> None:
    """Its place counts from the observation, or from the arrival where nothing was left to do; none comes twice."""
    history = run(setting, named(setting.horizon), delays, 100)
    seen = set()
    for step, action in enumerate(history.actions):
        if action is None:
            continue
        call, observed, index = (int(value) for value in action)
        question = history.asked[call]
        assert question.step == observed
        assert index == step - (observed if question.pending else question.arrival)
        assert question.arrival <= step
        # Its validity: it began within its own length of what was observed.
        assert question.arrival - observed <= setting.horizon
        assert (call, index) not in seen
        seen.add((call, index))
    order = [int(action[0]) for action in history.actions if action is not None]
    assert order == sorted(order)


@given(executions(), st.lists(st.integers(0, 14), min_size=1, max_size=20))
def test_one_question_is_open_at_a_time(setting: Execution, delays: list[int]) -> None:
    history = run(setting, named(setting.horizon), delays, 60)
    for before, after in zip(history.asked, history.asked[1:], strict=False):
        assert after.step >= before.arrival


@pytest.mark.parametrize("mode", [Mode.REAL_TIME, Mode.SYNCHRONOUS])
@given(horizon=st.integers(2, 8), data=st.data())
def test_without_delay_it_is_the_receding_horizon_of_simulation(mode: Mode, horizon: int, data: st.DataObject) -> None:
    """Bit for bit what `ChunkExecutor` does, and nothing to agree with."""
    execute_steps = data.draw(st.integers(1, horizon))
    history = run(execution(mode, horizon, execute_steps), named(horizon), [0], 40)
    executor, calls = ChunkExecutor(execute_steps, 3), list[int]()
    queue = executor.empty(1)
    for step, found in enumerate(history.actions):

        def plan(env_ids: ndarray, step: int = step) -> ndarray:
            calls.append(step)
            return named(horizon)(len(calls) - 1, step, None)[None]

        wanted, queue = executor.step(queue, plan)
        np.testing.assert_array_equal(found, wanted[0])
    assert [question.step for question in history.asked] == calls
    assert all(question.committed is None for question in history.asked)


@given(st.integers(2, 10), st.data())
def test_frozen_actions_are_executed_unchanged(horizon: int, data: st.DataObject) -> None:
    """What a question calls certain is what the robot does, however soon or late the answer comes."""
    delays = data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=20))
    setting = execution(Mode.REAL_TIME, horizon, data.draw(st.integers(1, horizon)))
    history = run(setting, named(horizon), delays, 80)
    for question in history.asked:
        if question.committed is not None:
            frozen = int((question.committed.weights == 1.0).sum())
            assert frozen > 0
            done = history.actions[question.step : question.step + frozen]
            for wanted, found in zip(question.committed.actions, done, strict=False):
                np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("delay", range(5))
def test_planning_ahead_never_pauses_where_waiting_does(delay: int) -> None:
    """Chunks of 8 with 4 to be executed: delays up to 4 steps are hidden, but for the synchronous mode."""
    steps = 100
    pauses = {mode: run(execution(mode), named(8), [delay], steps).pauses for mode in Mode}
    assert pauses[Mode.ASYNCHRONOUS] == pauses[Mode.REAL_TIME] == 0
    rounds = (steps - delay) // (4 + delay)
    assert delay * (rounds - 1) <= pauses[Mode.SYNCHRONOUS] <= delay * (rounds + 1)


def test_a_whole_chunk_may_be_meant_for_execution_and_still_nothing_pauses() -> None:
    """With execute_steps = horizon the question is put early enough for its answer to be in time."""
    history = run(execution(Mode.REAL_TIME, 8, 8), named(8), [3], 100)
    assert history.pauses == 0
    asked = [question.step for question in history.asked]
    assert set(np.diff(asked[1:])) == {5}


def test_the_cold_start_does_not_count() -> None:
    buffer = ChunkBuffer(execution(Mode.REAL_TIME))
    expected = []
    step = 0
    for delay in (7, 2, 3, 1):
        buffer.ask(step)
        buffer.take(np.zeros((8, 3)), step + delay)
        expected.append(buffer.delay)
        step += delay
    assert expected == [7, 2, 3, 3]
    for _ in range(20):
        buffer.ask(step)
        buffer.take(np.zeros((8, 3)), step + 1)
        step += 1
    assert buffer.delay == 1


@given(st.integers(1, 30), st.data())
def test_weights_are_those_of_the_paper(steps: int, data: st.DataObject) -> None:
    """Black et al. 2025, eq. 5, element by element."""
    frozen = data.draw(st.integers(0, steps))
    found = agreement(frozen, steps)
    for index in range(steps):
        c = (steps - index) / (steps - frozen + 1)
        wanted = 1.0 if index < frozen else c * (math.exp(c) - 1) / (math.e - 1)
        assert found[index] == pytest.approx(wanted, rel=1e-12)
    assert (np.diff(found) <= 0).all()
    assert ((found > 0) & (found <= 1)).all()


def test_an_ensemble_weighs_the_oldest_most() -> None:
    """Questions at steps 0, 1, 2 answered at once: step 2 has three actions, weighed exp(-0.01 i)."""
    setting = execution(Mode.ASYNCHRONOUS, size=1, threshold=1.0, ensemble=True)
    values = [1.0, 10.0, 100.0]
    history = run(setting, lambda call, step, committed: np.full((8, 1), values[min(call, 2)], np.float32), [0], 3)
    weights = np.exp(-0.01 * np.arange(3))
    assert history.actions[2] is not None
    assert history.actions[2][0] == pytest.approx((weights * values).sum() / weights.sum())
    assert history.actions[2].dtype == np.float32


def test_what_is_not_finite_guides_nobody() -> None:
    """Yet it is executed as it is: judging it is the governor's."""
    answers = named(8)

    def answer(call: int, step: int, committed: Committed | None) -> ndarray:
        return np.full((8, 3), np.nan) if call == 1 else answers(call, step, committed)

    history = run(execution(Mode.REAL_TIME), answer, [2], 30)
    assert any(action is not None and np.isnan(action).all() for action in history.actions)
    assert all(asked.committed is None or np.isfinite(asked.committed.actions).all() for asked in history.asked)
    assert history.actions[-1] is not None
    assert np.isfinite(history.actions[-1]).all()


def test_a_policy_that_stalls_leaves_the_robot_without_actions() -> None:
    """At most one chunk's length after the last observation that was answered."""
    for mode in Mode:
        history = run(execution(mode), named(8), [1, 1, 1, 10**6], 60)
        last = max(step for step, action in enumerate(history.actions) if action is not None)
        assert last < history.asked[2].arrival + 8
        assert all(action is None for action in history.actions[last + 1 :])


def wandering(seed: int) -> Answer:
    """A policy that follows a sine, somewhere else each time, but agrees with what is committed by its weights."""
    rng = np.random.default_rng(seed)

    def answer(call: int, step: int, committed: Committed | None) -> ndarray:
        chunk = np.sin(0.1 * (step + np.arange(16)))[:, None] + rng.normal(0, 0.1)
        if committed is not None:
            count = len(committed.actions)
            weights = committed.weights[:, None]
            chunk[:count] += weights * (committed.actions - chunk[:count])
        return chunk

    return answer


def test_agreeing_makes_motion_smooth() -> None:
    """4 steps of delay, 200 ms at 20 Hz: jerk of real_time < of an ensemble < of changing over; waiting pauses."""

    def jerk(setting: Execution) -> float:
        return float(np.sqrt((np.diff(run(setting, wandering(0), [4], 400).known, 3, axis=0) ** 2).mean()))

    smooth = jerk(execution(Mode.REAL_TIME, 16, 6, 1))
    averaged = jerk(execution(Mode.ASYNCHRONOUS, 16, 6, 1, threshold=1.0, ensemble=True))
    hard = jerk(execution(Mode.ASYNCHRONOUS, 16, 6, 1, threshold=10 / 16))
    assert 2 * smooth < hard
    assert averaged < hard
    assert run(execution(Mode.SYNCHRONOUS, 16, 6, 1), wandering(0), [4], 400).pauses > 100


@pytest.mark.parametrize(
    "answer",
    [
        np.zeros((7, 3)),
        np.zeros((8, 2)),
        np.zeros(8),
        np.zeros((1, 8, 3)),
        np.zeros((8, 3), bool),
        np.full((8, 3), "a"),
    ],
)
def test_what_is_no_chunk_is_refused_and_the_question_is_answered(answer: ndarray) -> None:
    buffer = ChunkBuffer(execution(Mode.SYNCHRONOUS))
    buffer.ask(0)
    with pytest.raises(ActionError, match=r"\(8, 3\)"):
        buffer.take(answer, 1)
    assert buffer.wants(1)
    assert buffer.action(1) is None


def test_a_question_that_is_given_up_may_be_put_again() -> None:
    buffer = ChunkBuffer(execution(Mode.ASYNCHRONOUS))
    buffer.ask(0)
    assert not buffer.wants(5)
    buffer.give_up()
    assert buffer.wants(5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": Mode.SYNCHRONOUS, "execute_steps": 9}, "execute_steps is 9"),
        ({"mode": Mode.ASYNCHRONOUS, "threshold": 1.5}, "threshold is 1.5"),
        ({"mode": Mode.REAL_TIME, "ensemble": True}, "mode=asynchronous only"),
        ({"mode": Mode.REAL_TIME, "horizon": 1, "execute_steps": 1}, "use mode=synchronous"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        execution(**settings)  # type: ignore[arg-type]

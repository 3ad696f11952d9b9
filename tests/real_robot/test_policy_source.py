"""A policy as a source: steps on a fixed grid, motion without stairs, and silence where nothing is planned."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray

from alula.core.real_time import Execution, Mode
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.real_robot.contract import DeviceSpec, Intent, Limits, State, Stop
from alula.real_robot.devices.simulated import Simulated
from alula.real_robot.governor import Reason
from alula.real_robot.loop import ControlLoop, Source, Tick
from alula.real_robot.planning.inline import InlinePlanner
from alula.real_robot.planning.planner import Description, Plan, Request
from alula.real_robot.sources.policy import PolicySource

pytestmark = pytest.mark.real_time

OBSERVATION = SpaceSpec((FieldSpec("observation.state", (2,), units=("rad",)),))
ACTION = SpaceSpec((FieldSpec("action", (2,), units=("rad",)),))
DESCRIPTION = Description(OBSERVATION, ACTION, 20.0, 8, 4, {})
STEP_NS = 50_000_000
"""Of the policy: 20 Hz."""
REST = State({}, np.zeros(2), np.zeros(2), np.ones(2, bool), 0, 0)


class DelayedPlanner:
    """Answers so long after it was asked, on a clock that is told to it."""

    description = DESCRIPTION

    def __init__(self, think: Callable[[Request], ndarray], delay_ns: Callable[[int], int | None]) -> None:
        self.think, self.delay_ns = think, delay_ns
        self.now = 0
        self.asked: list[Request] = []
        self._plan: tuple[int, Plan] | None = None

    def request(self, request: Request) -> None:
        delay = self.delay_ns(len(self.asked))
        self.asked.append(request)
        self._plan = None if delay is None else (self.now + delay, Plan(request, self.think(request)))

    def poll(self) -> Plan | None:
        if self._plan is None or self.now < self._plan[0]:
            return None
        plan, self._plan = self._plan[1], None
        return plan

    def close(self) -> None:
        """Nothing."""


def line(request: Request) -> ndarray:
    """Positions that grow by 0.1 a step, whoever asks when."""
    return np.repeat(0.1 * (request.step + 1 + np.arange(8))[:, None], 2, axis=1)


def execution(mode: Mode = Mode.SYNCHRONOUS) -> Execution:
    """Chunks of 8, of which 4 are executed."""
    return Execution(mode, 8, 4, 2)


def source_of(planner: DelayedPlanner | InlinePlanner, rate: float, setting: Execution | None = None) -> PolicySource:
    """A source whose actions are positions, on a device of this rate [Hz]."""
    period = round(1e9 / rate)
    observe = lambda state: {"observation.state": state.position.astype(np.float32)}  # noqa: E731
    return PolicySource(planner, setting or execution(), 20.0, period, observe, lambda action, state: action * 1.0)


def run(
    source: PolicySource, rate: float, periods: int, jitter: Callable[[int], int] = lambda _: 0
) -> list[Intent | None]:
    """Periods of a device at rest."""
    found = []
    for period in range(periods):
        now = 10**9 + round(period * 1e9 / rate) + jitter(period)
        if isinstance(source.planner, DelayedPlanner):
            source.planner.now = now
        found.append(source.at(now, REST))
    return found


def positions(intents: list[Intent | None]) -> ndarray:
    """First element of every wish, NaN where there is none."""
    return np.array([np.nan if intent is None else float(intent.action[0]) for intent in intents])


def test_it_is_a_source() -> None:
    assert isinstance(source_of(InlinePlanner(line, DESCRIPTION), 20.0), Source)


@given(st.lists(st.integers(-(10**7), 10**7), min_size=40, max_size=40))
def test_at_the_device_s_own_rate_every_action_is_wished_once(jitter: list[int]) -> None:
    """In order and unchanged to the bit, though periods are up to 10 ms early or late."""
    found = run(source_of(InlinePlanner(line, DESCRIPTION), 20.0), 20.0, 40, lambda period: jitter[period])
    np.testing.assert_array_equal(positions(found), 0.1 * (1 + np.arange(40)))


@pytest.mark.parametrize("rate", [50.0, 100.0, 125.0, 500.0, 60.0])
def test_between_two_steps_the_way_is_straight(rate: float) -> None:
    """Wishes of a policy that moves evenly grow evenly, also where the rates have no common measure."""
    found = positions(run(source_of(InlinePlanner(line, DESCRIPTION), rate), rate, round(2 * rate)))
    expected = 0.1 * (1 + np.arange(len(found))) * 20.0 / rate
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_wishes_are_made_now_and_end_where_the_action_says() -> None:
    found = run(source_of(InlinePlanner(line, DESCRIPTION), 100.0), 100.0, 20)
    assert [intent.created_ns for intent in found if intent] == [10**9 + 10_000_000 * period for period in range(20)]
    assert {intent.source for intent in found if intent} == {"policy"}
    np.testing.assert_allclose(positions(found)[4::5], [0.1, 0.2, 0.3, 0.4], rtol=1e-12)


def test_steps_keep_to_their_grid_when_the_loop_does_not() -> None:
    """A pause of five steps drops five actions; those that follow are at their own steps."""
    source = source_of(InlinePlanner(line, DESCRIPTION), 100.0)
    found = run(source, 100.0, 60, lambda period: 5 * STEP_NS if period >= 20 else 0)
    assert [record.step for record in source.records] == [0, 1, 2, 3, *range(9, 17)]
    assert positions(found)[24] == pytest.approx(0.1 * 10)


def test_waiting_is_silence() -> None:
    """Synchronous, 120 ms to think, 4 actions: 2 to 3 steps without a wish before each chunk."""
    planner = DelayedPlanner(line, lambda _: 120_000_000)
    source = source_of(planner, 100.0)
    found = positions(run(source, 100.0, 200))
    assert np.isnan(found[:12]).all()
    assert 0.3 < np.isnan(found).mean() < 0.5
    assert source.punctuality.starved_steps > 5
    assert set(source.punctuality.latencies_ns) == {120_000_000}


@pytest.mark.parametrize("mode", [Mode.ASYNCHRONOUS, Mode.REAL_TIME])
def test_thinking_ahead_leaves_no_silence(mode: Mode) -> None:
    """And what is wished is what the latest plan that was there in time says of each step."""
    planner = DelayedPlanner(line, lambda _: 120_000_000)
    source = source_of(planner, 100.0, execution(mode))
    found = positions(run(source, 100.0, 300))
    first = int(np.flatnonzero(~np.isnan(found))[0])
    assert first == 12
    assert not np.isnan(found[first:]).any()
    assert source.punctuality.starved_steps == 0
    assert source.punctuality.late_plans == 0
    assert any(request.committed is not None for request in planner.asked) == (mode is Mode.REAL_TIME)


def test_a_policy_that_stalls_falls_silent_when_its_chunk_ends() -> None:
    planner = DelayedPlanner(line, lambda call: 0 if call < 3 else None)
    source = source_of(planner, 100.0, execution(Mode.ASYNCHRONOUS))
    found = positions(run(source, 100.0, 300))
    last = int(np.flatnonzero(~np.isnan(found))[-1])
    assert last == 5 * (planner.asked[2].step + 8) - 1
    assert source.punctuality.starved_steps > 30


def test_failures_are_counted_in_words_and_the_question_is_put_again() -> None:
    def think(request: Request) -> ndarray:
        if request.step in (4, 5, 6):
            raise ValueError("no idea")
        return np.zeros((3, 2)) if request.step == 7 else line(request)

    source = source_of(InlinePlanner(think, DESCRIPTION), 20.0)
    found = positions(run(source, 20.0, 12))
    assert source.punctuality.failures["the policy failed: ValueError: no idea"] == 3
    (other,) = source.punctuality.failures.keys() - {"the policy failed: ValueError: no idea"}
    assert "(3, 2)" in other
    assert np.flatnonzero(np.isnan(found)).tolist() == [4, 5, 6, 7]
    assert source.punctuality.starved_steps == 4
    np.testing.assert_allclose(found[8:], 0.1 * np.arange(9, 13))


def test_nothing_begins_before_there_is_something_to_see() -> None:
    """The grid begins with the first observation; a camera that drops out later only delays the next question."""
    seen = [None, None, *({"observation.state": np.zeros(2, np.float32)} if step != 4 else None for step in range(10))]
    planner = InlinePlanner(line, DESCRIPTION)
    answers = iter(seen)
    source = PolicySource(
        planner, execution(), 20.0, STEP_NS, lambda state: next(answers), lambda action, state: action
    )
    found = positions(run(source, 20.0, 12))
    assert np.flatnonzero(np.isnan(found)).tolist() == [0, 1, 6]
    assert [record.step for record in source.records] == list(range(10))
    assert source.records[4].observation is None


def test_an_answer_to_somebody_else_s_question_is_not_taken() -> None:
    """A planner may still be thinking of the last run."""
    planner = DelayedPlanner(line, lambda _: 0)
    planner.request(Request(3, {}))
    source = source_of(planner, 20.0)
    found = positions(run(source, 20.0, 4))
    np.testing.assert_allclose(found, [0.1, 0.2, 0.3, 0.4])
    assert len(source.punctuality.latencies_ns) == 1


def test_records_tell_what_happened_in_every_step() -> None:
    planner = DelayedPlanner(line, lambda _: 60_000_000)
    source = source_of(planner, 100.0)
    run(source, 100.0, 60)
    assert [record.step for record in source.records] == list(range(12))
    acting = [record for record in source.records if record.action is not None]
    assert [record.step for record in acting] == [1, 2, 3, 4, 6, 7, 8, 9, 11]
    assert [record.step for record in source.records if record.wish is None] == [0, 5, 10]
    for record in acting:
        np.testing.assert_array_equal(record.wish, record.action)
        assert record.created_ns >= 10**9 + record.step * STEP_NS
    assert acting[-1].latency_ns == 60_000_000
    assert source.records[0].latency_ns == 0


SPEC = DeviceSpec(
    "simulated",
    "simulated",
    OBSERVATION,
    ACTION,
    Limits((-1.0, -1.0), (1.0, 1.0), (2.0, 2.0), (20.0, 20.0), (1000.0, 1000.0)),
    100.0,
    (Stop.HOLD, Stop.LIMP),
    None,
)


def drive(think: Callable[[Request], ndarray], seconds: float) -> tuple[ControlLoop, list[Tick], PolicySource]:
    """A run on a simulated device, with an inline policy."""
    device, ticks = Simulated(SPEC), list[Tick]()
    device.configure()
    source = source_of(InlinePlanner(think, DESCRIPTION), SPEC.rate)
    loop = ControlLoop(device, source, ticks.append)
    loop.run(seconds)
    return loop, ticks, source


def test_a_policy_that_fails_in_the_loop_is_braked_for() -> None:
    """Nothing is raised, and nothing moves at the end."""

    def think(request: Request) -> ndarray:
        if request.step >= 4:
            raise RuntimeError("out of memory")
        return line(request)

    loop, ticks, source = drive(think, 0.6)
    assert source.punctuality.failures["the policy failed: RuntimeError: out of memory"] >= 3
    assert Reason.NO_ACTION in {reason for tick in ticks for reason in tick.command.reasons}
    assert (np.abs(loop.governor.speed) < 2e-3).all()
    assert loop.governor.stopped == "the run is over"


def test_what_is_no_number_reaches_the_governor_which_judges_it() -> None:
    loop, ticks, _ = drive(lambda request: np.full((8, 2), np.nan), 0.6)
    assert any(tick.intent is not None and np.isnan(tick.intent.action).all() for tick in ticks)
    assert "were not finite" in str(loop.governor.stopped)
    assert np.isfinite([tick.command.position for tick in ticks]).all()


def test_a_single_action_that_is_no_number_does_not_spoil_the_next() -> None:
    """At the device's own rate the governor forgives it."""

    def think(request: Request) -> ndarray:
        chunk = line(request)
        chunk[0] = np.nan if request.step == 4 else chunk[0]
        return chunk

    found = positions(run(source_of(InlinePlanner(think, DESCRIPTION), 20.0), 20.0, 12))
    assert np.flatnonzero(np.isnan(found)).tolist() == [4]


def test_asking_the_source_is_quick() -> None:
    """With a planner that is still thinking: processor time far below a period of 500 Hz."""
    source = source_of(DelayedPlanner(line, lambda _: 120_000_000), 500.0, execution(Mode.REAL_TIME))
    start = time.process_time()
    run(source, 500.0, 2000)
    assert (time.process_time() - start) / 2000 < 1e-3

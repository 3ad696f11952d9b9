"""What was executed once is executed again, to the bit; and slower where asked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64
from numpy import ndarray

from alula.core.errors import ConfigError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.real_robot.contract import DeviceSpec, Intent, Limits, State, Stop
from alula.real_robot.governor import Governor, SafeCommand
from alula.real_robot.sources.replay import APPROACH, Recording, ReplaySource

pytestmark = pytest.mark.real_time

RATE = 50.0
LIMITS = Limits(*((value, value) for value in (-1.0, 1.0, 2.0, 8.0, 100.0)), 0.01)
SPEC = DeviceSpec(
    "test",
    "test",
    SpaceSpec(()),
    SpaceSpec((FieldSpec("action", (2,), units=("rad",)),)),
    LIMITS,
    RATE,
    (Stop.HOLD,),
    None,
)
PERIOD_NS = SPEC.period_ns


def recorded(wishes: list[tuple[float, float]]) -> Recording:
    """What a governor made of these wishes, half a second each, and of the end."""
    governor = Governor(SPEC)
    commands = [governor.start(state(np.zeros(2), 0), 0)]
    for period in range(1, 25 * len(wishes) + 60):
        now = period * PERIOD_NS
        intent = Intent(np.array(wishes[min((period - 1) // 25, len(wishes) - 1)]), now, "policy")
        if period > 25 * len(wishes):
            governor.emergency_stop("the run is over")
        commands.append(governor(intent, state(commands[-1].position, period), now))
    return recording(commands)


def recording(commands: list[SafeCommand]) -> Recording:
    times = np.array([command.time_ns for command in commands])
    return Recording(times - times[0], np.stack([command.position for command in commands]), PERIOD_NS)


def state(at: Float64[ndarray, " action"], period: int) -> State:
    return State({}, at, np.zeros(2), np.ones(2, bool), period, period * PERIOD_NS)


def replayed(source: ReplaySource, start: tuple[float, float], jitter: float = 0.0) -> list[SafeCommand]:
    """Commands of a governor that follows the source from there on."""
    governor, rng = Governor(SPEC), np.random.default_rng(0)
    commands = [governor.start(state(np.array(start), 0), 0)]
    while not source.finished:
        period = len(commands)
        now = period * PERIOD_NS + round(jitter * PERIOD_NS * rng.uniform(0, 1))
        before = state(commands[-1].position, period)
        commands.append(governor(source.at(now, before), before, now))
        assert period < 100_000
    return commands


WISHES = st.lists(st.tuples(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2)), min_size=1, max_size=4)


@settings(max_examples=8)
@given(WISHES, st.floats(-0.9, 0.9), st.floats(0.0, 0.3))
def test_commands_come_again_to_the_bit(wishes: list[tuple[float, float]], start: float, jitter: float) -> None:
    """From wherever the device is, and whatever the loop's clock trembles."""
    first = recorded(wishes)
    again = replayed(ReplaySource(SPEC, first), (start, -start), jitter)
    end = np.stack([command.position for command in again[-len(first.positions) :]])
    assert end.tolist() == first.positions.tolist()
    assert all(command.reasons == () for command in again[-len(first.positions) + 1 :])


@settings(max_examples=20)
@given(st.floats(-0.9, 0.9), st.floats(-0.9, 0.9))
def test_the_way_to_the_start_is_slow(first: float, second: float) -> None:
    """And smooth enough that nothing has to be changed about it."""
    rest = Recording(np.array([0, PERIOD_NS]), np.zeros((2, 2)), PERIOD_NS)
    commands = replayed(ReplaySource(SPEC, rest), (first, second))
    assert all(command.reasons == () for command in commands)
    speed = np.abs([command.velocity for command in commands]).max()
    assert speed <= APPROACH * LIMITS.velocity[0] * (1 + 1e-6)


@pytest.mark.parametrize("speed", [0.5, 0.3, 0.05])
def test_slower_is_the_same_way_in_more_time(speed: float) -> None:
    first = recorded([(0.7, -0.3), (-0.5, 0.9)])
    again = replayed(ReplaySource(SPEC, first, speed), (0.0, 0.0))
    length = int(np.ceil((len(first.positions) - 1) / speed - 1e-9)) + 1
    slow = np.stack([command.position for command in again])[-length:]
    times = np.arange(len(slow)) * speed
    expected = np.stack([np.interp(times, np.arange(len(first.positions)), column) for column in first.positions.T])
    np.testing.assert_allclose(slow, expected.T, atol=5e-3)
    fastest = np.abs(np.diff(first.positions, axis=0)).max()
    assert np.abs(np.diff(slow, axis=0)).max() < 1.1 * speed * fastest


def test_periods_that_were_left_out_are_filled() -> None:
    """A loop that was late has no command for some periods; time goes on."""
    whole = np.arange(10.0)[:, None] * np.array([0.01, -0.02])
    kept = np.array([0, 1, 2, 6, 7, 8, 9])
    jitter = np.array([0, 1, 2, 3, -2, 1, 0]) * 1_000_000
    holes = Recording(kept * PERIOD_NS + jitter, whole[kept], PERIOD_NS)
    np.testing.assert_allclose(holes.on_grid(), whole, atol=1e-12)
    assert holes.on_grid()[kept].tolist() == whole[kept].tolist()


def test_at_the_end_it_says_so_and_stays() -> None:
    told = list[bool]()
    rest = Recording(np.arange(5) * PERIOD_NS, np.full((5, 2), 0.25), PERIOD_NS)
    source = ReplaySource(SPEC, rest, finish=lambda: told.append(True))
    replayed(source, (0.0, 0.0))
    assert told == [True]
    later = source.at(10**12, state(np.zeros(2), 0))
    assert later.action.tolist() == [0.25, 0.25]


@pytest.mark.parametrize("speed", [0.0, -1.0, 1.5, float("nan")])
def test_no_other_speed(speed: float) -> None:
    with pytest.raises(ConfigError, match="at most 1, as it was recorded"):
        ReplaySource(SPEC, recorded([(0.1, 0.1)]), speed)

"""Wishes are made smooth without being delayed, and the governor has nothing left to do."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64
from numpy import ndarray

from alula.core.errors import DeviceError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.real_robot.contract import DeviceSpec, Intent, Limits, State, Stop
from alula.real_robot.governor import Governor, Reason
from alula.real_robot.sources import smoothed
from alula.real_robot.sources.smoothed import Smoothed

VELOCITY, ACCELERATION, JERK = 2.0, 8.0, 100.0
Wish = Callable[[float], object]


def device(rate: float) -> DeviceSpec:
    limits = Limits((-1.0,), (1.0,), (VELOCITY,), (ACCELERATION,), (JERK,), 0.01)
    action = SpaceSpec((FieldSpec("action", (1,), units=("rad",)),))
    return DeviceSpec("test", "test", SpaceSpec(()), action, limits, rate, (Stop.HOLD,), None)


class Wishing:
    """A source that wishes what a function of time says."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish

    def at(self, now_ns: int, state: State) -> Intent | None:
        wish = self.wish(now_ns / 1e9)
        return None if wish is None else Intent(np.atleast_1d(np.asarray(wish)), now_ns, "policy")


def state(at: Float64[ndarray, "1"], period: int, spec: DeviceSpec) -> State:
    return State({}, at, np.zeros(1), np.ones(1, bool), period, period * spec.period_ns)


def follow(rate: float, wish: Wish, seconds: float, share: float = 1.0) -> tuple[ndarray, list[tuple[Reason, ...]]]:
    """Smoothed wishes of every period from time 0 on, and what the governor had to say to them."""
    spec = device(rate)
    source, governor, at = Smoothed(Wishing(wish), spec.slower(share)), Governor(spec), np.zeros(1)
    governor.start(state(at, 0, spec), 0)
    found, reasons = [0.0], list[tuple[Reason, ...]]()
    for period in range(1, round(seconds * rate)):
        now = state(at, period, spec)
        intent = source.at(period * spec.period_ns, now)
        command = governor(intent, now, period * spec.period_ns)
        at = command.position
        found.append(float(intent.action[0]) if intent is not None else np.nan)
        reasons.append(command.reasons)
    return np.array(found), reasons


def require_limits(positions: ndarray, rate: float, share: float = 1.0) -> None:
    for limit in (VELOCITY, ACCELERATION, JERK):
        positions = np.diff(positions) * rate
        assert np.abs(positions).max() <= share * limit


def lag(rate: float, wish: Callable[[float], float], positions: ndarray) -> tuple[float, float]:
    """Delay that makes the two most alike, and how far they are from each other with none [s, rad]."""
    time = np.arange(len(positions)) / rate
    inside = slice(len(time) // 2, -10)
    delays = np.linspace(-0.1, 0.2, 301)
    wished = np.array([wish(at) for at in time])
    errors = [np.mean((np.interp(time[inside] - delay, time, wished) - positions[inside]) ** 2) for delay in delays]
    return float(delays[np.argmin(errors)]), float(np.abs(wished - positions)[inside].max())


MOTIONS: dict[str, Callable[[float], float]] = {
    "slow": lambda t: 0.4 * (1 - np.cos(t)),
    "sine": lambda t: 0.4 * np.sin(3 * t),
    "two sines": lambda t: 0.3 * np.sin(2 * t) + 0.05 * np.sin(9 * t),
    "fast": lambda t: 0.1 * np.sin(8 * t),
    "ramp": lambda t: float(np.interp(t, [0.5, 3.5], [-0.8, 0.8])),
}


@pytest.mark.parametrize(("name", "rate"), [*((name, 50.0) for name in MOTIONS), ("two sines", 125.0)])
def test_a_possible_motion_is_followed_without_delay(name: str, rate: float) -> None:
    """S13: at most 50 ms of lag; it is about a period at most."""
    positions, reasons = follow(rate, MOTIONS[name], 2.6)
    delay, error = lag(rate, MOTIONS[name], positions)
    assert abs(delay) <= 0.021
    assert error < (0.03 if rate == 50 else 0.012)
    assert {reason for found in reasons for reason in found} == set()
    require_limits(positions[5:], rate)


def test_waypoints_at_ten_hertz_become_smooth() -> None:
    """Stairs, as a policy wishes them; linear interpolation at the joints would jerk by thousands of rad/s^3."""
    stairs = lambda t: 0.4 * np.sin(3 * np.floor(10 * t) / 10)  # noqa: E731
    positions, reasons = follow(100.0, stairs, 2.0)
    assert abs(lag(100.0, stairs, positions)[0]) <= 0.05
    require_limits(positions, 100.0)
    assert {reason for found in reasons for reason in found} == set()


@settings(max_examples=4, deadline=None)
@given(st.lists(st.floats(-5.0, 5.0), min_size=1, max_size=3), st.floats(0.2, 1.0))
def test_jumps_are_limited_and_reached(places: list[float], share: float) -> None:
    wish = lambda t: places[min(int(t / 0.4), len(places) - 1)]  # noqa: E731
    positions, _ = follow(50.0, wish, 0.4 * len(places) + 2.0 / np.sqrt(share), share)
    require_limits(positions, 50.0, share)
    if share > 0.7:
        assert positions[-1] == pytest.approx(np.clip(places[-1], -0.99, 0.99), abs=1e-6)


def test_a_jump_is_reached_in_the_shortest_time_without_overshoot() -> None:
    """v/a + a/j to come to speed and rest, and the way at full speed, with the room that is left to the governor."""
    positions, reasons = follow(125.0, lambda t: 0.9 if t > 0.1 else -0.0, 1.2)
    assert positions.max() <= 0.9 + 1e-9
    arrived = np.argmax(positions > 0.9 - 1e-6) / 125.0 - 0.1
    least = 0.9 / VELOCITY + VELOCITY / ACCELERATION + ACCELERATION / JERK
    assert least <= arrived < 1.15 * least
    assert {reason for found in reasons for reason in found} == set()


@pytest.mark.parametrize("bad", [np.nan, np.inf, [0.0, 0.0], "left"])
def test_bad_wishes_pass_unchanged_and_leave_no_trace(bad: object) -> None:
    """The governor counts them; what was smooth before goes on from where it was."""
    wish = lambda t: bad if 0.99 < t < 1.03 else 0.3 * np.sin(2 * t)  # noqa: E731
    spec = device(50.0)
    source = Smoothed(Wishing(wish), spec)
    actions = [source.at(period * spec.period_ns, state(np.zeros(1), period, spec)) for period in range(1, 100)]
    for period in (50, 51):
        intent = actions[period - 1]
        assert intent is not None
        assert np.asarray(intent.action).dtype.kind == "U" or not np.array_equal(intent.action, np.zeros(1))
        np.testing.assert_array_equal(intent.action, np.atleast_1d(np.asarray(bad)))
    good = np.array([intent.action[0] for intent in actions if intent and np.shape(intent.action) == (1,)][:49])
    after = np.array([intent.action[0] for intent in actions[51:] if intent])
    assert np.isfinite(after.astype(float)).all()
    assert abs(after[0] - good[-1]) < 0.05


def test_silence_passes_and_after_it_all_begins_where_the_device_is() -> None:
    spec = device(50.0)
    source = Smoothed(Wishing(lambda t: None if 1.0 < t < 2.0 else 0.8), spec)
    at = np.zeros(1)
    for period in range(1, 100):
        intent = source.at(period * spec.period_ns, state(at, period, spec))
        assert (intent is None) == (50 < period < 100)
    assert intent is None
    # Nobody asks for a while, as when a person is in charge; the device is somewhere else then.
    elsewhere = np.array([-0.5])
    intent = source.at(200 * spec.period_ns, state(elsewhere, 200, spec))
    assert intent is not None
    assert abs(intent.action[0] + 0.5) < 1e-3


def test_without_ruckig_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(smoothed, "import_module", missing)
    with pytest.raises(DeviceError, match=r"pip install 'alula\[arms\]'"):
        Smoothed(Wishing(lambda t: 0.0), device(50.0))

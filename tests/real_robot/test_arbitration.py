"""Control passes from one to another without a bump, and nothing bad passes with it."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64
from numpy import ndarray

from alula.core.errors import DeviceError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.real_robot.contract import DeviceSpec, Intent, Limits, Receipt, State, Stop
from alula.real_robot.devices.simulated import Simulated
from alula.real_robot.governor import Governor, Reason, SafeCommand
from alula.real_robot.loop import ControlLoop, Source, Tick
from alula.real_robot.sources.arbitration import PEAKS, SHORTEST_S, Arbitration, minimum_jerk
from alula.real_robot.sources.goto import GoTo
from alula.real_robot.sources.hold import Hold

RATE = 50.0
VELOCITY, ACCELERATION, JERK = 2.0, 8.0, 100.0
LIMITS = Limits((-1.0, -1.0), (1.0, 1.0), (VELOCITY,) * 2, (ACCELERATION,) * 2, (JERK,) * 2, 0.01)
SPEC = DeviceSpec(
    "test",
    "test",
    SpaceSpec((FieldSpec("observation.state", (2,), units=("rad",)),)),
    SpaceSpec((FieldSpec("action", (2,), units=("rad",)),)),
    LIMITS,
    RATE,
    (Stop.HOLD,),
    None,
)
Wish = Callable[[int], object]


class Wishing:
    """A source that wishes what a function of the period's number says."""

    def __init__(self, name: str, wish: Wish) -> None:
        self.name, self.wish, self.asked = name, wish, 0

    def at(self, now_ns: int, state: State) -> Intent | None:
        self.asked += 1
        wish = self.wish(now_ns // SPEC.period_ns)
        return None if wish is None else Intent(np.asarray(wish), now_ns, self.name)


class Rig:
    """The simulated device behind a governor, on a clock of our own."""

    def __init__(self, sources: Sequence[Source], start: Float64[ndarray, " action"] | None = None) -> None:
        self.now_ns, self.ticks = 0, list[Tick]()
        self.device = Simulated(SPEC, np.zeros(2) if start is None else start, clock=lambda: self.now_ns)
        self.governor, self.arbitration = Governor(SPEC), Arbitration(SPEC, sources)
        state = self.device.activate()
        self.keep(state, None, self.governor.start(state, 0), start=True)

    def keep(self, state: State, intent: Intent | None, command: SafeCommand, start: bool = False) -> None:
        tick = Tick(state, intent, command, Receipt(self.now_ns, True), start)
        self.device.write(command)
        self.ticks.append(tick)
        self.arbitration.note(tick)

    def run(self, periods: int) -> None:
        for _ in range(periods):
            self.now_ns += SPEC.period_ns
            state = self.device.read()
            intent = self.arbitration.at(self.now_ns, state)
            self.keep(state, intent, self.governor(intent, state, self.now_ns))

    def position(self) -> Float64[ndarray, "periods action"]:
        return np.stack([tick.command.position for tick in self.ticks])

    def require_limits(self) -> None:
        """Differences of what was commanded, from rest: no step of the velocity beyond acceleration times period."""
        found, rounding = self.position(), 1 + 1e-9
        assert np.abs(found).max() <= 0.99 * rounding
        for limit, before in zip(
            (VELOCITY, ACCELERATION, JERK), (found[:1], 0 * found[:1], 0 * found[:1]), strict=True
        ):
            found = np.diff(found, axis=0, prepend=before) * RATE
            assert np.abs(found).max() <= limit * rounding

    def reasons(self) -> set[Reason]:
        return {reason for tick in self.ticks for reason in tick.command.reasons}

    def sources(self) -> list[str | None]:
        return [tick.intent.source if tick.intent else None for tick in self.ticks[1:]]


def circle(period: int) -> list[float]:
    """Gentle motion."""
    return [0.3 * np.sin(2 * period / RATE), 0.3 * np.cos(2 * period / RATE)]


def between(first: int, last: int, wish: Wish) -> Wish:
    return lambda period: wish(period) if first <= period < last else None


def test_a_person_takes_over_from_a_policy_and_gives_back_without_a_bump() -> None:
    person = Wishing("teleoperation", between(100, 200, lambda period: [-0.5, -0.2]))
    policy = Wishing("policy", circle)
    rig = Rig((person, policy))
    rig.run(300)
    assert rig.sources() == ["policy"] * 99 + ["teleoperation"] * 100 + ["policy"] * 101
    # Nothing had to be limited: what was wished was possible.
    assert rig.reasons() == set()
    rig.require_limits()
    # Each gets what he wants in the end, exactly.
    assert rig.position()[199].tolist() == [-0.5, -0.2]
    assert rig.position()[300].tolist() == circle(300)
    # While a person is in charge, the policy is not even asked.
    assert policy.asked == 200


def test_who_is_in_charge_can_be_seen() -> None:
    rig = Rig((Wishing("teleoperation", between(10, 20, lambda period: [0, 0])), Wishing("policy", circle)))
    seen = list[bool]()
    for _ in range(30):
        rig.run(1)
        seen.append(rig.arbitration.intervening)
    assert seen == [False] * 9 + [True] * 10 + [False] * 11


def test_without_anybody_it_rests_where_it_can_and_holds() -> None:
    rig = Rig((Wishing("policy", between(0, 100, circle)),))
    rig.run(200)
    # Two periods of patience, in which the governor brakes; then it holds, and the run goes on.
    assert rig.sources()[98:] == ["policy", None, None, *["hold"] * 99]
    assert rig.governor.stopped is None
    assert rig.reasons() <= {Reason.LIMITED}
    assert np.ptp(rig.position()[-50:], axis=0).max() == 0.0
    assert np.abs(rig.position()[-1] - rig.position()[99]).max() < 0.2
    rig.require_limits()


def test_it_begins_where_the_device_is_and_comes_gently_to_what_is_wished() -> None:
    """S9: the policy is blended in."""
    rig = Rig((Wishing("policy", lambda period: [0.9, -0.9]),), np.array([-0.9, 0.9]))
    rig.run(200)
    assert rig.position()[0].tolist() == [-0.9, 0.9]
    assert np.abs(np.diff(rig.position()[:3], axis=0)).max() < 1e-3
    assert rig.position()[-1].tolist() == [0.9, -0.9]
    assert rig.reasons() == set()


@pytest.mark.parametrize("bad", [[np.nan, 0.0], [1e300, -1e300], [0.0], "left"])
def test_nothing_bad_leaks_from_one_source_to_another(bad: object) -> None:
    """Two bad wishes of the policy reach the governor, which counts them; the person behind feels nothing of it."""
    person = Wishing("teleoperation", between(62, 300, lambda period: [0.2, 0.2]))
    rig = Rig((person, Wishing("policy", lambda period: bad if period >= 60 else circle(period))))
    rig.run(180)
    judged = {reason for tick in rig.ticks[60:62] for reason in tick.command.reasons}
    assert judged == ({Reason.LIMITED} if bad == [1e300, -1e300] else {Reason.BAD_ACTION})
    # The governor has braked in between, and follows again once it has caught up.
    assert {reason for tick in rig.ticks[62:] for reason in tick.command.reasons} <= {Reason.LIMITED}
    assert all(tick.command.reasons == () for tick in rig.ticks[150:])
    assert rig.position()[-1].tolist() == [0.2, 0.2]
    rig.require_limits()


def test_a_source_that_stays_bad_stops_the_run() -> None:
    rig = Rig((Wishing("policy", lambda period: [np.nan, 0.0]),))
    rig.run(5)
    assert "3 actions in a row" in str(rig.governor.stopped)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["policy", "teleoperation", "both", "nobody", "nan", "wild"]),
        st.integers(1, 30),
        st.floats(-0.9, 0.9),
        st.floats(-0.9, 0.9),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=10, deadline=None)
@given(EVENTS)
def test_whoever_comes_and_goes_no_limit_is_broken(events: list[tuple[str, int, float, float]]) -> None:
    now = {"teleoperation": None, "policy": None}
    rig = Rig([Wishing(name, lambda period, name=name: now[name]) for name in now])  # type: ignore[misc]
    for who, periods, x, y in events:
        policy = {"nan": [np.nan, x], "wild": [1e6 * x, -1e6 * y]}.get(who, [y, x])
        now.update(
            policy=policy if who not in ("teleoperation", "nobody") else None,  # type: ignore[dict-item]
            teleoperation=[x, y] if who in ("teleoperation", "both") else None,  # type: ignore[dict-item]
        )
        rig.run(periods)
    rig.require_limits()
    # Places that are within limits and stand still are reached without the governor having to help.
    if {who for who, *_ in events} <= {"policy", "teleoperation", "nobody"} and all(n >= 4 for _, n, *_ in events):
        assert Reason.BAD_ACTION not in rig.reasons()
        assert rig.governor.stopped is None


@settings(max_examples=3, deadline=None)
@given(st.floats(-0.9, 0.9), st.floats(-0.9, 0.9), st.integers(2, 60), st.floats(0.1, 0.35))
def test_a_gentle_handover_needs_no_help(x: float, y: float, when: int, size: float) -> None:
    """From a motion with up to half of the limits to a place anywhere: the governor has nothing to change."""

    def moving(period: int) -> list[float]:
        return [size * np.sin(2 * period / RATE), size * np.cos(2 * period / RATE)]

    rig = Rig((Wishing("teleoperation", between(when, 1000, lambda p: [x, y])), Wishing("policy", moving)))
    rig.run(when + 220)
    assert rig.reasons() == set()
    assert rig.position()[-1].tolist() == [x, y]


def test_minimum_jerk_steps_as_its_theory_says() -> None:
    share = np.linspace(0, 1, 1001)
    value = np.array([minimum_jerk(each) for each in share])
    assert (value[0], value[-1]) == (0.0, pytest.approx(1.0))
    derivative, step = value, share[1]
    for order, peak in enumerate(PEAKS):
        derivative = np.gradient(derivative, step, edge_order=2)
        assert np.abs(derivative[5:-5]).max() == pytest.approx(peak, rel=0.05)
        if order < 2:
            assert np.abs(derivative[[0, -1]]).max() < 0.02 * peak
    assert SHORTEST_S > 0


def test_arbitration_must_be_told_what_is_commanded() -> None:
    device = Simulated(SPEC)
    arbitration = Arbitration(SPEC, (Wishing("policy", circle),))
    with pytest.raises(DeviceError, match="pass its `note` to the loop as `record`"):
        ControlLoop(device, arbitration).run(0.1)
    ControlLoop(device, arbitration, arbitration.note).run(0.1)


def test_a_second_run_begins_anew() -> None:
    """The device has been moved by hand in between; nothing of the first run is gone back to."""
    rig = Rig((Wishing("policy", lambda period: [0.8, 0.8]),))
    rig.run(100)
    rig.device = Simulated(SPEC, np.array([-0.8, -0.8]), clock=lambda: rig.now_ns)
    state = rig.device.activate()
    before = len(rig.ticks)
    rig.keep(state, None, rig.governor.start(state, rig.now_ns), start=True)
    rig.run(200)
    assert np.abs(np.diff(rig.position()[before : before + 3], axis=0)).max() < 1e-3
    assert rig.position()[-1].tolist() == [0.8, 0.8]
    assert rig.reasons() == set()


def test_hold_stays_and_goto_arrives() -> None:
    rig = Rig((Hold(),), np.array([0.3, -0.4]))
    rig.run(20)
    assert np.ptp(rig.position(), axis=0).max() < 1e-12
    goto = GoTo(SPEC, np.array([0.5, 0.5]))
    rig = Rig((goto,))
    arrived = list[bool]()
    for _ in range(200):
        rig.run(1)
        arrived.append(goto.arrived(rig.ticks[-1].state))
    assert arrived == sorted(arrived)
    assert arrived[-1]
    first = rig.ticks[1 + arrived.index(True)].state
    np.testing.assert_allclose(first.position, [0.5, 0.5], atol=0.02)
    with pytest.raises(DeviceError, match=r"cannot go to \[0.0, 0.995\]; allowed are \[-0.99, -0.99\]"):
        GoTo(SPEC, np.array([0.0, 0.995]))
    with pytest.raises(DeviceError, match="cannot go to"):
        GoTo(SPEC, np.array([0.0, np.nan]))

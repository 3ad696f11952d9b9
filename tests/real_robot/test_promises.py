"""The safety promises that hold for the loop and the governor as a whole, in time that passes as it is told to.

Others are shown where they belong: S1, S3, S13 in test_governor.py, S12 in test_workspace.py, S14 in
tests/commands/test_recording.py, those on the wire in the tests of the devices.
"""

import copy
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from alula.core.spaces import FieldSpec, SpaceSpec
from alula.real_robot.contract import DeviceSpec, Intent, Limits, State, Stop
from alula.real_robot.devices.simulated import Simulated
from alula.real_robot.governor import Governor, Reason, SafeCommand
from alula.real_robot.loop import ControlLoop, Tick

VELOCITY, ACCELERATION, JERK = 2.0, 20.0, 1000.0
HOUR_NS = 3_600_000_000_000


def specification(rate: float = 100.0) -> DeviceSpec:
    """Two joints from -1 to 1 rad."""
    limits = Limits(*((value, value) for value in (-1.0, 1.0, VELOCITY, ACCELERATION, JERK)))
    action = SpaceSpec((FieldSpec("action", (2,), units=("rad",)),))
    return DeviceSpec("simulated", "simulated", SpaceSpec(()), action, limits, rate, (Stop.HOLD,), None)


class Clock:
    """Time that passes when somebody sleeps or looks at it; the wall clock goes its own way."""

    def __init__(self, wall: Callable[[int], int] = lambda now: now) -> None:
        self.now, self.wall = 1_000_000_000, wall

    def monotonic_ns(self) -> int:
        self.now += 500
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(1e9 * seconds)

    def time(self) -> float:
        return self.wall(self.now) / 1e9

    def time_ns(self) -> int:
        return self.wall(self.now)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> "Rig":
    """A loop in that time."""
    return Rig(monkeypatch)


class Rig:
    """A simulated device, a loop, and everything that it did."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, clock: Clock | None = None, rate: float = 100.0) -> None:
        self.monkeypatch, self.clock, self.rate = monkeypatch, clock or Clock(), rate
        self.make: type[Simulated] = Simulated

    def run(self, wish: Callable[[int], object], seconds: float = 0.5) -> list[Tick]:
        """Ticks of a run in which the source wishes this in every period; None is silence."""
        clock, source = self.clock, _Scripted(wish)
        names = ("monotonic_ns", "sleep", "time", "time_ns")
        self.monkeypatch.setattr(
            "alula.real_robot.loop.time", SimpleNamespace(**{name: getattr(clock, name) for name in names})
        )
        self.device = self.make(specification(self.rate), clock=clock.monotonic_ns)
        self.ticks = list[Tick]()
        self.loop = ControlLoop(self.device, source, self.ticks.append)
        source.loop = self.loop
        self.loop.run(seconds)
        return self.ticks


class _Scripted:
    def __init__(self, wish: Callable[[int], object]) -> None:
        self.wish, self.period = wish, -1
        self.loop: ControlLoop | None = None

    def at(self, now_ns: int, state: State) -> Intent | None:
        self.period += 1
        wish = self.wish(self.period)
        return None if wish is None else Intent(np.asarray(wish), now_ns, "policy")


def far(period: int) -> list[float]:
    return [0.9, -0.9]


def stopping_s(speed: float) -> float:
    """Time to rest from a speed: at the limit of acceleration, which takes its time to come and to go."""
    return speed / ACCELERATION + 2 * ACCELERATION / JERK


def positions(ticks: list[Tick]) -> np.ndarray:
    return np.stack([tick.command.position for tick in ticks])


def test_nobody_but_the_governor_makes_commands() -> None:
    """Promise S2, read from the source: the key is nowhere else, and commands are made in one place."""
    root = Path(__file__).parents[2]
    found = {
        path.relative_to(root).as_posix()
        for room in ("real_robot", "commands")
        for path in (root / room).rglob("*.py")
        if re.search(r"SafeCommand\(|governor import .*_KEY|governor\._KEY", path.read_text(encoding="utf-8"))
    }
    assert found == {"real_robot/governor.py"}


def test_a_command_cannot_be_forged_from_another() -> None:
    """Promise S2: neither by a changed copy nor by writing into it."""
    governor = Governor(specification())
    state = State({}, np.zeros(2), np.zeros(2), np.ones(2, bool), 0, 0)
    command = governor.start(state, 0)
    with pytest.raises(TypeError, match="only the governor"):
        replace(command, position=np.full(2, 9.0))
    with pytest.raises(ValueError, match="read-only"):
        command.position[0] = 9.0
    with pytest.raises(AttributeError):
        command.position = np.full(2, 9.0)  # type: ignore[misc]
    assert copy.copy(command).position.tolist() == [0.0, 0.0]


DTYPES = st.one_of(
    *(arrays.floating_dtypes(), arrays.integer_dtypes(), arrays.unsigned_integer_dtypes(), arrays.boolean_dtypes()),
    *(arrays.complex_number_dtypes(), arrays.datetime64_dtypes(), arrays.unicode_string_dtypes()),
)
ANYTHING = DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, st.sampled_from([(2,), (), (1,), (3,), (2, 2), (0,)])))


@settings(max_examples=40)
@given(st.lists(ANYTHING, min_size=1, max_size=12))
def test_whatever_an_array_can_hold_ends_within_limits(actions: list[np.ndarray]) -> None:
    """Promises S1 and S3: any type, any shape, and what is no action never changes where the device is sent."""
    spec = specification()
    governor = Governor(spec)
    state = State({}, np.zeros(2), np.zeros(2), np.ones(2, bool), 0, 0)
    commands = [governor.start(state, 0)]
    for action in actions:
        for _ in range(3):
            period = len(commands)
            now = period * spec.period_ns
            state = State({}, commands[-1].position, np.zeros(2), np.ones(2, bool), period, now)
            commands.append(governor(Intent(action, now, "policy"), state, now))
            if action.shape != (2,) or action.dtype.kind not in "fiu" or not np.isfinite(action.astype(float)).all():
                assert Reason.BAD_ACTION in commands[-1].reasons
    way = np.stack([command.position for command in commands])
    speed = np.diff(way, axis=0, prepend=0.0) * spec.rate
    push = np.diff(speed, axis=0, prepend=0.0) * spec.rate
    assert np.abs(way).max() <= 1.0 + 1e-9
    assert np.abs(speed).max() <= VELOCITY * (1 + 1e-9)
    assert np.abs(push).max() <= ACCELERATION * (1 + 1e-9)
    assert np.abs(np.diff(push, axis=0, prepend=0.0)).max() * spec.rate <= JERK * (1 + 1e-9)


@pytest.mark.parametrize("silent_from", [5, 10, 17, 25])
def test_a_silent_policy_is_braked_for_by_the_fourth_period(rig: Rig, silent_from: int) -> None:
    """Promise S4: N is 3, and it rests within v / a more (and what the limit of jerk adds)."""
    ticks = rig.run(lambda period: far(period) if period < silent_from else None)
    first = next(number for number, tick in enumerate(ticks) if Reason.NO_ACTION in tick.command.reasons)
    last_wish = max(number for number, tick in enumerate(ticks) if tick.intent is not None)
    assert first - last_wish <= 4
    speed = np.abs(ticks[first].command.velocity).max()
    rest = first + int(np.ceil(stopping_s(float(speed)) * rig.rate)) + 1
    assert np.ptp(positions(ticks)[rest:], axis=0).max() == 0.0
    assert rig.loop.governor.stopped == "the run is over"


@pytest.mark.parametrize("rate", [20.0, 50.0, 100.0, 250.0])
def test_a_silent_device_is_noticed_in_time(rig: Rig, rate: float) -> None:
    """Promise S5: at two periods or 20 ms nothing is followed any more, at 100 ms the run is over."""
    frozen_at = 15
    rig.rate = rate

    class Freezing(Simulated):
        answers = 0

        def read(self) -> State:
            if self.answers < frozen_at:
                self.last = super().read()
            self.answers += 1
            return self.last

    rig.make = Freezing
    ticks = rig.run(far, seconds=3.0)
    heard = ticks[frozen_at - 1].state.received_ns
    silences = [(tick.command.time_ns - heard) / 1e9 for tick in ticks]
    for silence, tick in zip(silences, ticks, strict=True):
        stale = silence > max(0.02, 2 / rate)
        assert (Reason.STALE_STATE in tick.command.reasons) == stale
        assert (Reason.EMERGENCY_STOP in tick.command.reasons) == (silence > 0.1)
    assert rig.loop.governor.faulty
    assert "has been silent" in str(rig.loop.governor.stopped)


def test_an_emergency_stop_takes_effect_in_the_next_command(rig: Rig) -> None:
    """Promise S8: at most a period after it was said, whoever says it; and it stays."""

    def wish(period: int) -> object:
        if period == 20:
            rig.loop.governor.emergency_stop("red button")
        return far(period)

    ticks = rig.run(wish)
    stopped = [Reason.EMERGENCY_STOP in tick.command.reasons for tick in ticks]
    # The start is tick 0, so period 20 is tick 21: its own command already brakes, for it was said before.
    assert stopped == [False] * 21 + [True] * (len(ticks) - 21)
    assert rig.loop.governor.stopped == "red button"
    assert np.ptp(positions(ticks)[-2:], axis=0).max() < 1e-3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_brakes_at_once_and_then_ends(rig: Rig, number: signal.Signals) -> None:
    """Promise S8: Ctrl-C and a polite kill; the robot rests before anybody hears of it."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def wish(period: int) -> object:
        if period == 20:
            signal.raise_signal(number)
        return far(period)

    before = signal.signal(number, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            rig.run(wish)
    finally:
        signal.signal(number, before)
    stopped = [Reason.EMERGENCY_STOP in tick.command.reasons for tick in rig.ticks]
    assert stopped == [False] * 21 + [True] * (len(stopped) - 21)
    moves = np.abs(np.diff(positions(rig.ticks), axis=0)).max(axis=1)
    assert moves[20] > 0.01 > 1e-3 > moves[-1]


@given(start=st.tuples(st.floats(-0.99, 0.99), st.floats(-0.99, 0.99)))
def test_a_run_starts_where_the_device_is(start: tuple[float, float]) -> None:
    """Promise S9: to the bit, and the policy is blended in from rest, within one period's jerk."""
    spec = specification()
    governor = Governor(spec)
    state = State({}, np.array(start), np.zeros(2), np.ones(2, bool), 0, 0)
    first = governor.start(state, 0)
    assert first.position.tobytes() == np.array(start).tobytes()
    assert not first.velocity.any()
    intent = Intent(np.array([0.9, -0.9]), spec.period_ns, "policy")
    second = governor(intent, replace(state, sequence=1), spec.period_ns)
    assert np.abs(second.position - first.position).max() <= JERK / spec.rate**3 * (1 + 1e-9)


WALLS: dict[str, Callable[[int], int]] = {
    "an hour ahead": lambda now: now + HOUR_NS * (now > 1_200_000_000),
    "an hour back": lambda now: now - HOUR_NS * (now > 1_200_000_000),
    "to and fro": lambda now: now + HOUR_NS * (now // 10_000_000 % 3 - 1),
    "slewing": lambda now: round(now * 1.0005),
}


@pytest.mark.parametrize("wall", WALLS)
def test_the_wall_clock_takes_no_part(monkeypatch: pytest.MonkeyPatch, wall: str) -> None:
    """Promise S11: the command stream is the same to the bit, whatever the wall clock does."""

    def commands(clock: Clock) -> list[tuple[int, bytes, tuple[Reason, ...]]]:
        ticks = Rig(monkeypatch, clock).run(lambda period: [np.sin(period / 7), 0.5] if period % 11 else None)
        return [(tick.command.time_ns, tick.command.position.tobytes(), tick.command.reasons) for tick in ticks]

    assert commands(Clock(WALLS[wall])) == commands(Clock())


def test_the_wall_clock_is_not_even_asked() -> None:
    """Promise S11, read from the source; but for cameras, whose makers stamp pictures with it."""
    root = Path(__file__).parents[2] / "real_robot"
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if re.search(r"\btime\.time(_ns)?\(|datetime\.(now|utcnow)\(", path.read_text(encoding="utf-8"))
    }
    assert {path for path in found if not path.startswith("cameras/")} == set()


@settings(max_examples=12)
@given(st.lists(st.one_of(st.just(0.0), st.floats(0.0, 0.08)), max_size=30))
def test_lost_periods_are_never_made_up_for(stalls: list[float]) -> None:
    """Promise S17: no two periods begin closer than half of one, and every one left out is counted."""
    begun = list[int]()
    with pytest.MonkeyPatch.context() as monkeypatch:
        rig = Rig(monkeypatch)

        def stalling(period: int) -> object:
            begun.append(rig.clock.now)
            rig.clock.sleep(stalls[period] if period < len(stalls) else 0.0)
            return [0.0, 0.0]

        first = rig.run(stalling)[0].command.time_ns
    length = rig.loop.timing.period_ns
    assert (np.diff(begun) >= length // 2).all()
    assert len(begun) + rig.loop.timing.overruns == round((begun[-1] - first) / length)


def test_commands_are_what_reaches_the_device(rig: Rig) -> None:
    """What is recorded of a period is what was sent in it, once, in order."""
    sent = list[SafeCommand]()
    write = Simulated.write

    def noting(self: Simulated, command: SafeCommand) -> object:
        sent.append(command)
        return write(self, command)

    rig.monkeypatch.setattr(Simulated, "write", noting)
    ticks = rig.run(far)
    assert [id(tick.command) for tick in ticks] == [id(command) for command in sent]
    assert ticks[0].start
    assert not any(tick.start for tick in ticks[1:])

"""A person steers smoothly, lets go and it rests, is lost and everything stops."""

import os
import pty
import re
import struct
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alula.core.errors import DeviceError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.real_robot.contract import DeviceSpec, Intent, Limits, Receipt, State, Stop
from alula.real_robot.devices.simulated import Simulated
from alula.real_robot.governor import Governor, Reason
from alula.real_robot.loop import ControlLoop, Source, Tick
from alula.real_robot.teleoperation.gamepad import (
    AXES,
    DEAD_ZONE,
    HELD,
    PATIENCE_S,
    RELEASE,
    STOP,
    Gamepad,
    beyond_dead_zone,
)
from alula.real_robot.teleoperation.keyboard import HOLD_S, SLOWLY, Keyboard
from alula.real_robot.teleoperation.operator import Operation, Operator, Phase, Script
from alula.real_robot.teleoperation.teleoperation import HEARTBEAT_S, LEASH_S, SPEED, Teleoperation, takeover

pytestmark = pytest.mark.real_time

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


class Rig:
    """The simulated device behind a governor, on a clock of our own."""

    def __init__(self, make: Callable[["Rig"], Source]) -> None:
        self.now_ns, self.ticks = 0, list[Tick]()
        self.device = Simulated(SPEC, np.zeros(2), clock=lambda: self.now_ns)
        self.governor = Governor(SPEC)
        self.source = make(self)
        self.tell = getattr(self.source, "note", lambda tick: None)
        state = self.device.activate()
        self._keep(Tick(state, None, self.governor.start(state, 0), Receipt(0, True), start=True))

    def _keep(self, tick: Tick) -> None:
        self.device.write(tick.command)
        self.ticks.append(tick)
        self.tell(tick)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * RATE)):
            self.now_ns += SPEC.period_ns
            state = self.device.read()
            intent = self.source.at(self.now_ns, state)
            self._keep(Tick(state, intent, self.governor(intent, state, self.now_ns), Receipt(self.now_ns, True)))

    def positions(self) -> np.ndarray:
        return np.stack([tick.command.position for tick in self.ticks])

    def reasons(self) -> set[Reason]:
        return {reason for tick in self.ticks for reason in tick.command.reasons}


def steered(*phases: Phase, speed: float = SPEED) -> Rig:
    """A device that is steered by a script."""
    script = Script(phases)
    script.open()
    return Rig(lambda rig: Teleoperation(script, SPEC, rig.governor.emergency_stop, speed=speed))


def test_full_deflection_is_a_share_of_full_speed() -> None:
    rig = steered(Phase(9.0, (1.0, -0.5)))
    rig.run(1.5)
    speed = np.diff(rig.positions()[-5:], axis=0)[-1] * RATE
    np.testing.assert_allclose(speed, [SPEED * VELOCITY, -0.5 * SPEED * VELOCITY], rtol=1e-2)
    assert {tick.intent.source for tick in rig.ticks[1:] if tick.intent} == {"teleoperation"}


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.floats(0.02, 0.6), st.sampled_from([-1.0, 1.0, 0.3]), st.booleans()), max_size=4))
def test_the_governor_has_nothing_to_limit_whatever_the_hand_does(moves: list[tuple[float, float, bool]]) -> None:
    """Two filters of time constant tau bound what follows from a reversal by 2 v / (e tau) and 2 v / tau^2."""
    rig = steered(*(Phase(seconds, (share, -share), held) for seconds, share, held in moves), Phase(9.0, (0.0, 0.0)))
    rig.run(sum(seconds for seconds, *_ in moves) + 0.5)
    assert rig.reasons() == set()


def test_letting_go_of_the_switch_comes_to_rest_though_the_stick_is_still_deflected() -> None:
    rig = steered(Phase(1.0, (1.0, 1.0)), Phase(9.0, (1.0, 1.0), held=False))
    rig.run(1.0)
    moving = rig.positions()[-1]
    rig.run(1.5)
    assert np.ptp(rig.positions()[-10:], axis=0).max() < 1e-4
    assert 0.0 < (rig.positions()[-1] - moving).max() < 0.15
    assert rig.governor.stopped is None


def test_it_stops_at_the_ends_and_comes_away_at_once() -> None:
    rig = steered(Phase(4.0, (1.0, -1.0)), Phase(9.0, (-1.0, 1.0)), speed=0.5)
    rig.run(4.0)
    np.testing.assert_allclose(rig.positions()[-1], [0.99, -0.99], atol=1e-3)
    rig.run(0.8)
    assert rig.positions()[-1][0] < 0.9


def test_a_blocked_device_is_not_pushed_ever_harder() -> None:
    script = Script((Phase(9.0, (1.0, 1.0)),))
    script.open()
    source = Teleoperation(script, SPEC, lambda why: None)
    stuck = State({}, np.zeros(2), np.zeros(2), np.ones(2, bool), 0, 0)
    intents = [source.at(period * SPEC.period_ns, stuck) for period in range(1, 200)]
    assert intents[-1] is not None
    np.testing.assert_allclose(intents[-1].action, LEASH_S * SPEED * VELOCITY)


def test_a_late_loop_makes_no_leap() -> None:
    script = Script((Phase(99.0, (1.0, 1.0)),))
    script.open()
    source = Teleoperation(script, SPEC, lambda why: None)
    at = np.zeros(2)
    for period in range(1, 50):
        state = State({}, at, np.zeros(2), np.ones(2, bool), period, 0)
        intent = source.at(period * SPEC.period_ns, state)
        assert intent is not None
        at = np.asarray(intent.action)
    script.phases = (Phase(99.0, (1.0, 1.0)),)
    intent = source.at(60 * SPEC.period_ns, State({}, at, np.zeros(2), np.ones(2, bool), 60, 0))
    assert intent is not None
    assert (intent.action - at).max() <= 2.001 * SPEED * VELOCITY / RATE


@pytest.mark.parametrize(
    ("phase", "words", "delay"),
    [
        (Phase(9.0, (1.0, 1.0), stop=True), "the operator has pressed stop", 0.0),
        (Phase(9.0, (1.0, 1.0), heard=False), "the operator has not been heard of for 3[0-9]{2} ms", HEARTBEAT_S),
        (None, "the operator's device is lost", 0.0),
    ],
)
def test_whoever_stops_or_is_lost_stops_everything_for_good(phase: Phase | None, words: str, delay: float) -> None:
    """S8: the first braking command comes in the period of the trigger, and the stop is latched."""
    rig = steered(Phase(0.99, (1.0, -1.0)), *([phase] if phase else []))
    rig.run(1.0 + delay)
    assert rig.governor.stopped is None
    rig.run(0.04)
    assert re.fullmatch(words, str(rig.governor.stopped))
    first = next(n for n, tick in enumerate(rig.ticks) if Reason.EMERGENCY_STOP in tick.command.reasons)
    assert first / RATE == pytest.approx(1.0 + delay, abs=0.041)
    rig.run(1.0)
    assert np.ptp(rig.positions()[-10:], axis=0).max() < 1e-9


class Policy:
    """Moves on a circle."""

    def at(self, now_ns: int, state: State) -> Intent:
        time = now_ns / 1e9
        return Intent(0.3 * np.array([np.sin(2 * time), np.cos(2 * time)]), now_ns, "policy")


def watched(*phases: Phase) -> Rig:
    """A policy that is watched by a person."""
    script = Script(phases)
    script.open()
    return Rig(lambda rig: takeover(script, Policy(), SPEC, rig.governor.emergency_stop))


def test_a_person_takes_over_by_the_switch_and_keeps_control_until_handing_back() -> None:
    """Letting go of the switch must not set the policy going again."""
    still = (0.0, 0.0)
    rig = watched(
        Phase(2.0, still, held=False),
        Phase(1.0, (0.5, 0.0)),
        Phase(1.0, still, held=False),
        Phase(0.1, still, held=False, release=True),
        Phase(9.0, still, held=False),
    )
    rig.run(7.0)
    sources = [tick.intent.source if tick.intent else None for tick in rig.ticks[1:]]
    changes = [n for n in range(1, len(sources)) if sources[n] != sources[n - 1]]
    assert [sources[n] for n in (0, *changes)] == ["policy", "teleoperation", "policy"]
    assert np.array(changes) / RATE == pytest.approx([2.0, 4.0], abs=0.05)
    assert rig.reasons() == set()
    np.testing.assert_allclose(rig.positions()[-1], 0.3 * np.array([np.sin(14.0), np.cos(14.0)]), atol=1e-9)


def test_who_hands_back_with_the_switch_held_does_not_take_over_at_once() -> None:
    still = (0.0, 0.0)
    rig = watched(
        Phase(0.5, still),
        Phase(0.1, still, release=True),
        Phase(0.5, still),
        Phase(0.1, still, held=False),
        Phase(9.0, still),
    )
    rig.run(1.5)
    sources = [tick.intent.source if tick.intent else None for tick in rig.ticks[1:]]
    changes = [n for n in range(1, len(sources)) if sources[n] != sources[n - 1]]
    assert [sources[n] for n in (0, *changes)] == ["teleoperation", "policy", "teleoperation"]
    assert np.array(changes) / RATE == pytest.approx([0.5, 1.2], abs=0.05)


def test_when_the_person_is_lost_the_policy_does_not_go_on() -> None:
    rig = watched(Phase(1.0, (0.0, 0.0), held=False), Phase(0.5, (1.0, 1.0)))
    rig.run(4.0)
    assert rig.governor.stopped == "the operator's device is lost"
    assert np.ptp(rig.positions()[-50:], axis=0).max() == 0.0


def test_it_works_in_the_real_loop() -> None:
    script = Script((Phase(0.3, (1.0, 0.0)), Phase(9.0, (0.0, 0.0), stop=True)))
    script.open()
    ticks = list[Tick]()
    loop = ControlLoop(
        Simulated(SPEC), Teleoperation(script, SPEC, lambda why: loop.governor.emergency_stop(why)), ticks.append
    )
    loop.run(5.0)
    assert loop.governor.stopped == "the operator has pressed stop"
    assert ticks[-1].command.position[0] > 0.01


class Typist:
    """A keyboard on a pseudo-terminal."""

    def __init__(self, elements: int = 2) -> None:
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.keyboard = Keyboard(elements, terminal=self.slave)
        self.keyboard.open()

    def type(self, text: str, now: float) -> Operation | None:
        """What is understood when this has been typed [s]."""
        os.write(self.master, text.encode())
        return self.read(now)

    def read(self, now: float) -> Operation | None:
        return self.keyboard.read(round(now * 1e9))


@pytest.fixture
def typist() -> Iterator[Typist]:
    made = Typist()
    yield made
    made.keyboard.close()
    for fd in (made.master, made.slave):
        if fd >= 0:
            os.close(fd)


@pytest.mark.parametrize(
    ("text", "motion"),
    [
        ("q", (1.0, 0.0)),
        ("a", (-1.0, 0.0)),
        ("w", (0.0, 1.0)),
        ("qs", (1.0, -1.0)),
        ("qa", (-1.0, 0.0)),
        ("Q", (SLOWLY, 0.0)),
    ],
)
def test_keys_move(typist: Typist, text: str, motion: tuple[float, float]) -> None:
    assert isinstance(typist.keyboard, Operator)
    operation = typist.type(text, 10.0)
    assert operation is not None
    assert tuple(operation.motion) == motion
    assert (operation.held, operation.stop, operation.release, operation.heard_ns) == (True, False, False, 10**10)


def test_a_key_counts_as_held_until_it_has_been_silent_for_long_enough(typist: Typist) -> None:
    typist.type("q", 1.0)
    typist.type("q", 1.2)
    held = typist.read(1.2 + HOLD_S)
    gone = typist.read(1.201 + HOLD_S)
    assert held is not None
    assert gone is not None
    assert (held.held, *held.motion) == (True, 1.0, 0.0)
    assert (gone.held, *gone.motion) == (False, 0.0, 0.0)


def test_other_keys_do_nothing_space_stops_for_good_and_enter_hands_back(typist: Typist) -> None:
    other = typist.type("xz\x1b[A\x1bOB\x1b[1;2D\x1bqé1", 1.0)
    assert other is not None
    assert (other.held, other.stop, other.release) == (False, False, False)
    enter = typist.type("\r", 2.0)
    assert enter is not None
    assert (enter.release, enter.held) == (True, False)
    after = typist.read(2.1)
    assert after is not None
    assert not after.release
    typist.type(" ", 3.0)
    later = typist.read(9.0)
    assert later is not None
    assert later.stop


def test_the_terminal_is_given_back_as_it_was(typist: Typist) -> None:
    assert termios.tcgetattr(typist.slave)[3] & (termios.ICANON | termios.ECHO) == 0
    assert termios.tcgetattr(typist.slave)[3] & termios.ISIG  # Ctrl-C still works
    typist.keyboard.close()
    assert termios.tcgetattr(typist.slave) == typist.before


def test_a_terminal_that_hangs_up_is_lost(typist: Typist) -> None:
    """As when the ssh connection breaks."""
    typist.type("q", 1.0)
    os.close(typist.master)
    typist.master = -1
    assert typist.read(1.1) is None
    assert typist.read(1.2) is None


def test_impossible_keyboards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="keys for 8 elements, but 9 to move"):
        Keyboard(9)
    with (tmp_path / "file").open("w") as file, pytest.raises(DeviceError, match="no terminal"):
        Keyboard(2, terminal=file.fileno()).open()


class Pad:
    """A gamepad's device file, which is a pipe: the kernel's events are written into it byte by byte."""

    def __init__(self, folder: Path, elements: int) -> None:
        path = folder / "js0"
        os.mkfifo(path)
        self.gamepad = Gamepad(elements, str(path))
        holder = os.open(path, os.O_RDWR)
        self.gamepad.open()
        self.wire: int | None = os.open(path, os.O_WRONLY)
        os.close(holder)

    def send(self, value: int, kind: int, number: int) -> None:
        assert self.wire is not None
        os.write(self.wire, struct.pack("<IhBB", 123, value, kind, number))

    def read(self, now: float = 1.0) -> Operation | None:
        return self.gamepad.read(round(now * 1e9))

    def unplug(self) -> None:
        if self.wire is not None:
            os.close(self.wire)
            self.wire = None


@pytest.fixture
def pad(tmp_path: Path) -> Iterator[Pad]:
    made = Pad(tmp_path, 3)
    yield made
    made.gamepad.close()
    made.gamepad.close()
    made.unplug()


def require(operation: Operation | None) -> Operation:
    assert operation is not None
    return operation


def test_axes_move_and_the_switch_is_a_button(pad: Pad) -> None:
    assert isinstance(pad.gamepad, Operator)
    assert not require(pad.read()).held
    pad.send(32767, 2, AXES[0])
    pad.send(-32767, 2, AXES[2])
    pad.send(-32767, 2, 2)  # a trigger, which nobody uses
    assert not require(pad.read()).held
    pad.send(1, 1, HELD)
    operation = require(pad.read())
    assert operation.held
    assert operation.motion.tolist() == [1.0, 0.0, -1.0]
    pad.send(0, 1, HELD)
    assert not require(pad.read()).held


@given(st.integers(-32767, 32767))
def test_the_dead_zone_has_no_edge(value: int) -> None:
    share = value / 32767
    found = beyond_dead_zone(share)
    assert found == pytest.approx(np.sign(share) * max(0.0, abs(share) - DEAD_ZONE) / (1 - DEAD_ZONE))
    assert abs(found) <= 1.0


def test_buttons_that_are_down_from_the_beginning_do_not_count(pad: Pad) -> None:
    """A pad that lies on its switch must not move anything when it is plugged in."""
    pad.send(1, 0x81, HELD)
    pad.send(1, 0x81, STOP)
    pad.send(16384, 0x82, AXES[1])
    operation = require(pad.read())
    assert (operation.held, operation.stop) == (False, False)
    assert operation.motion[1] == pytest.approx((0.5 - DEAD_ZONE) / (1 - DEAD_ZONE), abs=1e-4)
    pad.send(0, 1, HELD)
    pad.send(1, 1, HELD)
    assert require(pad.read()).held


def test_events_may_come_in_pieces(pad: Pad) -> None:
    assert pad.wire is not None
    event = struct.pack("<IhBB", 0, 1, 1, HELD)
    os.write(pad.wire, event[:3])
    assert not require(pad.read()).held
    os.write(pad.wire, event[3:] + event[:5])
    assert require(pad.read()).held
    os.write(pad.wire, event[5:])
    assert require(pad.read()).held


def test_stop_is_latched_and_release_is_told_once(pad: Pad) -> None:
    pad.send(1, 1, STOP)
    pad.send(0, 1, STOP)
    pad.send(1, 1, RELEASE)
    operation = require(pad.read())
    assert (operation.stop, operation.release) == (True, True)
    operation = require(pad.read())
    assert (operation.stop, operation.release) == (True, False)


def test_a_silent_pad_counts_as_let_go_of(pad: Pad) -> None:
    """Its radio link may be broken, with the stick deflected and the switch held for ever."""
    pad.send(1, 1, HELD)
    assert require(pad.read(1.0)).held
    assert require(pad.read(1.0 + PATIENCE_S)).held
    assert not require(pad.read(1.01 + PATIENCE_S)).held
    pad.send(100, 2, AXES[0])
    assert require(pad.read(9.0)).held


def test_an_unplugged_pad_is_lost(pad: Pad) -> None:
    pad.send(1, 1, HELD)
    pad.unplug()
    assert pad.read() is None
    assert pad.read() is None


def test_a_pad_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"gamepad .*/js7: No such file or directory; plug it in"):
        Gamepad(2, str(tmp_path / "js7")).open()

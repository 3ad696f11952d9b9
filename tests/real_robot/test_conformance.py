"""What every driver must do, shown before its emulator: a new device is one line of the table, and is tested here.

Emulators are processes that speak the real protocols; what was sent is what their own decoders say of it.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alula.commands.deployment.emulating import start_emulation
from alula.real_robot.contract import Device, Intent, State, Stop
from alula.real_robot.devices.dry_run import DryRun
from alula.real_robot.devices.registry import DEVICES, make_device
from alula.real_robot.emulators.emulation import Emulation
from alula.real_robot.governor import Governor
from alula.real_robot.loop import ControlLoop, Tick

pytestmark = pytest.mark.real_time

QUICK = ("so101",)
"""The others take as long again, or longer."""
EMULATED = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name, entry in DEVICES.items()
    if entry.emulator is not None
]
WAY = 0.1
"""How far the device is sent [rad, m]."""
NEAR = 0.03
"""What counts as having arrived: servos have backlash, drones drift."""
SILENCE_S = 1.0
"""Within which a dead link must have ended the run; the promises of each device are tested with it."""


@dataclasses.dataclass
class Emulated:
    """A running emulator, and the settings that find it."""

    emulation: Emulation
    config: Any

    @contextmanager
    def device(self) -> Iterator[Device]:
        """A driver that is configured, and closed in the end."""
        device = make_device(self.config)
        device.configure()
        try:
            yield device
        finally:
            device.close()


@pytest.fixture(scope="module", params=EMULATED)
def emulated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    """One emulator for all tests of a device."""
    with start(request.param, tmp_path_factory.mktemp(request.param)) as running:
        yield running


@contextmanager
def start(name: str, folder: Path) -> Iterator[Emulated]:
    """An emulator, for as long as the context lasts."""
    emulation, config = start_emulation(DEVICES[name].config(), folder)
    with emulation:
        yield Emulated(emulation, config)


class Wishes:
    """A source that does what a function of the state at the start and of the period's number says."""

    def __init__(self, wish: Callable[[np.ndarray, int], object]) -> None:
        self.wish, self.period = wish, -1
        self.start = np.zeros(0)

    def at(self, now_ns: int, state: State) -> Intent:
        self.period += 1
        if self.period == 0:
            self.start = state.position.copy()
        return Intent(np.asarray(self.wish(self.start, self.period)), now_ns, "policy")


def inwards(device: Device, start: np.ndarray) -> np.ndarray:
    """A place a little nearer to the middle of the range."""
    limits = device.spec.limits
    middle = (np.array(limits.low) + np.array(limits.high)) / 2
    return start + WAY * np.where(middle >= start, 1.0, -1.0)


def drive(device: Device, wish: Callable[[np.ndarray, int], object], seconds: float) -> tuple[ControlLoop, list[Tick]]:
    """A run of the loop."""
    ticks = list[Tick]()
    loop = ControlLoop(device, Wishes(wish), ticks.append)
    loop.run(seconds)
    return loop, ticks


def test_the_specification_needs_no_connection(emulated: Emulated) -> None:
    device = make_device(emulated.config)
    assert isinstance(device, Device)
    assert device.spec.name in DEVICES
    assert device.spec.stops[0] is Stop.HOLD


def test_it_goes_where_it_is_sent_from_where_it_is(emulated: Emulated) -> None:
    with emulated.device() as device:
        seen = len(emulated.emulation.log())
        loop, ticks = drive(device, lambda start, period: inwards(device, start), 2.0)
        assert loop.governor.stopped == "the run is over"
        np.testing.assert_array_equal(ticks[0].command.position, ticks[0].state.position)
        arrived = device.read().position
        goal = inwards(device, ticks[1].state.position)
        elements = np.arange(len(goal)) != (device.spec.grip.element if device.spec.grip else -1)
        assert np.abs(arrived - goal)[elements].max() < NEAR, (arrived, goal)
    entries = emulated.emulation.log()[seen:]
    assert [line for entry in entries for line in entry["violations"]] == []
    assert sum(entry["event"] == "command" for entry in entries) > 0.5 * len(ticks)


def test_whatever_is_wished_no_limit_is_broken(emulated: Emulated) -> None:
    generator = np.random.default_rng(0)

    def wish(start: np.ndarray, period: int) -> object:
        scale = 10.0 ** generator.uniform(-3, 4)
        kind = generator.integers(0, 8)
        action = start + scale * generator.standard_normal(len(start))
        if kind == 0 and period % 20 == 0:
            action[generator.integers(len(action))] = generator.choice([np.nan, np.inf, -np.inf, 1e38])
        return action[:-1] if kind == 1 and period % 20 == 0 else action

    with emulated.device() as device:
        seen = len(emulated.emulation.log())
        drive(device, wish, 2.0)
    entries = emulated.emulation.log()[seen:]
    assert any(entry["event"] == "command" for entry in entries)
    assert [line for entry in entries for line in entry["violations"]] == []


def test_nothing_but_the_governors_commands_is_taken(emulated: Emulated) -> None:
    with emulated.device() as device:
        device.activate()
        size = len(device.spec.limits.low)
        for anything in (np.zeros(size), [0.0] * size, None):
            with pytest.raises(TypeError, match="SafeCommand"):
                device.write(anything)  # type: ignore[arg-type]


def test_it_can_be_stopped_in_every_state_and_again(emulated: Emulated) -> None:
    device = make_device(emulated.config)
    for how in device.spec.stops[:2]:
        device.stop(how)
    device.configure()
    device.stop(Stop.HOLD)
    device.activate()
    device.stop(Stop.HOLD)
    device.stop(Stop.HOLD)
    state = device.activate()  # and goes on from there
    governor = Governor(device.spec)
    command = governor.start(state, time.monotonic_ns())
    np.testing.assert_array_equal(command.position, state.position)
    assert device.write(command).delivered
    device.stop(device.spec.after_fault)
    device.close()
    device.stop(Stop.HOLD)
    device.close()


def test_an_emergency_stop_brakes_at_once_and_for_good(emulated: Emulated) -> None:
    with emulated.device() as device:
        ticks = list[Tick]()
        source = Wishes(lambda start, period: inwards(device, start))
        loop = ControlLoop(device, source, ticks.append)
        stop_at = round(0.3 * device.spec.rate)
        inner = source.wish

        def wish(start: np.ndarray, period: int) -> object:
            if period == stop_at:
                loop.governor.emergency_stop("the button")
            return inner(start, period)

        source.wish = wish
        loop.run(10.0)
        assert loop.governor.stopped == "the button"
        braking = [tick.command for tick in ticks if "emergency_stop" in tick.command.reasons]
        speed = np.abs([command.velocity for command in braking]).max(axis=1)
        assert len(ticks) < stop_at + 2.0 * device.spec.rate
        assert speed[-1] <= speed[0] + 1e-9


def test_a_dry_run_sends_nothing(emulated: Emulated) -> None:
    before = emulated.emulation.ask(outcome=True)["commands"]
    dry = DryRun(make_device(emulated.config))
    dry.configure()
    positions = [dry.read().position]
    _, ticks = drive(dry, lambda start, period: inwards(dry, start), 0.4)
    positions.append(dry.read().position)
    dry.close()
    assert len(ticks) > 3
    assert not any(tick.receipt.delivered for tick in ticks)
    assert emulated.emulation.ask(outcome=True)["commands"] == before
    np.testing.assert_allclose(positions[0], positions[1], atol=NEAR)


@pytest.mark.parametrize("name", EMULATED)
def test_a_link_that_dies_ends_the_run_without_an_exception(name: str, tmp_path: Path) -> None:
    with start(name, tmp_path) as running:
        device = make_device(running.config)
        device.configure()
        killed = list[float]()

        def wish(start: np.ndarray, period: int) -> object:
            if period == round(0.3 * device.spec.rate):
                running.emulation.end()
                killed.append(time.monotonic())
            return inwards(device, start)

        loop, _ = drive(device, wish, 20.0)
        assert loop.governor.faulty
        assert time.monotonic() - killed[0] < SILENCE_S + 5.0  # the run, and the braking after it
        device.close()

"""The loop keeps time, never makes up for lost periods, and leaves the device at rest whatever happens."""

import gc
import time
from collections.abc import Callable

import numpy as np
import pytest

from alula.core.errors import DeviceError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.real_robot.contract import Device, DeviceSpec, Intent, Limits, State, Stop
from alula.real_robot.devices.simulated import Simulated
from alula.real_robot.governor import Governor, Reason, SafeCommand
from alula.real_robot.loop import ControlLoop, Tick

pytestmark = pytest.mark.real_time

LIMITS = Limits((-1.0, -1.0), (1.0, 1.0), (2.0, 2.0), (20.0, 20.0), (1000.0, 1000.0))
SPEC = DeviceSpec(
    "simulated",
    "simulated",
    SpaceSpec((FieldSpec("observation.state", (2,), units=("rad",)),)),
    SpaceSpec((FieldSpec("action", (2,), units=("rad",)),)),
    LIMITS,
    100.0,
    (Stop.HOLD, Stop.LIMP),
    None,
)


class Scripted:
    """A source that does what a function of the period's number says."""

    def __init__(self, wish: Callable[[int], object]) -> None:
        self.wish, self.period = wish, -1

    def at(self, now_ns: int, state: State) -> Intent | None:
        self.period += 1
        wish = self.wish(self.period)
        return None if wish is None else Intent(np.asarray(wish), now_ns, "policy")


def run(wish: Callable[[int], object], seconds: float = 0.3) -> tuple[ControlLoop, list[Tick], Simulated]:
    """A run on a simulated device."""
    device, ticks = Simulated(SPEC), list[Tick]()
    device.configure()
    loop = ControlLoop(device, Scripted(wish), ticks.append)
    loop.run(seconds)
    return loop, ticks, device


def test_no_garbage_is_looked_for_in_what_was_there_before() -> None:
    """It would take a tenth of a second beside torch."""
    frozen = list[int]()
    run(lambda period: frozen.append(gc.get_freeze_count()), seconds=0.05)
    assert min(frozen) > 10_000
    assert gc.get_freeze_count() == 0


def test_a_simulated_device_is_a_device() -> None:
    assert isinstance(Simulated(SPEC), Device)


def test_the_device_is_brought_to_where_it_is_wanted() -> None:
    _, ticks, device = run(lambda period: [0.1, -0.1], seconds=0.6)
    np.testing.assert_allclose(ticks[-1].command.position, [0.1, -0.1], atol=1e-3)
    time.sleep(0.1)
    np.testing.assert_allclose(device.read().position, [0.1, -0.1], atol=2e-3)


def test_at_the_end_it_has_come_to_rest() -> None:
    loop, ticks, _ = run(lambda period: [1.0, -1.0])
    assert np.ptp([tick.command.position for tick in ticks], axis=0).min() > 0.1
    assert (np.abs(loop.governor.speed) < 2e-3).all()
    assert loop.governor.stopped == "the run is over"


def test_a_source_that_fails_is_braked_for_and_its_error_told() -> None:
    device, ticks = Simulated(SPEC), list[Tick]()

    def fail(period: int) -> object:
        if period == 15:
            raise ValueError("no more ideas")
        return [1.0, 1.0]

    loop = ControlLoop(device, Scripted(fail), ticks.append)
    with pytest.raises(ValueError, match="no more ideas"):
        loop.run(1.0)
    assert Reason.EMERGENCY_STOP in ticks[-1].command.reasons
    assert (np.abs(loop.governor.speed) < 2e-3).all()


def test_lost_periods_are_counted_and_not_made_up_for() -> None:
    started = list[int]()

    def stall(period: int) -> object:
        started.append(time.monotonic_ns())
        if period == 5:
            time.sleep(0.055)
        return [0.0, 0.0]

    loop, _, _ = run(stall)
    assert loop.timing.overruns >= 3
    # No burst: periods never begin closer together than half a period.
    assert np.diff(started).min() > 0.5 * SPEC.period_ns


def test_a_device_that_is_silent_ends_the_run() -> None:
    class Silent(Simulated):
        def read(self) -> State:
            if not hasattr(self, "frozen"):
                self.frozen = super().read()
            return self.frozen

    loop = ControlLoop(Silent(SPEC), Scripted(lambda period: [0.5, 0.5]))
    loop.run(2.0)
    assert "has been silent" in str(loop.governor.stopped)


def test_devices_take_nothing_but_safe_commands() -> None:
    device = Simulated(SPEC)
    device.activate()
    with pytest.raises(TypeError, match="SafeCommand"):
        device.write(np.zeros(2))  # type: ignore[arg-type]


def test_a_limp_device_refuses_commands_until_it_is_active_again() -> None:
    device = Simulated(SPEC)
    command: SafeCommand = Governor(SPEC).start(device.activate(), time.monotonic_ns())
    device.stop(Stop.LIMP)
    device.stop(Stop.LIMP)
    with pytest.raises(DeviceError, match="not active"):
        device.write(command)
    device.activate()
    assert device.write(command).delivered

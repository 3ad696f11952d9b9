"""The UR5e's driver before an emulated controller, which decodes and judges every command by itself."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alula.core.errors import DeviceError
from alula.real_robot.contract import Device, Intent, State, Stop
from alula.real_robot.devices import ur5e
from alula.real_robot.devices.config import UR5eConfig
from alula.real_robot.devices.registry import make_device
from alula.real_robot.devices.ur5e import PLAYING, UR5e, specification
from alula.real_robot.devices.ur5e_script import DECELERATION
from alula.real_robot.devices.ur_link import Address
from alula.real_robot.emulators import ur
from alula.real_robot.emulators.emulation import Emulation
from alula.real_robot.governor import Governor, Reason
from alula.real_robot.loop import ControlLoop, Tick

pytestmark = pytest.mark.real_time

CONFIG = UR5eConfig(watchdog=0.4)
"""A busy machine may keep a controller from its work for longer than the default."""
LIMITS = specification(CONFIG).limits
HOME = np.array([2.775, -1.388, 1.883, -2.065, -1.571, -1.887])
"""Where the arm stands at first [rad]."""
AWAY = HOME + np.array([1.4, -0.6, 0.3, 0.3, 0.3, 0.8])
"""Somewhere higher, and so far that even from half way the first joint has farther to go than it may stay behind."""


class Bench:
    """An emulated controller and its drivers; for several tests, since it takes a second to start."""

    def __init__(self, folder: Path) -> None:
        limits = {**asdict(LIMITS), "rate": 125.0}
        self.emulation = Emulation(ur.__name__, folder, {"limits": limits, **ur.prepare(CONFIG, folder)[0]})
        self.address = self.emulation.address
        self._drivers = list[UR5e]()
        self._seen = 0

    def renew(self) -> None:
        """All faults are over, as if somebody had been at the pendant; drivers are gone."""
        self.emulation.ask(clear=True)
        self.leave()
        for command in ("unlock protective stop", "brake release", "stop"):
            Address.parse(self.address).ask([command])
        self._seen = len(self.emulation.log())

    def leave(self) -> None:
        """Drivers are gone."""
        for driver in self._drivers:
            driver.close()
        self._drivers.clear()

    def driver(self, **changes: Any) -> UR5e:
        """A driver that is not configured."""
        driver = make_device(replace(CONFIG, address=self.address, **changes))
        assert isinstance(driver, UR5e)
        self._drivers.append(driver)
        return driver

    def connected(self, **changes: Any) -> UR5e:
        """A driver that is configured."""
        driver = self.driver(**changes)
        driver.configure()
        return driver

    def fault(self, kind: str, **values: Any) -> None:
        """Something goes wrong from now on."""
        self.emulation.ask(fault={"kind": kind, **values})

    def log(self, event: str) -> list[dict[str, Any]]:
        """What it decoded in this test."""
        return [entry for entry in self.emulation.log()[self._seen :] if entry["event"] == event]

    def goals(self) -> np.ndarray:
        """Joints that it was sent to in this test, one row for each command [rad]."""
        return np.array([list(entry["goals"].values()) for entry in self.log("command")]).reshape(-1, 6)

    def require_no_violation(self) -> None:
        """Something has been commanded, and nothing of it broke a limit."""
        assert len(self.goals()) > 1
        assert [entry["violations"] for entry in self.emulation.log()[self._seen :] if entry["violations"]] == []


@pytest.fixture(scope="module")
def one_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("ur"))
    yield bench
    bench.leave()
    bench.emulation.end()


@pytest.fixture
def bench(one_bench: Bench) -> Bench:
    """The same emulator for all tests, without faults."""
    one_bench.renew()
    return one_bench


class Towards:
    """Wants to be at that of two places that is farther, and does something in a certain period."""

    def __init__(self, period: int = -1, action: Callable[[], None] = lambda: None) -> None:
        self.left, self.action = period, action
        self.goal: np.ndarray | None = None

    def at(self, now_ns: int, state: State) -> Intent:
        if self.goal is None:
            self.goal = max(HOME, AWAY, key=lambda place: float(np.linalg.norm(place - state.position)))
        self.left -= 1
        if self.left == 0:
            self.action()
        return Intent(self.goal, now_ns, "policy")


def run(device: Device, seconds: float, source: Towards | None = None) -> tuple[ControlLoop, list[Tick]]:
    """A run of the loop."""
    ticks = list[Tick]()
    loop = ControlLoop(device, source or Towards(), ticks.append)
    loop.run(seconds)
    return loop, ticks


def undisturbed(device: Device, seconds: float) -> list[Tick]:
    """A run to its end; on a busy machine some are rightly given up."""
    for _ in range(8):
        loop, ticks = run(device, seconds)
        if loop.governor.stopped == "the run is over" and not any(tick.state.faults for tick in ticks):
            return ticks
        time.sleep(0.2)
    raise AssertionError(f"no run comes to its end: {loop.governor.stopped}, {ticks[-1].state.faults}")


def struck(bench: Bench, words: str, **fault: Any) -> tuple[UR5e, list[Tick], int]:
    """A run that ends by a fault, for a reason with these words.

    On a busy machine the emulator may be silent for too long before; then it is tried again.

    Returns:
        The driver, the run, and when the fault began [ns].
    """
    for _ in range(8):
        times = list[int]()

        def strike(times: list[int] = times) -> None:
            bench.fault(**fault)
            times.append(time.monotonic_ns())

        driver = bench.connected()
        loop, ticks = run(driver, 1.5, Towards(15, strike))
        if times and words in str(loop.governor.stopped):
            break
        bench.renew()
    assert times
    assert words in str(loop.governor.stopped)
    return driver, ticks, times[0]


def test_configuring_moves_nothing_and_the_first_command_is_where_it_is(bench: Bench) -> None:
    driver = bench.connected()
    assert isinstance(driver, Device)
    assert not bench.log("program")
    assert not bench.log("inputs")
    before = driver.read()
    assert before.faults == ()
    assert before.valid.all()
    state = driver.activate()
    (loaded,) = bench.log("program")
    (registers,) = bench.log("inputs")
    assert registers["time_ns"] < loaded["time_ns"], "the program started before its registers were filled"
    assert not bench.log("command")
    np.testing.assert_allclose(state.position, before.position, atol=1e-6)
    ControlLoop(driver, Towards()).run(0.0)
    assert wait_for(lambda: bench.log("command"))
    np.testing.assert_allclose(bench.goals()[0], state.position, atol=1e-6)


def test_a_run_follows_its_policy_within_limits(bench: Bench) -> None:
    driver = bench.connected()
    ticks = undisturbed(driver, 0.8)
    assert wait_for(lambda: bench.log("ended"))
    bench.require_no_violation()
    commands = np.stack([tick.command.position for tick in ticks])
    # Every command is on the wire, to the last bit, in order, once.
    np.testing.assert_array_equal(bench.goals()[-len(commands) :], commands)
    errors = np.stack([tick.state.position - tick.command.position for tick in ticks])
    assert np.abs(errors).max() < LIMITS.following[0] / 2
    assert np.abs(np.ptp(commands, axis=0)).min() > 0.2
    assert all(tick.state.sequence > ticks[0].state.sequence for tick in ticks[10:])


def test_only_safe_commands_and_only_while_active(bench: Bench) -> None:
    driver = bench.connected()
    command = Governor(driver.spec).start(driver.activate(), time.monotonic_ns())
    driver.stop(Stop.HOLD)
    with pytest.raises(DeviceError, match="not active; call activate first"):
        driver.write(command)
    driver.activate()
    with pytest.raises(TypeError):
        driver.write(np.zeros(6))  # type: ignore[arg-type]
    assert driver.write(command).delivered


def test_stop_is_legal_in_every_state_and_ends_the_program(bench: Bench) -> None:
    driver = bench.driver()
    for how in Stop:
        driver.stop(how)
    driver.configure()
    driver.stop(Stop.HOLD)
    for times in (1, 2):
        driver.activate()
        for how in Stop:
            driver.stop(how)
        assert wait_for(lambda times=times: len(bench.log("ended")) == times)
        assert driver.read().faults == (), "a program that was ended on purpose is no fault"
    assert [entry["why"] for entry in bench.log("ended")] == ["by itself"] * 2
    driver.close()
    driver.stop(Stop.BRAKE)
    driver.close()


def wait_for(reached: Callable[[], Any], seconds: float = 10.0) -> bool:
    """Whether something comes to be."""
    end = time.monotonic() + seconds
    while not reached() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(reached())


def test_stop_brakes_an_arm_that_moves(bench: Bench) -> None:
    """Even where nobody has braked before."""
    driver = bench.connected()
    with pytest.raises(DeviceError, match="not active"):
        run(driver, 2.0, Towards(15, lambda: driver.stop(Stop.HOLD)))
    assert wait_for(lambda: bench.log("ended"))
    assert wait_for(lambda: np.abs(driver.read().velocity).max() < 1e-3)
    assert LIMITS.acceleration[0] >= DECELERATION


CONTROLLER = """
import sys
from alula.real_robot.contract import Intent
from alula.real_robot.devices.config import UR5eConfig
from alula.real_robot.devices.registry import make_device
from alula.real_robot.loop import ControlLoop

class Away:
    def at(self, now_ns, state):
        print("moving", flush=True)
        return Intent(state.position * 0.0, now_ns, "policy")

driver = make_device(UR5eConfig(address=sys.argv[1], watchdog=0.4))
driver.configure()
ControlLoop(driver, Away()).run(20.0)
"""


def test_the_robot_stops_by_itself_when_its_controller_is_killed(bench: Bench) -> None:
    process = subprocess.Popen([sys.executable, "-c", CONTROLLER, bench.address], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert wait_for(lambda: len(bench.log("command")) > 40, 20.0)
    process.kill()
    process.communicate()
    assert wait_for(lambda: bench.log("ended"))
    (ended,), last = bench.log("ended"), bench.log("command")[-1]
    assert ended["why"] == "watchdog of input_int_register_24"
    silence = (ended["time_ns"] - last["time_ns"]) / 1e9
    assert CONFIG.watchdog <= silence < CONFIG.watchdog + 0.3
    watcher = bench.connected()
    assert wait_for(lambda: np.abs(watcher.read().velocity).max() < 1e-3)
    bench.require_no_violation()
    undisturbed(watcher, 0.1)
    assert watcher.read().faults == ()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("protective_stop", "protective stop"),
        ("emergency_stop", "robot emergency stop"),
        ("powered_off", "the arm's mode is power off"),
        ("script_killed", "its program is stopped"),
        ("local_control", "its program is stopped"),
    ],
)
def test_what_stops_the_arm_ends_the_run(bench: Bench, kind: str, words: str) -> None:
    driver, ticks, _ = struck(bench, words, kind=kind)
    assert Reason.DEVICE_FAULT in ticks[-1].command.reasons
    first = next(index for index, tick in enumerate(ticks) if tick.state.faults)
    assert words in "; ".join(ticks[first].state.faults)
    assert Reason.EMERGENCY_STOP in ticks[first].command.reasons, "not at once"
    bench.require_no_violation()
    with pytest.raises(DeviceError, match="not active"):
        driver.write(ticks[-1].command)
    if kind != "script_killed":
        with pytest.raises(DeviceError, match=r"cannot be activated|remote control"):
            driver.activate()
    # Only a person, and then a new beginning, ends it.
    bench.renew()
    driver = bench.connected()
    assert driver.activate().faults == ()


@pytest.mark.parametrize("kind", ["reset", "half_open", "frozen"])
def test_a_lost_link_is_noticed_within_a_tenth_of_a_second(bench: Bench, kind: str) -> None:
    driver, ticks, begun = struck(bench, "no connection" if kind == "reset" else "silent", kind=kind)
    before = [tick for tick in ticks if tick.command.time_ns < begun]
    ended = next(tick for tick in ticks if Reason.EMERGENCY_STOP in tick.command.reasons)
    assert len({tick.state.sequence for tick in ticks}) <= len(before) + 3, "the sequence went on rising"
    # A period or two beyond, as the last answer may be younger than the fault; a busy machine adds to it.
    assert (ended.command.time_ns - begun) / 1e9 < 0.1 + 0.15
    assert ticks[-1].receipt.delivered == (kind != "reset")
    positions = np.stack([tick.command.position for tick in ticks])
    assert np.ptp(positions[-2:], axis=0).max() < 1e-4, "it did not come to rest"
    # Nothing comes back by itself.
    bench.emulation.ask(clear=True)
    with pytest.raises(DeviceError, match="not active"):
        driver.write(ticks[-1].command)
    driver.close()
    bench.require_no_violation()
    driver.configure()
    assert driver.activate().valid.all()


@pytest.mark.parametrize(
    "fault", [{"kind": "partial"}, {"kind": "drop", "probability": 0.3}, {"kind": "delay", "value": 4.0}]
)
def test_a_poor_link_is_no_fault(bench: Bench, fault: dict[str, Any]) -> None:
    driver = bench.connected()
    bench.fault(**fault)
    undisturbed(driver, 0.4)
    bench.require_no_violation()


def test_nonsense_never_raises_and_never_breaks_a_limit(bench: Bench) -> None:
    for _ in range(4):
        driver = bench.connected()
        loop, _ = run(driver, 0.5, Towards(10, lambda: bench.fault("corrupt", probability=0.5)))
        assert loop.governor.stopped is not None
        assert np.isfinite(driver.read().position).all()
        driver.close()
        bench.emulation.ask(clear=True)
    bench.require_no_violation()


def test_a_position_that_is_no_number_is_not_valid(bench: Bench) -> None:
    driver, ticks, _ = struck(bench, "", kind="nan", target=3)
    assert Reason.STALE_STATE in ticks[-1].command.reasons
    assert ticks[-1].state.valid.tolist() == [True, True, False, True, True, True]
    assert np.isfinite(np.stack([tick.state.position for tick in ticks])).all()
    assert len({tick.state.position[2] for tick in ticks if not tick.state.valid[2]}) == 1, "its last is repeated"
    bench.require_no_violation()
    with pytest.raises(DeviceError, match="cannot be activated: no position of elbow"):
        driver.activate()


@pytest.mark.parametrize("fault", [{"kind": "stuck_joint"}, {"kind": "encoder_jump", "value": 1.0}])
def test_an_arm_that_is_not_where_it_was_sent_ends_the_run(bench: Bench, fault: dict[str, Any]) -> None:
    _, ticks, _ = struck(bench, "does not follow", target=1, **fault)
    assert Reason.NOT_FOLLOWING in ticks[-1].command.reasons
    bench.require_no_violation()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("old_protocol", "does not speak RTDE version 2"),
        ("old_software", r"'URSoftware 3.15.8.* must be a robot of the e-Series"),
        ("other_model", r"'UR10' to 'get robot model', not 'UR5e\?': it must be a UR5e"),
        ("powered_off", "Robotmode: POWER_OFF.*release its brakes"),
        ("emergency_stop", "ROBOT_EMERGENCY_STOP.*clear what stopped it"),
        ("local_control", "choose remote control"),
        ("registers_taken", "IN_USE of input_double_register_24.*another program or a fieldbus"),
        ("half_open", "does not answer"),
    ],
)
def test_what_cannot_be_used_is_refused(bench: Bench, kind: str, words: str) -> None:
    driver = bench.driver()
    bench.fault(kind)
    time.sleep(0.02)
    with pytest.raises(DeviceError, match=words):
        driver.configure()
    assert not bench.log("program")
    assert not driver.read().valid.any()
    assert "no connection" in driver.read().faults[0]


def test_a_slow_controller_is_waited_for(bench: Bench) -> None:
    bench.fault("slow_handshake", value=60.0)
    assert bench.connected().activate().faults == ()


def test_a_program_that_does_not_start_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ur5e, "START_S", 0.3)
    driver = bench.connected()
    bench.fault("script_ignored")
    with pytest.raises(DeviceError, match="cannot be activated: its program is stopped"):
        driver.activate()
    monkeypatch.undo()
    bench.emulation.ask(clear=True)
    assert driver.activate().faults == ()


def test_another_program_is_left_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ur5e, "END_S", 0.3)
    driver = bench.connected()
    with Address.parse(bench.address).run("def rtde_control():\n  sync()\nend\n"):
        assert wait_for(lambda: driver.read() and driver._values["runtime_state"] == PLAYING)
    with pytest.raises(DeviceError, match="runs another program: stop that at the pendant"):
        driver.activate()
    assert not bench.log("ended")


def test_a_second_controller_is_refused(bench: Bench) -> None:
    first = bench.connected()
    with pytest.raises(DeviceError, match="IN_USE of input_double_register_24"):
        bench.connected()
    undisturbed(first, 0.1)
    bench.require_no_violation()


def test_another_payload_is_refused(bench: Bench) -> None:
    with pytest.raises(DeviceError, match=r"carries 0.0 kg, device.tool_mass is 1.1 kg"):
        bench.connected(tool_mass=1.1)


def test_other_programs_are_not_run(bench: Bench) -> None:
    with Address.parse(bench.address).run("def anything():\n  movej([0, 0, 0, 0, 0, 0])\nend\n"):
        assert wait_for(lambda: bench.log("message"))
    assert "this emulator knows only two" in bench.log("message")[0]["text"]

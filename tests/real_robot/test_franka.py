"""The Franka's driver, on genuine franky, before an emulated robot that judges every set point of the 1 kHz stream."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("franky", reason="franky-control is missing")

from alula.core.errors import ConfigError, DeviceError
from alula.real_robot.contract import Device, Intent, State, Stop
from alula.real_robot.devices import franka as driver_module
from alula.real_robot.devices.config import FrankaConfig
from alula.real_robot.devices.franka import CATCH_UP, DECELERATION, HIGH, LOW, OFFSET, RATE, Franka, specification
from alula.real_robot.emulators import franka as emulator_module
from alula.real_robot.emulators.emulation import Emulation
from alula.real_robot.loop import ControlLoop, Tick

pytestmark = [pytest.mark.real_time, pytest.mark.slow]  # every test connects anew

SPEC = specification(FrankaConfig())
LIMITS = {"rate": RATE} | {
    name: getattr(SPEC.limits, name) for name in ("low", "high", "velocity", "acceleration", "jerk")
}


class Emulated(Emulation):
    """The emulator's process, and what the wire looked like."""

    def __init__(self, folder: Path, *faults: dict[str, Any], **changes: Any) -> None:
        setup, self.changes = emulator_module.prepare(FrankaConfig(), folder)
        shared = {"limits": LIMITS, "scene": None, "faults": list(faults), "seed": 0}
        super().__init__(emulator_module.__name__, folder, setup | shared | changes)

    @property
    def config(self) -> FrankaConfig:
        """What the driver is told."""
        return replace(FrankaConfig(), address=self.address, **self.changes)

    def set_points(self) -> np.ndarray:
        """Of all joints, one row each."""
        return np.array([list(entry["goals"].values()) for entry in self.log() if entry["event"] == "command"])

    def events(self) -> list[str]:
        """What has happened, but for set points."""
        return [entry["event"] for entry in self.log() if entry["event"] != "command"]

    def require_no_violation(self) -> None:
        """Something has been commanded, and nothing of it broke a limit."""
        assert len(self.set_points()) > 1
        assert self.violations() == []


Emulate = Callable[..., Emulated]
Connect = Callable[[Emulated], Franka]


@pytest.fixture
def emulate(tmp_path: Path) -> Iterator[Emulate]:
    started = list[Emulated]()

    def start(*faults: dict[str, Any], **changes: Any) -> Emulated:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(Emulated(folder, *faults, **changes))
        return started[-1]

    yield start
    for emulated in started:
        emulated.end()


@pytest.fixture
def connect(emulate: Emulate) -> Iterator[Connect]:
    devices = list[Franka]()

    def connect(emulated: Emulated) -> Franka:
        devices.append(Franka(emulated.config))
        devices[-1].configure()
        return devices[-1]

    yield connect
    for device in devices:
        device.close()


class Towards:
    """Wants every joint somewhere else, by default a little aside."""

    def __init__(self, way: float = 0.2, target: np.ndarray | None = None) -> None:
        self.way, self.target = way, target

    def at(self, now_ns: int, state: State) -> Intent:
        if self.target is None:
            self.target = state.position + self.way
        return Intent(self.target, now_ns, "policy")


def run(device: Franka, seconds: float, source: Towards | None = None) -> tuple[ControlLoop, list[Tick]]:
    """A run of the loop."""
    ticks = list[Tick]()
    loop = ControlLoop(device, source or Towards(), ticks.append)
    loop.run(seconds)
    return loop, ticks


def run_through(device: Franka, seconds: float, source: Towards | None = None) -> tuple[ControlLoop, list[Tick]]:
    """A run to its end; on a busy machine the emulator may be silent for so long that one rightly ends sooner."""
    for _ in range(4):
        loop, ticks = run(device, seconds, source)
        if loop.governor.stopped == "the run is over":
            break
        time.sleep(0.3)
    assert loop.governor.stopped == "the run is over"
    return loop, ticks


def settle(device: Franka) -> State:
    """The state once the arm rests; a busy machine takes its time."""
    for _ in range(100):
        state = device.read()
        if (np.abs(state.velocity) < 1e-3).all():
            break
        time.sleep(0.05)
    return state


def test_nothing_moves_before_it_is_activated_and_then_from_where_it_is(emulate: Emulate, connect: Connect) -> None:
    emulated = emulate()
    device = connect(emulated)
    assert isinstance(device, Device)
    assert device.spec.device_watchdog == 0.02
    time.sleep(0.05)
    assert emulated.log() == [], "something was commanded while it was only configured"
    before = device.read()
    state = device.activate()
    device.close()
    assert state.valid.all()
    assert state.faults == ()
    assert state.sequence > before.sequence
    np.testing.assert_allclose(state.position, before.position, atol=1e-3)
    start = next(entry for entry in emulated.log() if entry["event"] == "start")
    np.testing.assert_allclose(start["positions"], before.position, atol=1e-3)
    np.testing.assert_allclose(emulated.set_points(), [start["positions"]] * len(emulated.set_points()), atol=1e-9)


def test_a_run_reaches_its_target_within_limits(emulate: Emulate, connect: Connect) -> None:
    emulated = emulate()
    device = connect(emulated)
    _, ticks = run_through(device, 1.5)
    end = settle(device)
    device.close()
    emulated.require_no_violation()
    first, last = ticks[0], ticks[-1]
    np.testing.assert_allclose(first.command.position, first.state.position, atol=2e-3)
    # On a busy machine the arm goes on a little before it stops by itself.
    np.testing.assert_allclose(emulated.set_points()[-1], last.command.position, atol=0.05)
    np.testing.assert_allclose(end.position, emulated.set_points()[-1], atol=0.01)
    assert (last.command.position > first.state.position + 0.1).all()
    for name, shape in {"state": 7, "velocity": 7, "effort": 7, "wrench": 6}.items():
        assert end.observation[f"observation.{name}"].shape == (shape,)
    assert end.observation["observation.state"].dtype == np.float32
    np.testing.assert_array_equal(end.observation["observation.state"], end.position.astype(np.float32))


@pytest.mark.parametrize("way", [pytest.param(-9.0, marks=pytest.mark.slow), 9.0], ids=["low", "high"])
def test_joints_stay_inside_their_limits_at_full_speed(emulate: Emulate, way: float) -> None:
    """The last joint, which has the most room; with others the arm would hit the table."""
    limits = specification(FrankaConfig(dynamics=0.8)).limits
    emulated = emulate(limits=LIMITS | {name: getattr(limits, name) for name in ("low", "high")})
    device = Franka(replace(emulated.config, dynamics=0.8))
    device.configure()
    end = limits.high[6] if way > 0 else limits.low[6]
    target = device.read().position + way * np.eye(7)[6]
    for _ in range(6):  # on a busy machine a run may end sooner
        run(device, 2.0, Towards(target=target))
        if abs(settle(device).position[6] - end) < 0.05:
            break
    device.close()
    emulated.require_no_violation()
    assert abs(emulated.set_points()[-1, 6] - end) < 0.05, "the joint has not come to its end"


@given(st.floats(0.01, 0.8), st.integers(0, 6), st.floats(0.0, 1.0))
def test_braking_in_time_is_slow_enough_near_the_ends(dynamics: float, joint: int, part: float) -> None:
    """Theory: the robot stops by itself when a joint is faster than it may be so near its end; we never are."""
    limits = specification(FrankaConfig(dynamics=dynamics)).limits
    room = part * (limits.high[joint] - limits.low[joint])
    speed = min(limits.velocity[joint], np.sqrt(2 * limits.acceleration[joint] * room))
    for gap in (HIGH[joint] - limits.high[joint], limits.low[joint] - LOW[joint]):
        allowed = np.sqrt(OFFSET[joint] ** 2 + 2 * DECELERATION[joint] * (room + gap)) - OFFSET[joint]
        assert speed <= allowed
        assert gap * DECELERATION[joint] >= OFFSET[joint] * CATCH_UP * limits.velocity[joint] * (1 - 1e-9)


def test_a_share_of_the_dynamics_is_one() -> None:
    for dynamics in (0.0, 0.9, float("nan")):
        with pytest.raises(ConfigError, match=r"device.dynamics is .*; allowed are 0.01 to 0.8"):
            FrankaConfig(dynamics=dynamics)


def test_only_safe_commands_are_taken(emulate: Emulate, connect: Connect) -> None:
    emulated = emulate()
    device = connect(emulated)
    loop, _ = run(device, 0.0)
    with pytest.raises(TypeError):
        device.write(np.zeros(7))  # type: ignore[arg-type]
    other = connect(emulate())
    with pytest.raises(DeviceError, match="not active; call activate first"):
        other.write(loop.governor.start(device.read(), time.monotonic_ns()))
    assert emulated.events() == ["start"]


def test_a_reflex_is_told_in_words_and_only_activation_recovers(emulate: Emulate, connect: Connect) -> None:
    emulated = emulate({"kind": "reflex", "start": 20, "duration": 1})
    device = connect(emulated)
    loop, ticks = run(device, 1.5)
    assert "joint_reflex" in str(loop.governor.stopped) or "silent" in str(loop.governor.stopped)  # on a busy machine
    assert not ticks[-1].receipt.delivered
    state = settle(device)
    assert any("the robot's mode is Reflex because of" in fault for fault in state.faults)
    assert emulated.events() == ["start"], "it has been started again without being asked"
    emulated.ask(fault={"kind": "reflex", "start": 10**6})  # the console still answers
    again = device.activate()
    assert again.faults == ()
    assert emulated.events() == ["start", "start"]
    loop, _ = run(device, 0.3)
    assert "joint_reflex" not in str(loop.governor.stopped)
    emulated.require_no_violation()


@pytest.mark.parametrize(
    ("kind", "said", "remedy"),
    [("user_stop", "User Stop pressed", "release the user stop"), ("guiding", "preempted", "let go of the guiding")],
)
def test_hands_on_the_robot_end_the_run(emulate: Emulate, connect: Connect, kind: str, said: str, remedy: str) -> None:
    emulated = emulate({"kind": kind, "start": 10})
    device = connect(emulated)
    loop, _ = run(device, 1.5)
    assert said in str(loop.governor.stopped) or "silent" in str(loop.governor.stopped)  # on a busy machine
    with pytest.raises(DeviceError, match=f"cannot be activated: .*{remedy}"):
        device.activate()
    emulated.require_no_violation()


@pytest.mark.parametrize("kind", ["silent", "frozen", "reset"])
def test_a_lost_link_is_noticed_soon_and_blocks_nothing(emulate: Emulate, connect: Connect, kind: str) -> None:
    """Alone, libfranka waits for a second, or for ever when the same state comes again and again."""
    emulated = emulate({"kind": kind, "start": 20})
    device = connect(emulated)
    loop, ticks = run(device, 3.0)
    assert loop.governor.faulty
    ages = [time.monotonic_ns() - ticks[-1].state.received_ns, ticks[-1].command.time_ns - ticks[-1].state.received_ns]
    assert min(ages) < 1e9, "the run should have ended long before libfranka gives up"
    durations = list[int]()
    for _ in range(20):
        begun = time.monotonic_ns()
        state = device.read()
        durations.append(time.monotonic_ns() - begun)
    # The quickest: a busy machine may be late at times, but not always.
    assert min(durations) < device.spec.period_ns
    assert state.faults
    begun = time.monotonic()
    device.stop(Stop.BRAKE)
    device.close()
    device.close()
    assert time.monotonic() - begun < 2 * driver_module.ANSWER_S
    assert "watchdog" in emulated.events(), "the robot has not noticed that nobody answers"
    emulated.require_no_violation()


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "drop", "probability": 0.05},
        {"kind": "deaf", "probability": 0.05},
        pytest.param({"kind": "late", "value": 30, "start": 50}, marks=pytest.mark.slow),
        {"kind": "nan", "start": 10},
        {"kind": "jump", "target": 3, "value": 1.0, "start": 10},
        pytest.param({"kind": "deaf", "start": 10}, marks=pytest.mark.slow),
    ],
    ids=lambda fault: f"{fault['kind']}-{fault.get('probability', 1)}",
)
def test_no_fault_raises_or_breaks_a_limit(emulate: Emulate, connect: Connect, fault: dict[str, Any]) -> None:
    emulated = emulate({"start": 5} | fault)
    device = connect(emulated)
    loop, ticks = run(device, 0.8)
    device.close()
    emulated.require_no_violation()
    stopped, faults = str(loop.governor.stopped), " ".join(text for tick in ticks for text in tick.state.faults)
    match fault["kind"]:
        case "nan":
            assert not ticks[-1].state.valid.any()
            assert loop.governor.faulty
        case "jump":
            assert "does not follow" in stopped
        case "deaf" if "probability" not in fault:
            assert "communication_constraints_violation" in faults


KILLED = """
import sys
from alula.real_robot.contract import Intent
from alula.real_robot.devices.config import FrankaConfig
from alula.real_robot.devices.franka import Franka
from alula.real_robot.loop import ControlLoop

class Onwards:
    first = None
    def at(self, now_ns, state):
        self.first = state.position if self.first is None else self.first
        print("tick", flush=True)
        return Intent(self.first + 0.5, now_ns, "policy")

device = Franka(FrankaConfig(address=sys.argv[1], realtime=False))
device.configure()
ControlLoop(device, Onwards()).run(30.0)
"""


def test_the_robot_stops_by_itself_when_its_controller_is_killed(emulate: Emulate, connect: Connect) -> None:
    emulated = emulate()
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, emulated.address], stdout=subprocess.PIPE, text=True
    ) as doomed:
        assert doomed.stdout is not None
        for _ in range(40):
            assert doomed.stdout.readline() == "tick\n"
        doomed.kill()
    for _ in range(100):
        if "watchdog" in emulated.events():
            break
        time.sleep(0.05)
    assert emulated.events() == ["start", "watchdog"]
    emulated.require_no_violation()
    device = connect(emulated)
    first = settle(device)
    assert any("communication_constraints_violation" in fault for fault in first.faults)
    np.testing.assert_allclose(device.read().position, first.position, atol=1e-4)
    state = device.activate()
    assert state.faults == ()
    np.testing.assert_allclose(state.position, first.position, atol=5e-3)


def test_a_program_that_stalls_stops_the_arm(emulate: Emulate, connect: Connect) -> None:
    """The thread of franky goes on answering, but the last velocity is kept only for a moment."""
    emulated = emulate()
    device = connect(emulated)
    loop = ControlLoop(device, source := Towards())
    state = device.activate()
    now = time.monotonic_ns()
    device.write(loop.governor.start(state, now))
    for _ in range(25):
        time.sleep(1 / RATE)
        state, now = device.read(), time.monotonic_ns()
        device.write(loop.governor(source.at(now, state), state, now))
    time.sleep(0.5)
    set_points = emulated.set_points()
    assert np.ptp(set_points, axis=0).max() > 0.005, "it has never moved"
    np.testing.assert_allclose(np.diff(set_points[-20:], axis=0), 0.0, atol=1e-9)
    emulated.require_no_violation()


def test_stopping_is_legal_always_and_again(emulate: Emulate, connect: Connect) -> None:
    emulated = emulate()
    device = Franka(emulated.config)
    for how in Stop:
        device.stop(how)
    device.configure()
    device.stop(Stop.HOLD)
    assert emulated.log() == []
    run(device, 0.3)
    for how in (Stop.BRAKE, Stop.HOLD, Stop.BRAKE):
        device.stop(how)
    held = settle(device)
    assert held.faults == ()
    assert (np.abs(held.velocity) < 1e-3).all()
    device.close()
    device.stop(Stop.HOLD)
    emulated.require_no_violation()


def test_it_can_be_connected_again_and_again(emulate: Emulate) -> None:
    emulated = emulate()
    device = Franka(emulated.config)
    for _ in range(3):
        device.configure()
        run(device, 0.1)
        device.close()
    device.configure()
    device.configure()
    assert device.read().valid.all()
    device.close()
    with pytest.raises(DeviceError, match="not connected; call configure first"):
        device.read()
    assert emulated.events() == ["start"] * 3
    assert "watchdog" not in emulated.events()


def test_only_one_program_may_be_connected(emulate: Emulate, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "CONNECT_S", 1.0)
    emulated = emulate()
    connect(emulated)
    with pytest.raises(DeviceError, match="only one program at a time may be connected"):
        connect(emulated)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "panda"}, r"is a 'panda', not a Franka Research 3"),
        (
            {"version": 9},
            r"cannot be connected to: .*server version: 9, library version: 10",
        ),
        ({"faults": [{"kind": "mute"}]}, r"cannot be connected to: no answer within 0.5 s"),
    ],
    ids=["model", "version", "mute"],
)
def test_another_robot_is_refused(
    emulate: Emulate, connect: Connect, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(driver_module, "CONNECT_S", 0.5)
    emulated = emulate(**changes)
    with pytest.raises(DeviceError, match=message):
        connect(emulated)
    assert emulated.log() == []


def test_a_robot_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"'127.255.0.1' cannot be connected to: .*refused.*activate FCI"):
        Franka(FrankaConfig(address="127.255.0.1")).configure()


@pytest.mark.skipif(Path("/sys/kernel/realtime").exists(), reason="this kernel is a real-time kernel")
def test_a_kernel_without_real_time_is_refused(emulate: Emulate) -> None:
    device = Franka(replace(emulate().config, realtime=True))
    with pytest.raises(DeviceError, match=r"realtime capabilities.* device.realtime=false"):
        device.configure()

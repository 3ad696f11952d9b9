"""The SO-101's driver before an emulator of its servos, which decodes and judges every goal by itself."""

import ast
import inspect
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alula.core.errors import DeviceError
from alula.real_robot.codecs import feetech
from alula.real_robot.contract import Device, Intent, State, Stop
from alula.real_robot.devices.so101 import JOINTS, SERVOS, SO101, TORQUE_LIMIT, Calibration
from alula.real_robot.emulators import feetech as emulator_module
from alula.real_robot.governor import Reason
from alula.real_robot.loop import ControlLoop, Tick
from alula.real_robot.serial_bus import SerialBus

CALIBRATION = {
    "expires": "9999-12-31",
    "servos": {
        joint: {"zero": 2048, "low": 600 if joint != "gripper" else 1940, "high": 3500, "homing_offset": -7 * servo}
        for servo, joint in zip(SERVOS, JOINTS, strict=True)
    },
}
TARGET = np.array([0.3, -0.3, 0.2, -0.2, 0.4, 0.5])


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(CALIBRATION), encoding="utf-8")
    return path


class Emulated:
    """The emulator's process."""

    def __init__(self, folder: Path, setup: dict[str, Any]) -> None:
        self._log = folder / "log.jsonl"
        setup["log"] = str(self._log)
        (folder / "setup.json").write_text(json.dumps(setup), encoding="utf-8")
        command = [sys.executable, "-m", emulator_module.__name__, str(folder / "setup.json")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = self.process.stdout.readline().strip()

    def log(self) -> list[dict[str, Any]]:
        """What it has decoded."""
        return [json.loads(line) for line in self._log.read_text(encoding="utf-8").splitlines()]

    def goals(self) -> np.ndarray:
        """Decoded goals of all servos since torque came on, one row each [count]."""
        log = self.log()
        first = next(index for index, entry in enumerate(log) if entry["event"] == "torque")
        return np.array([list(entry["goals"].values()) for entry in log[first:] if entry["event"] == "goals"])

    def require_no_violation(self) -> None:
        """Something has been commanded, and nothing of it broke a limit."""
        assert len(self.goals()) > 1
        assert [entry["violations"] for entry in self.log() if entry["violations"]] == []

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def emulate(tmp_path: Path, calibration: Path) -> Iterator[Callable[..., Emulated]]:
    """Starts an emulator; it judges by limits in counts that are computed here."""
    started = list[Emulated]()
    allowed, scale = Calibration.load(calibration).limits(), 4096 / (2 * np.pi)
    limits: dict[str, Any] = {"rate": 50.0}
    for name, zero in (("low", 2048), ("high", 2048), ("velocity", 0), ("acceleration", 0), ("jerk", 0)):
        limits[name] = [zero + scale * value for value in getattr(allowed, name)]

    def start(*faults: dict[str, Any], **changes: dict[str, Any]) -> Emulated:
        servos = {servo: {"position": 2000 + 10 * servo, "homing_offset": -7 * servo} for servo in SERVOS}
        for joint, change in changes.items():
            servos[SERVOS[JOINTS.index(joint)]].update(change)
        started.append(Emulated(tmp_path, {"servos": servos, "limits": limits, "faults": list(faults)}))
        return started[-1]

    yield start
    for emulated in started:
        emulated.end()


class Towards:
    """Wants to be at one place, and does something in a certain period."""

    def __init__(self, period: int = -1, action: Callable[[], None] = lambda: None) -> None:
        self.left, self.action = period, action

    def at(self, now_ns: int, state: State) -> Intent:
        self.left -= 1
        if self.left == 0:
            self.action()
        return Intent(TARGET, now_ns, "policy")


def run(device: SO101, seconds: float, source: Towards | None = None) -> tuple[ControlLoop, list[Tick]]:
    """A run of the loop."""
    ticks = list[Tick]()
    loop = ControlLoop(device, source or Towards(), ticks.append)
    loop.run(seconds)
    return loop, ticks


@pytest.fixture
def connect(calibration: Path) -> Iterator[Callable[[Emulated], SO101]]:
    """Configures a driver, and closes it at the end."""
    devices = list[SO101]()

    def connect(emulated: Emulated) -> SO101:
        devices.append(SO101(emulated.port, calibration))
        devices[-1].configure()
        return devices[-1]

    yield connect
    for device in devices:
        device.close()


Emulate, Connect = Callable[..., Emulated], Callable[[Emulated], SO101]


def test_the_first_goal_is_where_the_arm_is(emulate: Emulate, connect: Connect) -> None:
    emulated = emulate()
    device = connect(emulated)
    assert isinstance(device, Device)
    assert not emulated.log(), "something was commanded while it was only configured"
    state = device.activate()
    assert state.valid.all()
    np.testing.assert_allclose(state.position, (np.arange(6) * 10 + 2010 - 2048) * 2 * np.pi / 4096)
    before, on = emulated.log()[-2:]
    assert (before["event"], on["event"]) == ("goals", "torque")
    assert on["goals"] == before["goals"] == {str(servo): 2000 + 10 * servo for servo in SERVOS}
    assert set(before["torque"].values()) == {0}
    assert set(on["torque"].values()) == {1}
    assert set(on["torque_limits"].values()) == {TORQUE_LIMIT}
    ControlLoop(device, Towards()).run(0.0)
    assert emulated.goals()[0].tolist() == [2000 + 10 * servo for servo in SERVOS]


def test_a_run_follows_its_policy_within_limits(emulate: Emulate, connect: Connect) -> None:
    emulated = emulate()
    device = connect(emulated)
    for _ in range(5):
        loop, ticks = run(device, 1.0)
        # On a busy machine the emulator may be silent for so long that the run rightly ends.
        if loop.governor.stopped == "the run is over":
            break
        time.sleep(0.3)
    device.close()  # confirmed, so that everything before it has been decoded
    emulated.require_no_violation()
    commands = np.stack([tick.command.position for tick in ticks])
    wire = emulated.goals()[-len(commands) - 1 :]
    # Every command is on the wire, in order, rounded to the nearest count; the first is where it stood.
    angles = (wire - 2048) * (2 * np.pi / 4096)
    np.testing.assert_allclose(angles[1:], commands, atol=0.5001 * 2 * np.pi / 4096)
    np.testing.assert_allclose(angles[0], ticks[0].state.position, atol=1.5 * 2 * np.pi / 4096)
    assert (np.abs(commands[-1] - TARGET) < np.abs(angles[0] - TARGET)).all()
    assert np.abs(np.diff(wire, axis=0)).max() > 3


def test_on_close_it_is_limp(emulate: Emulate, connect: Connect) -> None:
    emulated = emulate()
    device = connect(emulated)
    device.activate()
    device.stop(Stop.HOLD)
    assert set(emulated.log()[-1]["torque"].values()) == {1}
    device.close()
    device.close()
    assert set(emulated.log()[-1]["torque"].values()) == {0}


def test_a_silent_servo_costs_the_others_nothing(emulate: Emulate, connect: Connect) -> None:
    """Servo 1 is the worst: the others wait for it."""
    emulated = emulate({"kind": "silent", "servo": 1, "start": 1})
    device = connect(emulated)
    ControlLoop(device, Towards()).run(0.0)
    valid = np.stack([device.read().valid for _ in range(40)])
    assert not valid[:, 0].any()
    # Nearly always; less is asked for, since a busy machine is late now and then.
    assert (valid[:, 1:].mean(axis=0) > 0.5).all()


def test_no_answer_is_waited_for_longer_than_a_period(emulate: Emulate, connect: Connect) -> None:
    emulated = emulate({"kind": "silent"})
    device = connect(emulated)
    with pytest.raises(DeviceError, match="does not confirm torque_enable"):
        device.activate()
    states, took = list[State](), list[int]()
    for _ in range(5):
        begun = time.monotonic_ns()
        states.append(device.read())
        took.append(time.monotonic_ns() - begun)
    # The quickest: a busy machine may be late at times, but not always.
    assert min(took) < device.spec.period_ns
    assert not np.any([state.valid for state in states])
    assert len({state.sequence for state in states}) == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "silent", "start": 10},
        {"kind": "silent", "servo": 4, "start": 10},
        {"kind": "drop", "probability": 0.2},
        {"kind": "corrupt", "probability": 0.2},
        {"kind": "noise", "probability": 0.5},
        {"kind": "frozen", "servo": 3, "start": 10},
        {"kind": "overload", "servo": 2, "start": 10},
        {"kind": "unplugged", "start": 10},
    ],
    ids=lambda fault: f"{fault['kind']}-{fault.get('servo', 'all')}",
)
def test_no_fault_raises_or_breaks_a_limit(emulate: Emulate, connect: Connect, fault: dict[str, Any]) -> None:
    emulated = emulate({"start": 3} | fault)
    device = connect(emulated)
    loop, ticks = run(device, 0.8)
    device.close()
    emulated.require_no_violation()
    assert (np.abs(loop.governor.speed) < 2e-3 * 2.0).all()
    faults = {text for tick in ticks for text in tick.state.faults}
    match fault["kind"], fault.get("servo"):
        case "unplugged", _:
            assert "silent" in str(loop.governor.stopped)
            assert not ticks[-1].receipt.delivered
            assert "is lost" in ticks[-1].receipt.detail
        case "silent", None:
            assert "silent" in str(loop.governor.stopped)
            assert Reason.STALE_STATE in ticks[-1].command.reasons
        case "silent", _:
            assert Reason.STALE_STATE in ticks[-1].command.reasons
        case "overload", _:
            assert faults == {"shoulder_lift (servo 2): overload"}
            assert "overload" in str(loop.governor.stopped)


def test_a_killed_emulator_ends_the_run_within_limits(emulate: Emulate, connect: Connect) -> None:
    emulated = emulate()
    loop, ticks = run(connect(emulated), 2.0, Towards(12, emulated.process.kill))
    assert "silent" in str(loop.governor.stopped)
    emulated.require_no_violation()
    positions = np.stack([tick.command.position for tick in ticks])
    jerk = np.diff(positions, n=3, axis=0) * 50.0**3
    assert np.abs(jerk).max() <= 100.0 * (1 + 1e-6)
    assert np.ptp(positions[-2:], axis=0).max() < 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"elbow_flex": {"model": 1284}}, r"model of the servos .* 3: 1284.*this is no SO-101"),
        ({"gripper": {"homing_offset": 5}}, "calibration is another arm's"),
    ],
)
def test_another_arm_is_refused(emulate: Emulate, connect: Connect, changes: dict[str, Any], message: str) -> None:
    emulated = emulate(**changes)
    with pytest.raises(DeviceError, match=message):
        connect(emulated)
    assert not emulated.log()


def test_a_port_serves_one_program(emulate: Emulate, connect: Connect) -> None:
    emulated = emulate()
    connect(emulated)
    with pytest.raises(DeviceError, match=r"cannot be opened.*no other program"):
        connect(emulated)


def test_a_port_without_servos_is_refused(connect: Connect, emulate: Emulate) -> None:
    emulated = emulate()
    emulated.port = "/dev/does-not-exist"
    with pytest.raises(DeviceError, match=r"/dev/does-not-exist cannot be opened"):
        connect(emulated)


def test_a_port_of_something_else_is_refused(calibration: Path) -> None:
    other, end = pty.openpty()
    device = SO101(os.ttyname(end), calibration)
    try:
        with pytest.raises(DeviceError, match=r"servos \[1, 2, 3, 4, 5, 6\] on .* do not answer at 1000000 baud"):
            device.configure()
    finally:
        device.close()
        os.close(other)
        os.close(end)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["servos"].pop("gripper"), "KeyError 'gripper'.*calibrate the arm"),
        (lambda content: content.update(expires="2020-01-31"), "has expired on 2020-01-31"),
        (lambda content: content["servos"]["gripper"].update(low=3600), "low 3600, zero 2048 and high 3500"),
        (lambda content: content.clear(), "cannot be read"),
    ],
)
def test_a_bad_calibration_is_refused(calibration: Path, change: Callable[[Any], None], message: str) -> None:
    content = json.loads(calibration.read_text(encoding="utf-8"))
    change(content)
    calibration.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DeviceError, match=message):
        SO101("/dev/null", calibration)


def test_a_missing_calibration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"nowhere.json cannot be read: FileNotFoundError"):
        SO101("/dev/null", tmp_path / "nowhere.json")


def test_the_judge_sees_what_is_wrong(emulate: Emulate) -> None:
    """Otherwise its silence would mean nothing."""
    emulated = emulate()
    bus = SerialBus(emulated.port, 1_000_000, feetech)
    bus.open()
    for address, value in ((42, b"\xd0\x07"), (40, b"\x01"), (42, b"\x10\x27")):
        bus.write(address, dict.fromkeys(SERVOS, value))
    assert bus.ping(1, time.monotonic_ns() + 10**9) is not None
    bus.close()
    on, jump = (" ".join(entry["violations"]) for entry in emulated.log()[1:])
    assert "servo 2 is at 2020.0 when torque comes on, its goal 2000" in on
    for words in ("is sent to 10000", "has a velocity of", "has a acceleration of", "has a jerk of"):
        assert words in jump


def test_the_emulator_shares_nothing_with_the_driver() -> None:
    tree = ast.parse(inspect.getsource(emulator_module))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)} | {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    assert {str(name).split(".")[0] for name in modules} <= set(sys.stdlib_module_names)


def test_the_vendors_driver_talks_to_the_emulator(emulate: Emulate) -> None:
    sdk = pytest.importorskip("scservo_sdk", reason="needs pip install feetech-servo-sdk")
    port, packets = sdk.PortHandler(emulate().port), sdk.PacketHandler(0)
    assert port.openPort()
    try:
        assert packets.ping(port, 3) == (777, sdk.COMM_SUCCESS, 0)
        assert packets.read2ByteTxRx(port, 3, 56) == (2030, sdk.COMM_SUCCESS, 0)
        assert packets.write2ByteTxRx(port, 3, 48, 500) == (sdk.COMM_SUCCESS, 0)
        assert packets.read2ByteTxRx(port, 3, 48) == (500, sdk.COMM_SUCCESS, 0)
        group = sdk.GroupSyncRead(port, packets, 56, 4)
        assert all(group.addParam(servo) for servo in SERVOS)
        assert group.txRxPacket() == sdk.COMM_SUCCESS
        assert [group.getData(servo, 56, 2) for servo in SERVOS] == [2000 + 10 * servo for servo in SERVOS]
    finally:
        port.closePort()

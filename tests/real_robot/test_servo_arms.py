"""Arms of bus servos against emulations of their servos, which decode and judge every goal by themselves."""

import ast
import inspect
import os
import pty
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from alula.core.errors import DeviceError
from alula.real_robot.codecs import feetech
from alula.real_robot.contract import Device, State, Stop
from alula.real_robot.devices.dynamixel import Register as XRegister
from alula.real_robot.devices.so101 import TORQUE_LIMIT, Register
from alula.real_robot.emulators import dynamixel as dynamixel_emulator
from alula.real_robot.emulators import feetech as feetech_emulator
from alula.real_robot.emulators import servo_bus, servos
from alula.real_robot.governor import Reason
from alula.real_robot.serial_bus import SerialBus

pytestmark = pytest.mark.real_time

ARMS = ("so101", *(pytest.param(name, marks=pytest.mark.slow) for name in ("koch", "viperx")))
WAY = 0.7
"""How far a run goes, if it is long enough [rad]."""
COUNT = 2 * np.pi / 4096
Start = Callable[..., Any]


@pytest.mark.parametrize("name", ARMS)
def test_the_first_goal_is_where_the_arm_is(start_arm: Start, name: str) -> None:
    bench = start_arm(name)
    device = bench.connect()
    assert isinstance(device, Device)
    assert not bench.emulation.log(), "something was commanded while it was only configured"
    state = device.activate()
    assert state.valid.all()
    begun, *_ = bench.events("start")
    first, *_ = bench.events("command")
    np.testing.assert_allclose(list(first["goals"].values()), state.position, atol=1e-9)
    np.testing.assert_allclose(list(begun["positions"].values()), state.position, atol=COUNT)
    bench.run(device, 0.0)
    np.testing.assert_allclose(bench.goals()[-1], state.position, atol=COUNT)
    bench.require_no_violation()


@pytest.mark.parametrize("name", ARMS)
def test_a_run_follows_its_policy_within_limits(start_arm: Start, name: str) -> None:
    bench = start_arm(name)
    device = bench.connect()
    ticks = bench.undisturbed(device, 1.2)
    bench.require_no_violation()
    commands = np.stack([tick.command.position for tick in ticks])
    wire = bench.goals()[-len(commands) - 1 :]
    # Every command is on the wire, in order, rounded to the nearest count; the first is where it stood.
    np.testing.assert_allclose(wire[1:], commands, atol=0.5001 * COUNT)
    np.testing.assert_allclose(wire[0], ticks[0].state.position, atol=1.5 * COUNT)
    np.testing.assert_allclose(commands[-1], ticks[0].state.position - WAY, atol=0.02)
    assert np.abs(np.diff(wire, axis=0)).max() > 3 * COUNT
    # The simulated arm is where it was sent.
    np.testing.assert_allclose(device.read().position, commands[-1], atol=0.05)


def test_torque_is_limited_and_in_the_end_taken_away(start_arm: Start) -> None:
    bench = start_arm("so101")
    device = bench.connect()
    device.activate()
    assert set(device.servos.get(Register.TORQUE_LIMIT).values()) == {TORQUE_LIMIT}
    assert set(device.servos.get(Register.TORQUE_ENABLE).values()) == {1}
    device.stop(Stop.HOLD)
    assert not bench.events("release")
    device.close()
    device.close()
    (release,) = bench.events("release")
    assert len(release["elements"]) == len(device.spec.limits.low)


def test_a_powered_arm_keeps_its_goals_when_a_run_starts(start_arm: Start) -> None:
    """The elbow sags under its load, and the gripper presses against something: neither must give way by a step."""
    bench = start_arm("so101", {"kind": "stuck", "target": 3}, {"kind": "stuck", "target": 6})
    bench.config.limp_on_close = False
    device = bench.connect()
    device.activate()
    held = device.servos.get(Register.GOAL_POSITION)
    held |= {3: held[3] + 60, 6: held[6] - 900}
    assert device.servos.set(Register.GOAL_POSITION, held)
    device.close()
    written = len(bench.events("command"))
    device = bench.connect()
    state = device.activate()
    np.testing.assert_allclose(state.position, device.calibration.angle(np.array(list(held.values()))))
    assert np.abs(state.observation["observation.state"] - state.position)[[2, 5]].min() > 0.08
    loop, ticks = bench.run(device, 0.0)
    assert ticks[0].command.position.tolist() == state.position.tolist()
    assert loop.governor.stopped == "the run is over"
    device.stop(Stop.HOLD)
    assert device.servos.get(Register.GOAL_POSITION) == held
    sent = np.array([list(entry["goals"].values()) for entry in bench.events("command")[written:]])
    assert np.ptp(sent, axis=0).max() == 0.0


@pytest.mark.parametrize("name", ["so101", pytest.param("viperx", marks=pytest.mark.slow)])
def test_after_pressing_a_run_begins_anew_without_a_step(start_arm: Start, name: str) -> None:
    """A joint runs against something until the run ends; the next one leads its goal back, within all limits."""
    bench = start_arm(name, {"kind": "stuck", "target": 2, "start": 5})
    device = bench.connect()
    loop, ticks = bench.run(device, 2.0)
    assert "does not follow" in str(loop.governor.stopped)
    pressed = ticks[-1].command.position[1]
    assert abs(pressed - ticks[-1].state.position[1]) > 0.2
    state = device.activate()
    np.testing.assert_allclose(state.position[1], state.observation["observation.state"][1], atol=2 * COUNT)
    led = bench.goals()[:, 1]
    assert np.ptp(led[np.abs(led - pressed).argmin() :]) > 0.2, "the goal was led back on the wire"
    loop, _ = bench.run(device, 0.0)
    assert loop.governor.stopped == "the run is over"
    bench.require_no_violation()


@pytest.mark.slow
def test_joints_without_power_may_be_moved_between_runs(start_arm: Start) -> None:
    """The next run begins where somebody has put them; that is no jump of an encoder."""
    bench = start_arm("so101")
    device = bench.connect()
    bench.run(device, 0.0)
    device.stop(Stop.LIMP)
    start = device.read().position
    bench.emulation.ask(hand=(start - 0.7).tolist())
    time.sleep(1.2)
    _, ticks = bench.run(device, 0.0)
    np.testing.assert_allclose(ticks[0].command.position, start - 0.7, atol=0.05)
    bench.require_no_violation()


def test_a_silent_servo_costs_the_others_nothing(start_arm: Start) -> None:
    """Servo 1 is the worst: the others wait for it."""
    bench = start_arm("so101", {"kind": "silent", "target": 1, "start": 1})
    device = bench.connect()
    bench.run(device, 0.0)
    valid = np.stack([device.read().valid for _ in range(40)])
    assert not valid[:, 0].any()
    # Nearly always; less is asked for, since a busy machine is late now and then.
    assert (valid[:, 1:].mean(axis=0) > 0.5).all()


def test_no_answer_is_waited_for_longer_than_a_period(start_arm: Start) -> None:
    bench = start_arm("so101", {"kind": "silent", "start": 1})
    device = bench.connect()
    loop, _ = bench.run(device, 1.0)
    assert "silent" in str(loop.governor.stopped)
    states, took = list[State](), list[int]()
    for _ in range(5):
        begun = time.monotonic_ns()
        states.append(device.read())
        took.append(time.monotonic_ns() - begun)
    # The quickest: a busy machine may be late at times, but not always.
    assert min(took) < device.spec.period_ns
    assert not np.any([state.valid for state in states])
    assert len({state.sequence for state in states}) == 1


FAULTS = [
    ("so101", "silent", 0, "so101 has been silent"),
    ("so101", "silent", 4, "wrist_flex (servo 4): does not answer"),
    ("so101", "drop", 0, ""),
    ("so101", "corrupt", 0, ""),
    ("so101", "noise", 0, ""),
    ("so101", "late", 0, ""),
    ("so101", "echo", 0, "so101 has been silent"),
    ("so101", "duplicate", 2, "shoulder_lift (servo 2): does not answer"),
    ("so101", "unplugged", 0, "so101 has been silent"),
    ("so101", "frozen", 3, "so101 does not follow"),
    ("so101", "stuck", 3, "so101 does not follow"),
    ("so101", "stripped", 3, "so101 does not follow"),
    ("so101", "torque_loss", 3, "elbow_flex (servo 3): it has no torque any more: it has restarted"),
    ("so101", "encoder_jump", 1, "shoulder_pan (servo 1): its encoder has jumped"),
    ("so101", "overload", 2, "shoulder_lift (servo 2): overload"),
    ("so101", "overheat", 2, "shoulder_lift (servo 2): overheated"),
    ("so101", "voltage", 2, "shoulder_lift (servo 2): voltage"),
    ("koch", "watchdog", 2, "shoulder_lift (servo 2): its watchdog has tripped"),
    ("koch", "overload", 2, "shoulder_lift (servo 2): overload; it has no torque until it is rebooted"),
    ("koch", "frozen", 3, "elbow_flex (servo 3): does not answer"),
    ("koch", "stuck", 3, "koch does not follow"),
    ("koch", "torque_loss", 4, "wrist_flex (servo 4): it has no torque any more: it has restarted"),
    ("koch", "encoder_jump", 1, "shoulder_pan (servo 1): its encoder has jumped"),
    ("viperx", "silent", 3, "shoulder_shadow (servo 3): does not answer"),
    ("viperx", "torque_loss", 5, "elbow_shadow (servo 5): it has no torque any more: it has restarted"),
    ("viperx", "encoder_jump", 5, "elbow_shadow (servo 5): 0.20 rad from servo 4"),
    ("viperx", "voltage", 9, "gripper (servo 9): voltage"),
]
"""Arm, kind, servo, and what must be complained of."""
QUICK = [
    *(("so101", kind) for kind in ("drop", "unplugged", "stuck", "torque_loss", "overload")),
    *(("koch", "watchdog"), ("koch", "torque_loss"), ("koch", "frozen"), ("viperx", "encoder_jump")),
]
PROBABILITY = {"drop": 0.2, "corrupt": 0.2, "noise": 0.5}
BEGIN = 10
"""Commands before a fault."""
NEWS = ("overload", "overheat", "voltage", "encoder_jump", "torque_loss", "watchdog")
"""Kinds of which one answer is enough."""


@pytest.mark.parametrize(
    ("name", "kind", "target", "words"),
    [fault if fault[:2] in QUICK else pytest.param(*fault, marks=pytest.mark.slow) for fault in FAULTS],
)
def test_no_fault_raises_or_breaks_a_limit(fail_arm: Start, name: str, kind: str, target: int, words: str) -> None:
    """What must be noticed is, with the words that a person needs."""
    fault = {"kind": kind, "target": target, "start": BEGIN, "probability": PROBABILITY.get(kind, 1.0)}
    fault |= {"value": {"late": 9.0, "encoder_jump": 0.2 if name == "viperx" else 4.0}.get(kind, 0.0)}
    fault |= {"duration": 5} if kind == "watchdog" else {}
    bench, device, loop, ticks = fail_arm(name, fault, words)
    bench.require_no_violation()
    assert (np.abs(loop.governor.speed) < 2e-3 * 2.0).all()
    assert loop.governor.faulty or not words
    if kind in NEWS:
        first = next(number for number, tick in enumerate(ticks) if tick.state.faults)
        assert {Reason.DEVICE_FAULT, Reason.EMERGENCY_STOP} <= set(ticks[first].command.reasons)
        assert first <= BEGIN + 3
    if words.endswith("does not answer"):  # the others' values are kept
        valid = np.array([tick.state.valid for tick in ticks])
        joints = [joint.number for joint in device.arm.joints]
        silent = joints.index(next(s.leader or s.number for s in device.arm.servos if s.number == target))
        assert not valid[-1][silent]
        assert valid[len(valid) // 2 :, silent + 1].mean() > 0.5
    match kind, target:
        case "unplugged", _:
            assert not ticks[-1].receipt.delivered
            assert "is lost" in ticks[-1].receipt.detail
        case (("silent" | "echo"), 0):
            assert Reason.STALE_STATE in ticks[-1].command.reasons
        case "watchdog", _:
            bench.undisturbed(device, 0.8)
            bench.require_no_violation()
        case (("overload" | "torque_loss"), _) if name == "koch":
            assert device.servos.get(XRegister.TORQUE_ENABLE)[target] == 0
    device.close()


def test_a_killed_emulator_ends_the_run_within_limits(start_arm: Start) -> None:
    bench = start_arm("so101")
    loop, ticks = bench.run(bench.connect(), 2.0, 12, bench.emulation.process.kill)
    assert "silent" in str(loop.governor.stopped)
    assert bench.emulation.violations() == []
    positions = np.stack([tick.command.position for tick in ticks])
    jerk = np.diff(positions, n=3, axis=0) * 50.0**3
    assert (np.abs(jerk) <= np.array(loop.device.spec.limits.jerk) * (1 + 1e-6)).all()
    assert np.ptp(positions[-2:], axis=0).max() < 1e-4


def test_another_arm_is_refused(start_arm: Start) -> None:
    bench = start_arm("so101", servos={3: {"model": 1284}})
    with pytest.raises(DeviceError, match=r"model of the servos .* \{3: 1284\}, must be \{3: 777\}: this is no so101"):
        bench.connect()
    assert not bench.emulation.log()


@pytest.mark.parametrize(
    ("name", "register", "number", "value", "message"),
    [
        ("so101", Register.HOMING_OFFSET, 6, 5, "the calibration is another arm's"),
        ("so101", Register.MODE, 2, 1, "alula calibrate device=so101 sets it"),
        ("viperx", XRegister.HOMING_OFFSET, 1, 1, "the calibration is another arm's"),
        ("viperx", XRegister.SECONDARY_ID, 3, 255, "alula calibrate device=viperx sets it"),
        ("viperx", XRegister.DRIVE_MODE, 5, 1, "alula calibrate device=viperx sets it"),
        ("viperx", XRegister.OPERATING_MODE, 1, 3, "alula calibrate device=viperx sets it"),
    ],
)
def test_other_settings_are_refused(
    standing: Start, name: str, register: Any, number: int, value: int, message: str
) -> None:
    bench = standing(name)
    device = bench.connect()
    right = device.servos.get(register)[number]
    device.servos.set_each(register, {number: value})
    device.close()
    found = rf"{register.name.lower()} .* \{{{number}: {value}\}}, must be \{{{number}: {right}\}}: {message}"
    try:
        with pytest.raises(DeviceError, match=found):
            bench.connect()
        assert not bench.events("start")
    finally:
        device.servos.bus.open()
        device.servos.set_each(register, {number: right})
        device.close()


def test_a_port_serves_one_program(start_arm: Start) -> None:
    bench = start_arm("so101")
    first = bench.connect()
    with pytest.raises(DeviceError, match=r"cannot be opened.*no other program"):
        bench.connect()
    first.close()
    bench.connect()


def test_a_port_without_servos_is_refused(start_arm: Start) -> None:
    bench = start_arm("so101")
    bench.config.address = "/dev/does-not-exist"
    with pytest.raises(DeviceError, match=r"/dev/does-not-exist cannot be opened"):
        bench.connect()
    other, end = pty.openpty()
    bench.config.address = os.ttyname(end)
    try:
        with pytest.raises(DeviceError, match=r"servos \[1, 2, 3, 4, 5, 6\] on .* do not answer at 1000000 baud"):
            bench.connect()
    finally:
        os.close(other)
        os.close(end)


def test_the_judge_sees_what_is_wrong(start_arm: Start) -> None:
    """Otherwise its silence would mean nothing."""
    bench = start_arm("so101")
    bus = SerialBus(bench.config.address, 1_000_000, feetech)
    bus.open()
    for address, value in ((42, b"\xd0\x07"), (40, b"\x01"), (42, b"\x10\x27")):
        bus.write(address, dict.fromkeys(range(1, 7), value))
    assert bus.ping(1, time.monotonic_ns() + 10**9) is not None
    bus.close()
    on, jump = (" ".join(entry["violations"]) for entry in bench.events("command"))
    assert "element 1 has a velocity of" in on  # it was elsewhere when its torque came on
    for words in ("is sent to 12.1", "has a velocity of", "has a acceleration of", "has a jerk of"):
        assert words in jump


@pytest.mark.parametrize("module", [feetech_emulator, dynamixel_emulator, servo_bus, servos])
def test_emulators_share_nothing_with_drivers(module: Any) -> None:
    tree = ast.parse(inspect.getsource(module))
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = {name for name in modules if name.startswith("alula")} - {"alula.real_robot.devices.config"}
    assert {name for name in ours if not name.startswith("alula.real_robot.emulators")} == set()


@pytest.mark.slow
@pytest.mark.oracle
def test_the_vendors_driver_talks_to_the_emulator(start_arm: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = pytest.importorskip("scservo_sdk", reason="needs pip install feetech-servo-sdk")
    monkeypatch.setattr(sdk.port_handler, "LATENCY_TIMER", 200)  # its patience [ms], for a busy machine
    port, packets = sdk.PortHandler(start_arm("so101").config.address), sdk.PacketHandler(0)
    assert port.openPort()
    try:
        assert packets.ping(port, 3) == (777, sdk.COMM_SUCCESS, 0)
        elbow, result, alerts = packets.read2ByteTxRx(port, 3, 56)
        assert (result, alerts) == (sdk.COMM_SUCCESS, 0)
        assert packets.write2ByteTxRx(port, 3, 48, 500) == (sdk.COMM_SUCCESS, 0)
        assert packets.read2ByteTxRx(port, 3, 48) == (500, sdk.COMM_SUCCESS, 0)
        group = sdk.GroupSyncRead(port, packets, 56, 4)
        assert all(group.addParam(servo) for servo in range(1, 7))
        assert group.txRxPacket() == sdk.COMM_SUCCESS
        assert group.getData(3, 56, 2) == elbow
        assert (elbow - 2048) * COUNT == pytest.approx(0.5136, abs=0.01)  # where the simulated arm stands
    finally:
        port.closePort()

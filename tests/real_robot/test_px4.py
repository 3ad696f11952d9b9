"""The driver of PX4 before an emulated vehicle, which reads and judges every setpoint by itself."""

import ast
import inspect
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from pymavlink.dialects.v20 import common

from alula.core.errors import DeviceError
from alula.real_robot.codecs import mavlink
from alula.real_robot.codecs.mavlink import Mode
from alula.real_robot.contract import Device, Intent, State, Stop
from alula.real_robot.devices.config import PX4Config
from alula.real_robot.devices.px4 import PX4, Way
from alula.real_robot.devices.px4_link import MavlinkLink
from alula.real_robot.emulators import px4 as emulator_module
from alula.real_robot.emulators import px4_commander, px4_telemetry, px4_wire
from alula.real_robot.emulators.emulation import Emulation
from alula.real_robot.governor import Reason
from alula.real_robot.loop import ControlLoop, Tick

pytestmark = [pytest.mark.real_time, pytest.mark.slow]  # flights take their time

FENCE, TAKEOFF = 1.0, 0.5
SPEC = PX4(PX4Config("127.0.0.1:1", fence=FENCE, ceiling=1.5, takeoff=TAKEOFF)).spec
MOTION = ("low", "high", "velocity", "acceleration", "jerk")
LIMITS = {"rate": SPEC.rate} | {name: list(getattr(SPEC.limits, name)) for name in MOTION}
Start = Callable[..., Emulation]


class Towards:
    """Wants to be at places, each for some periods, and does something in a certain period."""

    def __init__(
        self, *places: tuple[float, ...], each: int = 50, period: int = -1, action: Callable[[], Any] = lambda: None
    ) -> None:
        self.places, self.each, self.period, self.action, self.count = places, each, period, action, 0

    def at(self, now_ns: int, state: State) -> Intent:
        self.count += 1
        if self.count == self.period:
            self.action()
        place = self.places[self.count // self.each % len(self.places)]
        return Intent(np.array(place), now_ns, "policy")


NEARBY = Towards((0.3, 0.3, 0.8, 0.5))


BUSY = ("no telemetry for", "no heartbeat for", "ffboard", "its last answer is")
"""Why a take-off may fail where the machine does not let the emulator or the driver run for a while."""


def patiently(act: Callable[[], Any]) -> Any:
    """Do something that needs a vehicle in time; again where the machine was too busy."""
    for _ in range(10):
        try:
            return act()
        except DeviceError as error:
            if not any(words in str(error) for words in BUSY):
                raise
    raise AssertionError("the machine is too busy to fly")


def run(device: PX4, seconds: float, source: Any = NEARBY) -> tuple[ControlLoop, list[Tick]]:
    def once() -> tuple[ControlLoop, list[Tick]]:
        ticks = list[Tick]()
        loop = ControlLoop(device, source, ticks.append)
        loop.run(seconds)
        return loop, ticks

    result: tuple[ControlLoop, list[Tick]] = patiently(once)
    return result


def stopped(loop: ControlLoop) -> str:
    return str(loop.governor.stopped)


def modes(emulation: Emulation) -> list[str]:
    return [entry["mode"] for entry in emulation.log() if entry["event"] == "mode"]


def wait_for(true: Callable[[], bool], seconds: float = 8.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "what was waited for has not come"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts an emulator."""
    started = list[Emulation]()

    def begin(*faults: dict[str, Any], **setup: Any) -> Emulation:
        content = {"limits": LIMITS, "scene": None, "faults": list(faults), "seed": 1, **setup}
        started.append(Emulation(emulator_module.__name__, tmp_path_factory.mktemp("px4"), content))
        return started[-1]

    yield begin
    for emulation in started:
        emulation.end()


@pytest.fixture
def connect() -> Iterator[Callable[..., PX4]]:
    """Configures a driver, and closes it at the end."""
    devices = list[PX4]()

    def make(emulation: Emulation, configure: bool = True) -> PX4:
        devices.append(PX4(PX4Config(emulation.address, fence=FENCE, ceiling=1.5, takeoff=TAKEOFF)))
        if configure:
            devices[-1].configure()
        return devices[-1]

    yield make
    for device in devices:
        device.close()


Connect = Callable[..., PX4]


@pytest.fixture(scope="module")
def common_vehicle(start: Start) -> Emulation:
    """One for all tests that leave it able to fly."""
    return start()


class Ground:
    """A ground station of a few lines, which sends what it likes."""

    def __init__(self, emulation: Emulation) -> None:
        _, host, port = emulation.address.split(":")
        self.place = host, int(port)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(0.02)
        self.mav = common.MAVLink(None, 250, 1)
        self.send(mavlink.heartbeat())

    def send(self, message: Any) -> None:
        self.socket.sendto(message.pack(self.mav), self.place)

    def hear(self, kind: str, matches: Callable[[Any], bool] = lambda message: True) -> Any:
        end = time.monotonic() + 3.0
        while time.monotonic() < end:
            try:
                heard = self.mav.parse_buffer(self.socket.recv(65536)) or []
            except TimeoutError:
                continue
            for message in heard:
                if message.get_type() == kind and matches(message):
                    return message
        raise AssertionError(f"no {kind} came")

    def command(self, message: Any) -> int:
        self.send(message)
        return int(self.hear("COMMAND_ACK", lambda ack: ack.command == message.command).result)

    def set(self, name: str, value: float) -> None:
        kind = common.MAV_PARAM_TYPE_REAL32
        self.send(common.MAVLink_param_set_message(1, 1, name.encode(), value, kind))
        self.hear("PARAM_VALUE", lambda answer: answer.param_id == name)


@pytest.fixture
def listen_in() -> Iterator[Callable[[Emulation], Ground]]:
    """Sets up a ground station."""
    grounds = list[Ground]()

    def make(emulation: Emulation) -> Ground:
        grounds.append(Ground(emulation))
        return grounds[-1]

    yield make
    for ground in grounds:
        ground.socket.close()


ListenIn = Callable[[Emulation], Ground]


def test_ways_keep_their_limits() -> None:
    limits = SPEC.limits
    for end in (np.array([0.0, 0.0, 1.0, 0.0]), np.array([0.01, -1.8, 0.5, 3.0]), np.zeros(4)):
        way = Way(np.zeros(4), end, limits.velocity, limits.acceleration, limits.jerk)
        dt = max(way.duration, 1e-3) / 2000
        places = np.stack([way.at(dt * step) for step in range(2001)])
        np.testing.assert_array_equal(places[0], 0)
        np.testing.assert_allclose(places[-1], end, atol=1e-12)
        for order, most in ((1, limits.velocity), (2, limits.acceleration), (3, limits.jerk)):
            assert (
                np.abs(np.diff(places, n=order, axis=0)).max(axis=0, initial=0) / dt**order <= 1.01 * np.array(most)
            ).all()


# -- connecting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["", "px4", "tcp:127.0.0.1:5", "udpin:14540", "127.0.0.1:99999", "udpin:1.2.3.4:x"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(DeviceError, match=r"is no address of a vehicle; allowed are udpin:HOST:PORT"):
        PX4(PX4Config(address))


def test_a_port_serves_one_program() -> None:
    first, second = MavlinkLink("udpin:127.0.0.1:0"), None
    first.open()
    assert first._socket is not None
    try:
        second = MavlinkLink(f"udpin:127.0.0.1:{first._socket.getsockname()[1]}")
        with pytest.raises(DeviceError, match="cannot be opened: Address already in use"):
            second.open()
    finally:
        first.close()


def test_nobody_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alula.real_robot.devices.px4_session.HEARTBEAT_WAIT_S", 0.2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        device = PX4(PX4Config(f"127.0.0.1:{nobody.getsockname()[1]}"))
        with pytest.raises(DeviceError, match=r"no vehicle's heartbeat came in 0.2 s .*check the address"):
            device.configure()
        device.stop(Stop.KILL)
        device.close()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("autopilot", "the autopilot at .* is ARDUPILOTMEGA, must be PX4 1.14 or newer"),
        ("vehicle", "is a FIXED_WING, must be PX4 1.14 or newer on a multicopter"),
        ("version", r"runs PX4 1.12.0, must be PX4 1.14 or newer .*: update"),
    ],
)
def test_another_vehicle_is_refused(start: Start, connect: Connect, fault: str, message: str) -> None:
    emulation = start({"kind": fault})
    with pytest.raises(DeviceError, match=message):
        connect(emulation)
    assert modes(emulation) == []


def test_a_vehicle_that_would_not_protect_itself_is_refused(
    start: Start, connect: Connect, listen_in: ListenIn
) -> None:
    emulation = start(parameters={"COM_OF_LOSS_T": 5.0, "COM_OBL_RC_ACT": 1})
    with pytest.raises(DeviceError, match=r"COM_OF_LOSS_T is 5, allowed are 0.05 to 1.0; it is the time without set"):
        connect(emulation)
    listen_in(emulation).set("COM_OF_LOSS_T", 0.5)
    with pytest.raises(DeviceError, match=r"COM_OBL_RC_ACT is 1, allowed are 0 to 5 without \(1, 2\)"):
        connect(emulation)


def test_it_is_configured_through_a_bad_link_and_tells_how_it_is_protected(start: Start, connect: Connect) -> None:
    device = connect(start({"kind": "drop", "probability": 0.2}, {"kind": "corrupt", "probability": 0.05}))
    assert isinstance(device, Device)
    assert device.parameters["COM_OF_LOSS_T"] == 1.0
    assert device.parameters["COM_OBL_RC_ACT"] == 0.0
    assert device.read().observation["observation.battery"] == 1.0


def test_a_low_battery_keeps_it_on_the_ground(start: Start, connect: Connect) -> None:
    emulation = start(battery=0.25)
    device = connect(emulation)
    with pytest.raises(DeviceError, match=r"the battery has 25 % left, 30 % are needed to take off"):
        patiently(device.activate)
    assert [entry for entry in emulation.log() if entry["event"] in ("armed", "place")] == []


def test_a_refusal_comes_with_its_reason(start: Start, connect: Connect) -> None:
    emulation = start({"kind": "arming_denied"})
    device = connect(emulation)
    with pytest.raises(
        DeviceError,
        match=r"refuses to switch its rotors on \(temporarily rejected\): it says 'Arming denied: Resolve system",
    ):
        patiently(device.activate)
    assert "armed" not in {entry["event"] for entry in emulation.log()}


# -- the emulator's own rules ------------------------------------------------------------------------------------------


def test_offboard_needs_a_stream(common_vehicle: Emulation, listen_in: ListenIn) -> None:
    """PX4: setpoints at 2 Hz or more for more than a second."""
    ground, offboard = listen_in(common_vehicle), mavlink.set_mode(1, Mode.OFFBOARD)
    assert ground.command(offboard) == common.MAV_RESULT_TEMPORARILY_REJECTED
    (here,) = [ground.hear("LOCAL_POSITION_NED")]
    target = mavlink.position_target(1, 0, np.array([here.y, here.x, -here.z, 0.0]))
    results = []
    begun = time.monotonic()
    while time.monotonic() - begun < 1.5:
        ground.send(target)
        results.append((time.monotonic() - begun, ground.command(offboard)))
        time.sleep(0.1)
    accepted = [at for at, result in results if result == common.MAV_RESULT_ACCEPTED]
    assert accepted
    assert accepted[0] > 1.0


def test_the_judge_sees_what_is_wrong(start: Start, listen_in: ListenIn) -> None:
    """Otherwise its silence would mean nothing."""
    emulation = start()
    ground, zero = listen_in(emulation), np.zeros(4)
    here = ground.hear("ODOMETRY")
    place = np.array([here.y, here.x, -here.z, 0.0])
    ground.send(mavlink.motion_target(1, 0, place, zero, zero))
    ground.send(mavlink.motion_target(1, 0, place + np.array([0.5, 0, 0, 0]), zero, zero))
    ground.send(mavlink.motion_target(1, 0, place + np.array([math.nan, 0, 0, 0]), zero, zero))
    ground.send(mavlink.position_target(1, 0, place + np.array([5.0, 0, 0, 0])))
    wait_for(lambda: len(emulation.log()) >= 5)
    begun, first, jump, nothing, far = emulation.log()[:5]
    assert begun["event"] == "start"
    assert "element 2 is sent to" in first["violations"][0]  # on the ground, below the fence's floor
    for words in ("has a velocity of", "has a acceleration of", "has a jerk of"):
        assert words in " ".join(jump["violations"])
    assert "is sent to nan" in nothing["violations"][0]
    assert "a position alone goes from" in far["violations"][0]


def test_the_emulator_has_its_own_reading_of_the_protocol() -> None:
    for module in (emulator_module, px4_commander, px4_telemetry, px4_wire):
        tree = ast.parse(inspect.getsource(module))
        modules = [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not [name for name in modules if "codecs" in name or "devices" in name or "geometry" in name]


# -- flying ------------------------------------------------------------------------------------------------------------


def test_a_flight(common_vehicle: Emulation, connect: Connect) -> None:
    """Take-off, a policy that wants out of the fence, hold, on from there, land."""
    emulation, device, landed = common_vehicle, connect(common_vehicle), len(common_vehicle.log())
    for _ in range(5):
        before = len(emulation.log())
        loop, ticks = run(device, 2.0, Towards((9.0, -9.0, 9.0, 9.0), (-9.0, 9.0, -9.0, -9.0)))
        # On a busy machine the emulator may be silent for so long that the run rightly ends, or its world be late.
        on_time = all(tick.command.time_ns - tick.state.received_ns < 25e6 for tick in ticks)
        on_time &= loop.timing.overruns == 0
        if stopped(loop) == "the run is over" and on_time:
            break
    assert emulation.violations() == []
    log = emulation.log()[before:]
    goals = np.array([list(entry["goals"].values()) for entry in log if entry["event"] == "command"])
    commands = np.stack([tick.command.position for tick in ticks])
    # Every command is on the wire, in order, in single precision; the first is where it hovered.
    np.testing.assert_allclose(goals, commands, atol=1e-6)
    (begun,) = [entry["positions"] for entry in log if entry["event"] == "start"]
    np.testing.assert_allclose(goals[0], list(begun.values()), atol=1e-6)
    hovered = next(entry["positions"] for entry in emulation.log()[landed:] if entry["event"] == "start")
    assert hovered["2"] == pytest.approx(TAKEOFF, abs=0.2)
    # It went far, and never out of its fence (S12: 5 cm).
    flown = np.stack([tick.state.position for tick in ticks])
    assert np.ptp(flown, axis=0)[:2].min() > 0.5
    if on_time:
        assert np.abs(flown[:, :2]).max() <= FENCE + 0.05
        assert flown[:, 2].min() >= SPEC.limits.low[2] - 0.05
        assert flown[:, 2].max() <= SPEC.limits.high[2] + 0.05
    # It holds by PX4's own mode, or lands after a fault; saying so again changes nothing.
    assert modes(emulation)[-1] == ("Land" if loop.governor.faulty else "Hold")
    count = len(modes(emulation))
    device.stop(Stop.HOLD)
    device.stop(Stop.BRAKE)
    assert len(modes(emulation)) == count
    with pytest.raises(DeviceError, match="px4 is not active; call activate first"):
        device.write(ticks[-1].command)
    with pytest.raises(TypeError, match="SafeCommand"):
        device.write(np.zeros(4))  # type: ignore[arg-type]
    state = patiently(device.activate)
    np.testing.assert_allclose(state.position[:3], flown[-1, :3], atol=0.3)  # turns are forgotten
    device.stop(Stop.LAND)
    device.stop(Stop.HOLD)  # a landing goes on
    assert modes(emulation)[-1] == "Land"
    device.close()
    off = [entry for entry in emulation.log() if entry["event"] == "disarmed"][-1]
    assert off["height"] < 0.05
    assert emulation.violations() == []


class Silent(Towards):
    """Says nothing from a period on."""

    def at(self, now_ns: int, state: State) -> Intent | None:
        wish = super().at(now_ns, state)
        return wish if self.count <= 15 else None


def test_a_silent_policy_is_braked_on_the_wire(common_vehicle: Emulation, connect: Connect) -> None:
    """S4: braking by the fourth period, at rest in time; the drone hovers and the run goes on."""
    emulation, device = common_vehicle, connect(common_vehicle)
    before = len(emulation.log())
    _, ticks = run(device, 1.5, Silent((0.9, 0.0, 0.8, 0.0)))
    commands = [entry for entry in emulation.log()[before:] if entry["event"] == "command"]
    reasons = [tick.command.reasons for tick in ticks]
    first = next(index for index, reason in enumerate(reasons) if Reason.NO_ACTION in reason)
    assert 15 <= first <= 15 + 3
    speeds = np.array([np.linalg.norm(entry["velocity"]) for entry in commands])
    assert speeds[first] > 0.05
    assert (speeds[-10:] == 0).all()
    assert emulation.violations() == []


CHILD = """
import sys
import numpy as np
from alula.core.errors import DeviceError
from alula.real_robot.contract import Intent
from alula.real_robot.devices.config import PX4Config
from alula.real_robot.devices.px4 import PX4
from alula.real_robot.loop import ControlLoop

class Source:
    def at(self, now_ns, state):
        return Intent(np.array([0.3, 0.3, 0.8, 0.0]), now_ns, "policy")

device = PX4(PX4Config(sys.argv[1], fence=1.0, ceiling=1.5, takeoff=0.5))
device.configure()
while True:
    try:
        ControlLoop(device, Source(), lambda tick: print(1, flush=True)).run(60.0)
    except DeviceError as error:
        print(error, file=sys.stderr)
"""


def test_the_vehicle_outlives_its_controller(start: Start) -> None:
    """S7: kill -9, and PX4 holds COM_OF_LOSS_T later."""
    emulation = start()
    with subprocess.Popen([sys.executable, "-c", CHILD, emulation.address], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            # On a busy machine a run may end by itself; then the child begins another.
            wait_for(lambda: bool(child.stdout.readline()) and modes(emulation)[-1] == "Offboard", 60.0)
        finally:
            os.kill(child.pid, signal.SIGKILL)
    count = len(modes(emulation))
    wait_for(lambda: len(modes(emulation)) > count)
    lost = next(entry for entry in reversed(emulation.log()) if entry["event"] == "mode")
    assert (lost["mode"], lost["why"]) == ("Hold", "Offboard control lost")
    assert 1.0 <= lost["since_setpoint_ns"] / 1e9 <= 3.0  # 1.0 unless the machine is busy
    assert emulation.violations() == []


def strike(emulation: Emulation, kind: str, duration: float = math.inf, **changes: Any) -> None:
    """Let something go wrong five commands from now."""
    now = emulation.ask(outcome=True)["commands"]
    emulation.ask(fault={"kind": kind, "start": now + 5, "duration": duration, **changes})


def test_a_pilot_who_takes_over_is_left_alone(common_vehicle: Emulation, connect: Connect) -> None:
    emulation, device = common_vehicle, connect(common_vehicle)
    begun = len(modes(emulation))
    loop, ticks = run(device, 3.0, Towards((0.3, 0.3, 0.8, 0.0), period=3, action=lambda: strike(emulation, "pilot")))
    assert "its mode is POSITION: somebody has taken over" in stopped(loop)
    assert not ticks[-1].receipt.delivered
    assert ticks[-1].receipt.detail == "its mode is POSITION"
    orders = [entry["command"] for entry in emulation.log() if entry["event"] == "order"]
    device.stop(Stop.HOLD)
    device.stop(Stop.LAND)
    device.close()
    assert modes(emulation)[begun:] == ["Offboard", "Position"]
    # Heartbeats come once a second by themselves; the driver asks more often, and notices in time.
    taken = max(index for index, entry in enumerate(emulation.log()) if entry["event"] == "mode")
    assert len([entry for entry in emulation.log()[taken:] if entry["event"] == "command"]) < 25
    assert [entry["command"] for entry in emulation.log() if entry["event"] == "order"] == orders
    assert emulation.violations() == []


def test_where_it_cannot_hold_it_lands(start: Start, connect: Connect) -> None:
    emulation = start({"kind": "hold_refused"})
    device = connect(emulation)
    patiently(device.activate)
    device.stop(Stop.HOLD)
    assert modes(emulation) == ["Offboard", "Land"]


def test_killed_it_falls(common_vehicle: Emulation, connect: Connect) -> None:
    device = connect(common_vehicle)
    patiently(device.activate)
    device.stop(Stop.KILL)
    fallen = [entry for entry in common_vehicle.log() if entry["event"] == "disarmed"][-1]
    assert fallen["height"] > 0.3
    device.stop(Stop.KILL)
    device.stop(Stop.LAND)
    assert [entry for entry in common_vehicle.log() if entry["event"] == "disarmed"][-1] == fallen


PASSING = [
    {"kind": "drop", "probability": 0.05},
    {"kind": "duplicate", "probability": 0.1},
    {"kind": "reorder", "probability": 0.05, "value": 12.0},
    {"kind": "jitter", "value": 8.0},
    {"kind": "corrupt", "probability": 0.02},
    {"kind": "burst", "probability": 0.005, "value": 3},
    {"kind": "quaternion_flip", "probability": 0.3},
    {"kind": "quaternion_scale", "value": 1.3, "probability": 0.3},
]
"""What a flight gets over."""


@pytest.mark.slow
def test_a_bad_link_breaks_nothing(start: Start, connect: Connect) -> None:
    emulation = start(*({"start": 5} | fault for fault in PASSING))
    device = connect(emulation)
    loop, ticks = run(device, 2.0)
    assert emulation.violations() == []
    faults = {text for tick in ticks for text in tick.state.faults}
    assert not faults or "silent" in stopped(loop), faults  # a busy machine may be late, too
    assert abs(ticks[-1].state.position[3]) < 1.0


ENDING = {
    "silence": ({}, "silent for", "Hold"),
    "heartbeat_only": ({}, "silent for", "Land"),
    "frozen": ({}, "silent for", "Land"),
    "stamp_backwards": ({"value": 2000.0}, "its clock has gone back by", "Land"),
    "delay": ({"value": 400.0, "target": 1}, "silent for", "Land"),
    "nan": ({}, "silent for", "Land"),
    "frame": ({}, "silent for", "Land"),
    "estimator_reset": ({"value": 0.2}, "its estimate of where it is has jumped", "Land"),
    "position_lost": ({}, "Position estimate lost|does not know where it is|its mode is LAND", "Land"),
    "geofence": ({}, "Geofence breached|its mode is HOLD|in failsafe", "Land"),
    "motor": ({}, "Motor failure|in failsafe", "Land"),
    "battery": ({"value": 0.05}, "the battery is critical: 5 %|its battery critical", "Land"),
}
"""Fault: its values, why the run ends, and the mode that the vehicle is in then."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENDING)
def test_a_fault_ends_the_run_within_limits(start: Start, connect: Connect, kind: str) -> None:
    values, why, mode = ENDING[kind]
    for _ in range(5):
        emulation = start({"kind": kind, "start": 10, **values})
        loop, ticks = run(connect(emulation), 4.0)
        # On a busy machine the emulator may be silent for so long that the run ends before.
        if any(words in stopped(loop) for words in why.split("|")) and len(ticks) > 10:
            break
    assert any(words in stopped(loop) for words in why.split("|")), stopped(loop)
    assert emulation.violations() == []
    assert loop.governor.faulty
    assert np.abs(loop.governor.speed).max() < 2e-3
    assert len(ticks) < 190
    wait_for(lambda: modes(emulation)[-1] == mode)


def test_every_fault_of_the_emulator_is_tested() -> None:
    elsewhere = {"hold_refused", "arming_denied", "pilot", "autopilot", "vehicle", "version"}
    assert {fault["kind"] for fault in PASSING} | set(ENDING) | elsewhere == set(emulator_module.FAULTS)

"""The UR5e's connections: addresses, settings, which news it believes, and what the emulator's judge sees of them."""

import ast
import math
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alula.core.errors import ConfigError, DeviceError
from alula.real_robot.codecs import rtde
from alula.real_robot.codecs.rtde import Kind
from alula.real_robot.contract import Intent, State
from alula.real_robot.devices.config import UR5eConfig
from alula.real_robot.devices.registry import make_device
from alula.real_robot.devices.ur5e import UR5e, specification
from alula.real_robot.devices.ur5e_script import COUNT, OBEYED, READY, SESSION, TARGETS, program
from alula.real_robot.devices.ur_link import PORTS, Address, RTDEClient
from alula.real_robot.emulators import ur
from alula.real_robot.emulators.emulation import Emulation
from alula.real_robot.loop import ControlLoop

pytestmark = pytest.mark.real_time

CONFIG = UR5eConfig(watchdog=0.4)
QUIET: dict[str, Any] = {
    **dict.fromkeys(("actual_q", "actual_qd", "actual_TCP_pose", "actual_TCP_force"), (0.5,) * 6),
    **{"robot_mode": 7, "safety_status_bits": 1, "runtime_state": 2, READY: 0, OBEYED: 0, "payload": 0.0},
}
"""What a robot says that does nothing."""
HERE = Path(__file__).parents[2]


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    driver = UR5e(replace(CONFIG, address=f"127.0.0.1:{port},{port},{port}"))
    with pytest.raises(DeviceError, match=rf"no robot answers at 127.0.0.1:{port}: .*refused.*Check its power"):
        driver.configure()
    driver.close()


@pytest.mark.parametrize("address", ["", ":1,2,3", "robot:1,2", "robot:30004", "robot:a,b,c"])
def test_an_address_must_be_one(address: str) -> None:
    with pytest.raises(DeviceError, match=r"device.address is .* must be the robot's host name or IP address"):
        UR5e(replace(CONFIG, address=address))


def test_a_host_is_enough() -> None:
    assert Address.parse("192.168.1.10") == Address("192.168.1.10", PORTS)
    assert Address.parse("robot:1,2,3") == Address("robot", (1, 2, 3))


@pytest.mark.parametrize("setting", [{"lookahead": 0.02}, {"gain": 3000.0}, {"watchdog": 0.0}, {"watchdog": 2.0}])
def test_settings_that_the_robot_does_not_take_are_refused(setting: dict[str, float]) -> None:
    (name,) = setting
    with pytest.raises(ConfigError, match=f"device.{name} is .*; allowed are"):
        UR5eConfig(**setting)


def test_what_is_no_news_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times that stand still or run backwards, with a link that is alive; and numbers that cannot be."""
    stream = dict(QUIET)
    driver = UR5e(replace(CONFIG, address="robot"))
    times = iter((1.0, 1.5, 1.5, 1.2, math.nan, 1.6))
    monkeypatch.setattr(driver._link, "newest", lambda patience: {**stream, "timestamp": next(times)})
    assert [driver.read().sequence for _ in range(5)] == [1, 2, 2, 2, 2]
    stream["actual_q"] = (0.5, 1e300, -math.inf, 0.5, 0.5, 8.0)
    state = driver.read()
    assert state.sequence == 3
    np.testing.assert_array_equal(state.position, np.full(6, 0.5))
    np.testing.assert_array_equal(driver._valid, [True, False, False, True, True, False])


def test_news_that_come_late_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they keep coming: what counts is when they were made."""
    driver = UR5e(replace(CONFIG, address="robot"))
    lags, ages = (0.0, 0.0, 0.06), list[float]()
    news = ({**QUIET, "timestamp": time.monotonic() - 1000.0 - lag} for lag in lags)
    monkeypatch.setattr(driver._link, "newest", lambda patience: next(news))
    for _ in range(3):
        time.sleep(0.1)
        ages.append((time.monotonic_ns() - driver.read().received_ns) / 1e9)
    assert ages[0] == pytest.approx(0.0, abs=0.01)
    assert ages[2] >= 0.055


def test_the_emulator_shares_nothing_with_the_driver() -> None:
    for path in (HERE / "real_robot" / "emulators").glob("ur*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            module = str(node.module) if isinstance(node, ast.ImportFrom) else ""
            assert "codecs" not in module, path
            assert "devices" not in module or module.endswith("devices.config"), path


@pytest.fixture(scope="module")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulation]:
    """A robot that holds a peg over a table."""
    scene = {"task": "peg_insertion", "settings": {"robot": "ur5e"}}
    setup = {"scene": scene, "limits": {**asdict(specification(CONFIG).limits), "rate": 125.0}}
    with Emulation(ur.__name__, tmp_path_factory.mktemp("ur"), setup) as emulation:
        yield emulation


def wait_for(reached: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 10.0
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_wrench_is_what_the_tip_does_to_the_table(emulation: Emulation) -> None:
    """Along the tool's axes, whose z points down; the robot tells it along its base's, and as what is done to it."""
    driver = make_device(replace(CONFIG, address=emulation.address))
    driver.configure()
    assert np.abs(driver.read().observation["observation.wrench"]).max() < 1.0
    goal = driver.read().position + np.array([0.0, 0.25, 0.0, 0.0, 0.0, 0.0])

    class Down:
        """Presses the tip against the table."""

        def at(self, now_ns: int, state: State) -> Intent:
            return Intent(goal, now_ns, "policy")

    for _ in range(8):
        ControlLoop(driver, Down()).run(0.8)
        x, y, z = driver.read().observation["observation.wrench"][:3]
        if z > 20.0:
            break
    driver.close()
    assert z > 20.0
    assert abs(x) + abs(y) < z


def test_the_judge_sees_what_is_wrong(emulation: Emulation) -> None:
    """Otherwise its silence would mean nothing: servoj's ranges, a bad beginning, joints that jump, and no numbers."""
    seen = len(emulation.log())
    link = RTDEClient(Address.parse(emulation.address))
    link.open(("actual_q", READY), (*TARGETS, COUNT, SESSION), 125.0)
    state = link.newest(1.0)
    assert state is not None
    joints = list(state["actual_q"])

    def send(count: int, joints: list[float]) -> None:
        link._socket.sendall(rtde.frame(Kind.DATA, struct.pack(">B6d2i", 1, *joints, count, 7)))

    send(0, joints)
    with Address.parse(emulation.address).run(program(7, 0.5, 0.5, 1000.0)):
        wait_for(lambda: (link.newest(0.1) or {}).get(READY) == 7)
    send(1, [joints[0] + 0.01, *joints[1:]])
    send(2, [joints[0] + 0.05, *joints[1:]])
    send(3, [math.nan, *joints[1:]])
    wait_for(lambda: sum(entry["event"] == "command" for entry in emulation.log()[seen:]) == 3)
    link.close()
    events = [entry for entry in emulation.log()[seen:] if entry["event"] in ("program", "first", "command")]
    constants, first, _, jump, nan = (" ".join(entry["violations"]) for entry in events)
    assert constants == "servoj has a lookahead of 0.5; allowed is 0.03 to 0.2"
    assert "rad from the arm" in first
    for words in ("has a velocity of", "has a acceleration of", "has a jerk of"):
        assert f"element 0 {words}" in jump
    assert "element 0 is sent to nan" in nan

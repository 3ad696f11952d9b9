"""The public client ur_rtde drives the emulated controller: a second, foreign reading of the protocol."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from alula.core.errors import DeviceError
from alula.real_robot.devices import ur5e
from alula.real_robot.devices.config import UR5eConfig
from alula.real_robot.devices.ur5e import UR5e
from alula.real_robot.devices.ur_link import PORTS
from alula.real_robot.emulators import ur
from alula.real_robot.emulators.emulation import Emulation

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.slow,
    pytest.mark.oracle,
    pytest.mark.skipif(
        importlib.util.find_spec("rtde_control") is None, reason="needs pip install ur_rtde: a client to compare with"
    ),
]
HOST = f"127.55.{os.getpid() // 250 % 250 + 1}.{os.getpid() % 250 + 1}"
"""ur_rtde knows only the real ports: a loopback address of this process's own keeps them free."""
WAY = np.array([0.3, -0.2, 0.1, 0.1, 0.1, 0.2])
CLIENT = """
import json, math, sys, time
import rtde_control, rtde_receive

receive = rtde_receive.RTDEReceiveInterface(sys.argv[1], 125.0)
control = rtde_control.RTDEControlInterface(sys.argv[1], 500.0)

def tell(value):
    print(json.dumps(value), flush=True)

for line in sys.stdin:
    name, *values = json.loads(line)
    if name == "q":
        tell(receive.getActualQ())
    elif name == "state":
        tell([receive.getSafetyMode(), receive.getRobotMode(), control.isProgramRunning(), receive.getActualTCPPose()])
    elif name == "servo":
        begin = receive.getActualQ()
        for step in range(int(values[1])):
            period = control.initPeriod()
            share = 0.5 - 0.5 * math.cos(math.pi * (step + 1) / values[1])
            control.servoJ([q + share * way for q, way in zip(begin, values[0])], 0.5, 0.5, 0.002, 0.05, 1000)
            control.waitPeriod(period)
        tell([q + way for q, way in zip(begin, values[0])])
    else:
        tell(getattr(control, name)(*values))
"""


class Client:
    """ur_rtde in a process of its own: its bindings hold Python's lock."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, HOST], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, *question: Any) -> Any:
        """The answer of one of its functions."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulation]:
    with Emulation(ur.__name__, tmp_path_factory.mktemp("ur"), {"host": HOST, "ports": PORTS}) as emulation:
        yield emulation


@pytest.fixture
def client(emulation: Emulation) -> Iterator[Client]:
    client = Client()
    yield client
    client.end()


@pytest.fixture
def watcher(emulation: Emulation) -> Iterator[UR5e]:
    """Our driver beside it; a host is all that it needs to be told, since the ports are the real ones."""
    driver = UR5e(UR5eConfig(address=HOST))
    driver.configure()
    yield driver
    driver.close()


def settle(watcher: UR5e, joints: Any) -> None:
    """Wait until the arm is there."""
    for _ in range(1000):
        if np.abs(watcher.read().position - joints).max() < 2e-3:
            return
        time.sleep(0.01)
    pytest.fail(f"it is at {watcher.read().position}, not at {joints}")


def test_both_clients_see_the_same_and_ur_rtde_moves_it(client: Client, watcher: UR5e, emulation: Emulation) -> None:
    safety, mode, running, pose = client.ask("state")
    assert (safety, mode, running) == (1, 7, True)
    assert np.isfinite(pose).all()
    np.testing.assert_allclose(client.ask("q"), watcher.read().position, atol=1e-6)
    begin = np.array(client.ask("q"))
    assert client.ask("moveJ", (begin + WAY).tolist(), 1.0, 1.4) is True
    settle(watcher, begin + WAY)
    goal = client.ask("servo", (-WAY).tolist(), 200)
    settle(watcher, goal)
    assert client.ask("servoStop") is True
    np.testing.assert_allclose(client.ask("q"), watcher.read().position, atol=1e-3)
    assert client.ask("speedJ", [0.0, -0.2, 0.0, 0.0, 0.0, 0.0], 1.0, 0.5) is True
    time.sleep(0.3)
    assert client.ask("speedStop") is True
    assert watcher.read().position[1] < goal[1] - 0.01
    assert emulation.ask(outcome=True)["commands"] >= 150, "servoJ is not decoded as a command"


def test_our_driver_leaves_its_program_alone(client: Client, watcher: UR5e, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ur5e, "END_S", 0.3)
    assert client.ask("state")[2]
    with pytest.raises(DeviceError, match="runs another program: stop that at the pendant"):
        watcher.activate()
    assert client.ask("state")[2]


def test_its_watchdog_stops_the_arm_when_it_is_killed(client: Client, emulation: Emulation) -> None:
    assert client.ask("setWatchdog", 5.0) is True
    client.end()
    for _ in range(500):
        ended = [entry["why"] for entry in emulation.log() if entry["event"] == "ended"]
        if "watchdog of input_int_register_0" in ended:
            return
        time.sleep(0.01)
    pytest.fail(f"programs ended by {ended}")


def test_nothing_holds_it_back_from_sending_no_numbers(client: Client, emulation: Emulation) -> None:
    """The reason why our driver takes only what the governor made."""
    assert client.ask("servoJ", [float("nan")] * 6, 0.5, 0.5, 0.002, 0.1, 300.0) is True
    for _ in range(500):
        if any("is sent to nan" in line for line in emulation.violations()):
            return
        time.sleep(0.01)
    pytest.fail("the emulator saw nothing of it")

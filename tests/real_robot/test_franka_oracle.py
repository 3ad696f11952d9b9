"""Genuine code against ours: franky's own motions before our robot, our driver and our layout before franky-sim."""

import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("franky", reason="franky-control is missing")

import franky

from alula.real_robot.contract import Intent, State
from alula.real_robot.devices.config import FrankaConfig
from alula.real_robot.devices.franka import Franka
from alula.real_robot.emulators import franka as emulator_module
from alula.real_robot.emulators import franka_wire as wire
from alula.real_robot.emulators.emulation import Emulation
from alula.real_robot.emulators.franka_wire import Mode, Telemetry
from alula.real_robot.loop import ControlLoop

pytestmark = [pytest.mark.real_time, pytest.mark.oracle]
SIMULATED = "127.201.33.7"


@pytest.fixture
def emulation(tmp_path: Path) -> Iterator[Emulation]:
    setup, _ = emulator_module.prepare(FrankaConfig(), tmp_path)
    with Emulation(emulator_module.__name__, tmp_path, setup | {"limits": None, "scene": None}) as running:
        yield running


def connect(address: str) -> Any:
    """Franky's own client, at a tenth of its dynamics."""
    robot = franky.Robot(address, realtime_config=franky.RealtimeConfig.Ignore)
    robot.relative_dynamics_factor = 0.1
    return robot


def test_franky_moves_our_robot_to_a_position(emulation: Emulation) -> None:
    robot = connect(emulation.address)
    target = robot.state.q + np.array([0.1, -0.05, 0.1, 0.05, -0.1, 0.05, 0.2])
    robot.move(franky.JointMotion(target))
    time.sleep(0.5)
    state = robot.state
    np.testing.assert_allclose(state.q_d, target, atol=1e-4)
    np.testing.assert_allclose(state.q, target, atol=5e-3)
    assert state.robot_mode == franky.RobotMode.Idle
    assert emulation.violations() == []


def test_franky_moves_our_robot_at_a_velocity_and_stops_it(emulation: Emulation) -> None:
    robot = connect(emulation.address)
    before = robot.state.q_d
    robot.move(franky.JointVelocityMotion([0.1, 0, 0, 0, 0, 0, -0.1], franky.Duration(300)), asynchronous=True)
    time.sleep(0.2)
    assert robot.is_in_control
    robot.move(franky.JointVelocityStopMotion())
    after = robot.state.q_d
    assert 0.005 < after[0] - before[0] < 0.2
    np.testing.assert_allclose((after - before)[[0, 6]], (after - before)[0] * np.array([1, -1]), rtol=1e-2)
    assert emulation.violations() == []


def test_what_our_robot_cannot_do_is_refused(emulation: Emulation) -> None:
    robot = connect(emulation.address)
    with pytest.raises(franky.CommandException, match="rejected"):
        robot.move(franky.CartesianMotion(franky.Affine([0.0, 0.0, 0.05]), franky.ReferenceType.Relative))
    assert robot.state.robot_mode == franky.RobotMode.Idle


def test_franky_sees_what_our_robot_says(emulation: Emulation) -> None:
    """Field by field, as its own reading of the datagram has it."""
    robot = connect(emulation.address)
    state = robot.state
    np.testing.assert_array_equal(state.q, state.q.astype(np.float32))
    np.testing.assert_allclose(state.q_d, state.q, atol=1e-2)
    np.testing.assert_allclose(np.linalg.det(state.O_T_EE.matrix), 1.0, atol=1e-5)
    flange = robot.model.pose(franky.Frame.Flange, state).translation
    assert 0.05 < np.linalg.norm(state.O_T_EE.translation - flange) < 0.2
    assert "fr3" in robot.model_urdf
    assert state.O_ddP_O.tolist() == pytest.approx([0.0, 0.0, -9.81])


def test_the_layout_of_a_state_is_that_of_franky_sim() -> None:
    state_module = pytest.importorskip("franky_sim.franka_robot_state", reason="franky-sim is missing")
    numbers = iter(1000 + np.arange(1, 1000) / 8)  # exact in single precision, and nowhere a default

    def some(count: int) -> tuple[float, ...]:
        return tuple(float(next(numbers)) for _ in range(count))

    names = ("q", "dq", "tau_J", "q_d", "dq_d", "ddq_d", "K_F_ext_hat_K", "O_T_EE")
    values = dict(zip(names, [some(7), some(7), some(7), some(7), some(7), some(7), some(6), some(16)], strict=True))
    theirs = state_module.FrankaRobotState(robot_mode=2, motion_generator_mode=2, controller_mode=0, **values)
    order = ("q", "dq", "tau_J", "q_d", "dq_d", "ddq_d", "K_F_ext_hat_K", "O_T_EE")
    ours = Telemetry(
        5, Mode.MOVE, wire.VELOCITIES + 1, *(values[name] for name in order), frozenset(), frozenset(), 0.0
    ).pack()
    packed = theirs.pack_state()
    assert len(ours) == 8 + len(packed) == wire.STATE.size
    # What they leave at its default, and we fill in, is of no concern; what is given stands in the same places.
    mine, other = wire.STATE.unpack(ours), wire.STATE.unpack((5).to_bytes(8, "little") + packed)
    given = {value for name in names for value in values[name]}
    for place, value in enumerate(other):
        if value in given:
            assert mine[place] == value
    assert mine[-86:-84] == other[-86:-84] == (2, 0)
    assert mine[-2] == other[-2] == Mode.MOVE


def test_a_set_point_is_read_as_franky_sim_reads_it() -> None:
    protocol = pytest.importorskip("franky_sim.franka_robot_protocol", reason="franky-sim is missing")
    data = wire.COMMAND.pack(7, *range(1, 8), *range(8, 15), *[0.0] * 24, False, True, *[0.0] * 7, False)
    theirs, ours = protocol.UDPCommand.from_bytes(data), wire.read_set_point(data)
    assert (ours.message_id, ours.position, ours.velocity) == (theirs.message_id, theirs.q_c, theirs.dq_c)
    assert ours.finished is theirs.motion_generation_finished is True


class Aside:
    """Wants to be a little aside."""

    target: np.ndarray | None = None

    def at(self, now_ns: int, state: State) -> Intent:
        if self.target is None:
            self.target = state.position + 0.1
        return Intent(self.target, now_ns, "policy")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("franky_sim") is None, reason="franky-sim is missing")
def test_our_driver_moves_the_robot_of_franky_sim() -> None:
    """Somebody else's robot: other code, other model, other controller."""
    command = [sys.executable, "-m", "franky_sim.run_server", "--hostname", SIMULATED, "--simulator", "mujoco"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _await(SIMULATED)
            device = Franka(FrankaConfig(address=SIMULATED, realtime=False))
            device.configure()
            before = device.read().position
            for _ in range(5):
                loop = ControlLoop(device, Aside())
                loop.run(1.5)
                if loop.governor.stopped == "the run is over":
                    break
            time.sleep(1.0)
            after = device.read()
            device.close()
        finally:
            server.kill()
    assert loop.governor.stopped == "the run is over"
    assert after.faults == ()
    assert (after.position > before + 0.05).all()


def _await(host: str) -> None:
    """Wait until somebody listens there."""
    for _ in range(150):
        try:
            socket.create_connection((host, wire.PORT), timeout=1.0).close()
        except OSError:
            time.sleep(0.2)
        else:
            time.sleep(0.5)
            return

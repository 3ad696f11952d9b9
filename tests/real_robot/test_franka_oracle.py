"""Genuine code against ours: franky's own motions move our emulated robot."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("franky", reason="franky-control is missing")

import franky

from alula.real_robot.devices.config import FrankaConfig
from alula.real_robot.emulators import franka as emulator_module
from alula.real_robot.emulators.emulation import Emulation

pytestmark = [pytest.mark.real_time, pytest.mark.oracle]


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

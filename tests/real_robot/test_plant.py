"""The world of emulated robots: a task in real time, which judges for itself."""

import json
import socket

import numpy as np
import pytest

from alula.real_robot.emulators.plant import ArmPlant, QuadcopterPlant

MS = 1_000_000


def pass_time(plant: ArmPlant | QuadcopterPlant, seconds: float, start: int) -> int:
    """Let time pass in steps of 10 ms; returns when it is over [ns]."""
    for step in range(round(seconds * 100)):
        plant.advance(start + (step + 1) * 10 * MS)
    return start + round(seconds * 100) * 10 * MS


def test_an_arm_follows_its_targets_and_stays_without_power() -> None:
    plant = ArmPlant("reach", {"robot": "ur5e"})
    begin = plant.position
    plant.command(begin + 0.05)
    now = pass_time(plant, 0.5, 0)
    np.testing.assert_allclose(plant.position, begin, atol=0.01)
    plant.powered = True
    plant.command(begin + 0.05)
    pass_time(plant, 1.0, now)
    np.testing.assert_allclose(plant.position, begin + 0.05, atol=0.005)


def test_a_plant_that_was_asleep_does_not_jump() -> None:
    plant = ArmPlant("reach", {"robot": "ur5e"})
    plant.advance(10 * MS)
    before = plant.data.time
    plant.advance(3_600_000 * MS)
    assert plant.data.time - before < 0.11


def test_things_are_out_of_the_way_until_the_episode_begins() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(2.0)
        host, port = listener.getsockname()
        plant = ArmPlant("peg_insertion", {"robot": "ur5e", "offset_std": 0.0}, tracker=f"{host}:{port}")
        here = plant.position
        start = plant.reset(7)
        assert len(start) == 6
        assert plant.data.mocap_pos[0, 2] < -1.0
        np.testing.assert_array_equal(plant.position, here)
        plant.begin()
        plant.advance(25 * MS)
        said = json.loads(listener.recv(65536))["poses"]["socket"]
        np.testing.assert_allclose(said[:3], plant.data.mocap_pos[0], atol=1e-9)
        assert plant.data.mocap_pos[0, 2] > 0.0
        plant.close()
    assert plant.reset(7) == start
    assert plant.reset(8) != start


def test_the_task_says_when_it_is_done() -> None:
    plant = ArmPlant("lift", {"robot": "panda"})
    plant.reset(0)
    plant.begin()
    assert not plant.succeeded
    cube = plant.model.joint("cube").qposadr[0]
    plant.data.qpos[cube + 2] = 0.5
    plant.advance(60 * MS)
    assert plant.succeeded


@pytest.mark.parametrize("task", ["hover", "gates"])
def test_a_drone_begins_on_the_floor_and_flies_where_it_is_sent(task: str) -> None:
    plant = QuadcopterPlant(task, {"action_mode": "velocity"})
    now = pass_time(plant, 0.3, 0)
    assert not plant.airborne
    plant.command("position", np.array([*plant.pose[:2], 1.0, 0.0]))
    now = pass_time(plant, 4.0, now)
    assert plant.airborne
    assert abs(plant.pose[2] - 1.0) < 0.05
    start = plant.reset(3)
    assert abs(plant.pose[2] - 1.0) < 0.05, "the robot stays where it is"
    plant.command("position", np.array(start))
    now = pass_time(plant, 6.0, now)
    plant.begin()
    np.testing.assert_allclose(plant.pose[:3], start[:3], atol=0.05)
    assert not plant.crashed
    plant.command("rotor_speed", np.zeros(4))
    pass_time(plant, 2.0, now)
    assert plant.crashed
    assert not plant.airborne

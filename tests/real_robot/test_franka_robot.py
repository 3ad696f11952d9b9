"""What an emulated Franka's controller does with set points, and how it reads commands; no process, no wire."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alula.real_robot.emulators import franka_wire as wire
from alula.real_robot.emulators.franka_robot import ACCELERATION, DT, MOST_MISSED, FrankaRobot
from alula.real_robot.emulators.franka_wire import Mode, MoveStatus, SetPoint
from alula.real_robot.emulators.plant import ArmPlant


class Still(ArmPlant):
    """An arm that is where its targets are."""

    def __init__(self) -> None:
        self.place, self.felt = np.array([0.0, 0.0, 0.0, -1.5, 0.0, 1.5, 0.0]), np.zeros(6)

    @property
    def position(self) -> np.ndarray:
        return self.place

    @property
    def wrench(self) -> np.ndarray:
        return self.felt

    def command(self, target: np.ndarray, opening: float | None = None) -> None:
        self.place = target.copy()

    def advance(self, now_ns: int) -> None:
        pass


def velocities(*values: float) -> SetPoint:
    """A set point that moves the first joints so fast."""
    return SetPoint(0, (0.0,) * 7, (*values, *(0.0,) * (7 - len(values))), False)


@pytest.fixture
def robot() -> FrankaRobot:
    made = FrankaRobot(Still())
    assert made.start(wire.VELOCITIES) is MoveStatus.STARTED
    return made


@pytest.mark.parametrize(
    ("set_points", "breach"),
    [
        ([[1e-3]], ""),
        ([[6e-3]], "acceleration_discontinuity"),
        ([[0.005], [0.015], [0.026]], "velocity_discontinuity"),
        ([[0.001 * k] for k in range(1, 4)] + [[float("nan")]], "position_limits_violation"),
        ([[20.0]], "start_pose_invalid"),
    ],
)
def test_the_judge_sees_what_is_wrong(robot: FrankaRobot, set_points: list[list[float]], breach: str) -> None:
    """Otherwise its silence would mean nothing."""
    found = list[str]()
    for values in set_points:
        found += robot.follow(velocities(*values))
    if breach:
        assert any(breach in name for name in found)
        assert robot.mode is Mode.REFLEX
    else:
        assert found == []
        assert robot.mode is Mode.MOVE


def test_velocities_near_the_end_are_judged_by_the_room_that_is_left(robot: FrankaRobot) -> None:
    robot.desired = robot.desired.copy()
    robot.desired[1], speed = wire.HIGH[1] - 0.01, np.sqrt(0.25**2 + 2 * 2.585 * 0.01) - 0.25
    for factor, wrong in ((0.99, False), (1.01, True)):
        robot.velocity = np.array([0.0, factor * speed, 0.0, 0.0, 0.0, 0.0, 0.0])
        assert robot._too_fast(robot.velocity).any() == wrong


def test_missed_answers_are_extrapolated_and_then_end_the_motion(robot: FrankaRobot) -> None:
    for index in range(1, 6):
        robot.follow(velocities(1e-3 * index))
        robot.tick()
    speed, position = robot.velocity[0], robot.desired[0]
    for _ in range(MOST_MISSED - 1):
        robot.miss()
        robot.tick()
    assert robot.mode is Mode.MOVE
    steps = np.arange(1, MOST_MISSED)
    assert robot.desired[0] == pytest.approx(position + (speed * DT + 1e-3 * steps * DT).sum())
    robot.miss()
    assert (robot.mode, robot.ended) == (Mode.REFLEX, MoveStatus.REFLEX)
    assert robot.errors == {"communication_constraints_violation"}
    while robot.velocity.any():
        before = robot.velocity.copy()
        robot.tick()
        assert np.abs(robot.velocity - before).max() <= ACCELERATION * DT + 1e-12
    assert robot.start(wire.VELOCITIES) is MoveStatus.NOT_POSSIBLE
    assert robot.recover()
    assert robot.start(wire.VELOCITIES) is MoveStatus.STARTED


def test_a_force_above_the_threshold_is_a_collision(robot: FrankaRobot) -> None:
    robot.thresholds = np.full(6, 20.0)
    robot.plant.wrench[2] = 19.0
    robot.tick()
    assert robot.mode is Mode.MOVE
    np.testing.assert_array_equal(robot.wrench, [0.0, 0.0, 19.0, 0.0, 0.0, 0.0])
    robot.plant.wrench[2] = 21.0
    robot.tick()
    assert robot.errors == {"cartesian_reflex"}


@given(st.lists(st.tuples(st.sampled_from(wire.Command), st.binary(max_size=40)), max_size=5), st.data())
def test_commands_come_through_in_any_pieces(messages: list[tuple[wire.Command, bytes]], data: st.DataObject) -> None:
    stream = b"".join(
        struct.pack("<III", command, number, 12 + len(content)) + content
        for number, (command, content) in enumerate(messages)
    )
    cut, reader, found = 0, wire.Stream(), list[tuple[wire.Command, int, bytes]]()
    while cut < len(stream):
        size = data.draw(st.integers(1, len(stream)))
        found += reader.feed(stream[cut : cut + size])
        cut += size
    assert found == [(command, number, content) for number, (command, content) in enumerate(messages)]

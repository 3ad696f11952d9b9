"""An arm follows another one that is led by hand: smoothly from wherever it is, and not where nobody leads."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from alula.core.errors import DeviceError
from alula.real_robot.contract import DeviceSpec, Receipt, State, Stop
from alula.real_robot.devices.dynamixel import ViperX
from alula.real_robot.devices.servo_arm import specification
from alula.real_robot.devices.simulated import Simulated
from alula.real_robot.devices.so101 import GRIPPER, SO101
from alula.real_robot.governor import Reason, SafeCommand
from alula.real_robot.loop import ControlLoop, Tick
from alula.real_robot.sources.arbitration import Arbitration
from alula.real_robot.teleoperation.leader import Leader, LedByArm

pytestmark = pytest.mark.real_time

SPEC = specification(SO101.arm, SO101.arm.limits)
HANDLE = (-0.1, 0.5)
"""How far the leader's gripper opens [rad]."""


def leading_spec() -> DeviceSpec:
    """An arm of the same kind, with a handle instead of a gripper."""
    limits = SO101.arm.limits
    low, high = ((*ends[:-1], end) for ends, end in zip((limits.low, limits.high), HANDLE, strict=True))
    return specification(SO101.arm, replace(limits, low=low, high=high))


class Hand:
    """A leader arm in somebody's hand."""

    def __init__(self, place: float) -> None:
        self.spec, self.position = leading_spec(), np.full(6, place)
        self.stops = list[Stop]()
        self.there, self.faults = True, tuple[str, ...]()
        self._sequence = self._heard_ns = 0

    def configure(self) -> None:
        raise AssertionError("it is configured")

    def activate(self) -> State:
        raise AssertionError("a leader never gets power")

    def read(self) -> State:
        if self.there:
            self._sequence, self._heard_ns = self._sequence + 1, time.monotonic_ns()
        valid = np.full(6, self.there)
        return State({}, self.position.copy(), np.zeros(6), valid, self._sequence, self._heard_ns, self.faults)

    def write(self, command: SafeCommand) -> Receipt:
        raise AssertionError("a leader never gets power")

    def stop(self, how: Stop) -> None:
        self.stops.append(how)

    def close(self) -> None:
        """There is nothing to let go of."""


def follow(hand: Hand, seconds: float, move: Callable[[int], object] = lambda period: None) -> tuple[str, list[Tick]]:
    """A run that follows a hand, which moves by its own plan; why it ended, and what happened."""
    device = Simulated(SPEC, np.zeros(6))
    leader, ticks = Leader(hand, SPEC), list[Tick]()
    leader.open()
    arbitration = Arbitration(SPEC, [LedByArm(leader, lambda why: loop.governor.emergency_stop(why))])

    def record(tick: Tick) -> None:
        arbitration.note(tick)
        ticks.append(tick)
        move(len(ticks))

    loop = ControlLoop(device, arbitration, record)
    try:
        loop.run(seconds)
    finally:
        leader.close()
    return str(loop.governor.stopped), ticks


def require_limits(ticks: list[Tick]) -> np.ndarray:
    """No command breaks a limit; returns their positions."""
    positions = np.stack([tick.command.position for tick in ticks])
    for order, most in ((1, SPEC.limits.velocity), (2, SPEC.limits.acceleration), (3, SPEC.limits.jerk)):
        assert (np.abs(np.diff(positions, n=order, axis=0)) * SPEC.rate**order <= np.array(most) * (1 + 1e-6)).all()
    return positions


def test_it_goes_to_its_leader_and_then_with_it() -> None:
    """It begins a radian away, and there is no jump; its gripper opens as far of its way as the handle of its own."""
    hand = Hand(1.0)
    hand.position[-1] = 0.2

    def move(period: int) -> None:
        if period > 75:
            hand.position[:-1] = 1.0 - 0.3 * (1 - np.cos((period - 75) / 25))

    stopped, ticks = follow(hand, 2.5, move)
    assert stopped == "the run is over"
    positions = require_limits(ticks)
    assert positions[0].tolist() == [0.0] * 6
    np.testing.assert_allclose(positions[70:75, :-1], 1.0, atol=1e-6)
    np.testing.assert_allclose(positions[75, -1], GRIPPER[0] + 0.5 * (GRIPPER[1] - GRIPPER[0]), atol=1e-6)
    # It moved with the hand, which goes 0.012 rad in a period: at most three periods later.
    hand_was = 1.0 - 0.3 * (1 - np.cos((np.arange(80, len(positions)) - 75) / 25))
    assert np.abs(positions[80:, 0] - hand_was).max() < 0.04
    assert all(tick.intent.source == "teleoperation" for tick in ticks[3:] if tick.intent is not None)


def test_a_leader_is_limp_and_only_read() -> None:
    hand = Hand(0.0)
    follow(hand, 0.1)
    assert hand.stops == [Stop.LIMP]


def test_where_the_leader_is_lost_the_arm_comes_to_rest() -> None:
    hand = Hand(1.0)

    def move(period: int) -> None:
        hand.there = period < 25

    stopped, ticks = follow(hand, 5.0, move)
    assert stopped.startswith("the leader has not been heard of for")
    assert len(ticks) < 150
    positions = require_limits(ticks)
    assert np.abs(positions[25] - positions[24]).max() > 0.005, "it was to be lost on the way"
    # It brakes as soon as the leader is stale, long before everything is stopped.
    stop = next(number for number, tick in enumerate(ticks) if Reason.EMERGENCY_STOP in tick.command.reasons)
    assert np.abs(positions[-1] - positions[stop - 1]).max() < 0.02
    assert (np.abs(ticks[-1].command.velocity) < 1e-2).all()
    assert np.abs(positions[-1, 0] - 1.0) > 0.05, "it does not go on to a leader that is lost"


def test_a_leader_that_is_silent_for_a_moment_is_taken_up_again() -> None:
    hand = Hand(0.5)

    def move(period: int) -> None:
        hand.there = not 15 < period < 22

    stopped, ticks = follow(hand, 4.0, move)
    assert stopped == "the run is over"
    far = np.abs(require_limits(ticks)[:, :-1] - 0.5).max(axis=1)
    assert far[22] > 0.1, "it was to be lost on the way"
    assert far[22:].min() < 1e-3


def test_a_leader_that_complains_stops_everything() -> None:
    hand = Hand(0.2)

    def move(period: int) -> None:
        hand.faults = ("gripper (servo 6): voltage",) if period > 5 else ()

    stopped, ticks = follow(hand, 2.0, move)
    assert stopped == "the leader reports: gripper (servo 6): voltage"
    require_limits(ticks)


def test_a_leader_has_the_follower_s_joints() -> None:
    viperx = specification(ViperX.arm, ViperX.arm.limits)
    with pytest.raises(DeviceError, match=r"so101 cannot lead viperx: its joints are shoulder_pan, .* those of viperx"):
        Leader(Hand(0.0), viperx)
    nameless = replace(SPEC, grip=None)
    with pytest.raises(DeviceError, match="so101 cannot lead so101"):
        Leader(Hand(0.0), nameless)

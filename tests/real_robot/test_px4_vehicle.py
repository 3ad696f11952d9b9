"""What is made of the messages of a PX4: its state, in our frames and words, and what is wrong with it."""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pymavlink.dialects.v20 import common

from alula.real_robot.codecs.mavlink import Mode
from alula.real_robot.contract import State
from alula.real_robot.devices.px4_vehicle import Vehicle

MS = 1_000_000


class Telling:
    """A vehicle that is told to have said things."""

    def __init__(self) -> None:
        self.vehicle, self.mav = Vehicle(1), common.MAVLink(None, 1, 1)
        self.parser = common.MAVLink(None)
        self.begun = time.monotonic_ns()
        self.tell(0, self.heartbeat(), self.odometry(5000))
        self.tell(0, common.MAVLink_estimator_status_message(0, 0x3F, *[0.0] * 8), self.battery(80))
        self.vehicle.begin()

    def tell(self, at_ms: float, *messages: Any) -> None:
        for message in messages:
            (heard,) = self.parser.parse_buffer(message.pack(self.mav))
            self.vehicle.hear(heard, self.begun + round(at_ms * MS))

    def heartbeat(self, mode: int = Mode.OFFBOARD, armed: bool = True, status: int = 4) -> Any:
        return common.MAVLink_heartbeat_message(2, 12, 0x80 if armed else 1, mode, status, 3)

    def odometry(self, stamp_ms: float, x: float = 0.0, resets: int = 0, q: tuple[float, ...] = (1, 0, 0, 0)) -> Any:
        nothing = [math.nan] * 21
        head = (round(1000 * stamp_ms), 1, 1, x, 0.0, -1.0, list(q), *[0.0] * 6)
        return common.MAVLink_odometry_message(*head, nothing, nothing, resets, 0, 100)

    def battery(self, percent: int, charge: int = 1) -> Any:
        cells = [65535] * 10
        return common.MAVLink_battery_status_message(0, 1, 1, 0, cells, 0, 0, 0, percent, 0, charge)

    def state(self, at_ms: float) -> State:
        return self.vehicle.state(self.begun + round(at_ms * MS))


def test_a_sound_vehicle_has_no_complaints() -> None:
    state = Telling().state(50)
    assert state.faults == ()
    assert state.valid.all()
    # North of PX4's is our y; its yaw of 0, north, is our quarter turn.
    np.testing.assert_allclose(state.position, [0, 0, 1, math.pi / 2], atol=1e-6)


def test_an_old_stamp_is_no_news() -> None:
    telling = Telling()
    before = telling.state(0)
    telling.tell(20, telling.odometry(5000, x=1.0), telling.odometry(4990, x=2.0))
    after = telling.state(20)
    assert (after.sequence, after.received_ns) == (before.sequence, before.received_ns)
    np.testing.assert_array_equal(after.position, before.position)


def test_a_late_measurement_is_as_old_as_it_is() -> None:
    telling = Telling()
    telling.tell(20, telling.odometry(5020))
    assert telling.state(20).received_ns == pytest.approx(telling.begun + 20 * MS, abs=1000)
    telling.tell(540, telling.odometry(5040))
    assert telling.state(540).received_ns == pytest.approx(telling.begun + 40 * MS, abs=0.1 * MS)
    assert "no telemetry for 500 ms" in telling.state(540).faults


def test_a_clock_that_starts_anew_is_a_fault() -> None:
    telling = Telling()
    telling.tell(20, telling.odometry(3))
    assert telling.state(20).faults == ("its clock has gone back by 5.0 s: it has been started anew",)


@pytest.mark.parametrize(("silent_ms", "complains"), [(290, False), (310, True)])
def test_telemetry_is_missed_after_300_ms(silent_ms: int, complains: bool) -> None:
    telling = Telling()
    telling.tell(silent_ms, telling.heartbeat())
    assert bool(telling.state(silent_ms).faults) is complains


@pytest.mark.parametrize(("silent_ms", "complains"), [(1990, False), (2010, True)])
def test_heartbeats_are_missed_after_2_s(silent_ms: int, complains: bool) -> None:
    telling = Telling()
    telling.tell(silent_ms, telling.odometry(5000 + silent_ms))
    assert any("no heartbeat" in text for text in telling.state(silent_ms).faults) is complains


@pytest.mark.parametrize("broken", [{"x": math.nan}, {"x": 1e9}, {"q": (0.0, 0.0, 0.0, 0.0)}, {"q": (math.nan,) * 4}])
def test_what_cannot_be_measured_is_not_believed(broken: dict[str, Any]) -> None:
    telling = Telling()
    telling.tell(20, telling.odometry(5020, **broken))
    state = telling.state(20)
    assert not state.valid.any()
    assert np.isfinite(state.position).all()
    assert state.sequence == 1
    telling.tell(40, telling.odometry(5040))
    assert telling.state(40).valid.all()


@pytest.mark.parametrize(
    ("say", "words"),
    [
        (lambda it: it.heartbeat(mode=Mode.POSITION), "its mode is POSITION: somebody has taken over"),
        (lambda it: it.heartbeat(armed=False), "its rotors are off"),
        (lambda it: it.heartbeat(status=common.MAV_STATE_CRITICAL), "it is in failsafe"),
        (lambda it: it.odometry(5010, resets=1), "its estimate of where it is has jumped"),
        (lambda it: common.MAVLink_estimator_status_message(0, 0x27, *[0.0] * 8), "does not know where it is"),
        (lambda it: it.battery(5), "the battery is critical: 5 %"),
        (lambda it: it.battery(50, charge=common.MAV_BATTERY_CHARGE_STATE_FAILED), "its battery critical or faulty"),
        (lambda it: common.MAVLink_statustext_message(2, b"Motor failure"), "it says 'Motor failure'"),
    ],
)
def test_faults_have_words(say: Callable[[Telling], Any], words: str) -> None:
    telling = Telling()
    telling.tell(10, say(telling))
    assert words in "; ".join(telling.state(10).faults)


def test_a_low_battery_is_a_fault_once_it_is_low_for_a_while() -> None:
    telling = Telling()
    faults = []
    for second in range(4):
        telling.tell(1000 * second, telling.battery(12), telling.odometry(5001 + 1000 * second), telling.heartbeat())
        faults.append(telling.state(1000 * second).faults)
    assert faults[0] == faults[1] == ()
    assert faults[3] == ("the battery is low: 12 %",)


def test_others_on_the_link_are_not_heard() -> None:
    telling = Telling()
    telling.mav = common.MAVLink(None, 7, 1)
    telling.tell(10, telling.heartbeat(mode=Mode.POSITION))
    telling.mav = common.MAVLink(None, 1, 200)
    telling.tell(10, telling.heartbeat(mode=Mode.POSITION))
    assert telling.state(10).faults == ()

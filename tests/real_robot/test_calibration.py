"""Calibrations: what is written is read, and what cannot be true is refused before anything moves."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alula.core.errors import DeviceError
from alula.real_robot.devices.calibrating import Calibrator
from alula.real_robot.devices.calibration import LEAST_RANGE, Calibration, expiry
from alula.real_robot.devices.config import KochConfig, SO101Config
from alula.real_robot.devices.dynamixel import Koch, ViperX
from alula.real_robot.devices.registry import make_device
from alula.real_robot.devices.so101 import HIGH, JOINTS, LOW, SO101

COUNT = 2 * np.pi / 4096
TODAY = date.today()
RANGES = st.lists(st.integers(0, 4095), min_size=3, max_size=3, unique=True).map(sorted)


def calibration(ranges: list[list[int]]) -> Calibration:
    """Of servos with these lows, zeros and highs."""
    low, zero, high = (tuple(column) for column in zip(*ranges, strict=True))
    names = tuple(f"servo{index}" for index in range(len(ranges)))
    return Calibration("arm", names, zero, low, high, tuple(range(len(ranges))), expiry(TODAY))


@given(st.lists(RANGES.filter(lambda ends: ends[2] - ends[0] >= LEAST_RANGE), min_size=1, max_size=9))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, ranges: list[list[int]]) -> None:
    path, written = tmp_path_factory.getbasetemp() / "new" / "arm.json", calibration(ranges)
    written.save(path)
    assert Calibration.load(str(path), "arm", written.servos) == written
    assert [entry.name for entry in path.parent.iterdir()] == ["arm.json"]


@given(st.lists(st.integers(-5, 4100), min_size=3, max_size=3))
def test_only_ranges_on_one_turn_are_possible(ends: list[int]) -> None:
    low, zero, high = ends
    possible = 0 <= low <= zero <= high <= 4095 and high - low >= LEAST_RANGE
    with nullcontext() if possible else pytest.raises(DeviceError, match="they must rise, between 0 and 4095"):
        calibration([ends]).require_possible()


@given(RANGES, st.integers(0, 4095))
def test_an_angle_is_a_count_and_back(ends: list[int], count: int) -> None:
    """Positions grow with the servo's counts, from the zero on."""
    found = calibration([ends])
    assert found.angle(np.array([ends[1]])).item() == 0.0
    angle = found.angle(np.array([count]))
    np.testing.assert_allclose(angle, (count - ends[1]) * COUNT)
    assert found.counts(angle).tolist() == [count]


@pytest.fixture
def so101(tmp_path: Path) -> Path:
    """A calibration of an arm whose joints reach differently far."""
    path = tmp_path / "arm.json"
    count = len(JOINTS)
    low, high = (600,) * (count - 1) + (1960,), (2500,) + (3700,) * (count - 1)
    Calibration("so101", JOINTS, (2048,) * count, low, high, (0,) * count, TODAY).save(path)
    return path


def test_limits_are_the_arms_where_it_reaches_as_far(so101: Path) -> None:
    limits = make_device(SO101Config(calibration=str(so101))).spec.limits
    np.testing.assert_allclose(limits.low, [*LOW[:4], (600 - 2048) * COUNT, (1960 - 2048) * COUNT], atol=COUNT)
    np.testing.assert_allclose(
        limits.high, [(2500 - 2048) * COUNT, *HIGH[1:4], (3700 - 2048) * COUNT, HIGH[5]], atol=COUNT
    )


def test_the_goal_nearest_to_a_permitted_position_is_permitted(so101: Path) -> None:
    """Otherwise a run could not begin where the last one ended, at a limit."""
    device = SO101(SO101Config(calibration=str(so101)))
    limits = device.spec.limits
    for end in (np.array(limits.low) + limits.margin, np.array(limits.high) - limits.margin):
        goal = device.calibration.angle(device.calibration.counts(end))
        assert (goal >= np.array(limits.low) + limits.margin).all()
        assert (goal <= np.array(limits.high) - limits.margin).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["servos"].pop("gripper"), "KeyError 'gripper'.*alula calibrate device=so101"),
        (lambda content: content.update(expires="2020-01-31"), "has expired on 2020-01-31"),
        (lambda content: content["servos"]["gripper"].update(low=3800), "low 3800, zero 2048 and high 3700"),
        (lambda content: content["servos"]["gripper"].update(low="left"), "cannot be read: ValueError"),
        (lambda content: content.update(version=2), "is of version 2 for 'so101'; it must be of version 1"),
        (lambda content: content.update(device="koch"), "is of version 1 for 'koch'; it must be .* for 'so101'"),
        (lambda content: content.clear(), "cannot be read"),
    ],
)
def test_a_bad_calibration_is_refused(so101: Path, change: Callable[[Any], None], message: str) -> None:
    content = json.loads(so101.read_text(encoding="utf-8"))
    change(content)
    so101.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DeviceError, match=message):
        SO101(SO101Config(calibration=str(so101)))


def test_the_last_day_is_valid(so101: Path) -> None:
    SO101(SO101Config(calibration=str(so101)))
    assert expiry(TODAY) == TODAY + timedelta(days=365)


def test_a_missing_calibration_is_refused(tmp_path: Path, so101: Path) -> None:
    with pytest.raises(DeviceError, match=r"nowhere.json cannot be read: FileNotFoundError"):
        SO101(SO101Config(calibration=str(tmp_path / "nowhere.json")))
    with pytest.raises(DeviceError, match=r"koch needs its calibration, device\.calibration=FILE"):
        Koch(KochConfig())
    with pytest.raises(DeviceError, match="is of version 1 for 'so101'; it must be of version 1 for 'koch'"):
        Koch(KochConfig(calibration=str(so101)))


def test_a_file_that_cannot_be_written_leaves_the_old_one(so101: Path) -> None:
    before = so101.read_text(encoding="utf-8")
    with pytest.raises(DeviceError, match="cannot be written"):
        calibration([[0, 1, 4000]]).save(so101 / "below")
    assert so101.read_text(encoding="utf-8") == before


class Held:
    """Servos that a test moves: what `Calibrator` needs of a `ServoGroup`.

    The homing offset counts as the family says, and positions are those of one turn, as of an STS.
    """

    def __init__(self, calibrator: Calibrator, angles: dict[int, int]) -> None:
        self.family, self.angles = calibrator.arm.family, angles
        self.homing = dict.fromkeys(angles, 0)
        calibrator._servos = self  # type: ignore[assignment]

    def get(self, register: object) -> dict[int, int]:
        if register is self.family.homing_offset:
            return dict(self.homing)
        sign = self.family.homing_sign
        return {number: (angle + sign * self.homing[number]) % 4096 for number, angle in self.angles.items()}

    def set_each(self, _: object, data: dict[int, int]) -> None:
        self.homing |= data


@pytest.mark.parametrize("arm", [SO101.arm, ViperX.arm], ids=lambda arm: arm.name)
@pytest.mark.parametrize("mounted", [0, 1, 700, 2048, 4095])
def test_horns_may_be_mounted_anyhow(arm: Any, mounted: int) -> None:
    """The zero pose is in the middle of the encoder's turn afterwards, whatever offset there was before."""
    calibrator = Calibrator(arm, "/dev/null")
    servos = Held(calibrator, dict.fromkeys(arm.numbers, mounted))
    servos.homing = {number: 10 * number for number in arm.numbers}
    calibrator.center()
    for way in (0, 900, -900):
        servos.angles = dict.fromkeys(arm.numbers, mounted + way)
        calibrator.look()
    found = calibrator.result(TODAY)
    assert {abs(zero - 2048) for zero in found.zero} <= {0, 1}
    assert np.array(found.high).tolist() == [zero + 900 for zero in found.zero]
    assert np.array(found.low).tolist() == [zero - 900 for zero in found.zero]
    assert dict(zip(arm.numbers, found.homing_offset, strict=True)) == servos.homing


def test_a_joint_that_passes_the_end_of_its_encoder_is_refused() -> None:
    calibrator = Calibrator(SO101.arm, "/dev/null")
    servos = Held(calibrator, dict.fromkeys(SO101.arm.numbers, 1000))
    calibrator.center()
    for way in range(0, 2000, 100):
        servos.angles[5] = 1000 + way
        calibrator.look()
    servos.angles[5] = 1000 + 2100
    with pytest.raises(DeviceError, match="wrist_roll has passed the end of its encoder"):
        calibrator.look()

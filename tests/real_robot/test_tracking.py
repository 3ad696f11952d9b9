"""What a tracking system says is believed as long as it is fresh and makes sense."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from alula.core.errors import DeviceError
from alula.real_robot.tracking import Tracker, read_poses

SOCKET = [0.5, 0.1, 0.025, 1.0, 0.0, 0.0, 0.0]


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    tracker = Tracker(["socket"])
    yield tracker
    tracker.close()


def send(tracker: Tracker, message: bytes) -> None:
    host, _, port = tracker.address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(message, (host, int(port)))


def test_a_pose_is_known_once_it_was_sent_and_until_it_is_old(tracker: Tracker) -> None:
    now = time.monotonic_ns()
    assert tracker.latest(now) is None
    assert tracker.missing(now) == ["socket"]
    send(tracker, json.dumps({"poses": {"socket": SOCKET, "something else": SOCKET}}).encode())
    poses = tracker.latest(time.monotonic_ns())
    assert poses is not None
    assert list(poses) == ["socket"]
    np.testing.assert_array_equal(poses["socket"], SOCKET)
    assert tracker.latest(time.monotonic_ns() + 10**9) is None


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b'{"poses": 3}',
        b'{"poses": {"socket": [1, 2, 3]}}',
        b'{"poses": {"socket": [NaN, 0, 0, 1, 0, 0, 0]}}',
        b'{"poses": {"socket": [0, 0, 0, 0.5, 0, 0, 0]}}',
        b'{"poses": {"socket": ["a", 0, 0, 1, 0, 0, 0]}}',
    ],
)
def test_a_message_that_makes_no_sense_changes_nothing(tracker: Tracker, message: bytes) -> None:
    send(tracker, json.dumps({"poses": {"socket": SOCKET}}).encode())
    send(tracker, message)
    poses = tracker.latest(time.monotonic_ns())
    assert poses is not None
    np.testing.assert_array_equal(poses["socket"], SOCKET)


def test_things_that_stand_still_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "poses.json"
    path.write_text(json.dumps({"poses": {"socket": SOCKET}}), encoding="utf-8")
    tracker = Tracker(["socket"], read_poses(path))
    assert tracker.known() == ["socket"]
    assert tracker.latest(time.monotonic_ns() + 10**15) is not None
    tracker.close()


def test_what_cannot_be_listened_to_or_read_is_one_clear_error(tmp_path: Path, tracker: Tracker) -> None:
    for address in (tracker.address, "nowhere", "127.0.0.1:99999999"):
        with pytest.raises(DeviceError, match="cannot listen"):
            Tracker([], address=address)
    with pytest.raises(DeviceError, match="cannot read the poses"):
        read_poses(tmp_path / "missing.json")
    (tmp_path / "empty.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DeviceError, match="holds no pose"):
        read_poses(tmp_path / "empty.json")

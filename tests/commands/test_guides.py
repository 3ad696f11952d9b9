"""`alula record` with an arm in somebody's hands: a leader that another follows, or the arm itself without power."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alula.commands.deployment.emulating import start_emulation
from alula.commands.deployment.recording import STREAM
from alula.datasets.store import EpisodeStore
from alula.real_robot.devices.registry import DEVICES
from alula.real_robot.emulators.emulation import Emulation

THERE = (0.4, -0.2, 0.3, 0.4, -0.3, 0.8)
"""Where the hand leads an arm [rad]."""


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Sequence[float]], None]]:
    """Presses enter after so many seconds, again and again."""
    read, write = os.pipe()
    with os.fdopen(read) as pipe, os.fdopen(write, "wb", buffering=0) as key:
        monkeypatch.setattr(sys, "stdin", pipe)

        def press(pauses: Sequence[float]) -> None:
            def run() -> None:
                for pause in pauses:
                    time.sleep(pause)
                    key.write(b"\n")

            threads.append(threading.Thread(target=run))
            threads[-1].start()

        threads = list[threading.Thread]()
        yield press
        for thread in threads:
            thread.join()


@contextmanager
def emulated(name: str, folder: Path) -> Iterator[tuple[Emulation, Any]]:
    folder.mkdir()
    emulation, config = start_emulation(DEVICES[name].config(), folder)
    with emulation:
        yield emulation, config


def words(group: str, name: str, config: Any) -> list[str]:
    return [f"{group}={name}", f"{group}.address={config.address}", f"{group}.calibration={config.calibration}"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "leading"), [("so101", "so101"), ("koch", "koch_leader")])
def test_an_arm_follows_its_leader_and_is_recorded(
    name: str, leading: str, alula: Any, keyboard: Callable[[Sequence[float]], None], tmp_path: Path
) -> None:
    with emulated(name, tmp_path / "a") as (follower, ours), emulated(leading, tmp_path / "b") as (leader, theirs):
        leader.ask(hand=list(THERE))
        keyboard((2.0, 3.0))
        choices = [*words("device", name, ours), *words("leader", leading, theirs)]
        done = alula("record", *choices, "episodes=1", f"out={tmp_path}/demo.zarr")
        assert done.status == 0, done.err
        assert follower.violations() == []
        # The leader was only read: it never got power, nor a goal.
        assert {entry["event"] for entry in leader.log()} <= {"release"}
    episode = EpisodeStore.open(tmp_path / "demo.zarr").episode(0)
    samples = episode.streams[STREAM]
    assert samples["start"][0]
    np.testing.assert_array_equal(samples["executed"][0], samples["position"][0])
    np.testing.assert_allclose(samples["executed"][-1][:-1], THERE[:-1], atol=0.02)
    np.testing.assert_allclose(samples["position"][-1][:-1], THERE[:-1], atol=0.1)
    np.testing.assert_allclose(episode.steps["action"][-1][:-1], THERE[:-1], atol=0.02)
    assert 2.0 < (samples["timestamp"][-1] - samples["timestamp"][0]) / 1e9 < 10.0, "enter ended it"


@pytest.mark.slow
def test_an_arm_that_is_led_by_hand_is_recorded(
    alula: Any, keyboard: Callable[[Sequence[float]], None], tmp_path: Path
) -> None:
    with emulated("so101", tmp_path / "a") as (arm, config):
        keyboard((0.5, 0.5, 3.0))
        threading.Timer(1.8, lambda: arm.ask(hand=list(THERE))).start()
        done = alula(
            "record", *words("device", "so101", config), "source=hand", "episodes=1", f"out={tmp_path}/demo.zarr"
        )
        assert done.status == 0, done.err
        assert "Support the so101 with your hands: its motors lose their power" in done.err
        assert {entry["event"] for entry in arm.log()} <= {"release"}, "it got power"
    episode = EpisodeStore.open(tmp_path / "demo.zarr").episode(0)
    samples, states = episode.streams[STREAM], episode.steps["observation.state"]
    assert np.ptp(states[:, 2]) > 0.1, "it was moved while it was recorded"
    # What is learnt from is where the hand has put it.
    np.testing.assert_allclose(samples["executed"][-1], samples["position"][-1], atol=0.02)
    np.testing.assert_allclose(episode.steps["action"][-1], THERE, atol=0.05)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (("source=leader", "device=simulated"), "leader is missing: give leader=NAME with one of so101, koch, viperx"),
        (("leader=so101", "device=simulated"), "the leader: so101 needs its calibration"),
        (("source=hand", "device=simulated"), "source=hand is for arms made of servos"),
        (("leader=px4", "device=simulated"), "px4"),
        (("leader.address=/dev/ttyACM1", "device=simulated"), "needs a choice first: leader=NAME with one of so101"),
    ],
)
def test_what_cannot_lead_is_refused(alula: Any, tmp_path: Path, choices: tuple[str, ...], message: str) -> None:
    done = alula("record", *choices, f"out={tmp_path}/demo.zarr")
    assert message in done.error
    assert not (tmp_path / "demo.zarr").exists()

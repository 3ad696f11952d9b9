"""`alula record` and `alula replay`: what was recorded trains, inspects, converts, and moves the device once more."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alula.commands.deployment.recording import STREAM, RunRecorder
from alula.commands.record import Ending, keeping, spaces
from alula.core.spaces import SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.store import EpisodeStore
from alula.real_robot.cameras.group import Cameras
from alula.real_robot.contract import Device
from alula.real_robot.devices.config import SimulatedConfig
from alula.real_robot.devices.registry import make_device
from alula.real_robot.loop import ControlLoop
from alula.real_robot.teleoperation.operator import Phase, Script
from alula.real_robot.teleoperation.teleoperation import Teleoperation

pytestmark = pytest.mark.real_time

CONFIG = SimulatedConfig(joints=2, rate=50.0)
DEVICE = ("device=simulated", "device.joints=2", "device.rate=50")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short demonstrations by an operator made of software."""
    path = tmp_path_factory.mktemp("shown") / "demo.zarr"
    device = make_device(CONFIG)
    device.configure()
    recorder = RunRecorder(path, device.spec, *spaces(device.spec, 10.0, SpaceSpec(())), {}, "teleoperation")
    for number in range(2):
        recorder.begin({"number": number})
        demonstrate(device, recorder)
        recorder.end(True, {})
    return path


def demonstrate(device: Device, recorder: RunRecorder) -> None:
    """Move, stop, and hand back."""
    script = Script([Phase(0.6, (1.0, -0.5)), Phase(0.1, (0.0, 0.0), release=True)])
    script.open()
    operator = Ending(script, lambda: loop.finish())
    source = Teleoperation(operator, device.spec, lambda why: loop.governor.emergency_stop(why))
    loop = ControlLoop(device, source, keeping(recorder, 10.0, Cameras([])))
    loop.run(5.0)


def test_handing_back_ends_a_demonstration(shown: Path) -> None:
    store = EpisodeStore.open(shown)
    assert store.num_episodes == 2
    for number in range(2):
        samples = store.episode(number).streams[STREAM]
        assert np.ptp(samples["executed"], axis=0).min() > 0.05
        # Not the five seconds that it might have taken.
        assert samples["timestamp"][-1] - samples["timestamp"][0] < 3e9


def test_the_action_of_a_step_is_where_the_device_was_sent_by_its_end(shown: Path) -> None:
    episode = EpisodeStore.open(shown).episode(0)
    samples, steps = episode.streams[STREAM], episode.steps
    for seen, begun, action in zip(steps["observation.state"], steps["timestamp"], steps["action"], strict=True):
        first = np.searchsorted(samples["timestamp"], begun)
        np.testing.assert_allclose(seen, samples["position"][first], atol=1e-6)
        ends = samples["executed"][first + 1 : first + 9]
        assert np.abs(ends - action).max(axis=1).min() < 1e-6


def test_what_was_recorded_trains(shown: Path, tmp_path: Path, tiny_cloning: Any, alula: Any) -> None:
    words = [word for word in tiny_cloning if "steps" not in word and "every" not in word]
    done = alula(
        "train",
        f"data={shown}",
        f"run={tmp_path}/run",
        "cloning.steps=3",
        "cloning.warmup_steps=1",
        "held_out=0",
        *words,
    )
    assert done.status == 0, done.err


def test_what_was_recorded_can_be_inspected(shown: Path, tmp_path: Path, alula: Any) -> None:
    done = alula("inspect", shown, f"page={tmp_path}/page.html", "--json")
    assert done.status == 0, done.err
    assert "device" in done.out


def test_what_was_recorded_goes_to_another_format_and_back(shown: Path, tmp_path: Path, alula: Any) -> None:
    """And can still be checked to the bit."""
    for words in ((shown, f"{tmp_path}/there.hdf5"), (f"{tmp_path}/there.hdf5", f"{tmp_path}/back.zarr")):
        done = alula("convert", *words)
        assert done.status == 0, done.err
    assert EpisodeStore.open(shown).digests == EpisodeStore.open(tmp_path / "back.zarr").digests
    assert "reproduced to the bit" in alula("replay", f"{tmp_path}/back.zarr", "check=true").out


def test_the_record_is_checked_without_a_device(shown: Path, alula: Any) -> None:
    done = alula("replay", shown, "episode=1", "check=true", "--json")
    assert done.status == 0, done.err
    assert "reproduced to the bit" in done.out
    assert {result["name"]: result["value"] for result in done.report["results"]}["identical"] == 1.0


def test_a_changed_record_fails_the_check(shown: Path, tmp_path: Path, alula: Any) -> None:
    store, episode = EpisodeStore.open(shown), EpisodeStore.open(shown).episode(0)
    episode.streams[STREAM]["executed"][7, 0] += 1e-12
    changed = EpisodeStore.create(
        tmp_path / "changed.zarr", store.observation, store.action, extra=store.extra, streams=store.streams
    )
    changed.append(Episode(episode.steps, episode.metadata, episode.streams))
    assert "period 7 of" in alula("replay", tmp_path / "changed.zarr", "check=true").error


def test_a_device_moves_as_was_recorded(shown: Path, tmp_path: Path, alula: Any) -> None:
    """From another place; the replay is a record itself.

    That commands are the same to the bit where no period is lost is shown in tests/real_robot/test_replay.py.
    """
    done = alula("replay", shown, *DEVICE, f"out={tmp_path}/again.zarr", "--json")
    assert done.status == 0, done.err
    first = EpisodeStore.open(shown).episode(0).streams[STREAM]["executed"]
    again = EpisodeStore.open(tmp_path / "again.zarr").episode(0).streams[STREAM]["executed"]
    away = np.abs(first[:, None] - again[None]).max(axis=2).min(axis=1)
    assert away.max() < 0.05
    np.testing.assert_allclose(again[-1], first[-1], atol=2e-3)
    assert alula("replay", f"{tmp_path}/again.zarr", "check=true").status == 0


def test_half_as_fast_takes_twice_as_long(shown: Path, tmp_path: Path, alula: Any) -> None:
    assert alula("replay", shown, *DEVICE, "speed=0.5", f"out={tmp_path}/slow.zarr").status == 0
    first = EpisodeStore.open(shown).episode(0).streams[STREAM]["executed"]
    slow = EpisodeStore.open(tmp_path / "slow.zarr").episode(0).streams[STREAM]
    np.testing.assert_allclose(slow["executed"][-1], first[-1], atol=2e-3)
    fastest = [np.abs(np.diff(positions, axis=0)).max() for positions in (first, slow["executed"])]
    assert fastest[1] < 0.8 * fastest[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["device=simulated"], "shape of the action is (2,) in the recording, (6,) here"),
        (
            [*DEVICE, "device.speed=0.5"],
            "limits of velocity are (2.0, 2.0) in the recording, (1.0, 1.0) here: speed=0.4",
        ),
        ([*DEVICE, "speed=0"], "speed is 0"),
        ([*DEVICE, "episode=2"], "has no episode 2"),
        ([], "device is missing; choose device=NAME"),
    ],
)
def test_a_mistake_is_named_before_anything_moves(words: list[str], message: str, shown: Path, alula: Any) -> None:
    assert message in alula("replay", shown, *words).error


def test_recording_without_anybody_who_steers(tmp_path: Path, alula: Any) -> None:
    words = (f"out={tmp_path}/still.zarr", "source=hold", "episodes=2", "seconds=0.3", "rate=10")
    done = alula("record", *DEVICE, *words, "cameras=[front:synthetic]", "width=32", "height=24", "--json")
    assert done.status == 0, done.err
    store = EpisodeStore.open(tmp_path / "still.zarr")
    assert store.num_episodes == 2
    assert store.observation["observation.images.front"].shape == (24, 32, 3)
    assert store.num_steps >= 2
    assert all(metadata["success"] for metadata in store.episode_metadata)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*DEVICE], "out is missing"),
        (["out=x.zarr"], "device is missing"),
        ([*DEVICE, "out=x.zarr", "source=keybord"], "Did you mean 'keyboard'"),
        ([*DEVICE, "out=x.zarr", "source=keyboard"], "no terminal"),
        ([*DEVICE, "out=x.zarr", "source=hold", "cameras=[front]"], "needed is NAME:KIND"),
    ],
)
def test_a_mistake_in_recording_is_named(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alula: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with Path("/dev/null").open() as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        assert message in alula("record", *words).error
    assert not list(tmp_path.iterdir())

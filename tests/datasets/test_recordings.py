"""Real recordings go round through the formats and come back to the bit."""

from pathlib import Path

import numpy as np
import pytest

from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.comparison import compare
from alula.datasets.conversion import Conversion, for_target, source_format, writable_formats
from alula.datasets.store import EpisodeStore

DATA = Path(__file__).parents[3] / "shared" / "data"
BRIDGE, ADROIT, FLIGHT = DATA / "bridge_rlds" / "1.0.0", DATA / "adroit_door_human.npz", DATA / "px4_flight_small.ulg"


def needs(recording: Path) -> pytest.MarkDecorator:
    """Skips where the recording is not at hand."""
    return pytest.mark.skipif(not recording.exists(), reason=f"needs the recording {recording.name}, not shipped")


def converted(source: Path, folder: Path, name: str) -> Path:
    """The dataset in another format."""
    target = folder / f"data_{name}{for_target(folder, name).suffix}"
    with source_format(source, None).open(source) as reader:
        conversion = Conversion(source, target, reader, for_target(target, name))
        assert conversion.writing.losses == ()
        conversion.run()
    return target


@pytest.fixture
def collected(tmp_path: Path) -> Path:
    """What a simulated task leaves: bounds, units, control mode and seeds; successes and failures."""
    observation = SpaceSpec((FieldSpec("observation.state", (2,), units=("m", "rad"), resolution=(1e-3, 0.0)),))
    bounds = {"low": (-1.0,), "high": (1.0,), "control_mode": ControlMode.END_EFFECTOR_POSE_DELTA, "rate": 20.0}
    action = SpaceSpec((FieldSpec("action", (3,), **bounds),))  # type: ignore[arg-type]
    store = EpisodeStore.create(tmp_path / "collected", observation, action, {"task": {"name": "lift"}})
    rng = np.random.default_rng(0)
    for seed in range(12):
        length = 20 + seed
        last = np.arange(length) == length - 1
        outcome = {"next.terminated": last & (seed % 3 > 0), "next.truncated": last & (seed % 3 == 0)}
        steps = {
            "observation.state": rng.standard_normal((length, 2)).astype(np.float32),
            "action": rng.uniform(-1, 1, (length, 3)).astype(np.float32),
            "next.reward": rng.standard_normal(length),
            "next.success": outcome["next.terminated"],
        }
        store.append(Episode(steps | outcome, {"seed": seed, "source": "expert", "success": bool(seed % 3)}))
    return store.path


def require_round_trip(source: Path, folder: Path) -> None:
    """Through every format that can be written, one after the other, and back."""
    first = place = converted(source, folder, "zarr")
    for name in writable_formats()[1:]:
        place = converted(place, folder, name)
    last = folder / "last.zarr"
    with source_format(place, None).open(place) as reader:
        Conversion(place, last, reader, for_target(last, "zarr")).run()
    assert EpisodeStore.open(last).contents == EpisodeStore.open(first).contents
    with source_format(first, None).open(first) as left, source_format(last, None).open(last) as right:
        assert [found.name for found in compare(left, right) if not found.identical] == []


@needs(BRIDGE)
@pytest.mark.slow
def test_bridge_goes_round(tmp_path: Path) -> None:
    require_round_trip(BRIDGE, tmp_path)
    store = EpisodeStore.open(tmp_path / "data_zarr.zarr")
    assert (store.num_episodes, store.num_steps) == (25, 250)
    assert (64, 64, 3) in {field.shape for field in store.observation.values()}
    assert store.action["action"].shape == (7,)
    assert all(isinstance(metadata["instruction"], str) for metadata in store.episode_metadata)


@pytest.mark.slow
@needs(ADROIT)
def test_adroit_goes_round(tmp_path: Path) -> None:
    require_round_trip(ADROIT, tmp_path)
    assert EpisodeStore.open(tmp_path / "data_zarr.zarr").num_steps == 6729


def test_what_was_collected_goes_round(collected: Path, tmp_path: Path) -> None:
    require_round_trip(collected, tmp_path)


@needs(FLIGHT)
@pytest.mark.slow
def test_a_flight_keeps_its_clocks(tmp_path: Path) -> None:
    store = EpisodeStore.open(converted(FLIGHT, tmp_path, "zarr"))
    for stream, field, unit in (
        ("vehicle_local_position", "x", "m"),
        ("vehicle_attitude", "q", "1"),
        ("vehicle_angular_velocity", "xyz", "rad/s"),
    ):
        assert store.streams[stream][field].units == (unit,)
        rate = store.streams[stream][field].rate
        timestamps = store.read_stream(stream, "timestamp")
        assert rate == pytest.approx(1e9 / np.diff(timestamps).mean(), rel=0.01)
    assert store.action["action"].rate is not None

"""Streams have a clock of their own: as many samples as they like, at times that never fall."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.arrays import FieldArray
from alula.datasets.schema import TIMESTAMP
from alula.datasets.store import EpisodeStore

Same = Callable[[Episode, Episode], None]

IMU = SpaceSpec((TIMESTAMP, FieldSpec("acceleration", (3,), units=("m/s^2",), rate=250.0)))
GPS = SpaceSpec((TIMESTAMP, FieldSpec("height", (), "float64", units=("m",), allow_nan=True)))


@pytest.fixture
def store(tmp_path: Path, observation: SpaceSpec) -> EpisodeStore:
    """A flight: nothing was commanded, steps have capture times, two sensors run at their own rates."""
    extra = SpaceSpec((TIMESTAMP,))
    return EpisodeStore.create(
        tmp_path / "flight", observation, SpaceSpec(()), extra=extra, streams={"imu": IMU, "gps": GPS}
    )


@pytest.fixture
def make_flight(make_episode: Callable[..., Episode]) -> Callable[..., Episode]:
    """`make_flight(seed, length, imu, gps)`: an episode with so many steps and samples."""

    def make(seed: int, length: int = 5, imu: int = 50, gps: int = 2) -> Episode:
        episode = make_episode(seed, length)
        del episode.steps["action"]
        rng = np.random.default_rng(seed)
        episode.steps["timestamp"] = np.arange(length) * 20_000_000
        acceleration = rng.standard_normal((imu, 3)).astype(np.float32)
        episode.streams["imu"] = {"timestamp": np.arange(imu) * 4_000_000, "acceleration": acceleration}
        episode.streams["gps"] = {"timestamp": np.full(gps, 7), "height": np.full(gps, np.nan)}
        return episode

    return make


def test_streams_are_read_at_their_own_ends(store: EpisodeStore, make_flight: Callable[..., Episode]) -> None:
    flights = [make_flight(0, 5, 50, 2), make_flight(1, 0, 30, 0), make_flight(2, 3, 0, 4)]
    store.extend(flights)
    reader = EpisodeStore.open(store.path)
    assert reader.streams == {"imu": IMU, "gps": GPS}
    assert reader.episode_ends.tolist() == [5, 5, 8]
    assert reader.stream_ends("imu").tolist() == [50, 80, 80]
    assert reader.stream_ends("gps").tolist() == [2, 2, 6]
    wanted = np.concatenate([flight.streams["imu"]["acceleration"] for flight in flights])
    np.testing.assert_array_equal(reader.read_stream("imu", "acceleration"), wanted)
    np.testing.assert_array_equal(reader.read_stream("imu", "acceleration", 45, 55), wanted[45:55])
    np.testing.assert_array_equal(reader.read_stream("imu", "acceleration", 70, 999), wanted[70:])


def test_unknown_streams_are_named(store: EpisodeStore) -> None:
    with pytest.raises(DatasetError, match=r"unknown stream 'imv'. Did you mean 'imu'"):
        store.read_stream("imv", "acceleration")
    with pytest.raises(DatasetError, match=r"unknown field 'velocity'.*acceleration"):
        store.read_stream("imu", "velocity")
    with pytest.raises(DatasetError, match=r"unknown stream 'steps'"):
        store.stream_ends("steps")


def test_a_digest_depends_on_every_sample(store: EpisodeStore, make_flight: Callable[..., Episode]) -> None:
    flight = make_flight(0)
    store.extend([flight, make_flight(0)])
    flight.streams["imu"]["acceleration"][49, 2] += 1
    store.append(flight)
    assert store.digests[0] == store.digests[1] != store.digests[2]


def _fall(arrays: dict[str, Any]) -> None:
    arrays["timestamp"][1] = -1


def _drop(arrays: dict[str, Any], name: str) -> None:
    del arrays[name]


BAD_FLIGHTS: dict[str, tuple[Callable[[Episode], Any], str]] = {
    "stream missing": (lambda flight: _drop(flight.streams, "gps"), r"missing streams \['gps'\]"),
    "stream unknown": (lambda flight: flight.streams.update(rc={}), r"unknown streams \['rc'\].*\['imu', 'gps'\]"),
    "field missing": (
        lambda flight: _drop(flight.streams["imu"], "acceleration"),
        r"stream 'imu' of episode 1 .*missing fields \['acceleration'\]",
    ),
    "field shorter": (
        lambda flight: flight.streams["gps"].update(height=np.zeros(1)),
        r"'height' of stream 'gps' of episode 1 has shape \(1,\), needed is \(2,\)",
    ),
    "falling sample time": (
        lambda flight: _fall(flight.streams["imu"]),
        r"'timestamp' of stream 'imu' of episode 1 falls from 0 ns to -1 ns at step 1.*never fall",
    ),
    "falling step time": (lambda flight: _fall(flight.steps), r"'timestamp' of episode 1 falls from 0 ns to -1 ns"),
    "time in seconds": (
        lambda flight: flight.streams["gps"].update(timestamp=np.zeros(2)),
        "dtype float64, which does not fit into int64",
    ),
}


@pytest.mark.parametrize("kind", BAD_FLIGHTS)
def test_unfit_streams_are_refused_and_nothing_is_written(
    kind: str, store: EpisodeStore, make_flight: Callable[..., Episode]
) -> None:
    spoil, message = BAD_FLIGHTS[kind]
    store.append(make_flight(0))
    bad = make_flight(1)
    spoil(bad)
    before = {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()}
    with pytest.raises(DatasetError, match=message):
        store.append(bad)
    assert {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()} == before


BAD_STREAMS: dict[str, tuple[dict[str, SpaceSpec], str]] = {
    "no clock": ({"imu": SpaceSpec((FieldSpec("x", ()),))}, r"stream 'imu' has no field 'timestamp' \(int64 \[ns\]\)"),
    "clock in seconds": (
        {"imu": SpaceSpec((replace(TIMESTAMP, dtype="float64", units=("s",)),))},
        r"'timestamp' is float64 of shape \(\) \[s\], but a capture time is int64 of shape \(\) \[ns\]",
    ),
    "path in a name": ({"../imu": IMU}, r"stream name '\.\./imu' cannot be stored"),
    "reserved name": ({"zarr.json": IMU}, r"stream name 'zarr\.json' is reserved"),
    "field type": ({"imu": SpaceSpec((TIMESTAMP, FieldSpec("x", (), "complex64")))}, "dtype 'complex64'"),
}


@pytest.mark.parametrize("kind", BAD_STREAMS)
def test_unstorable_streams_are_refused(kind: str, tmp_path: Path) -> None:
    streams, message = BAD_STREAMS[kind]
    with pytest.raises(DatasetError, match=message):
        EpisodeStore.create(tmp_path / "data", SpaceSpec(()), SpaceSpec(()), streams=streams)
    assert list(tmp_path.iterdir()) == []


def test_a_field_may_have_the_name_of_a_stream_but_not_of_its_folder(tmp_path: Path) -> None:
    imu, streams = SpaceSpec((FieldSpec("imu", ()),)), SpaceSpec((FieldSpec("streams", ()),))
    nothing = SpaceSpec(())
    store = EpisodeStore.create(tmp_path / "a", nothing, nothing, extra=imu, streams={"imu": IMU})
    assert "imu" in store.fields
    with pytest.raises(DatasetError, match=r"field name 'streams' is reserved"):
        EpisodeStore.create(tmp_path / "b", nothing, nothing, extra=streams)


def test_a_damaged_stream_is_refused_when_opened(store: EpisodeStore, make_flight: Callable[..., Episode]) -> None:
    store.append(make_flight(0))
    (store.path / "streams" / "imu" / "acceleration" / "c.0.0").unlink()
    with pytest.raises(DatasetError, match=r"'acceleration' .* 50 steps .* file 'c\.0\.0' is missing"):
        EpisodeStore.open(store.path)


def test_a_line_without_the_ends_of_its_streams_is_damaged(
    store: EpisodeStore, make_flight: Callable[..., Episode]
) -> None:
    store.append(make_flight(0))
    log = store.path / "episodes.jsonl"
    log.write_text(log.read_text().replace('"gps": 2', '"gpz": 2'))
    with pytest.raises(DatasetError, match=r"line 1 .* is damaged .*gpz.* do not follow .*gps"):
        EpisodeStore.open(store.path)


class KilledError(BaseException):
    """Stands for a process that ends in the middle of something."""


@pytest.mark.parametrize("written", range(10))
def test_samples_without_a_commit_are_dropped(
    written: int,
    store: EpisodeStore,
    make_flight: Callable[..., Episode],
    assert_same: Same,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed after so many arrays: seven of steps, then two of each stream."""
    store.append(make_flight(0))
    write, calls = FieldArray.write, []

    def killed(array: FieldArray, *arguments: Any) -> None:
        if len(calls) == written:
            raise KilledError
        calls.append(array.field.name)
        write(array, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(FieldArray, "write", killed)
        with pytest.raises(KilledError):
            store.append(make_flight(1, 6, 40, 3))
    assert_same(EpisodeStore.open(store.path).episode(0), make_flight(0))
    writer = EpisodeStore.open(store.path, append=True)
    dropped = ["6 steps"] * (written > 0) + ["40 samples of stream 'imu'"] * (written > 7)
    dropped += ["3 samples of stream 'gps'"] * (written > 9)
    assert (writer.repaired or "dropped  that").split(" that")[0] == f"dropped {', '.join(dropped)}"
    writer.append(make_flight(1, 2, 3, 4))
    assert_same(EpisodeStore.open(store.path).episode(1), make_flight(1, 2, 3, 4))

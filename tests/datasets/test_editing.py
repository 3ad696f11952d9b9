"""An edit makes exactly the dataset that was asked for, or none; the source stays as it was."""

import fcntl
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import FileIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alula.core.errors import AlulaError, DatasetError, SpecError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets import editing
from alula.datasets.arrays import Chunking
from alula.datasets.commits import EPISODES_FILE, replace_file
from alula.datasets.schema import TIMESTAMP
from alula.datasets.store import EpisodeStore
from alula.datasets.video import VideoSettings

Same = Callable[[Episode, Episode], None]
MakeStore = Callable[..., EpisodeStore]

CAMERA, CLOCKED = "observation.image", SpaceSpec((TIMESTAMP, FieldSpec("force", (3,), units=("N",))))
OBSERVATION = SpaceSpec((FieldSpec(CAMERA, (16, 16, 3), "uint8"),))
ACTION = SpaceSpec((FieldSpec("action", (2,)),))


def episode_of(seed: int) -> Episode:
    """Of 0 to 6 steps, with a stream; recognised by its seed."""
    rng, length = np.random.default_rng(seed), seed % 7
    steps = {
        CAMERA: rng.integers(0, 256, (length, 16, 16, 3), np.uint8),
        "action": rng.standard_normal((length, 2)).astype(np.float32),
        "next.reward": rng.standard_normal(length),
        **{f"next.{name}": rng.random(length) < 0.5 for name in ("terminated", "truncated", "success")},
    }
    samples = {
        "timestamp": np.arange(seed % 5, dtype=np.int64),
        "force": rng.standard_normal((seed % 5, 3)).astype(np.float32),
    }
    return Episode(steps, {"seed": seed, "instruction": "lift"}, {"wrist": samples})


@pytest.fixture
def make(tmp_path: Path) -> MakeStore:
    """`make(name, seeds)`: a dataset of these episodes; with `video`, lossy."""

    def make(name: str, seeds: Sequence[int], metadata: dict[str, object] | None = None, video: bool = False):
        settings = {CAMERA: VideoSettings("libx264")} if video else {}
        store = EpisodeStore.create(
            tmp_path / name, OBSERVATION, ACTION, metadata or {}, streams={"wrist": CLOCKED}, video=settings
        )
        store.extend([episode_of(seed) for seed in seeds])
        return EpisodeStore.open(store.path)

    return make


def files(path: Path) -> dict[Path, bytes]:
    """Everything in a dataset."""
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def seeds(store: EpisodeStore) -> list[int]:
    """Which episodes a dataset holds, after checking that they are whole."""
    assert store.damaged_episodes() == []
    return [metadata["seed"] for metadata in store.episode_metadata]


@pytest.fixture
def source(make: MakeStore) -> EpisodeStore:
    """Ten episodes: arrays, a stream, and a video that would change if it were encoded again."""
    return make("source", range(10), {"licence": "CC0"}, video=True)


def same_content(store: EpisodeStore, source: EpisodeStore, same: Same) -> None:
    """Every episode equals the one of the same seed in the source, digest included."""
    for index, seed in enumerate(seeds(store)):
        same(store.episode(index), source.episode(seed))
        assert store.digests[index] == source.digests[seed]


@pytest.mark.parametrize("batch_bytes", [1, 10_000, editing.BATCH_BYTES])
def test_selecting_keeps_order_and_content(
    batch_bytes: int, source: EpisodeStore, assert_same: Same, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(editing, "BATCH_BYTES", batch_bytes)
    before = files(source.path)
    chosen = editing.select(source, tmp_path / "chosen", [7, 0, 3])
    assert seeds(chosen) == [7, 0, 3]
    same_content(chosen, source, assert_same)
    assert (chosen.contents, chosen.video) == (source.contents, source.video)
    assert files(source.path) == before


def test_deleting_and_filtering_are_complements(source: EpisodeStore, assert_same: Same, tmp_path: Path) -> None:
    long = editing.filter_episodes(source, tmp_path / "long", lambda episode: episode.length > 3)
    assert seeds(long) == [4, 5, 6]
    rest = editing.delete(source, tmp_path / "rest", seeds(long))
    assert seeds(rest) == [0, 1, 2, 3, 7, 8, 9]
    same_content(rest, source, assert_same)


def test_splitting_and_merging_restores_the_dataset(source: EpisodeStore, assert_same: Same, tmp_path: Path) -> None:
    parts = dict(zip((tmp_path / "a", tmp_path / "b"), editing.random_parts(10, [0.7, 0.3], seed=1), strict=True))
    stores = editing.split(source, parts)
    assert [store.num_episodes for store in stores] == [7, 3]
    merged = editing.merge(stores, tmp_path / "merged")
    same_content(merged, source, assert_same)
    assert sorted(seeds(merged)) == list(range(10))
    restored = editing.select(merged, tmp_path / "restored", np.argsort(seeds(merged)).tolist())
    assert restored.digests == source.digests
    for name in source.fields:
        np.testing.assert_array_equal(restored.read(name), source.read(name))
    np.testing.assert_array_equal(restored.read_stream("wrist", "force"), source.read_stream("wrist", "force"))


def test_merging_keeps_metadata_apart_on_which_sources_differ(make: MakeStore, tmp_path: Path) -> None:
    first = make("first", [1], {"licence": "CC0", "site": "A", "operator": "X"})
    second = make("second", [2, 3], {"licence": "CC0", "site": "B"})
    assert editing.merge([first, second], tmp_path / "merged").metadata == {
        "licence": "CC0",
        "merged_from": [
            {"name": "first", "episodes": 1, "metadata": {"site": "A", "operator": "X"}},
            {"name": "second", "episodes": 2, "metadata": {"site": "B"}},
        ],
    }


def test_videos_and_arrays_may_be_merged(make: MakeStore, assert_same: Same, tmp_path: Path) -> None:
    arrays, video = make("arrays", [4]), make("video", [5], video=True)
    merged = editing.merge([arrays, video], tmp_path / "merged")
    assert_same(merged.episode(0), arrays.episode(0))
    assert_same(merged.episode(1), video.episode(0))


@given(
    st.integers(2, 200),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_random_parts_share_out_every_episode_once(num_episodes: int, weights: list[int], seed: int) -> None:
    fractions = [weight / sum(weights) for weight in weights]
    try:
        parts = editing.random_parts(num_episodes, fractions, seed)
    except DatasetError:
        assert num_episodes * min(fractions) < 1
        return
    assert sorted(index for part in parts for index in part) == list(range(num_episodes))
    for part, fraction in zip(parts, fractions, strict=True):
        assert abs(len(part) - fraction * num_episodes) <= 1
    assert parts == editing.random_parts(num_episodes, fractions, seed)


def test_rechunking_changes_files_and_nothing_else(source: EpisodeStore, tmp_path: Path) -> None:
    fine = editing.rechunk(source, tmp_path / "fine", Chunking(chunk_bytes=64, chunks_per_shard=2))
    assert len(list((fine.path / "action").glob("c.*"))) > len(list((source.path / "action").glob("c.*")))
    assert fine.fingerprint == source.fingerprint
    assert seeds(fine) == list(range(10))


def test_a_dataset_may_be_replaced_by_what_is_made_of_it(source: EpisodeStore, tmp_path: Path) -> None:
    editing.delete(source, source.path, [0, 1, 2], overwrite=True)
    assert seeds(EpisodeStore.open(source.path)) == list(range(3, 10))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_relabelling_changes_metadata_only(source: EpisodeStore, assert_same: Same) -> None:
    before = {file: content for file, content in files(source.path).items() if file.name != EPISODES_FILE}
    wanted = [source.episode(index) for index in range(10)]

    def swap(index: int, metadata: dict[str, object]) -> dict[str, object]:
        return {**metadata, "instruction": f"öffne Tür {index}"} if index % 2 else metadata

    relabelled = editing.relabel_episodes(source.path, swap)
    assert {file: content for file, content in files(source.path).items() if file.name != EPISODES_FILE} == before
    for index, episode in enumerate(wanted):
        label = f"öffne Tür {index}" if index % 2 else "lift"
        assert_same(relabelled.episode(index), replace(episode, metadata={"seed": index, "instruction": label}))
    assert relabelled.fingerprint != source.fingerprint
    assert relabelled.digests == source.digests
    # Whoever has it open keeps what it saw.
    assert source.episode_metadata[1] == {"seed": 1, "instruction": "lift"}
    assert source.fingerprint != EpisodeStore.open(source.path).fingerprint


def test_the_whole_may_be_relabelled_and_then_grows(source: EpisodeStore, assert_same: Same) -> None:
    relabelled = editing.relabel_dataset(source.path, lambda metadata: {**metadata, "licence": "CC-BY-4.0"})
    assert relabelled.metadata == {"licence": "CC-BY-4.0"}
    assert relabelled.fingerprint == source.fingerprint
    assert json.loads((source.path / "zarr.json").read_text())["node_type"] == "group"
    writer = EpisodeStore.open(source.path, append=True)
    writer.append(episode_of(10))
    assert seeds(EpisodeStore.open(source.path)) == list(range(11))


def test_a_writer_learns_that_labels_have_changed(make: MakeStore) -> None:
    path = make("data", [1, 2]).path
    writer = EpisodeStore.open(path, append=True)
    editing.relabel_episodes(path, lambda _, metadata: {**metadata, "score": 1})
    with pytest.raises(DatasetError, match="changed by another writer since it was opened; open it again"):
        writer.append(episode_of(4))
    EpisodeStore.open(path, append=True).append(episode_of(4))
    assert seeds(EpisodeStore.open(path)) == [1, 2, 4]


def test_no_episode_is_written_to_a_log_that_was_just_exchanged(
    make: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the file and locking it, another process may have put a new one in its place."""
    path = make("data", [1, 2]).path
    writer, flock = EpisodeStore.open(path, append=True), fcntl.flock

    def late(file: FileIO, operation: int) -> None:
        replace_file(path / EPISODES_FILE, (path / EPISODES_FILE).read_bytes())
        flock(file, operation)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", late)
        with pytest.raises(DatasetError, match="changed by another writer"):
            writer.append(episode_of(4))
    writer.append(episode_of(4))
    assert seeds(EpisodeStore.open(path)) == [1, 2, 4]


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("label", ["episodes", "dataset"])
def test_a_relabelling_that_fails_changes_nothing(
    label: str, source: EpisodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(source.path)

    def relabel(value: object) -> None:
        if label == "episodes":
            editing.relabel_episodes(source.path, lambda index, metadata: {**metadata, "score": value})
        else:
            editing.relabel_dataset(source.path, lambda metadata: {**metadata, "score": value})

    with pytest.raises(DatasetError, match=r"metadata of .* cannot be written as JSON"):
        relabel(np.zeros(2))
    with monkeypatch.context() as patch:
        patch.setattr("alula.datasets.commits.sync", _full)
        with pytest.raises(DatasetError, match=r"No space left on device; nothing was changed"):
            relabel(1.0)
    assert files(source.path) == before


BAD_EDITS: dict[str, tuple[Callable[[EpisodeStore, Path], object], str]] = {
    "unknown episode": (lambda source, target: editing.select(source, target, [3, 10, -1]), r"no episodes \[-1, 10\]"),
    "unknown deletion": (lambda source, target: editing.delete(source, target, [10]), r"episodes \[10\].* 0 to 9"),
    "episode in two parts": (
        lambda source, target: editing.split(source, {target: [1, 2], target.with_name("other"): [2, 3]}),
        r"episodes \[2\] are in more than one part",
    ),
    "second part exists": (
        lambda source, target: editing.split(source, {target: [1], source.path: [2]}),
        "exists already",
    ),
    "target exists": (lambda source, target: editing.rechunk(source, source.path, Chunking()), "exists already"),
    "nothing to merge": (lambda source, target: editing.merge([], target), "no datasets to merge"),
}


@pytest.mark.parametrize("kind", BAD_EDITS)
def test_a_refused_edit_leaves_nothing(kind: str, make: MakeStore, tmp_path: Path) -> None:
    edit, message = BAD_EDITS[kind]
    source = make("source", range(10))
    before = files(source.path)
    with pytest.raises(DatasetError, match=message):
        edit(source, tmp_path / "target")
    assert files(tmp_path) == before


@pytest.mark.parametrize("fractions", [[], [0.5, 0.4], [1.5, -0.5], [0.999, 0.001]])
def test_fractions_must_share_out_the_whole(fractions: list[float]) -> None:
    with pytest.raises(DatasetError, match="fractions"):
        editing.random_parts(10, fractions, seed=0)


@pytest.mark.parametrize("part", ["fields", "streams", "stream fields"])
def test_only_equal_fields_can_be_merged(part: str, make: MakeStore, tmp_path: Path) -> None:
    source = make("source", [1])
    action, streams = ACTION, {"wrist": CLOCKED}
    if part == "fields":
        action = SpaceSpec((replace(ACTION["action"], units=("rad",)),))
    elif part == "streams":
        streams = {"ankle": CLOCKED}
    else:
        streams = {"wrist": SpaceSpec((TIMESTAMP, replace(CLOCKED["force"], units=("lbf",))))}
    other = EpisodeStore.create(tmp_path / "other", OBSERVATION, action, streams=streams)
    with pytest.raises(SpecError, match=r"'action': units|has streams \['wrist'\]|'force': units is .*lbf"):
        editing.merge([source, other], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_failing_copy_leaves_no_part(source: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alula.datasets.arrays.sync", _full)
    with pytest.raises(AlulaError, match="No space left"):
        editing.split(source, {tmp_path / "a": [1], tmp_path / "b": [2]})
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_damage_is_not_copied(make: MakeStore, tmp_path: Path) -> None:
    """Copies get digests of their own, which would hide it for ever."""
    source = make("source", [4, 5, 6], video=True)
    videos = source.path / "videos" / CAMERA
    (videos / "000001.mp4").write_bytes((videos / "000002.mp4").read_bytes())
    with pytest.raises(DatasetError, match=r"episode 1 of .* is not what was recorded.*leave the episode out"):
        editing.select(source, tmp_path / "copy", [0, 1])
    assert not (tmp_path / "copy").exists()
    assert seeds(editing.delete(source, tmp_path / "rest", [1])) == [4, 6]

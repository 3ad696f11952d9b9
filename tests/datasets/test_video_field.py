"""Images stored as video: lossless ones come back exactly, others closely; a kill costs no committed frame."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.store import EpisodeStore
from alula.datasets.video import LOSSLESS, VideoSettings, psnr

Same = Callable[[Episode, Episode], None]
MakeStore = Callable[..., EpisodeStore]

CAMERA = "observation.images.front"
OBSERVATION = SpaceSpec((FieldSpec(CAMERA, (16, 24, 3), "uint8"), FieldSpec("observation.state", (2,))))
ACTION = SpaceSpec((FieldSpec("action", (1,), rate=20.0),))


def episode_of(seed: int, length: int) -> Episode:
    """A gradient that moves, with a brightness of its own, and numbers."""
    rng = np.random.default_rng(seed)
    shift = np.arange(length)[:, None, None, None]
    ramps = np.add.outer(np.arange(16), np.arange(24))[None, ..., None] * np.array([3, 2, 1])
    steps = {
        CAMERA: ((ramps + 3 * shift + 10 * (seed % 8)) % 256).astype(np.uint8),
        "observation.state": rng.standard_normal((length, 2)).astype(np.float32),
        "action": rng.standard_normal((length, 1)).astype(np.float32),
        "next.reward": rng.standard_normal(length),
        **{f"next.{name}": rng.random(length) < 0.5 for name in ("terminated", "truncated", "success")},
    }
    return Episode(steps, {"seed": seed})


@pytest.fixture
def make(tmp_path: Path) -> MakeStore:
    """`make(lengths, settings)`: a dataset of episodes 0, 1, ... of these lengths."""

    def make(lengths: Sequence[int], settings: VideoSettings = LOSSLESS, name: str = "data") -> EpisodeStore:
        store = EpisodeStore.create(tmp_path / name, OBSERVATION, ACTION, video={CAMERA: settings})
        store.extend([episode_of(seed, length) for seed, length in enumerate(lengths)])
        return store

    return make


def wanted(lengths: Sequence[int]) -> np.ndarray:
    """Frames of all steps of such a dataset."""
    return np.concatenate([episode_of(seed, length).steps[CAMERA] for seed, length in enumerate(lengths)])


def test_lossless_video_reads_back_bit_for_bit(make: MakeStore, assert_same: Same) -> None:
    lengths = [7, 0, 1, 30]
    store = EpisodeStore.open(make(lengths).path)
    assert not (store.path / CAMERA).exists()
    for seed, length in enumerate(lengths):
        assert_same(store.episode(seed), episode_of(seed, length))
    np.testing.assert_array_equal(store.read(CAMERA), wanted(lengths))
    np.testing.assert_array_equal(store.read(CAMERA, 6, 9), wanted(lengths)[6:9])
    np.testing.assert_array_equal(store.frames(CAMERA), wanted(lengths))
    assert store.damaged_episodes() == []


@pytest.mark.parametrize("codec", ["libsvtav1", "libx264"])
def test_lossy_video_reads_back_closely_and_always_the_same(codec: str, make: MakeStore) -> None:
    store = make([20, 5], VideoSettings(codec, crf=18))
    assert store.video == EpisodeStore.open(store.path).video == {CAMERA: VideoSettings(codec, crf=18)}
    assert psnr(store.read(CAMERA), wanted([20, 5])) > 30
    np.testing.assert_array_equal(store.read(CAMERA, 20), store.episode(1).steps[CAMERA])
    np.testing.assert_array_equal(store.read("observation.state")[:20], episode_of(0, 20).steps["observation.state"])
    assert store.damaged_episodes() == []


def test_the_cache_is_decoded_once_and_grows_with_the_dataset(make: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    read_video = sys.modules["alula.datasets.video_field"].read_video

    def counted(path: Path, *arguments: Any) -> None:
        decoded.append(path.name)
        read_video(path, *arguments)

    monkeypatch.setattr("alula.datasets.video_field.read_video", counted)
    writer = make([3, 4])
    before = EpisodeStore.open(writer.path)
    early = before.frames(CAMERA)
    before.read(CAMERA)
    assert EpisodeStore.open(writer.path).frames(CAMERA).shape == (7, 16, 24, 3)
    assert decoded == ["000000.mp4", "000001.mp4"]
    late = EpisodeStore.open(writer.path)
    writer.append(episode_of(2, 5))
    np.testing.assert_array_equal(EpisodeStore.open(writer.path).frames(CAMERA), wanted([3, 4, 5]))
    np.testing.assert_array_equal(late.frames(CAMERA), wanted([3, 4]))
    np.testing.assert_array_equal(writer.frames(CAMERA), wanted([3, 4, 5]))
    assert decoded == ["000000.mp4", "000001.mp4", "000002.mp4"]
    assert before.frames(CAMERA).shape == early.shape
    np.testing.assert_array_equal(early, wanted([3, 4]))


@pytest.mark.parametrize("damage", ["frames deleted", "digests cut", "killed while growing", "of other episodes"])
def test_a_cache_that_does_not_fit_is_built_anew(damage: str, make: MakeStore) -> None:
    store = make([3, 4])
    store.frames(CAMERA)
    frames, digests = (store.path / ".cache" / f"{CAMERA}.{suffix}" for suffix in ("frames", "json"))
    if damage == "frames deleted":
        frames.unlink()
    elif damage == "digests cut":
        digests.write_text(digests.read_text()[:-5])
    elif damage == "killed while growing":
        frames.write_bytes(frames.read_bytes() + b"half a frame")
    else:
        frames.write_bytes(bytes(frames.stat().st_size))
        digests.write_text('["0", "1"]')
    np.testing.assert_array_equal(EpisodeStore.open(store.path).frames(CAMERA), wanted([3, 4]))
    store.append(episode_of(2, 2))
    np.testing.assert_array_equal(EpisodeStore.open(store.path).frames(CAMERA), wanted([3, 4, 2]))


def test_a_dataset_that_may_only_be_read_is_decoded_elsewhere(make: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make([3])
    monkeypatch.setattr(os, "access", lambda *_: False)
    np.testing.assert_array_equal(store.frames(CAMERA), wanted([3]))
    assert not (store.path / ".cache").exists()


def test_many_processes_may_build_the_cache_at_once(make: MakeStore) -> None:
    store = make([5] * 20)
    script = f"""
import sys, numpy as np
from pathlib import Path
from alula.datasets.store import EpisodeStore
print(int(EpisodeStore.open(Path(sys.argv[1])).frames("{CAMERA}").astype(np.int64).sum()))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", script, str(store.path)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(3)]
    assert {int(reader.communicate()[0]) for reader in readers} == {int(wanted([5] * 20).astype(np.int64).sum())}


class KilledError(BaseException):
    """Stands for a process that ends in the middle of something."""


def test_videos_without_a_commit_are_ignored_and_dropped(
    make: MakeStore, assert_same: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make([3])

    def killed(*_: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("alula.datasets.commits.CommitLog.append", killed)
        with pytest.raises(KilledError):
            store.extend([episode_of(1, 4), episode_of(2, 5)])
    assert len(list((store.path / "videos" / CAMERA).iterdir())) == 3
    assert EpisodeStore.open(store.path).frames(CAMERA).shape[0] == 3
    writer = EpisodeStore.open(store.path, append=True)
    assert writer.repaired is not None
    assert f"2 videos of '{CAMERA}'" in writer.repaired
    assert len(list((store.path / "videos" / CAMERA).iterdir())) == 1
    writer.append(episode_of(7, 4))
    assert_same(EpisodeStore.open(store.path).episode(1), episode_of(7, 4))


def test_damaged_videos_are_noticed(make: MakeStore) -> None:
    store = make([6, 6])
    file = store.path / "videos" / CAMERA / "000001.mp4"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert EpisodeStore.open(store.path).damaged_episodes() == [1]
    with pytest.raises(DatasetError, match=r"000001\.mp4"):
        store.episode(1)
    with pytest.raises(DatasetError, match=r"000001\.mp4"):
        store.frames(CAMERA)
    file.write_bytes((store.path / "videos" / CAMERA / "000000.mp4").read_bytes())
    assert EpisodeStore.open(store.path).damaged_episodes() == [1]
    file.unlink()
    with pytest.raises(DatasetError, match=r"000001\.mp4' is missing"):
        EpisodeStore.open(store.path)


BAD_VIDEOS: dict[str, tuple[FieldSpec, str, VideoSettings, str]] = {
    "no such field": (OBSERVATION[CAMERA], "action", LOSSLESS, "unknown observation field 'action'"),
    "no image": (
        replace(OBSERVATION[CAMERA], shape=(16, 24, 1)),
        CAMERA,
        LOSSLESS,
        r"uint8 of shape \(16, 24, 1\); on",
    ),
    "no bytes": (replace(OBSERVATION[CAMERA], dtype="float32"), CAMERA, LOSSLESS, "is float32 of shape"),
    "odd size": (replace(OBSERVATION[CAMERA], shape=(15, 25, 3)), CAMERA, VideoSettings("libx264"), "25 x 15 pixels"),
}


@pytest.mark.parametrize("kind", BAD_VIDEOS)
def test_what_is_no_video_is_refused_before_anything_is_made(kind: str, tmp_path: Path) -> None:
    field, name, settings, message = BAD_VIDEOS[kind]
    with pytest.raises(DatasetError, match=message):
        EpisodeStore.create(tmp_path / "data", SpaceSpec((field,)), ACTION, video={name: settings})
    assert list(tmp_path.iterdir()) == []


def test_fields_in_arrays_have_no_frames(make: MakeStore) -> None:
    with pytest.raises(DatasetError, match=r"unknown field stored as video 'action'.*front"):
        make([1]).frames("action")


def test_copied_videos_are_the_same_files(make: MakeStore, assert_same: Same) -> None:
    lossy = VideoSettings("libx264")
    source, same, arrays = make([4, 0, 6], lossy), make([2], lossy, "same"), make([], LOSSLESS, "other")
    same.copy_episodes(source, [2, 0])
    assert same.digests[1:] == [source.digests[2], source.digests[0]]
    arrays.copy_episodes(source, [2, 1])
    assert_same(arrays.episode(0), source.episode(2))
    assert_same(arrays.episode(1), source.episode(1))


def test_a_full_disk_leaves_no_video_behind(
    make: MakeStore, assert_same: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make([3])

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    for failing, message in (
        ("alula.datasets.video_field.sync", "cannot write to dataset.*No space left.*1 committed"),
        ("alula.datasets.video_field.encode_video", "cannot encode 4 frames.*No space left.*TMPDIR"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(failing, full)
            with pytest.raises(DatasetError, match=message):
                store.append(episode_of(1, 4))
    store.append(episode_of(2, 0))
    assert_same(EpisodeStore.open(store.path).episode(1), episode_of(2, 0))
    assert EpisodeStore.open(store.path).damaged_episodes() == []
    with monkeypatch.context() as patch:
        patch.setattr("alula.datasets.video_field.VideoField._decode", full)
        with pytest.raises(DatasetError, match=r"cannot decode .* MiB of video into .*\.cache': No space left"):
            store.frames(CAMERA)

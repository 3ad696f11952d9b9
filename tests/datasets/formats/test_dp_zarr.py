"""diffusion_policy's replay buffers: theirs by convention, ours to the bit, damage by name."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from numcodecs.registry import codec_registry

from alula.core.errors import DatasetError
from alula.core.transitions import Episode
from alula.datasets.formats.dp_zarr import DiffusionPolicyZarr

Foreign = Callable[..., Path]
PUSH_T = {
    "action": np.arange(14, dtype=np.float32).reshape(7, 2),
    "img": np.arange(7 * 4 * 4 * 3).reshape(7, 4, 4, 3).astype(np.uint8),
    "keypoint": np.arange(7 * 9 * 2, dtype=np.float64).reshape(7, 9, 2),
    "n_contacts": np.ones((7, 1), np.float32),
    "state": np.arange(35, dtype=np.float32).reshape(7, 5),
    "timestamp": np.arange(7) / 10,
}
"""The arrays of `pusht_cchi_v7_replay.zarr`, and the clock of their real recordings."""


@pytest.fixture
def foreign(tmp_path: Path) -> Foreign:
    """`foreign(data, ends)`: a folder made of nothing but the arrays."""

    def make(data: dict[str, np.ndarray], ends: list[int], compressor: Any = None) -> Path:
        path = tmp_path / "replay.zarr"
        root = zarr.open_group(path, mode="w", zarr_format=2)
        for name, values in data.items():
            compressors = compressor or numcodecs.Blosc("lz4", 5, numcodecs.Blosc.NOSHUFFLE)
            chunks = (1 if values.ndim == 4 else 3, *values.shape[1:])
            root.create_array(f"data/{name}", data=values, chunks=chunks, compressors=compressors)
        root.create_array("meta/episode_ends", data=np.array(ends, np.int64))
        return path

    return make


def read(path: Path) -> list[Episode]:
    with DiffusionPolicyZarr().open(path) as reader:
        return list(reader.episodes())


def test_others_arrays_get_our_names(foreign: Foreign) -> None:
    path = foreign(PUSH_T, [3, 7])
    assert DiffusionPolicyZarr().detect(path)
    with DiffusionPolicyZarr().open(path) as reader:
        assert reader.contents.observation["observation.images.img"].shape == (4, 4, 3)
        assert reader.contents.extra["source_timestamp"].units == ("s",)
        targets = {mapping.source: mapping.target for mapping in reader.plan.mappings}
        first, second = reader.episodes()
    assert targets["data/keypoint"] == "observation.keypoint"
    assert (first.length, second.length) == (3, 4)
    for name, key in (("action", "action"), ("observation.keypoint", "keypoint"), ("observation.images.img", "img")):
        joined = np.concatenate([first.steps[name], second.steps[name]])
        assert joined.dtype == PUSH_T[key].dtype
        np.testing.assert_array_equal(joined, PUSH_T[key])
    assert second.steps["next.truncated"].tolist() == [False, False, False, True]
    assert not second.steps["next.terminated"].any()


def test_outcomes_of_others_are_taken_over(foreign: Foreign) -> None:
    data = {"action": np.zeros((2, 1), np.float32), "reward": np.array([0, 1], np.float32)}
    data["terminated"] = np.array([False, True])
    (episode,) = read(foreign(data, [2]))
    assert episode.steps["next.reward"].dtype == np.float64
    assert episode.steps["next.reward"].tolist() == [0, 1]
    assert episode.steps["next.terminated"].tolist() == [False, True]
    assert not episode.steps["next.truncated"].any()


def test_a_zip_is_read_as_its_folder(tmp_path: Path, awkward: Any, write: Any, assert_same: Any) -> None:
    write(DiffusionPolicyZarr(), tmp_path / "data.zarr", *awkward)
    shutil.make_archive(str(tmp_path / "data.zarr"), "zip", tmp_path / "data.zarr")
    path = tmp_path / "data.zarr.zip"
    assert DiffusionPolicyZarr().detect(path)
    for got, wanted in zip(read(path), awkward[1], strict=True):
        assert_same(got, wanted)


def test_what_is_written_has_the_layout_that_they_read(tmp_path: Path, awkward: Any, write: Any) -> None:
    """Format 2, Blosc, one frame per chunk, no array in `data` longer or shorter than the last end."""
    contents, episodes = awkward
    path = tmp_path / "data.zarr"
    write(DiffusionPolicyZarr(), path, contents, episodes)
    for group in (".zgroup", "data/.zgroup", "meta/.zgroup"):
        assert json.loads((path / group).read_text())["zarr_format"] == 2
    assert not list(path.rglob("zarr.json"))
    assert sorted(item.name for item in (path / "meta").iterdir() if item.is_dir()) == ["episode_ends"]
    ends = np.cumsum([episode.length for episode in episodes])
    front = json.loads((path / "data/front/.zarray").read_text())
    assert front["chunks"][0] == 1
    assert front["compressor"]["id"] == "blosc"
    assert (path / "data/front/11.0.0.0").is_file()  # The twelfth frame, under the name that zarr 2 looks for.
    root = zarr.open_group(path, mode="r")
    np.testing.assert_array_equal(root["meta/episode_ends"][:], ends)
    for name in (path / "data").iterdir():
        if name.is_dir():
            assert json.loads((name / ".zarray").read_text())["shape"][0] == ends[-1], name
    np.testing.assert_array_equal(
        root["data/action"][:], np.concatenate([episode.steps["action"] for episode in episodes])
    )


def test_a_writer_killed_within_an_episode_leaves_the_others(tmp_path: Path, awkward: Any, assert_same: Any) -> None:
    """Arrays that are longer than the log says, and half a line in it, are cut off."""
    contents, episodes = awkward
    path = tmp_path / "data.zarr"
    writer = DiffusionPolicyZarr().create(path, contents)
    for episode in episodes[:3]:
        writer.append(episode)
    writer.abandon()
    log = path / "episodes.jsonl"
    log.write_bytes(log.read_bytes()[:-5])
    writer = DiffusionPolicyZarr().create(path, contents)
    assert writer.num_episodes == 2
    for episode in episodes[2:]:
        writer.append(episode)
    writer.finish()
    for got, wanted in zip(read(path), episodes, strict=True):
        assert_same(got, wanted)


def test_an_unfinished_draft_is_no_dataset(tmp_path: Path, awkward: Any) -> None:
    writer = DiffusionPolicyZarr().create(tmp_path / "data.zarr", awkward[0])
    writer.append(awkward[1][0])
    writer.abandon()
    assert not DiffusionPolicyZarr().detect(tmp_path / "data.zarr")
    with pytest.raises(DatasetError, match="not a diffusion_policy replay buffer"):
        DiffusionPolicyZarr().open(tmp_path / "data.zarr")


@pytest.mark.parametrize(
    ("data", "ends", "message"),
    [
        (PUSH_T, [3, 8], "has 7 entries, but the last episode ends at 8"),
        (PUSH_T, [5, 3, 7], "must never fall"),
        ({**PUSH_T, "state": np.zeros((6, 2))}, [3, 7], "'data/state' .* has 6 entries"),
        ({"action": np.zeros((2, 1), np.complex64)}, [2], "'data/action' holds complex64"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(
    foreign: Foreign, data: dict[str, np.ndarray], ends: list[int], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        DiffusionPolicyZarr().open(foreign(data, ends))


def test_a_missing_chunk_is_named(tmp_path: Path, awkward: Any, write: Any, foreign: Foreign) -> None:
    """In ours it is an error; in theirs it may be an empty one that was never stored, so the plan says it."""
    write(DiffusionPolicyZarr(), tmp_path / "data.zarr", *awkward)
    (tmp_path / "data.zarr/data/front/3.0.0.0").unlink()
    with pytest.raises(DatasetError, match=r"'data/front' .* lacks 1 of 12 chunks"):
        DiffusionPolicyZarr().open(tmp_path / "data.zarr")
    path = foreign(PUSH_T, [7])
    (path / "data/img/2.0.0.0").unlink()
    with DiffusionPolicyZarr().open(path) as reader:
        changes = {mapping.source: mapping.change for mapping in reader.plan.mappings}
    assert changes["data/img"] == "1 absent chunks are read as 0"
    assert changes["data/state"] == ""


def test_a_damaged_chunk_is_found_when_it_is_read(foreign: Foreign) -> None:
    path = foreign(PUSH_T, [3, 7])
    (path / "data/state/0.0").write_bytes(b"noise")
    with pytest.raises(DatasetError, match=r"'data/state' .* damaged"):
        read(path)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    assert not DiffusionPolicyZarr().detect(tmp_path / "data.zip")
    with pytest.raises(DatasetError, match=r"not a readable .zip"):
        DiffusionPolicyZarr().open(tmp_path / "data.zip")


class TestJpeg2000:
    """diffusion_policy's image codec comes from a package of its own."""

    @pytest.fixture
    def compressed(self, foreign: Foreign, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A replay buffer with images in JPEG 2000, whose codec nobody has registered."""
        codecs = pytest.importorskip("imagecodecs.numcodecs", reason="needs pip install 'alula[jpeg2k]'")
        codecs.register_codecs(verbose=False)
        frames = np.full((2, 16, 16, 3), 200, np.uint8)
        path = foreign({"action": np.zeros((2, 1), np.float32)}, [2])
        root = zarr.open_group(path, mode="r+", zarr_format=2)
        root.create_array("data/img", data=frames, chunks=(1, 16, 16, 3), compressors=codecs.Jpeg2k(level=50))
        # zarr has classes of codecs by their names; without the name it does not know this one.
        monkeypatch.delitem(codec_registry, "imagecodecs_jpeg2k")
        return path

    def test_it_is_read_where_the_package_is_installed(self, compressed: Path) -> None:
        (episode,) = read(compressed)
        images = episode.steps["observation.images.img"].astype(int)
        assert images.shape == (2, 16, 16, 3)
        assert np.abs(images - 200).max() <= 2

    def test_without_the_package_the_message_says_what_to_install(
        self, compressed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "imagecodecs.numcodecs", None)
        with pytest.raises(DatasetError, match=r"imagecodecs_jpeg2k.*alula\[jpeg2k\]"):
            DiffusionPolicyZarr().open(compressed)

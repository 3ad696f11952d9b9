"""LeRobot's own loaders give what we wrote, and we read what its writers wrote."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.formats.format import Contents, WritableFormat
from alula.datasets.formats.lerobot3 import LeRobot3
from alula.datasets.formats.lerobot21 import LeRobot21
from alula.datasets.schema import step_fields
from alula.datasets.video import psnr

pytestmark = pytest.mark.interop

READERS = {"lerobot21": "lerobot21", "lerobot3": "interop"}
"""The environment whose LeRobot reads a format: 0.3.3 reads 2.1, 0.4.4 reads 3.0."""
LOSSLESS = {"video": True, "codec": "libx264rgb", "crf": 0}
FORMATS = [LeRobot21(), LeRobot3(), LeRobot21(**LOSSLESS), LeRobot3(**LOSSLESS)]
CONTENTS = Contents(
    SpaceSpec(
        (
            FieldSpec("observation.state", (3,), "float64", ("rad", "rad", "m"), ("shoulder", "elbow", "slide")),
            FieldSpec("observation.images.front", (16, 20, 3), "uint8"),
            FieldSpec("observation.images.wrist", (7, 5, 3), "uint8"),
            FieldSpec("observation.grid", (2, 3), "float32"),
            FieldSpec("observation.cube", (2, 1, 3), "int16"),
            FieldSpec("observation.half", (2,), "float16"),
            FieldSpec("observation.phase", (), "uint8"),
            FieldSpec("observation.contacts", (4,), "bool"),
        )
    ),
    SpaceSpec((FieldSpec("action", (2,), control_mode=ControlMode.JOINT_POSITION_DELTA, rate=20.0),)),
    SpaceSpec((FieldSpec("timestamp", (), "int64", ("ns",)),)),
)
FLAT = replace(
    CONTENTS,
    observation=SpaceSpec(
        tuple(field for field in CONTENTS.observation.values() if field.dtype == "uint8" or len(field.shape) < 2)
    ),
)
"""Without fields of several axes that are no pictures, which LeRobot's script cannot concatenate, not even its own."""
TASKS = ["pick", "place the 🍎", "pick", ""]
LENGTHS = [6, 1, 9, 3]


def make_episodes(contents: Contents = CONTENTS) -> list[Episode]:
    rng = np.random.default_rng(0)

    def values(field: FieldSpec, length: int) -> np.ndarray:
        shape = (length, *field.shape)
        if field.name == "timestamp":
            return 1_000_000_000 + 50_000_000 * np.arange(length)
        if np.dtype(field.dtype).kind == "f":
            return rng.standard_normal(shape).astype(field.dtype)
        return rng.integers(0, 2 if field.dtype == "bool" else 200, shape).astype(field.dtype)

    return [
        Episode({name: values(field, length) for name, field in step_fields(contents).items()}, {"instruction": task})
        for length, task in zip(LENGTHS, TASKS, strict=True)
    ]


def write(fmt: WritableFormat, path: Path, episodes: list[Episode], contents: Contents = CONTENTS) -> Path:
    writer = fmt.create(path, contents)
    for episode in episodes:
        writer.append(episode)
    writer.finish()
    return path


def assert_items(items: dict[str, np.ndarray], episodes: list[Episode]) -> None:
    """Every item as LeRobot gives it: floats in single precision, pictures channels first in [0, 1]."""
    lengths = [episode.length for episode in episodes]
    for name in episodes[0].steps:
        wanted = np.concatenate([episode.steps[name] for episode in episodes])
        got = items["alula.timestamp" if name == "timestamp" else name]
        if name.startswith("observation.images."):
            wanted = wanted.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        if wanted.dtype.kind == "f":
            wanted = wanted.astype(np.float32)
        assert got.shape == wanted.shape, name
        assert np.array_equal(got, wanted), name
    assert items["index"].tolist() == list(range(sum(lengths)))
    assert items["episode_index"].tolist() == np.repeat(range(len(lengths)), lengths).tolist()
    assert items["task"].tolist() == np.repeat(TASKS, lengths).tolist()
    assert items["timestamp"] == pytest.approx(items["frame_index"] / 20, abs=1e-6)


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: f"{fmt.name}-{'video' if fmt.video else 'png'}")
def test_lerobot_reads_every_index_of_ours(fmt: WritableFormat, tmp_path: Path, run_theirs) -> None:
    episodes = make_episodes()
    path = write(fmt, tmp_path / "data", episodes)
    run_theirs(READERS[fmt.name], "lerobot_read.py", path, tmp_path / "items.npz")
    items = dict(np.load(tmp_path / "items.npz"))
    assert_items(items, episodes)
    states = np.concatenate([episode.steps["observation.state"] for episode in episodes])
    assert items["stats/observation.state/mean"] == pytest.approx(states.mean(0))
    assert items["stats/observation.state/std"] == pytest.approx(states.std(0))
    assert items["stats/observation.images.front/mean"].shape == (3, 1, 1)


@pytest.mark.parametrize("options", [{}, LOSSLESS], ids=["image", "video"])
def test_lerobot_converts_ours_from_21_to_30(options: dict, tmp_path: Path, run_theirs) -> None:
    """Its own script accepts our 2.1; its loader and we read the result."""
    episodes = make_episodes(FLAT)
    path = write(LeRobot21(**options), tmp_path / "data", episodes, FLAT)
    run_theirs("interop", "lerobot_convert.py", path)
    run_theirs("interop", "lerobot_read.py", path, tmp_path / "items.npz")
    assert_items(dict(np.load(tmp_path / "items.npz")), episodes)
    with LeRobot3().open(path) as reader:
        for got, wanted in zip(reader.episodes(), episodes, strict=True):
            for name in FLAT.observation:
                assert np.array_equal(got.steps[name].reshape(wanted.steps[name].shape), wanted.steps[name]), name


@pytest.mark.parametrize("images", ["image", "video"])
@pytest.mark.parametrize("fmt", [LeRobot21(), LeRobot3()], ids=lambda fmt: fmt.name)
def test_we_read_what_lerobot_writes(fmt: WritableFormat, images: str, tmp_path: Path, run_theirs) -> None:
    path = tmp_path / "theirs"
    run_theirs(READERS[fmt.name], "lerobot_write.py", path, tmp_path / "truth.npz", images)
    truth = dict(np.load(tmp_path / "truth.npz"))
    assert fmt.detect(path)
    with fmt.open(path) as reader:
        assert reader.contents.metadata["rate"] == 10
        assert reader.contents.observation["observation.state"].element_names[0] == "joint_0.pos"
        episodes = list(reader.episodes())
    assert [episode.length for episode in episodes] == [5, 2, 8]
    assert [episode.metadata["instruction"] for episode in episodes] == ["pick up", "put down", "pick up"]
    for name in ("observation.state", "observation.grid", "action", "next.reward", "next.success"):
        got = np.concatenate([episode.steps[name] for episode in episodes])
        assert np.array_equal(got, truth[name].reshape(got.shape)), name
    ends = np.concatenate([episode.steps["next.terminated"] | episode.steps["next.truncated"] for episode in episodes])
    assert np.array_equal(ends, truth["next.done"].reshape(-1))
    frames = np.concatenate([episode.steps["observation.images.top"] for episode in episodes])
    for got, wanted in zip(frames, truth["observation.images.top"], strict=True):
        assert np.array_equal(got, wanted) if images == "image" else psnr(got, wanted) > 28

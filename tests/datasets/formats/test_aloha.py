"""ALOHA's HDF5 episodes, read only."""

import io
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from alula.core.errors import DatasetError
from alula.core.spaces import ControlMode
from alula.datasets.formats.aloha import Aloha

LENGTHS = {0: 3, 1: 2, 10: 4, 2: 5}


def joints(number: int, what: int) -> np.ndarray:
    return np.random.default_rng((number, what)).standard_normal((LENGTHS[number], 14))


def film(number: int) -> np.ndarray:
    return np.random.default_rng((number, 9)).integers(0, 256, (LENGTHS[number], 6, 8, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Episodes as `record_sim_episodes.py` and `record_episodes.py` write them."""
    for number, length in LENGTHS.items():
        with h5py.File(tmp_path / f"episode_{number}.hdf5", "w") as file:
            file.attrs["sim"] = True
            file["action"] = joints(number, 0)
            for index, name in enumerate(("qpos", "qvel", "effort"), start=1):
                file[f"observations/{name}"] = joints(number, index)
            file.create_dataset("observations/images/top", data=film(number), chunks=(1, 6, 8, 3))
            file["base_action"] = np.zeros((length, 2))
    (tmp_path / "notes.txt").write_text("not an episode")
    return tmp_path


def compress(path: Path, colours: np.ndarray) -> None:
    """Replace the pictures by padded JPEGs, as Mobile ALOHA's recorder does.

    OpenCV's encoder takes the first channel for blue; a picture's first channel therefore is a JPEG's third.
    """
    with h5py.File(path, "a") as file:
        file.attrs["compress"] = True
        encoded = []
        for colour in colours:
            buffer = io.BytesIO()
            Image.fromarray(np.broadcast_to(colour[::-1], (16, 24, 3)).astype(np.uint8)).save(buffer, format="JPEG")
            encoded.append(buffer.getvalue())
        width = max(len(jpeg) for jpeg in encoded) + 7
        padded = np.stack([np.frombuffer(jpeg.ljust(width, b"\0"), np.uint8) for jpeg in encoded])
        del file["observations/images/top"]
        file["observations/images/top"] = padded
        file["compress_len"] = np.array([[len(jpeg) for jpeg in encoded]], np.float64)


def test_episodes_come_in_the_order_of_their_numbers(folder: Path) -> None:
    assert Aloha().detect(folder)
    with Aloha().open(folder) as reader:
        episodes = list(reader.episodes())
        assert reader.num_episodes == 4
        assert not reader.plan.losses
    for number, episode in zip((0, 1, 2, 10), episodes, strict=True):
        assert episode.metadata == {"source": "aloha", "source_file": f"episode_{number}.hdf5", "sim": True}
        names = ("action", "observation.state", "observation.velocity", "observation.effort")
        for what, name in enumerate(names):
            np.testing.assert_array_equal(episode.steps[name], joints(number, what), strict=True)
        np.testing.assert_array_equal(episode.steps["observation.images.top"], film(number), strict=True)
        assert np.flatnonzero(episode.steps["next.truncated"]).tolist() == [LENGTHS[number] - 1]
    with Aloha().open(folder) as reader:
        assert [episode.length for episode in reader.episodes(start=2)] == [5, 4]


def test_what_the_fields_mean(folder: Path) -> None:
    with Aloha().open(folder) as reader:
        action, state = reader.contents.action["action"], reader.contents.observation["observation.state"]
        assert list(reader.contents.extra) == ["base_action"]
        assert reader.contents.metadata["rate"] == 50
    assert action.control_mode == ControlMode.JOINT_POSITION_ABSOLUTE
    assert action.rate == 50
    assert (state.element_names[0], state.element_names[6], state.element_names[7]) == (
        "left_waist",
        "left_gripper",
        "right_waist",
    )
    assert (state.units[0], state.units[6]) == ("rad", "1")


def test_a_single_episode_can_be_read(folder: Path) -> None:
    assert Aloha().detect(folder / "episode_10.hdf5")
    with Aloha().open(folder / "episode_10.hdf5") as reader:
        assert [episode.length for episode in reader.episodes()] == [4]


def test_compressed_pictures_keep_the_channel_order_of_the_recording(folder: Path) -> None:
    colours = np.array([[200, 40, 10], [10, 200, 40], [40, 10, 200]])
    for number in (1, 2, 10):
        (folder / f"episode_{number}.hdf5").unlink()
    compress(folder / "episode_0.hdf5", colours)
    with Aloha().open(folder) as reader:
        assert reader.contents.observation["observation.images.top"].shape == (16, 24, 3)
        assert not reader.plan.losses
        (episode,) = reader.episodes()
    pictures = episode.steps["observation.images.top"]
    np.testing.assert_allclose(pictures[:, 8, 12].astype(int), colours, atol=4)


def test_other_robots_get_no_joint_names(folder: Path) -> None:
    for file in folder.glob("*.hdf5"):
        with h5py.File(file, "a") as episode:
            values = episode["action"][:, :7]
            del episode["action"]
            episode["action"] = values
    with Aloha().open(folder) as reader:
        assert reader.contents.action["action"].element_names == ()
        assert reader.contents.action["action"].control_mode is None


# --- Faults -----------------------------------------------------------------------------------------------------------


def read_all(path: Path) -> None:
    with Aloha().open(path) as reader:
        list(reader.episodes())


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.99])
def test_a_truncated_episode_is_one_error(folder: Path, kept: float) -> None:
    content = (folder / "episode_2.hdf5").read_bytes()
    (folder / "episode_2.hdf5").write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DatasetError, match=r"episode_2\.hdf5"):
        read_all(folder)


def test_another_kind_of_file_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "episode_0.hdf5").write_text("these are notes\n" * 100)
    assert not Aloha().detect(tmp_path)
    with pytest.raises(DatasetError, match="not a readable HDF5 file"):
        read_all(tmp_path)
    with h5py.File(tmp_path / "episode_0.hdf5", "w") as file:
        file["data"] = 1
    assert not Aloha().detect(tmp_path)
    with pytest.raises(DatasetError, match="not ALOHA's"):
        read_all(tmp_path)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    assert not Aloha().detect(tmp_path)
    with pytest.raises(DatasetError, match="no files episode_"):
        read_all(tmp_path)


def remove_actions(file: h5py.File) -> None:
    del file["action"]


def shorten_film(file: h5py.File) -> None:
    values = file["observations/images/top"][:-1]
    del file["observations/images/top"]
    file["observations/images/top"] = values


def narrow_joints(file: h5py.File) -> None:
    values = file["observations/qpos"][:, :7]
    del file["observations/qpos"]
    file["observations/qpos"] = values


def put_nan(file: h5py.File) -> None:
    file["observations/qvel"][1, 3] = np.nan


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_actions, "action"),
        (shorten_film, r"images/top.*\(4, 6, 8, 3\).*5 steps"),
        (narrow_joints, r"qpos.*\(5, 7\)"),
        (put_nan, "observation.velocity.*not a finite float64 at step 1"),
    ],
)
def test_a_damaged_episode_is_named(folder: Path, damage: Callable[[h5py.File], None], message: str) -> None:
    with h5py.File(folder / "episode_2.hdf5", "a") as file:
        damage(file)
    content = (folder / "episode_2.hdf5").read_bytes()
    with pytest.raises(DatasetError, match=rf"episode_2\.hdf5.*{message}"):
        read_all(folder)
    assert (folder / "episode_2.hdf5").read_bytes() == content


def test_a_damaged_picture_is_named(folder: Path) -> None:
    for number in (1, 2, 10):
        (folder / f"episode_{number}.hdf5").unlink()
    compress(folder / "episode_0.hdf5", np.full((3, 3), 100))
    with h5py.File(folder / "episode_0.hdf5", "a") as file:
        file["observations/images/top"][1] = 0
    with pytest.raises(DatasetError, match=r"episode_0\.hdf5.*picture 1 of .*top.* cannot be decoded"):
        read_all(folder)

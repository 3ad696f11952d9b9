"""DPPO's archives: others' by convention, our own exactly, and in the form that DPPO's loader reads."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.formats.dppo import Dppo
from alula.datasets.formats.format import NO_FIELDS, Contents

LENGTHS = np.array([3, 4, 2])
LOW, HIGH = np.array([-2.0, 0.0, 5.0]), np.array([2.0, 10.0, 5.0])
ACTION_LOW, ACTION_HIGH = np.array([-0.1, 0.0]), np.array([0.3, 0.04])


def physical() -> tuple[np.ndarray, np.ndarray]:
    """States and actions in their own units; the third state is constant."""
    rng = np.random.default_rng(0)
    return rng.uniform(LOW, HIGH, (LENGTHS.sum(), 3)), rng.uniform(ACTION_LOW, ACTION_HIGH, (LENGTHS.sum(), 2))


def scaled(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """DPPO's scaling, from its description."""
    return 2 * (values - low) / (high - low + 1e-6) - 1


def train_arrays() -> dict[str, Any]:
    states, actions = physical()
    rng = np.random.default_rng(1)
    return {
        "states": scaled(states, LOW, HIGH).astype(np.float32),
        "actions": scaled(actions, ACTION_LOW, ACTION_HIGH).astype(np.float32),
        "rewards": np.arange(9, dtype=np.float32),
        "terminals": np.cumsum(LENGTHS)[1] - 1 == np.arange(9),
        "images": rng.integers(0, 256, (9, 6, 4, 5), dtype=np.uint8),
        "traj_lengths": LENGTHS,
    }


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder as DPPO's scripts write it, with two cameras."""
    folder = tmp_path / "square"
    folder.mkdir()
    np.savez_compressed(folder / "train.npz", **train_arrays())
    np.savez(folder / "normalization.npz", obs_min=LOW, obs_max=HIGH, action_min=ACTION_LOW, action_max=ACTION_HIGH)
    return folder


def test_foreign_states_and_actions_come_back_in_their_units(foreign: Path) -> None:
    states, actions = physical()
    assert Dppo().detect(foreign)
    with Dppo().open(foreign) as reader:
        assert any("back to the range" in mapping.change for mapping in reader.plan.mappings)
        assert not reader.plan.losses
        episodes = list(reader.episodes())
        assert [episode.length for episode in reader.episodes(start=1)] == [4, 2]
    assert [episode.length for episode in episodes] == LENGTHS.tolist()
    joined = {name: np.concatenate([episode.steps[name] for episode in episodes]) for name in episodes[0].steps}
    assert joined["observation.state"].dtype == np.float32
    np.testing.assert_allclose(joined["observation.state"], states, atol=2e-6)
    np.testing.assert_allclose(joined["action"], actions, atol=1e-7)
    np.testing.assert_array_equal(joined["next.reward"], np.arange(9.0))
    assert np.flatnonzero(joined["next.terminated"]).tolist() == [6]
    assert np.flatnonzero(joined["next.truncated"]).tolist() == [2, 8]


def test_foreign_images_are_one_field_a_camera_channels_last(foreign: Path) -> None:
    with Dppo().open(foreign) as reader:
        first = next(reader.episodes())
    images = train_arrays()["images"]
    for camera in range(2):
        expected = images[:3, 3 * camera : 3 * camera + 3].transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(first.steps[f"observation.images.camera_{camera}"], expected)


def test_the_held_out_episodes_follow(foreign: Path) -> None:
    np.savez(foreign / "val.npz", **train_arrays())
    with Dppo().open(foreign) as reader:
        assert [episode.metadata["split"] for episode in reader.episodes()] == ["train"] * 3 + ["valid"] * 3
        assert [episode.length for episode in reader.episodes(start=4)] == [4, 2]
    with Dppo().open(foreign / "val.npz") as reader:
        assert reader.num_episodes == 3


def test_without_normalization_values_stay_as_they_are(foreign: Path) -> None:
    (foreign / "normalization.npz").unlink()
    with Dppo().open(foreign) as reader:
        assert any("left in [-1, 1]" in mapping.change for mapping in reader.plan.mappings)
        np.testing.assert_array_equal(next(reader.episodes()).steps["action"], train_arrays()["actions"][:3])


def test_unknown_arrays_are_named_as_lost(foreign: Path) -> None:
    np.savez(foreign / "train.npz", goals=np.zeros(9), **train_arrays())
    with Dppo().open(foreign) as reader:
        assert reader.plan.losses == ("the array 'goals'",)


def test_round_trip_is_exact(
    tmp_path: Path,
    awkward: tuple[Contents, list[Episode]],
    write: Callable[..., None],
    assert_same: Callable[[Episode, Episode], None],
) -> None:
    contents, episodes = awkward
    assert not Dppo().plan(contents).losses
    write(Dppo(), tmp_path / "a", contents, episodes)
    assert Dppo().detect(tmp_path / "a")
    with Dppo().open(tmp_path / "a") as reader:
        assert reader.contents == contents
        for mine, theirs in zip(episodes, reader.episodes(), strict=True):
            assert_same(mine, theirs)
        assert_same(episodes[3], next(reader.episodes(start=3)))


def test_cameras_of_different_sizes_are_kept_exactly(
    tmp_path: Path, write: Callable[..., None], assert_same: Callable[[Episode, Episode], None]
) -> None:
    """DPPO has one array for all pictures, so it gets none of these."""
    cameras = (
        FieldSpec("observation.images.a", (2, 2, 3), "uint8"),
        FieldSpec("observation.images.b", (3, 3, 3), "uint8"),
    )
    contents = Contents(SpaceSpec(cameras), SpaceSpec((FieldSpec("action", (1,)),)))
    steps = {
        "observation.images.a": np.ones((2, 2, 2, 3), np.uint8),
        "observation.images.b": np.ones((2, 3, 3, 3), np.uint8),
        "action": np.ones((2, 1), np.float32),
        "next.reward": np.zeros(2),
        **{f"next.{name}": np.zeros(2, bool) for name in ("terminated", "truncated", "success")},
    }
    write(Dppo(), tmp_path / "a", contents, [Episode(steps)])
    with np.load(tmp_path / "a" / "train.npz") as archive:
        assert "images" not in archive
        assert archive["states"].shape == (2, 0)
    with Dppo().open(tmp_path / "a") as reader:
        assert_same(next(reader.episodes()), Episode(steps))


def test_the_archive_is_what_dppo_loads(
    tmp_path: Path, awkward: tuple[Contents, list[Episode]], write: Callable[..., None]
) -> None:
    """Without pickle, flat, scaled to [-1, 1] by what normalization.npz says, channels first."""
    contents, episodes = awkward
    state = replace(contents.observation["observation.state"], dtype="float32")
    small = [
        replace(episode, steps={**episode.steps, "observation.state": np.sin(episode.steps["action"][:, [0, 1, 1]])})
        for episode in episodes
    ]
    spaces = tuple(state if field.name == state.name else field for field in contents.observation.values())
    write(Dppo(), tmp_path / "a", replace(contents, observation=SpaceSpec(spaces)), small)
    with (
        np.load(tmp_path / "a" / "train.npz", allow_pickle=False) as train,
        np.load(tmp_path / "a" / "normalization.npz", allow_pickle=False) as bounds,
    ):
        assert train["traj_lengths"].tolist() == [4, 0, 1, 7]
        assert train["states"].shape == (12, 8)  # state (3), grip, contact (2), front_image (2)
        assert train["images"].shape == (12, 3, 4, 5)
        assert train["states"].dtype == np.float32
        assert np.abs(train["states"]).max() <= 1
        assert np.abs(train["actions"]).max() <= 1
        actions = np.concatenate([episode.steps["action"] for episode in small])
        # As DPPO's environments undo it when they act.
        undone = (train["actions"] + 1) / 2 * (bounds["action_max"] - bounds["action_min"]) + bounds["action_min"]
        np.testing.assert_allclose(undone, actions, atol=1e-5)
        np.testing.assert_array_equal(bounds["action_min"], actions.min(axis=0))
        states = np.concatenate([episode.steps["observation.state"] for episode in small])
        np.testing.assert_allclose(
            train["states"][:, :3], scaled(states, bounds["obs_min"][:3], bounds["obs_max"][:3]), atol=1e-6
        )
        images = np.concatenate([episode.steps["observation.images.front"] for episode in small])
        np.testing.assert_array_equal(train["images"].transpose(0, 2, 3, 1), images)


def test_an_empty_dataset_round_trips(
    tmp_path: Path, awkward: tuple[Contents, list[Episode]], write: Callable[..., None]
) -> None:
    write(Dppo(), tmp_path / "a", awkward[0], [])
    with Dppo().open(tmp_path / "a") as reader:
        assert reader.num_episodes == 0
        assert reader.contents == awkward[0]


# --- Faults -----------------------------------------------------------------------------------------------------------


def read_all(path: Path) -> None:
    with Dppo().open(path) as reader:
        list(reader.episodes())


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.99])
def test_a_truncated_archive_is_one_error(foreign: Path, kept: float) -> None:
    content = (foreign / "train.npz").read_bytes()
    (foreign / "train.npz").write_bytes(content[: int(len(content) * kept)])
    assert not Dppo().detect(foreign)
    with pytest.raises(DatasetError, match=r"train\.npz' is not a readable"):
        read_all(foreign)


def test_flipped_bits_are_noticed(foreign: Path) -> None:
    """The archive's checksums tell."""
    np.savez(foreign / "train.npz", **train_arrays())
    content = bytearray((foreign / "train.npz").read_bytes())
    content[content.index(train_arrays()["images"].tobytes()[:32]) + 5] ^= 1
    (foreign / "train.npz").write_bytes(content)
    with pytest.raises(DatasetError, match="CRC"):
        read_all(foreign)


def test_another_kind_of_file_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "train.npz"
    path.write_text("these are notes\n" * 100)
    assert not Dppo().detect(path)
    assert not Dppo().detect(tmp_path)
    with pytest.raises(DatasetError, match="not a readable"):
        read_all(path)
    with pytest.raises(DatasetError, match="no file"):
        read_all(tmp_path / "elsewhere.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": None}, "lacks.*actions"),
        ({"traj_lengths": None}, "lacks.*traj_lengths"),
        ({"traj_lengths": np.array([3, 40])}, "traj_lengths.*at most 9"),
        ({"traj_lengths": np.array([-1, 4])}, "traj_lengths"),
        ({"traj_lengths": np.array([1.5, 4])}, "traj_lengths"),
        ({"actions": np.zeros((5, 2), np.float32)}, "'actions'.*fewer rows"),
        ({"actions": np.zeros(9, np.float32)}, "'actions'.*two axes"),
        ({"states": np.zeros((9, 4), np.float32)}, "bounds of shape"),
        ({"states": np.full((9, 3), np.nan, np.float32)}, "observation.state.*not a finite"),
        ({"images": np.zeros((9, 4, 4, 3), np.uint8)}, "images"),
        ({"states": np.asfortranarray(np.zeros((9, 3)))}, "Fortran"),
    ],
)
def test_a_misfit_is_named(foreign: Path, changes: dict[str, np.ndarray | None], message: str) -> None:
    arrays = {name: values for name, values in {**train_arrays(), **changes}.items() if values is not None}
    np.savez(foreign / "train.npz", **arrays)
    with pytest.raises(DatasetError, match=rf"(train|normalization)\.npz.*{message}"):
        read_all(foreign)


def test_pickles_are_refused(foreign: Path) -> None:
    objects = np.array([{"a": 1}] * 9, dtype=object)
    np.savez(foreign / "train.npz", allow_pickle=True, **{**train_arrays(), "rewards": objects})
    with pytest.raises(DatasetError, match="'rewards' is object"):
        read_all(foreign)


def test_a_sidecar_of_other_archives_is_an_error(
    foreign: Path, tmp_path: Path, awkward: tuple[Contents, list[Episode]], write: Callable[..., None]
) -> None:
    write(Dppo(), tmp_path / "a", *awkward)
    (tmp_path / "a" / "alula.hdf5").rename(foreign / "alula.hdf5")
    with pytest.raises(DatasetError, match="belongs to other archives"):
        read_all(foreign)


def test_recordings_without_actions_are_refused(awkward: tuple[Contents, list[Episode]]) -> None:
    with pytest.raises(DatasetError, match="needs actions"):
        Dppo().plan(replace(awkward[0], action=NO_FIELDS))

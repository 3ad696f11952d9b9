"""Archives of arrays become datasets without loss, or are refused with the reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.datasets.conversion import Conversion
from alula.datasets.formats.native import Native
from alula.datasets.formats.npz import Npz
from alula.datasets.store import EpisodeStore

ADROIT_DOOR = Path(__file__).parents[4] / "shared" / "data" / "adroit_door_human.npz"
OBSERVATION = SpaceSpec(
    (FieldSpec("observation.state", (3,), "float64"), FieldSpec("observation.camera", (2, 1), "float64"))
)
ACTION = SpaceSpec((FieldSpec("action", (2,), "float64"),))
Arrays = dict[str, Any]


@pytest.fixture
def arrays() -> Arrays:
    """Two episodes of 4 and 6 steps."""
    rng = np.random.default_rng(0)
    return {
        "observation": rng.standard_normal((10, 5)),
        "action": rng.standard_normal((10, 2)),
        "reward": rng.standard_normal(10),
        "episode_ends": np.array([4, 10]),
        "init_qpos": rng.standard_normal((2, 3)),
    }


def converted(source: Path, target: Path, observation: SpaceSpec = OBSERVATION) -> EpisodeStore:
    """The dataset made from an archive."""
    with Npz((observation, ACTION)).open(source) as reader:
        Conversion(source, target, reader, Native()).run()
    return EpisodeStore.open(target)


def imported(folder: Path, arrays: Arrays, observation: SpaceSpec = OBSERVATION) -> EpisodeStore:
    """The dataset made from `arrays`."""
    np.savez(folder / "source.npz", **arrays)
    return converted(folder / "source.npz", folder / "data", observation)


def test_columns_are_shared_out_and_episodes_cut(tmp_path: Path, arrays: Arrays) -> None:
    store = EpisodeStore.open(imported(tmp_path, arrays).path)
    assert store.lengths.tolist() == [4, 6]
    np.testing.assert_array_equal(store.read("observation.state"), arrays["observation"][:, :3])
    np.testing.assert_array_equal(store.read("observation.camera"), arrays["observation"][:, 3:, None])
    np.testing.assert_array_equal(store.read("action"), arrays["action"])
    np.testing.assert_array_equal(store.read("next.reward"), arrays["reward"])
    assert np.flatnonzero(store.read("next.truncated")).tolist() == [3, 9]
    assert not store.read("next.terminated").any()
    assert not store.read("next.success").any()
    for index, metadata in enumerate(store.episode_metadata):
        assert metadata["init_qpos"] == arrays["init_qpos"][index].tolist()


def test_losses_are_planned(tmp_path: Path, arrays: Arrays) -> None:
    halved = SpaceSpec((OBSERVATION["observation.state"], FieldSpec("observation.camera", (2, 1), "float32")))
    np.savez(tmp_path / "source.npz", **arrays, notes=np.zeros(3))
    with Npz((halved, ACTION)).open(tmp_path / "source.npz") as reader:
        assert reader.plan.losses == (
            "array 'notes' is not read",
            "field 'observation.camera': float64 becomes float32",
        )
        assert reader.contents.metadata == {"provenance": "imported from source.npz", "success_recorded": False}


def test_without_names_there_is_one_field_for_all_columns(tmp_path: Path, arrays: Arrays) -> None:
    np.savez(tmp_path / "source.npz", **arrays)
    with Npz().open(tmp_path / "source.npz") as reader:
        assert reader.contents.observation == SpaceSpec((FieldSpec("observation.state", (5,), "float64"),))
        assert reader.contents.action == ACTION
        assert reader.plan.losses == ()
        seen = np.concatenate([episode.steps["observation.state"] for episode in reader.episodes()])
    np.testing.assert_array_equal(seen, arrays["observation"])


def test_recorded_success_is_kept(tmp_path: Path, arrays: Arrays) -> None:
    store = imported(tmp_path, {**arrays, "success": np.arange(10) == 3})
    assert np.flatnonzero(store.read("next.success")).tolist() == [3]
    assert store.metadata["success_recorded"] is True


BAD_ARRAYS: dict[str, tuple[Callable[[Arrays], object], str]] = {
    "no reward": (lambda arrays: arrays.pop("reward"), r"lacks the arrays \['reward'\]"),
    "scalar": (lambda arrays: arrays.update(observation=np.float64(1)), r"lacks the arrays \['observation'\]"),
    "ends too early": (lambda arrays: arrays.update(episode_ends=np.array([4, 9])), "number of steps, 10"),
    "ends fall": (lambda arrays: arrays.update(episode_ends=np.array([11, 10])), "rise to"),
    "float ends": (lambda arrays: arrays.update(episode_ends=np.array([4.0, 10.0])), "must be integers"),
    "no episodes": (lambda arrays: arrays.update(episode_ends=np.array([], int)), "episode_ends"),
    "columns": (lambda arrays: arrays.update(observation=np.zeros((10, 6))), r"shape \(10, 6\).*needs \(10, 5\)"),
    "short action": (lambda arrays: arrays.update(action=np.zeros((9, 2))), r"'action'.*\(9, 2\).*\(10, 2\)"),
    "short reward": (lambda arrays: arrays.update(reward=np.zeros(9)), r"'reward'.*\(9,\), needed is \(10,\)"),
    "short init": (lambda arrays: arrays.update(init_qpos=np.zeros((3, 3))), "'init_qpos'.*2 episodes"),
    "NaN": (lambda arrays: arrays["observation"].__setitem__((7, 0), np.nan), "observation.state.*episode 1.*step 3"),
    "objects": (lambda arrays: arrays.update(action=np.array([{}])), "pickled objects are refused"),
}


@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_unfit_archives_are_refused_and_leave_nothing(kind: str, tmp_path: Path, arrays: Arrays) -> None:
    spoil, message = BAD_ARRAYS[kind]
    spoil(arrays)
    with pytest.raises(DatasetError, match=message):
        imported(tmp_path, arrays)
    assert [path.name for path in tmp_path.iterdir()] == ["source.npz"]


@pytest.mark.parametrize("kept_share", [0.0, 0.3, 0.9])
def test_truncated_archives_are_refused(kept_share: float, tmp_path: Path, arrays: Arrays) -> None:
    imported(tmp_path, arrays)
    content = (tmp_path / "source.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: int(kept_share * len(content))])
    with pytest.raises(DatasetError, match=r"not a readable .npz archive.*truncated"):
        Npz().open(tmp_path / "cut.npz")


def test_damaged_archives_are_refused(tmp_path: Path, arrays: Arrays) -> None:
    np.savez_compressed(tmp_path / "source.npz", **arrays)
    content = bytearray((tmp_path / "source.npz").read_bytes())
    content[200:240] = bytes(40)
    (tmp_path / "source.npz").write_bytes(content)
    with pytest.raises(DatasetError, match=r"not a readable .npz archive"):
        Npz().open(tmp_path / "source.npz")


def test_what_is_no_archive_is_named(tmp_path: Path, arrays: Arrays) -> None:
    with pytest.raises(DatasetError, match=r"no file .*nothing.npz"):
        Npz().open(tmp_path / "nothing.npz")
    np.save(tmp_path / "array.npy", arrays["action"])
    with pytest.raises(DatasetError, match=r"not a readable .npz archive"):
        Npz().open(tmp_path / "array.npy")


@pytest.mark.skipif(not ADROIT_DOOR.exists(), reason="needs the recording adroit_door_human.npz, which is not shipped")
def test_the_adroit_door_demonstrations_import_exactly(tmp_path: Path) -> None:
    observation = SpaceSpec(
        (FieldSpec("observation.state", (27,), "float64"), FieldSpec("observation.environment_state", (12,), "float64"))
    )
    action = SpaceSpec((FieldSpec("action", (28,), "float64"),))
    with Npz((observation, action)).open(ADROIT_DOOR) as reader:
        assert reader.plan.losses == ()
        Conversion(ADROIT_DOOR, tmp_path / "door", reader, Native()).run()
    store = EpisodeStore.open(tmp_path / "door")
    with np.load(ADROIT_DOOR) as source:
        assert (store.num_episodes, store.num_steps) == (25, 6729)
        np.testing.assert_array_equal(store.episode_ends, source["episode_ends"])
        parts = [store.read("observation.state"), store.read("observation.environment_state")]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), source["observation"])
        np.testing.assert_array_equal(store.read("action"), source["action"])
        np.testing.assert_array_equal(store.read("next.reward"), source["reward"])
        for name in ("init_qpos", "init_qvel", "init_door_body_pos"):
            kept = [metadata[name] for metadata in EpisodeStore.open(store.path).episode_metadata]
            np.testing.assert_array_equal(kept, source[name])

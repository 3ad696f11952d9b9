"""Minari's folders: others' by convention, our own exactly, and in the form that Minari reads."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.formats.format import NO_FIELDS, Contents
from alula.datasets.formats.minari import Minari

LENGTHS = (4, 2, 3)
ENV_SPEC = json.dumps({"id": "FetchReach-v3", "max_episode_steps": 50})


def box(shape: list[int], low: float, high: float, dtype: str = "float32") -> dict[str, Any]:
    return {
        "type": "Box",
        "dtype": dtype,
        "shape": shape,
        "low": np.full(shape, low).tolist(),
        "high": np.full(shape, high).tolist(),
    }


def jpeg(value: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(np.full((32, 40, 3), value, np.uint8)).save(buffer, format="JPEG")
    return np.frombuffer(buffer.getvalue(), np.uint8)


def write_metadata(folder: Path, observation_space: dict[str, Any], **changes: Any) -> None:
    metadata = {
        "total_episodes": len(LENGTHS),
        "total_steps": sum(LENGTHS),
        "data_format": "hdf5",
        "observation_space": json.dumps(observation_space),
        "action_space": json.dumps(box([2], -1.0, 1.0)),
        "env_spec": ENV_SPEC,
        "dataset_id": "fetch/reach-v0",
        "algorithm_name": "script",
        "minari_version": "0.5.3",
        **changes,
    }
    (folder / "data" / "metadata.json").write_text(json.dumps(metadata))


def seen(number: int) -> np.ndarray:
    return np.random.default_rng(number).uniform(-1, 1, (LENGTHS[number] + 1, 3)).astype(np.float32)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """A Box of observations and no pictures."""
    folder = tmp_path / "reach-v0"
    (folder / "data").mkdir(parents=True)
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for number, length in enumerate(LENGTHS):
            group = file.create_group(f"episode_{number}")
            group.attrs.update({"id": number, "seed": 100 + number, "total_steps": length, "options/goal": "near"})
            group["observations"] = seen(number)
            group["actions"] = np.full((length, 2), number / 10, np.float32)
            group["rewards"] = np.arange(length, dtype=np.float64)
            group["terminations"] = np.arange(length) == length - 1
            group["truncations"] = np.zeros(length, bool)
            group["infos/is_success"] = np.arange(length + 1) == length
            group["infos/distance"] = np.arange(length + 1, dtype=np.float64)
    write_metadata(folder, box([3], -1.0, 1.0))
    return folder


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    """A Dict of observations with pictures and texts, and a Dict of actions."""
    folder = tmp_path / "nested-v0"
    (folder / "data").mkdir(parents=True)
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for number, length in enumerate(LENGTHS):
            group = file.create_group(f"episode_{number}")
            group["observations/achieved/goal"] = seen(number).astype(np.float64)
            films = group.create_dataset("observations/pixels", length + 1, h5py.vlen_dtype(np.uint8))
            for step in range(length + 1):
                films[step] = jpeg(20 * step)
            group["observations/mission"] = ["reach"] * (length + 1)
            group["actions/grip"] = np.full(length, 2, np.int64)
            group["actions/arm"] = np.full((length, 2), 0.5, np.float32)
            group["rewards"] = np.zeros(length)
            group["terminations"] = np.zeros(length, bool)
            group["truncations"] = np.arange(length) == length - 1
    goal = {"type": "Dict", "subspaces": {"goal": box([3], -2.0, 2.0, "float64")}}
    pixels = box([32, 40, 3], 0, 255, "uint8")
    write_metadata(folder, {"type": "Dict", "subspaces": {"achieved": goal, "pixels": pixels}})
    return folder


def test_foreign_observations_and_what_they_lead_to(flat: Path) -> None:
    """T + 1 observations are T pairs of before and after; nothing of them is lost."""
    assert Minari().detect(flat)
    with Minari().open(flat) as reader:
        assert not reader.plan.losses
        for number, episode in enumerate(reader.episodes()):
            np.testing.assert_array_equal(episode.steps["observation.state"], seen(number)[:-1], strict=True)
            np.testing.assert_array_equal(episode.steps["next.observation.state"], seen(number)[1:], strict=True)
            assert episode.length == LENGTHS[number]


def test_infos_from_the_reset_on(flat: Path) -> None:
    """The first info comes from the reset, so a step's success is in the row behind it."""
    with Minari().open(flat) as reader:
        first = next(reader.episodes())
    assert first.steps["infos.distance"].tolist() == [0, 1, 2, 3]
    assert first.steps["next.infos.distance"].tolist() == [1, 2, 3, 4]
    assert first.steps["next.success"].tolist() == [False, False, False, True]


def test_foreign_metadata_and_bounds(flat: Path) -> None:
    with Minari().open(flat) as reader:
        assert reader.contents.metadata["minari"]["dataset_id"] == "fetch/reach-v0"
        assert reader.contents.metadata["success_recorded"] is True
        assert reader.contents.observation["observation.state"].low == (-1.0, -1.0, -1.0)
        assert reader.contents.action["action"].high == (1.0, 1.0)
        assert [episode.metadata for episode in reader.episodes(start=2)] == [
            {"source": "minari", "id": 2, "seed": 102, "options/goal": "near"}
        ]


def test_nested_spaces_pictures_and_parts_of_actions(nested: Path) -> None:
    with Minari().open(nested) as reader:
        contents = reader.contents
        assert list(contents.observation) == ["observation.achieved.goal", "observation.images.pixels"]
        assert contents.observation["observation.achieved.goal"].high == (2.0, 2.0, 2.0)
        assert contents.observation["observation.images.pixels"].shape == (32, 40, 3)
        assert contents.action["action"].element_names == ("arm.0", "arm.1", "grip.0")
        assert [("mission" in loss) for loss in reader.plan.losses] == [True]
        first = next(reader.episodes())
    np.testing.assert_array_equal(first.steps["action"], np.tile([0.5, 0.5, 2.0], (4, 1)))
    levels = [first.steps[f"{name}observation.images.pixels"][:, 16, 20].mean(axis=1) for name in ("", "next.")]
    np.testing.assert_allclose(levels, [[0, 20, 40, 60], [20, 40, 60, 80]], atol=2)


def test_metadata_before_version_05_is_in_the_file(flat: Path) -> None:
    (flat / "data" / "metadata.json").unlink()
    with h5py.File(flat / "data" / "main_data.hdf5", "a") as file:
        file.attrs["dataset_id"] = "reach-v0"
    with Minari().open(flat) as reader:
        assert reader.contents.metadata["minari"] == {"dataset_id": "reach-v0"}


def test_episodes_come_in_the_order_of_their_numbers(flat: Path) -> None:
    with h5py.File(flat / "data" / "main_data.hdf5", "a") as file:
        file.move("episode_1", "episode_10")
    with Minari().open(flat) as reader:
        assert [episode.metadata["id"] for episode in reader.episodes()] == [0, 2, 1]


def test_round_trip_is_exact(
    tmp_path: Path,
    awkward: tuple[Contents, list[Episode]],
    write: Callable[..., None],
    assert_same: Callable[[Episode, Episode], None],
) -> None:
    contents, episodes = awkward
    assert not Minari().plan(contents).losses
    write(Minari(), tmp_path / "a", contents, episodes)
    assert Minari().detect(tmp_path / "a")
    with Minari().open(tmp_path / "a") as reader:
        assert reader.contents == contents
        for mine, theirs in zip(episodes, reader.episodes(), strict=True):
            assert_same(mine, theirs)


def test_from_minari_to_minari_all_rows_stay(flat: Path, tmp_path: Path, write: Callable[..., None]) -> None:
    """The last observation goes back behind the others, and nothing is stored twice."""
    with Minari().open(flat) as reader:
        write(Minari(), tmp_path / "copy", reader.contents, list(reader.episodes()))
    metadata = json.loads((tmp_path / "copy" / "data" / "metadata.json").read_text())
    assert metadata["env_spec"] == ENV_SPEC
    assert metadata["dataset_id"] == "fetch/reach-v0"
    with h5py.File(tmp_path / "copy" / "data" / "main_data.hdf5") as file:
        for number in range(len(LENGTHS)):
            group = file[f"episode_{number}"]
            np.testing.assert_array_equal(group["observations"][:], seen(number), strict=True)
            assert group.attrs["seed"] == 100 + number
            assert "alula" not in group


def test_what_led_elsewhere_is_kept_exactly(
    tmp_path: Path, flat: Path, write: Callable[..., None], assert_same: Callable[[Episode, Episode], None]
) -> None:
    """Where a step did not lead to the next observation (a teleported robot), both are kept."""
    with Minari().open(flat) as reader:
        contents, episodes = reader.contents, list(reader.episodes())
    episodes[0].steps["next.observation.state"] = episodes[0].steps["next.observation.state"] + 1
    write(Minari(), tmp_path / "a", contents, episodes)
    with Minari().open(tmp_path / "a") as reader:
        for mine, theirs in zip(episodes, reader.episodes(), strict=True):
            assert_same(mine, theirs)


def test_what_minari_reads_is_there(
    tmp_path: Path, awkward: tuple[Contents, list[Episode]], write: Callable[..., None]
) -> None:
    contents, episodes = awkward
    write(Minari(), tmp_path / "a", contents, episodes)
    metadata = json.loads((tmp_path / "a" / "data" / "metadata.json").read_text())
    assert (metadata["total_episodes"], metadata["total_steps"]) == (4, 12)
    assert (metadata["data_format"], metadata["jpeg_encoding"]) == ("hdf5", False)
    assert metadata["minari_version"] == "0.5.4"  # The first that leaves pictures as they are.
    space = json.loads(metadata["observation_space"])
    assert space["type"] == "Dict"
    with h5py.File(tmp_path / "a" / "data" / "main_data.hdf5") as file:
        assert len(file) == metadata["total_episodes"]
        for number, episode in enumerate(episodes):
            group = file[f"episode_{number}"]
            assert set(space["subspaces"]) == set(group["observations"])
            for name, values in group["observations"].items():
                assert list(values.shape) == [episode.length + 1, *space["subspaces"][name]["shape"]]
                assert values.dtype == space["subspaces"][name]["dtype"]
            for name in ("actions", "rewards", "terminations", "truncations"):
                assert len(group[name]) == episode.length
        np.testing.assert_array_equal(group["observations/state"][-1], group["observations/state"][-2])


def test_without_pictures_older_minari_can_read_it(tmp_path: Path, write: Callable[..., None]) -> None:
    state, action = FieldSpec("observation.state", (2,)), FieldSpec("action", (1,))
    write(Minari(), tmp_path / "a", Contents(SpaceSpec((state,)), SpaceSpec((action,))), [])
    metadata = json.loads((tmp_path / "a" / "data" / "metadata.json").read_text())
    assert metadata["minari_version"] == "0.5.0"
    assert json.loads(metadata["observation_space"])["type"] == "Box"


# --- Faults -----------------------------------------------------------------------------------------------------------


def read_all(path: Path) -> None:
    with Minari().open(path) as reader:
        list(reader.episodes())


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_one_error(flat: Path, kept: float) -> None:
    main = flat / "data" / "main_data.hdf5"
    content = main.read_bytes()
    main.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DatasetError, match=r"main_data\.hdf5"):
        read_all(flat)


def test_another_kind_of_file_is_one_error(flat: Path) -> None:
    (flat / "data" / "main_data.hdf5").write_text("these are notes\n" * 100)
    assert not Minari().detect(flat)
    with pytest.raises(DatasetError, match="not a readable HDF5 file"):
        read_all(flat)
    (flat / "data" / "metadata.json").write_text("{")
    with pytest.raises(DatasetError, match=r"metadata\.json.*damaged"):
        read_all(flat)


def test_a_folder_without_data_is_one_error(tmp_path: Path) -> None:
    assert not Minari().detect(tmp_path)
    with pytest.raises(DatasetError, match="no file"):
        read_all(tmp_path)


def test_other_storage_is_named_with_a_remedy(flat: Path) -> None:
    write_metadata(flat, box([3], -1.0, 1.0), data_format="arrow")
    with pytest.raises(DatasetError, match=r"arrow.*data_format='hdf5'"):
        read_all(flat)


def remove_actions(group: h5py.Group) -> None:
    del group["actions"]


def drop_last_observation(group: h5py.Group) -> None:
    values = group["observations"][:-1]
    del group["observations"]
    group["observations"] = values


def put_nan(group: h5py.Group) -> None:
    group["observations"][1, 0] = np.nan


def shorten_terminations(group: h5py.Group) -> None:
    del group["terminations"]
    group["terminations"] = np.zeros(1, bool)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_actions, "actions"),
        (drop_last_observation, "observations.*3 rows.*one more than the 3 steps"),
        (put_nan, "observation.state.*not a finite float32 at step"),
        (shorten_terminations, "terminations.*3 steps"),
    ],
)
def test_a_damaged_episode_is_named(flat: Path, damage: Callable[[h5py.Group], None], message: str) -> None:
    with h5py.File(flat / "data" / "main_data.hdf5", "a") as file:
        damage(file["episode_2"])
    with pytest.raises(DatasetError, match=f"episode_2.*{message}"):
        read_all(flat)


def test_a_damaged_picture_is_named(nested: Path) -> None:
    with h5py.File(nested / "data" / "main_data.hdf5", "a") as file:
        file["episode_1/observations/pixels"][1] = jpeg(0)[:40]
    with pytest.raises(DatasetError, match=r"episode_1.*picture that cannot be decoded"):
        read_all(nested)


def test_recordings_without_actions_are_refused(awkward: tuple[Contents, list[Episode]]) -> None:
    with pytest.raises(DatasetError, match="needs actions"):
        Minari().plan(replace(awkward[0], action=NO_FIELDS))

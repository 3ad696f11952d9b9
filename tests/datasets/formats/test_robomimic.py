"""robomimic's HDF5: others' files by convention, our own exactly, and in the form that its loader reads."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.formats.format import NO_FIELDS, Contents
from alula.datasets.formats.robomimic import Robomimic

ENV_ARGS = {
    "env_name": "Lift",
    "env_version": "1.4.1",
    "type": 1,
    "env_kwargs": {"control_freq": 20, "reward_shaping": False, "robots": ["Panda"]},
}
LENGTHS = {0: 3, 1: 2, 2: 4, 10: 5}


def demo_arrays(number: int, length: int) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    observed = rng.standard_normal((length + 1, 3))
    frames = rng.integers(0, 256, (length + 1, 6, 8, 3), dtype=np.uint8)
    return {
        "actions": rng.uniform(-1, 1, (length, 7)),
        "states": rng.standard_normal((length, 5)),
        "rewards": (np.arange(length) == length - 1).astype(np.float64),
        "dones": (np.arange(length) == length - 1).astype(np.int64),
        "obs/robot0_eef_pos": observed[:-1],
        "next_obs/robot0_eef_pos": observed[1:],
        "obs/robot0_eef_quat": rng.standard_normal((length, 4)),
        "obs/agentview_image": frames[:-1],
        "next_obs/agentview_image": frames[1:],
        "action_dict/rel_pos": rng.standard_normal((length, 3)).astype(np.float32),
    }


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A file as robosuite's and robomimic's scripts write it."""
    path = tmp_path / "low_dim.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(LENGTHS.values())
        data.attrs["env_args"] = json.dumps(ENV_ARGS, indent=4)
        for number, length in LENGTHS.items():
            group = data.create_group(f"demo_{number}")
            group.attrs["num_samples"] = length
            group.attrs["model_file"] = f"<mujoco model='{number}'/>"
            for name, values in demo_arrays(number, length).items():
                group.create_dataset(name, data=values)
        file["mask/train"] = np.array(["demo_0", "demo_2", "demo_10"], dtype="S8")
        file["mask/valid"] = np.array(["demo_1"], dtype="S8")
        file["mask/20_percent"] = np.array(["demo_2"], dtype="S8")
    return path


def test_foreign_fields_keep_their_values_under_our_names(foreign: Path) -> None:
    """Demonstrations come in the order of their numbers, not of their letters (demo_10 after demo_2)."""
    with Robomimic().open(foreign) as reader:
        episodes = list(reader.episodes())
    assert [episode.length for episode in episodes] == list(LENGTHS.values())
    for (number, length), episode in zip(LENGTHS.items(), episodes, strict=True):
        arrays = demo_arrays(number, length)
        for name, path in {
            "observation.robot0_eef_pos": "obs/robot0_eef_pos",
            "observation.images.agentview": "obs/agentview_image",
            "next.observation.robot0_eef_pos": "next_obs/robot0_eef_pos",
            "next.observation.images.agentview": "next_obs/agentview_image",
            "action": "actions",
            "states": "states",
            "action_dict.rel_pos": "action_dict/rel_pos",
            "next.reward": "rewards",
        }.items():
            np.testing.assert_array_equal(episode.steps[name], arrays[path], strict=True)
        np.testing.assert_array_equal(episode.steps["next.terminated"], arrays["dones"] == 1)
        assert not episode.steps["next.truncated"].any()
        # robosuite's unshaped reward says where the task was solved.
        np.testing.assert_array_equal(episode.steps["next.success"], arrays["rewards"] > 0)


def test_foreign_contents(foreign: Path) -> None:
    with Robomimic().open(foreign) as reader:
        contents = reader.contents
        assert reader.num_episodes == 4
        assert not reader.plan.losses
    assert contents.observation["observation.robot0_eef_pos"].units == ("m",)
    assert contents.observation["observation.robot0_eef_quat"].element_names == ("x", "y", "z", "w")
    assert contents.action["action"] == FieldSpec("action", (7,), "float64", rate=20)
    assert contents.metadata["env_args"] == ENV_ARGS
    assert contents.metadata["task"] == "Lift"
    assert contents.metadata["rate"] == 20
    assert contents.metadata["success_recorded"] is True


def test_foreign_metadata_of_episodes(foreign: Path) -> None:
    with Robomimic().open(foreign) as reader:
        third = next(reader.episodes(start=2)).metadata
        second = next(reader.episodes(start=1)).metadata
    assert third["demo"] == "demo_2"
    assert third["model_file"] == "<mujoco model='2'/>"
    assert set(third["masks"]) == {"train", "20_percent"}
    assert (third["split"], second["split"]) == ("train", "valid")


def test_success_is_unknown_where_the_reward_is_shaped(foreign: Path) -> None:
    with h5py.File(foreign, "a") as file:
        shaped = {**ENV_ARGS, "env_kwargs": {"reward_shaping": True}}
        file["data"].attrs["env_args"] = json.dumps(shaped)
    with Robomimic().open(foreign) as reader:
        assert reader.contents.metadata["success_recorded"] is False
        assert not any(episode.steps["next.success"].any() for episode in reader.episodes())


def test_an_episode_that_is_not_done_was_cut_off(foreign: Path) -> None:
    with h5py.File(foreign, "a") as file:
        file["data/demo_0/dones"][...] = 0
    with Robomimic().open(foreign) as reader:
        first = next(reader.episodes())
    assert first.steps["next.truncated"].tolist() == [False, False, True]


def test_extras_that_differ_between_demonstrations_are_named_as_lost(foreign: Path) -> None:
    with h5py.File(foreign, "a") as file:
        del file["data/demo_2/states"]
        file["data/demo_2/states"] = np.zeros((4, 9))
        file["data/demo_0/note"] = "by hand"
    with Robomimic().open(foreign) as reader:
        assert "states" not in reader.contents.extra
        assert ["states" in loss or "note" in loss for loss in reader.plan.losses] == [True, True]
        assert len(list(reader.episodes())) == 4


def test_names_and_rows_that_no_field_can_have(foreign: Path) -> None:
    """`timestamp` means nanoseconds with us; rows without elements hold nothing; the rest of a name is mended."""
    with h5py.File(foreign, "a") as file:
        for number, length in LENGTHS.items():
            file[f"data/demo_{number}/timestamp"] = np.arange(length) / 20
            file[f"data/demo_{number}/joint angles é"] = np.zeros((length, 2))
            file[f"data/demo_{number}/obs/object"] = np.zeros((length, 0))
    with Robomimic().open(foreign) as reader:
        assert {"timestamp_", "joint_angles__"} <= set(reader.contents.extra)
        assert "observation.object" not in reader.contents.observation
        assert ["obs/object" in loss for loss in reader.plan.losses] == [True]
        assert next(reader.episodes()).steps["timestamp_"].tolist() == [0, 0.05, 0.1]


def test_capture_times_that_fall_are_an_error(
    tmp_path: Path, awkward: tuple[Contents, list[Episode]], write: Callable[..., None]
) -> None:
    contents, episodes = awkward
    times = np.array([5, 6, 7, 8], dtype=np.int64)
    path = tmp_path / "a.hdf5"
    write(Robomimic(), path, contents, [replace(episodes[0], steps={**episodes[0].steps, "timestamp": times})])
    with h5py.File(path, "a") as file:
        file["data/demo_0/timestamp"][2] = 1
    with pytest.raises(DatasetError, match=r"timestamp.*falls from 6 ns to 1 ns"):
        read_all(path)


def test_language_is_the_instruction(foreign: Path) -> None:
    with h5py.File(foreign, "a") as file:
        file["data/demo_0"].attrs["ep_meta"] = json.dumps({"lang": "lift the cube"})
    with Robomimic().open(foreign) as reader:
        assert next(reader.episodes()).metadata["instruction"] == "lift the cube"


def test_round_trip_is_exact(
    tmp_path: Path,
    awkward: tuple[Contents, list[Episode]],
    write: Callable[..., None],
    assert_same: Callable[[Episode, Episode], None],
) -> None:
    contents, episodes = awkward
    path = tmp_path / "a.hdf5"
    assert not Robomimic().plan(contents).losses
    write(Robomimic(), path, contents, episodes)
    assert Robomimic().detect(path)
    with Robomimic().open(path) as reader:
        assert reader.contents == contents
        for mine, theirs in zip(episodes, reader.episodes(), strict=True):
            assert_same(mine, theirs)


def test_what_foreign_files_said_is_written_back(foreign: Path, tmp_path: Path, write: Callable[..., None]) -> None:
    """From robomimic to robomimic every array, the environment, the models and the masks stay."""
    copy = tmp_path / "copy.hdf5"
    with Robomimic().open(foreign) as reader:
        write(Robomimic(), copy, reader.contents, list(reader.episodes()))
    with h5py.File(foreign) as old, h5py.File(copy) as new:
        assert json.loads(new["data"].attrs["env_args"]) == ENV_ARGS
        assert new["data"].attrs["total"] == old["data"].attrs["total"]
        assert {name: len(new[f"mask/{name}"]) for name in new["mask"]} == {"train": 3, "valid": 1, "20_percent": 1}
        assert new["mask/valid"][:].tolist() == [b"demo_1"]
        for index, number in enumerate(LENGTHS):
            assert new[f"data/demo_{index}"].attrs["model_file"] == f"<mujoco model='{number}'/>"
            for name, values in demo_arrays(number, LENGTHS[number]).items():
                np.testing.assert_array_equal(new[f"data/demo_{index}/{name}"][:], values)


def test_the_file_has_what_robomimic_loader_touches(
    tmp_path: Path, awkward: tuple[Contents, list[Episode]], write: Callable[..., None]
) -> None:
    """Opened as robomimic opens it; 0-step episodes, which it refuses, are out of its sight."""
    contents, episodes = awkward
    path = tmp_path / "a.hdf5"
    write(Robomimic(), path, contents, episodes)
    with h5py.File(path, "r", swmr=True, libver="latest") as file:
        assert sorted(file["data"]) == ["demo_0", "demo_2", "demo_3"]
        assert file["data"].attrs["total"] == 12
        assert set(json.loads(file["data"].attrs["env_args"])) == {"env_name", "env_version", "type", "env_kwargs"}
        assert [name.decode() for name in file["mask/train"][:]] == ["demo_0", "demo_2", "demo_3"]
        demo = file["data/demo_3"]
        assert demo.attrs["num_samples"] == 7
        assert json.loads(demo.attrs["ep_meta"])["lang"] == episodes[3].metadata["instruction"]
        assert demo["obs/grip"].shape == (7, 1)
        assert demo["obs/front_image"].shape == (7, 4, 5, 3)
        assert demo["obs/front_image"].dtype == np.uint8
        assert demo["dones"].dtype == np.int64
        assert set(demo["next_obs"]) == set(demo["obs"])
        state = demo["obs/state"][:]
        np.testing.assert_array_equal(demo["next_obs/state"][:-1], state[1:])
        np.testing.assert_array_equal(demo["next_obs/state"][-1], state[-1])


def test_the_plan_warns_of_actions_that_robomimic_cannot_reach(awkward: tuple[Contents, list[Episode]]) -> None:
    def note(contents: Contents) -> str:
        return next(mapping.change for mapping in Robomimic().plan(contents).mappings if mapping.source == "action")

    contents, _ = awkward
    bounded = replace(contents, action=SpaceSpec((FieldSpec("action", (2,), low=(-1.0,), high=(1.0,)),)))
    assert "[-1, 1]" in note(contents)
    assert note(bounded) == ""


def test_recordings_without_actions_are_refused(awkward: tuple[Contents, list[Episode]]) -> None:
    with pytest.raises(DatasetError, match="needs actions"):
        Robomimic().plan(replace(awkward[0], action=NO_FIELDS))


def test_an_interrupted_draft_is_taken_up(
    tmp_path: Path, awkward: tuple[Contents, list[Episode]], assert_same: Callable[[Episode, Episode], None]
) -> None:
    """Half an episode that a kill left behind is not counted."""
    contents, episodes = awkward
    path = tmp_path / "draft"
    writer = Robomimic().create(path, contents)
    writer.append(episodes[0])
    writer.append(episodes[1])
    (path / "parts" / "unfinished.hdf5").write_bytes(b"half an episode")
    again = Robomimic().create(path, contents)
    assert again.num_episodes == 2
    for episode in episodes[2:]:
        again.append(episode)
    again.finish()
    assert path.is_file()
    with Robomimic().open(path) as reader:
        for mine, theirs in zip(episodes, reader.episodes(), strict=True):
            assert_same(mine, theirs)


def test_a_misfit_is_refused(tmp_path: Path, awkward: tuple[Contents, list[Episode]]) -> None:
    contents, episodes = awkward
    writer = Robomimic().create(tmp_path / "a", contents)
    short = {**episodes[0].steps, "action": episodes[0].steps["action"][1:]}
    with pytest.raises(DatasetError, match=r"action.*\(3, 2\).*\(4, 2\)"):
        writer.append(replace(episodes[0], steps=short))
    assert writer.num_episodes == 0


# --- Faults -----------------------------------------------------------------------------------------------------------


def read_all(path: Path) -> None:
    with Robomimic().open(path) as reader:
        list(reader.episodes())


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_one_error(foreign: Path, kept: float) -> None:
    content = foreign.read_bytes()
    foreign.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DatasetError, match=r"low_dim\.hdf5"):
        read_all(foreign)


def test_another_kind_of_file_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "notes.hdf5"
    path.write_text("these are notes\n" * 100)
    assert not Robomimic().detect(path)
    with pytest.raises(DatasetError, match="not a readable HDF5 file"):
        read_all(path)
    with pytest.raises(DatasetError, match="no file"):
        read_all(tmp_path / "missing.hdf5")


def test_hdf5_of_another_kind_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "other.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"] = np.zeros(3)
    assert not Robomimic().detect(path)
    with pytest.raises(DatasetError, match="not robomimic's"):
        read_all(path)


def break_actions(file: h5py.File) -> None:
    del file["data/demo_2/actions"]


def break_length(file: h5py.File) -> None:
    del file["data/demo_2/obs/robot0_eef_pos"]
    file["data/demo_2/obs/robot0_eef_pos"] = np.zeros((3, 3))


def break_shape(file: h5py.File) -> None:
    del file["data/demo_2/actions"]
    file["data/demo_2/actions"] = np.zeros((4, 6))


def break_type(file: h5py.File) -> None:
    del file["data/demo_2/rewards"]
    file["data/demo_2/rewards"] = np.array([b"a", b"b", b"c", b"d"])


def break_values(file: h5py.File) -> None:
    file["data/demo_2/obs/robot0_eef_pos"][1, 2] = np.nan


def break_count(file: h5py.File) -> None:
    file["data/demo_2"].attrs["num_samples"] = 5


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_actions, "actions"),
        (break_length, r"robot0_eef_pos.*\(3, 3\).*4 steps"),
        (break_shape, r"actions.*\(4, 6\)"),
        (break_type, "rewards.*type"),
        (break_values, "robot0_eef_pos.*not a finite float64 at step 1"),
        (break_count, "num_samples is 5"),
    ],
)
def test_a_damaged_demonstration_is_named(foreign: Path, damage: Callable[[h5py.File], None], message: str) -> None:
    with h5py.File(foreign, "a") as file:
        damage(file)
    content = foreign.read_bytes()
    with pytest.raises(DatasetError, match=rf"demo_2.*low_dim\.hdf5.*{message}"):
        read_all(foreign)
    assert foreign.read_bytes() == content


def test_a_demonstration_without_number_is_named(foreign: Path) -> None:
    with h5py.File(foreign, "a") as file:
        file.move("data/demo_2", "data/demo_two")
    with pytest.raises(DatasetError, match="demo_two"):
        read_all(foreign)


def test_a_file_without_demonstrations_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "empty.hdf5"
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["env_args"] = "{}"
    with pytest.raises(DatasetError, match="no demonstrations"):
        read_all(path)


def test_extra_next_observation_is_next_obs(
    tmp_path: Path, write: Callable[..., None], assert_same: Callable[[Episode, Episode], None]
) -> None:
    """The last observation of an episode goes where robomimic looks for it."""
    contents = Contents(
        SpaceSpec((FieldSpec("observation.state", (2,)),)),
        SpaceSpec((FieldSpec("action", (1,)),)),
        SpaceSpec((FieldSpec("next.observation.state", (2,)),)),
    )
    seen = np.arange(8, dtype=np.float32).reshape(4, 2)
    steps = {
        "observation.state": seen[:-1],
        "next.observation.state": seen[1:],
        "action": np.zeros((3, 1), np.float32),
        "next.reward": np.zeros(3),
        **{f"next.{name}": np.zeros(3, bool) for name in ("terminated", "truncated", "success")},
    }
    write(Robomimic(), tmp_path / "a.hdf5", contents, [Episode(steps)])
    with h5py.File(tmp_path / "a.hdf5") as file:
        np.testing.assert_array_equal(file["data/demo_0/next_obs/state"][:], seen[1:])
    with Robomimic().open(tmp_path / "a.hdf5") as reader:
        assert_same(next(reader.episodes()), Episode(steps))

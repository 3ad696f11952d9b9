"""D4RL-style HDF5: others' files by convention, our own exactly, and in the form that D4RL's loaders read."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.formats.d4rl import D4rl
from alula.datasets.formats.format import NO_FIELDS, Contents

NUM_STEPS = 12
# One episode terminates, one is cut off, and the recording stops within the third.
TERMINAL, TIMEOUT = 3, 8


def flat_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    index = np.arange(NUM_STEPS)
    return {
        "observations": rng.standard_normal((NUM_STEPS, 5)).astype(np.float32),
        "next_observations": rng.standard_normal((NUM_STEPS, 5)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (NUM_STEPS, 2)).astype(np.float32),
        "rewards": rng.standard_normal(NUM_STEPS).astype(np.float32),
        "terminals": index == TERMINAL,
        "timeouts": index == TIMEOUT,
        "infos/qpos": rng.standard_normal((NUM_STEPS, 3)),
        "infos/action_log_probs": rng.standard_normal(NUM_STEPS).astype(np.float32),
    }


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A file as D4RL's generation scripts write it."""
    path = tmp_path / "hopper.hdf5"
    with h5py.File(path, "w") as file:
        for name, values in flat_arrays().items():
            file.create_dataset(name, data=values, compression="gzip")
        file["metadata/algorithm"] = np.bytes_(b"SAC")
        file["metadata/iteration"] = 5
        file["metadata/policy/fc0/weight"] = np.zeros((256, 256))
    return path


def test_foreign_episodes_end_at_terminals_and_timeouts(foreign: Path) -> None:
    arrays = flat_arrays()
    assert D4rl().detect(foreign)
    with D4rl().open(foreign) as reader:
        episodes = list(reader.episodes())
        later = list(reader.episodes(start=1))
    assert [episode.length for episode in episodes] == [4, 5, 3]
    assert [episode.length for episode in later] == [5, 3]
    for name, path in {
        "observation.state": "observations",
        "next.observation.state": "next_observations",
        "action": "actions",
        "infos.qpos": "infos/qpos",
        "infos.action_log_probs": "infos/action_log_probs",
        "next.terminated": "terminals",
    }.items():
        joined = np.concatenate([episode.steps[name] for episode in episodes])
        np.testing.assert_array_equal(joined, arrays[path], strict=True)
    rewards = np.concatenate([episode.steps["next.reward"] for episode in episodes])
    np.testing.assert_array_equal(rewards, arrays["rewards"].astype(np.float64), strict=True)


def test_the_incomplete_last_episode_is_kept_and_marked(foreign: Path) -> None:
    with D4rl().open(foreign) as reader:
        first, second, last = reader.episodes()
    assert not first.steps["next.truncated"].any()
    assert second.steps["next.truncated"].tolist() == [False] * 4 + [True]
    assert last.steps["next.truncated"].tolist() == [False, False, True]
    assert [episode.metadata.get("incomplete", False) for episode in (first, second, last)] == [False, False, True]


def test_without_timeouts_only_terminals_end_episodes(foreign: Path) -> None:
    with h5py.File(foreign, "a") as file:
        del file["timeouts"]
    with D4rl().open(foreign) as reader:
        assert [episode.length for episode in reader.episodes()] == [4, 8]
        assert any("terminals only" in mapping.change for mapping in reader.plan.mappings)


def test_foreign_metadata_is_kept_and_policy_weights_are_named_as_lost(foreign: Path) -> None:
    with D4rl().open(foreign) as reader:
        assert reader.contents.metadata["metadata"] == {"algorithm": "SAC", "iteration": 5}
        assert reader.contents.metadata["success_recorded"] is False
        assert len(reader.plan.losses) == 1
        assert "policy/fc0/weight" in reader.plan.losses[0]


def test_success_is_found_among_the_infos(foreign: Path) -> None:
    solved = np.arange(NUM_STEPS) == TERMINAL
    with h5py.File(foreign, "a") as file:
        file["infos/goal_achieved"] = solved
    with D4rl().open(foreign) as reader:
        assert reader.contents.metadata["success_recorded"] is True
        assert next(reader.episodes()).steps["next.success"].tolist() == [False, False, False, True]


def test_rewards_may_be_columns(foreign: Path) -> None:
    with h5py.File(foreign, "a") as file:
        values = file["rewards"][:]
        del file["rewards"]
        file["rewards"] = values[:, None]
    with D4rl().open(foreign) as reader:
        np.testing.assert_array_equal(next(reader.episodes()).steps["next.reward"], values[:4])


def test_round_trip_is_exact(
    tmp_path: Path,
    awkward: tuple[Contents, list[Episode]],
    write: Callable[..., None],
    assert_same: Callable[[Episode, Episode], None],
) -> None:
    contents, episodes = awkward
    path = tmp_path / "a.hdf5"
    assert not D4rl().plan(contents).losses
    write(D4rl(), path, contents, episodes)
    with D4rl().open(path) as reader:
        assert reader.contents == contents
        for mine, theirs in zip(episodes, reader.episodes(), strict=True):
            assert_same(mine, theirs)


def test_from_d4rl_to_d4rl_all_arrays_stay(foreign: Path, tmp_path: Path, write: Callable[..., None]) -> None:
    copy = tmp_path / "copy.hdf5"
    with D4rl().open(foreign) as reader:
        write(D4rl(), copy, reader.contents, list(reader.episodes()))
    arrays = flat_arrays()
    arrays["timeouts"][-1] = True  # Else other loaders would drop the last episode.
    with h5py.File(copy) as file:
        for name, values in arrays.items():
            np.testing.assert_array_equal(file[name][:], values)


def test_loaders_see_flat_arrays_and_one_end_an_episode(
    tmp_path: Path, awkward: tuple[Contents, list[Episode]], write: Callable[..., None]
) -> None:
    """As D4RL's loader: every array outside `metadata` has one row a step, every episode ends exactly once."""
    contents, episodes = awkward
    path = tmp_path / "a.hdf5"
    write(D4rl(), path, contents, episodes)
    num_steps = sum(episode.length for episode in episodes)
    with h5py.File(path) as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        assert {len(file[name]) for name in names if "metadata" not in name} == {num_steps}
        # state (3), grip and contact (2), side by side; front_image (2) is a vector, too.
        assert file["observations"].shape == (num_steps, 8)
        ends = np.flatnonzero(file["terminals"][:] | file["timeouts"][:])
        assert ends.tolist() == [3, 4, 11]
        state = np.concatenate([episode.steps["observation.state"] for episode in episodes])
        np.testing.assert_array_equal(file["observations"][:, :3], state)


def test_a_single_vector_is_stored_once(tmp_path: Path, write: Callable[..., None]) -> None:
    contents = Contents(
        SpaceSpec((FieldSpec("observation.state", (2,)),)), SpaceSpec((FieldSpec("action", (1,)),)), NO_FIELDS
    )
    steps = {"observation.state": np.ones((3, 2), np.float32), "action": np.zeros((3, 1), np.float32)}
    steps |= {"next.reward": np.zeros(3)}
    steps |= {f"next.{name}": np.zeros(3, bool) for name in ("terminated", "truncated", "success")}
    write(D4rl(), tmp_path / "a.hdf5", contents, [Episode(steps)])
    with h5py.File(tmp_path / "a.hdf5") as file:
        assert "observation.state" not in file["infos"]
        assert file["observations"].dtype == np.float32


def test_an_empty_dataset_round_trips(
    tmp_path: Path, awkward: tuple[Contents, list[Episode]], write: Callable[..., None]
) -> None:
    contents, _ = awkward
    write(D4rl(), tmp_path / "a.hdf5", contents, [])
    with D4rl().open(tmp_path / "a.hdf5") as reader:
        assert reader.num_episodes == 0
        assert reader.contents == contents


# --- Faults -----------------------------------------------------------------------------------------------------------


def read_all(path: Path) -> None:
    with D4rl().open(path) as reader:
        list(reader.episodes())


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_one_error(foreign: Path, kept: float) -> None:
    content = foreign.read_bytes()
    foreign.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DatasetError, match=r"hopper\.hdf5"):
        read_all(foreign)


def test_another_kind_of_file_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "notes.hdf5"
    path.write_text("these are notes\n" * 100)
    assert not D4rl().detect(path)
    with pytest.raises(DatasetError, match="not a readable HDF5 file"):
        read_all(path)


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "terminals"])
def test_a_missing_array_is_named(foreign: Path, name: str) -> None:
    with h5py.File(foreign, "a") as file:
        del file[name]
    assert not D4rl().detect(foreign)
    with pytest.raises(DatasetError, match=f"lacks.*{name}"):
        read_all(foreign)


@pytest.mark.parametrize("name", ["observations", "rewards", "timeouts"])
def test_a_wrong_length_is_named(foreign: Path, name: str) -> None:
    with h5py.File(foreign, "a") as file:
        values = file[name][:-2]
        del file[name]
        file[name] = values
    with pytest.raises(DatasetError, match=name):
        read_all(foreign)


def test_infos_of_another_length_are_named_as_lost(foreign: Path) -> None:
    with h5py.File(foreign, "a") as file:
        file["infos/goal"] = np.zeros((1, 3))
    with D4rl().open(foreign) as reader:
        assert any("infos/goal" in loss for loss in reader.plan.losses)
        assert len(list(reader.episodes())) == 3


def test_nan_is_named_with_its_episode(foreign: Path) -> None:
    with h5py.File(foreign, "a") as file:
        file["observations"][5, 2] = np.nan
    content = foreign.read_bytes()
    with pytest.raises(DatasetError, match=r"episode 1 .*observation.state.*not a finite float32 at step 1"):
        read_all(foreign)
    assert foreign.read_bytes() == content


def test_a_file_that_another_program_shortened_is_an_error(
    tmp_path: Path, awkward: tuple[Contents, list[Episode]], write: Callable[..., None]
) -> None:
    path = tmp_path / "a.hdf5"
    write(D4rl(), path, *awkward)
    with h5py.File(path, "a") as file:
        actions = file["actions"][:-1]
        del file["actions"]
        file["actions"] = actions
    with pytest.raises(DatasetError, match="another program has changed the file"):
        read_all(path)


def test_recordings_without_actions_are_refused(awkward: tuple[Contents, list[Episode]]) -> None:
    with pytest.raises(DatasetError, match="needs actions"):
        D4rl().plan(replace(awkward[0], action=NO_FIELDS))

"""Episodes come back exactly as they went in; whatever does not fit is refused and leaves no trace."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.arrays import FieldArray
from alula.datasets.store import DTYPES, OUTCOME, EpisodeStore

Same = Callable[[Episode, Episode], None]
MakeEpisode = Callable[..., Episode]
MakeStore = Callable[..., EpisodeStore]

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
metadata = st.dictionaries(st.text(), plain_values, max_size=3)
field_names = st.text("abcXYZ019_.-", min_size=1, max_size=8).map(lambda tail: f"observation.{tail}")
OUTCOME_FIELDS = [(field.name, field.shape, field.dtype) for field in OUTCOME.values()]
shapes = hnp.array_shapes(min_dims=0, max_dims=3, max_side=4)


@st.composite
def recordings(draw: st.DrawFn) -> tuple[list[tuple[str, tuple[int, ...], str]], list[tuple[dict[str, Any], Any]]]:
    """Properties of storable observation fields, then the action; and steps and metadata of episodes that fit them."""
    names = draw(st.lists(field_names, min_size=1, max_size=3, unique=True))
    fields = [(name, draw(shapes), draw(st.sampled_from(DTYPES))) for name in names]
    fields.append(("action", (draw(st.integers(1, 4)),), draw(st.sampled_from(("float32", "int16")))))
    episodes = []
    for length in draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)):
        steps = {}
        for name, shape, dtype in (*fields, *OUTCOME_FIELDS):
            finite = {"allow_nan": False, "allow_infinity": False} if "float" in dtype else {}
            elements = hnp.from_dtype(np.dtype(dtype), **finite)
            steps[name] = draw(hnp.arrays(dtype, (length, *shape), elements=elements))
        episodes.append((steps, draw(metadata)))
    return fields, episodes


@settings(max_examples=20, deadline=None)
@given(recordings(), metadata)
def test_any_recording_reads_back_bit_for_bit(recording, about: dict[str, Any]) -> None:
    fields = [FieldSpec(*properties) for properties in recording[0]]
    observation, action = SpaceSpec(tuple(fields[:-1])), SpaceSpec(tuple(fields[-1:]))
    episodes = [Episode(*parts) for parts in recording[1]]
    with tempfile.TemporaryDirectory() as folder:
        store = EpisodeStore.create(Path(folder) / "data", observation, action, about)
        for episode in episodes:
            store.append(episode)
        reopened = EpisodeStore.open(store.path)
        assert (reopened.observation, reopened.action, reopened.metadata) == (observation, action, about)
        assert reopened.lengths.tolist() == [episode.length for episode in episodes]
        for index, wanted in enumerate(episodes):
            got = reopened.episode(index)
            assert got.metadata == wanted.metadata
            for name, values in wanted.steps.items():
                assert got.steps[name].dtype == values.dtype
                assert got.steps[name].shape == values.shape
                assert got.steps[name].tobytes() == values.tobytes()
        assert reopened.damaged_episodes() == []


def test_extending_equals_appending_one_by_one(
    tmp_path: Path, observation: SpaceSpec, action: SpaceSpec, make_episode: MakeEpisode
) -> None:
    episodes = [make_episode(seed, length) for seed, length in enumerate((1, 40, 7))]
    stores = [EpisodeStore.create(tmp_path / name, observation, action) for name in ("one", "many")]
    for episode in episodes:
        stores[0].append(episode)
    stores[1].extend(episodes)
    assert stores[0].fingerprint == stores[1].fingerprint
    for name in stores[0].fields:
        np.testing.assert_array_equal(stores[0].read(name), stores[1].read(name))


def test_read_gives_committed_steps_of_all_episodes(make_store: MakeStore, make_episode: MakeEpisode) -> None:
    store = make_store([3, 4])
    wanted = np.concatenate([make_episode(0, 3).steps["action"], make_episode(1, 4).steps["action"]])
    np.testing.assert_array_equal(store.read("action"), wanted)
    np.testing.assert_array_equal(store.read("action", 2, 5), wanted[2:5])
    np.testing.assert_array_equal(store.read("action", 5, 99), wanted[5:])
    assert store.episode_ends.tolist() == [3, 7]


def test_episodes_longer_than_a_shard_survive(
    tmp_path: Path,
    observation: SpaceSpec,
    action: SpaceSpec,
    make_episode: MakeEpisode,
    assert_same: Same,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("alula.datasets.arrays.CHUNK_BYTES", 64)
    store = EpisodeStore.create(tmp_path / "data", observation, action)
    for seed in range(3):
        store.append(make_episode(seed, 150))
    assert len(list((store.path / "action").glob("c.*"))) > 3
    for seed in range(3):
        assert_same(EpisodeStore.open(store.path).episode(seed), make_episode(seed, 150))


def test_floats_are_stored_in_the_precision_of_their_field(make_store: MakeStore, make_episode: MakeEpisode) -> None:
    store, episode = make_store([]), make_episode(0)
    exact = episode.steps["action"] / 3.0 + np.float64(1e-12)
    episode.steps["action"] = exact
    store.append(episode)
    np.testing.assert_array_equal(store.read("action"), exact.astype(np.float32))


def test_extra_fields_are_kept(
    tmp_path: Path, observation: SpaceSpec, action: SpaceSpec, make_episode: MakeEpisode
) -> None:
    extra = SpaceSpec((FieldSpec("timestamp_ns", (), "int64", units=("ns",)),))
    store = EpisodeStore.create(tmp_path / "data", observation, action, extra=extra)
    episode = make_episode(0)
    with pytest.raises(DatasetError, match=r"missing fields \['timestamp_ns'\]"):
        store.append(episode)
    episode.steps["timestamp_ns"] = np.arange(5) + 2**60
    store.append(episode)
    assert EpisodeStore.open(store.path).read("timestamp_ns").tolist() == episode.steps["timestamp_ns"].tolist()


def _without(episode: Episode, name: str) -> None:
    del episode.steps[name]


def _with(name: str, value: Any) -> Callable[[Episode], None]:
    return lambda episode: episode.steps.update({name: value})


def _spoil(name: str, step: int, value: float) -> Callable[[Episode], None]:
    def spoil(episode: Episode) -> None:
        episode.steps[name][step] = value

    return spoil


def _empty(episode: Episode) -> None:
    episode.steps = {name: values[:0] for name, values in episode.steps.items()}


BAD_EPISODES: dict[str, tuple[Callable[[Episode], None], str]] = {
    "missing field": (lambda episode: _without(episode, "action"), r"missing fields \['action'\]"),
    "unknown field": (_with("observation.depth", np.zeros(5)), r"unknown fields \['observation.depth'\]"),
    "wrong width": (_with("action", np.zeros((5, 3), "f4")), r"'action' of episode 2 has shape \(5, 3\).*\(5, 2\)"),
    "wrong length": (_with("next.reward", np.zeros(4)), r"'next.reward' .* shape \(4,\), needed is \(5,\)"),
    "NaN": (_spoil("observation.state", 3, np.nan), r"'observation.state' of episode 2 is not a finite .* step 3"),
    "infinite action": (_spoil("action", 4, -np.inf), r"'action' .* not a finite float32 at step 4"),
    "overflow": (_with("action", np.full((5, 2), 1e300)), r"'action' .* not a finite float32 at step 0"),
    "integer image": (_with("observation.image", np.zeros((5, 2, 2, 3), int)), r"dtype int64, .* not fit into uint8"),
    "float flags": (_with("next.success", np.zeros(5)), r"dtype float64, which does not fit into bool"),
    "no steps": (_empty, r"episode 2 has no steps, at least 1"),
    "array in metadata": (lambda episode: episode.metadata.update(start=np.zeros(2)), r"metadata of episode 2.*tolist"),
    "NaN in metadata": (lambda episode: episode.metadata.update(score=float("nan")), r"metadata of episode 2.*JSON"),
}


@pytest.mark.parametrize("kind", BAD_EPISODES)
def test_an_unfit_episode_is_refused_and_nothing_is_written(
    kind: str, make_store: MakeStore, make_episode: MakeEpisode, assert_same: Same
) -> None:
    spoil, message = BAD_EPISODES[kind]
    store, bad = make_store([4]), make_episode(9)
    spoil(bad)
    before = {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()}
    with pytest.raises(DatasetError, match=message):
        store.extend([make_episode(1), bad])
    assert {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()} == before
    store.append(make_episode(1))
    assert_same(store.episode(1), make_episode(1))


def test_a_dataset_is_replaced_only_on_request(
    make_store: MakeStore, observation: SpaceSpec, action: SpaceSpec, tmp_path: Path
) -> None:
    store = make_store([4])
    with pytest.raises(DatasetError, match=r"exists already.*overwrite=true"):
        EpisodeStore.create(store.path, observation, action)
    assert EpisodeStore.open(store.path).num_episodes == 1
    assert EpisodeStore.create(store.path, observation, action, overwrite=True).num_episodes == 0
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_other_folders_are_never_replaced(tmp_path: Path, observation: SpaceSpec, action: SpaceSpec) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DatasetError, match=r"not a dataset; it is never replaced"):
        EpisodeStore.create(tmp_path, observation, action, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failed_creation_leaves_nothing_new(
    overwrite: bool, make_store: MakeStore, observation: SpaceSpec, action: SpaceSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make_store([4])
    target = old.path if overwrite else old.path.with_name("new")
    create = FieldArray.create

    def full(folder: Path, field: FieldSpec) -> FieldArray:
        if field.name == "action":
            raise OSError(28, "No space left on device")
        return create(folder, field)

    monkeypatch.setattr(FieldArray, "create", full)
    with pytest.raises(DatasetError, match=r"cannot create dataset.*No space left"):
        EpisodeStore.create(target, observation, action, overwrite=overwrite)
    assert [path.name for path in old.path.parent.iterdir()] == ["data"]
    assert EpisodeStore.open(old.path).num_episodes == 1


def test_a_path_below_a_file_cannot_be_created(tmp_path: Path, observation: SpaceSpec, action: SpaceSpec) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"cannot create dataset.*may write to"):
        EpisodeStore.create(tmp_path / "file" / "data", observation, action)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_dataset_without_write_permission_can_be_read_only(make_store: MakeStore, make_episode: MakeEpisode) -> None:
    store = make_store([4])
    (store.path / "episodes.jsonl").chmod(0o444)
    with pytest.raises(DatasetError, match=r"cannot write.*[Pp]ermission"):
        EpisodeStore.open(store.path, append=True)
    assert EpisodeStore.open(store.path).num_episodes == 1


def test_a_store_opened_for_reading_refuses_episodes(make_store: MakeStore, make_episode: MakeEpisode) -> None:
    store = EpisodeStore.open(make_store([4]).path)
    with pytest.raises(DatasetError, match=r"append=True"):
        store.append(make_episode(1))


BAD_SPACES: dict[str, tuple[FieldSpec, FieldSpec, FieldSpec, str]] = {
    name: (*fields, message)
    for name, (*fields, message) in {
        "observation name": ({"name": "state"}, {}, {}, r"'state' must be named 'observation\.\*'"),
        "action name": ({}, {"name": "action.arm"}, {}, "one field 'action'.*action.arm"),
        "action axes": ({}, {"shape": (2, 2)}, {}, r"one axis, got .*\(2, 2\)"),
        "path in a name": ({"name": "observation./../x"}, {}, {}, "cannot be stored"),
        "dtype": ({"dtype": "complex64"}, {}, {}, "dtype 'complex64'; allowed are bool"),
        "no elements": ({"shape": (0,)}, {}, {}, "holds no element"),
        "name twice": ({}, {}, {"name": "next.reward"}, "repeat.*next.reward"),
    }.items()
}


@pytest.mark.parametrize("kind", BAD_SPACES)
def test_unstorable_spaces_are_refused(kind: str, tmp_path: Path) -> None:
    *changes, message = BAD_SPACES[kind]
    fields = [FieldSpec("observation.state", (3,)), FieldSpec("action", (2,)), FieldSpec("time", ())]
    spaces = [SpaceSpec((replace(field, **change),)) for field, change in zip(fields, changes, strict=True)]
    with pytest.raises(DatasetError, match=message):
        EpisodeStore.create(tmp_path / "data", spaces[0], spaces[1], extra=spaces[2])
    assert list(tmp_path.iterdir()) == []


def test_opening_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no dataset at.*missing"):
        EpisodeStore.open(tmp_path / "missing")
    with pytest.raises(DatasetError, match=r"not an alula dataset.*\.zarr folder"):
        EpisodeStore.open(tmp_path)


def _cut_attributes(path: Path) -> None:
    (path / "zarr.json").write_bytes((path / "zarr.json").read_bytes()[:-40])


def _change_format(path: Path) -> None:
    content = json.loads((path / "zarr.json").read_text())
    content["attributes"]["alula"]["format"] = 99
    (path / "zarr.json").write_text(json.dumps(content))


def _change_field(path: Path) -> None:
    content = json.loads((path / "zarr.json").read_text())
    content["attributes"]["alula"]["action"][0]["shape"] = [7]
    (path / "zarr.json").write_text(json.dumps(content))


def _misspell_property(path: Path) -> None:
    content = json.loads((path / "zarr.json").read_text())
    content["attributes"]["alula"]["action"][0]["unitz"] = ["1"]
    (path / "zarr.json").write_text(json.dumps(content))


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "attributes cut": (_cut_attributes, "zarr.json' is damaged"),
    "newer format": (_change_format, "format 99.*update alula"),
    "other shape": (_change_field, r"'action' .* shape \(2,\).* specification says .*\(7,\)"),
    "unknown property": (_misspell_property, "zarr.json' is damaged.*unitz"),
    "field deleted": (lambda path: shutil.rmtree(path / "action"), "'action' .* cannot be opened"),
    "shard deleted": (lambda path: (path / "action" / "c.0.0").unlink(), r"'action' .* file 'c\.0\.0' is missing"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_dataset_is_refused_when_opened(kind: str, make_store: MakeStore) -> None:
    damage, message = DAMAGES[kind]
    path = make_store([4]).path
    damage(path)
    with pytest.raises(DatasetError, match=message):
        EpisodeStore.open(path)


def test_unknown_fields_and_episodes_are_named(make_store: MakeStore) -> None:
    store = make_store([4])
    with pytest.raises(DatasetError, match=r"Did you mean 'observation.state'"):
        store.read("observation.stat")
    for index in (-1, 1):
        with pytest.raises(DatasetError, match=f"no episode {index}; allowed are 0 to 0"):
            store.episode(index)

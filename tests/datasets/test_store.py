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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.arrays import Chunking, FieldArray
from alula.datasets.commits import EPISODES_FILE
from alula.datasets.formats.format import Contents
from alula.datasets.schema import DTYPES, OUTCOME, TIMESTAMP
from alula.datasets.store import EpisodeStore

Same = Callable[[Episode, Episode], None]
MakeEpisode = Callable[..., Episode]
MakeStore = Callable[..., EpisodeStore]

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
metadata = st.dictionaries(st.text(), plain_values, max_size=3)
names = st.text("abcXYZ019_.-", max_size=7).map(lambda tail: f"n{tail}")
shapes = hnp.array_shapes(min_dims=0, max_dims=3, max_side=4)


Field = dict[str, Any]
OUTCOME_FIELDS = OUTCOME.to_list()
TIMESTAMP_FIELD = TIMESTAMP.to_dict()

# These strategies draw plain values: the run-time type checks of our own classes use chance of their own.


@st.composite
def spaces(draw: st.DrawFn, prefix: str = "", max_size: int = 3) -> list[Field]:
    """Fields of any storable name, shape and type; floats may allow NaN."""
    fields = []
    for name in draw(st.lists(names, max_size=max_size, unique=True)):
        dtype = draw(st.sampled_from(DTYPES))
        allow_nan = "float" in dtype and draw(st.booleans())
        fields.append({"name": prefix + name, "shape": draw(shapes), "dtype": dtype, "allow_nan": allow_nan})
    return fields


@st.composite
def arrays_of(draw: st.DrawFn, fields: list[Field]) -> dict[str, np.ndarray]:
    """Up to nine steps of these fields, perhaps none."""
    length = draw(st.integers(0, 9))
    arrays = {}
    for field in fields:
        finite = {"allow_nan": field["allow_nan"], "allow_infinity": False} if "float" in field["dtype"] else {}
        elements = hnp.from_dtype(np.dtype(field["dtype"]), **finite)
        arrays[field["name"]] = draw(hnp.arrays(field["dtype"], (length, *field["shape"]), elements=elements))
        if field["name"] == "timestamp":
            arrays["timestamp"].sort()
    return arrays


@st.composite
def recordings(draw: st.DrawFn) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """Anything that can be stored: specifications, and the parts of episodes that fit them."""
    contents = {
        "observation": draw(spaces("observation.")),
        "action": [{"name": "action", "shape": (3,), "dtype": "int16"}][: draw(st.integers(0, 1))],
        "extra": [TIMESTAMP_FIELD][: draw(st.integers(0, 1))] + draw(spaces(max_size=1)),
        "streams": draw(
            st.dictionaries(names, spaces(max_size=2).map(lambda fields: [TIMESTAMP_FIELD, *fields]), max_size=2)
        ),
        "metadata": draw(metadata),
    }
    steps = [*contents["observation"], *contents["action"], *OUTCOME_FIELDS, *contents["extra"]]
    streams = st.fixed_dictionaries({name: arrays_of(fields) for name, fields in contents["streams"].items()})
    return contents, draw(st.lists(st.tuples(arrays_of(steps), metadata, streams), min_size=1, max_size=3))


def create(path: Path, contents: Contents) -> EpisodeStore:
    """An empty dataset of these contents."""
    return EpisodeStore.create(
        *(path, contents.observation, contents.action, contents.metadata),
        extra=contents.extra,
        streams=contents.streams,
    )


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recordings())
def test_any_recording_reads_back_bit_for_bit(assert_same: Same, recording: tuple[Any, Any]) -> None:
    contents, episodes = Contents.from_dict(recording[0]), [Episode(*parts) for parts in recording[1]]
    with tempfile.TemporaryDirectory() as folder:
        store = create(Path(folder) / "data", contents)
        for episode in episodes:
            store.append(episode)
        reopened = EpisodeStore.open(store.path)
        assert reopened.contents == contents
        assert reopened.lengths.tolist() == [episode.length for episode in episodes]
        for index, wanted in enumerate(episodes):
            assert_same(reopened.episode(index), wanted)
        assert reopened.damaged_episodes() == []
        assert reopened.fingerprint == store.fingerprint


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
    tmp_path: Path, observation: SpaceSpec, action: SpaceSpec, make_episode: MakeEpisode, assert_same: Same
) -> None:
    store = EpisodeStore.create(tmp_path / "data", observation, action, chunking=Chunking(chunk_bytes=64))
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


@pytest.mark.parametrize(("dtype", "bits"), [("float16", "u2"), ("float32", "u4"), ("float64", "u8")])
def test_nan_keeps_sign_and_payload_where_it_is_allowed(
    dtype: str, bits: str, tmp_path: Path, make_episode: MakeEpisode
) -> None:
    """IEEE 754 NaNs are all numbers whose exponent is all ones and whose fraction is not 0: quiet or signalling."""
    infinity = int(np.array(np.inf, dtype).view(bits))
    sign = 1 << (8 * np.dtype(dtype).itemsize - 1)
    nans = np.array([infinity + 1, infinity + 5, sign + infinity + 1, sign - 1], bits).view(dtype)
    assert np.isnan(nans).all()
    height = FieldSpec("observation.height", (), dtype, allow_nan=True)
    store = EpisodeStore.create(tmp_path / "data", SpaceSpec((height,)), SpaceSpec(()))
    steps = {name: values for name, values in make_episode(0, 4).steps.items() if name.startswith("next.")}
    store.append(Episode({**steps, "observation.height": nans}))
    assert EpisodeStore.open(store.path).read("observation.height").tobytes() == nans.tobytes()
    with pytest.raises(DatasetError, match=r"height' of episode 1 is not a finite .* step 1: inf"):
        store.append(Episode({**steps, "observation.height": np.array([0, np.inf, 0, 0], dtype)}))


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

    def full(folder: Path, field: FieldSpec, chunking: Chunking) -> FieldArray:
        if field.name == "action":
            raise OSError(28, "No space left on device")
        return create(folder, field, chunking)

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
        "action axes": ({}, {"shape": (2, 2)}, {}, r"one axis.* got .*\(2, 2\)"),
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


def test_a_dataset_of_format_1_opens_and_grows(
    make_store: MakeStore, make_episode: MakeEpisode, assert_same: Same
) -> None:
    """It had neither streams nor videos in its specification."""
    path = make_store([4, 2]).path
    content = json.loads((path / "zarr.json").read_text())
    content["attributes"]["alula"]["format"] = 1
    del content["attributes"]["alula"]["streams"], content["attributes"]["alula"]["video"]
    (path / "zarr.json").write_text(json.dumps(content))
    EpisodeStore.open(path, append=True).append(make_episode(2, 3))
    store = EpisodeStore.open(path)
    for index, length in enumerate((4, 2, 3)):
        assert_same(store.episode(index), make_episode(index, length))
    assert store.streams == {}
    assert store.damaged_episodes() == []
    lines = (path / EPISODES_FILE).read_text().splitlines()
    assert [sorted(json.loads(line)) for line in lines] == [["digest", "end", "metadata"]] * 3


def test_unknown_fields_and_episodes_are_named(make_store: MakeStore) -> None:
    store = make_store([4])
    with pytest.raises(DatasetError, match=r"Did you mean 'observation.state'"):
        store.read("observation.stat")
    for index in (-1, 1):
        with pytest.raises(DatasetError, match=f"no episode {index}; allowed are 0 to 0"):
            store.episode(index)

"""Every format in the table: what goes in comes back, to the bit; what is not its own is refused."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Shaped
from numpy import ndarray

from alula.core.errors import DatasetError
from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.conversion import writable_formats
from alula.datasets.formats.format import Contents, WritableFormat
from alula.datasets.formats.registry import FORMATS, get_format
from alula.datasets.schema import DTYPES, TIMESTAMP, step_fields

Dataset = tuple[Contents, list[Episode]]

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,7}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=12)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, max_side=3)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def _field(draw: st.DrawFn, prefix: str = "", image: bool = False) -> FieldSpec:
    name = prefix + draw(NAMES.filter(lambda name: name != "timestamp"))
    if image:
        return FieldSpec(f"observation.images.{name}", (draw(st.integers(2, 5)), draw(st.integers(2, 5)), 3), "uint8")
    shape, dtype = draw(SHAPES), draw(st.sampled_from(DTYPES))
    size = shape[-1] if shape else 1
    return FieldSpec(
        name,
        shape,
        dtype,
        units=draw(st.sampled_from((("1",), ("rad",), ("µm/s²",)))),
        element_names=draw(st.just(()) | st.tuples(*[TEXTS] * size)),
        allow_nan=dtype.startswith("float") and draw(st.booleans()),
    )


def _space(draw: st.DrawFn, prefix: str, most: int, *, image: bool = False) -> list[FieldSpec]:
    fields = draw(st.lists(_field(prefix), max_size=most, unique_by=lambda field: field.name))
    return [*fields, draw(_field(image=True))] if image else fields


@st.composite
def contents(draw: st.DrawFn) -> Contents:
    """Any contents that a dataset with actions can have."""
    observation = _space(draw, "observation.", 3, image=draw(st.booleans()))
    action = FieldSpec(
        "action",
        (draw(st.integers(1, 4)),),
        draw(st.sampled_from(DTYPES)),
        control_mode=draw(st.sampled_from([None, *ControlMode])),
        rate=draw(st.sampled_from([None, 20.0, 1000 / 3])),
    )
    extra = [*_space(draw, "", 2), *([TIMESTAMP] if draw(st.booleans()) else [])]
    names = draw(st.lists(NAMES, max_size=2, unique=True))
    streams = {name: SpaceSpec((TIMESTAMP, *_space(draw, "", 2))) for name in names}
    metadata = draw(st.dictionaries(TEXTS, PLAIN, max_size=2))
    spaces = (SpaceSpec(tuple(observation)), SpaceSpec((action,)), SpaceSpec(tuple(extra)))
    return Contents(*spaces, streams=streams, metadata=metadata)


def _values(draw: st.DrawFn, field: FieldSpec, length: int) -> Shaped[ndarray, "length *field"]:
    shape = (length, *field.shape)
    if field == TIMESTAMP:
        return np.sort(draw(hnp.arrays("int64", shape, elements=st.integers(0, 2**62))))
    if field.dtype == "uint8" and len(field.shape) == 3:
        return np.random.default_rng(draw(st.integers(0, 2**32))).integers(0, 256, shape, dtype=np.uint8)
    if field.dtype.startswith("float"):
        width = int(field.dtype.removeprefix("float"))
        numbers = st.floats(width=width, allow_nan=field.allow_nan, allow_infinity=False)
        return draw(hnp.arrays(field.dtype, shape, elements=numbers))
    return draw(hnp.arrays(field.dtype, shape))


@st.composite
def datasets(draw: st.DrawFn) -> tuple[Contents, list[Episode]]:
    """Contents, and up to three episodes of 0 to 3 steps that fit them."""
    about = draw(contents())
    episodes = []
    for _ in range(draw(st.integers(0, 3))):
        length = draw(st.integers(0, 3))
        steps = {field.name: _values(draw, field, length) for field in step_fields(about).values()}
        streams = {}
        for name, fields in about.streams.items():
            samples = draw(st.integers(0, 3))
            streams[name] = {field.name: _values(draw, field, samples) for field in fields.values()}
        metadata = draw(st.dictionaries(TEXTS, PLAIN, max_size=2))
        metadata |= {"instruction": draw(TEXTS)} if draw(st.booleans()) else {}
        episodes.append(Episode(steps, metadata, streams))
    return about, episodes


def writable(name: str) -> WritableFormat:
    """The format of that name."""
    chosen = get_format(name)
    assert isinstance(chosen, WritableFormat)
    return chosen


def write(chosen: WritableFormat, path: Path, dataset: Dataset) -> None:
    """A whole dataset."""
    writer = chosen.create(path, dataset[0])
    for episode in dataset[1]:
        writer.append(episode)
    writer.finish()


@pytest.mark.parametrize("name", writable_formats())
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(dataset=datasets())
def test_any_dataset_comes_back_exactly(name: str, dataset: Dataset) -> None:
    chosen = writable(name)
    contents, episodes = dataset
    assert chosen.plan(contents).losses == ()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"data{chosen.suffix}"
        write(chosen, path, dataset)
        assert chosen.detect(path)
        with chosen.open(path) as reader:
            assert reader.contents == contents
            assert reader.num_episodes == len(episodes)
            found = list(reader.episodes())
            assert len(found) == len(episodes)
            for got, wanted in zip(found, episodes, strict=True):
                assert_same(got, wanted)


def assert_same(got: Episode, wanted: Episode) -> None:
    """Equal to the bit, types and texts included."""
    assert got.metadata == wanted.metadata
    assert set(got.streams) == set(wanted.streams)
    pairs = [(got.steps, wanted.steps), *((got.streams[name], wanted.streams[name]) for name in wanted.streams)]
    for mine, theirs in pairs:
        assert set(mine) == set(theirs)
        for name, values in theirs.items():
            assert (mine[name].dtype, mine[name].shape) == (values.dtype, values.shape), name
            assert mine[name].tobytes() == values.tobytes(), name


@pytest.mark.parametrize("name", writable_formats())
def test_only_its_own_format_recognises_a_dataset(name: str, tmp_path: Path, awkward: Dataset) -> None:
    path = tmp_path / f"data{writable(name).suffix}"
    write(writable(name), path, awkward)
    assert [other for other in FORMATS if get_format(other).detect(path)] == [name]


@pytest.mark.parametrize("name", writable_formats())
def test_reading_may_begin_at_any_episode(name: str, tmp_path: Path, awkward: Dataset) -> None:
    path = tmp_path / f"data{writable(name).suffix}"
    write(writable(name), path, awkward)
    with writable(name).open(path) as reader:
        for start in range(len(awkward[1]) + 1):
            for got, wanted in zip(reader.episodes(start), awkward[1][start:], strict=True):
                assert_same(got, wanted)


@pytest.mark.parametrize("name", writable_formats())
def test_the_plan_names_every_field(name: str, awkward: Dataset) -> None:
    planned = {mapping.source for mapping in writable(name).plan(awkward[0]).mappings}
    assert set(step_fields(awkward[0])) <= planned


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_another_kind_of_file_is_refused(name: str, tmp_path: Path) -> None:
    chosen = get_format(name)
    (tmp_path / "text").write_text("no dataset\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bytes").write_bytes(bytes(range(256)) * 16)
    for path in (tmp_path / "text", tmp_path / "empty", tmp_path / "bytes", tmp_path / "missing"):
        before = path.read_bytes() if path.is_file() else None
        assert not chosen.detect(path)
        with pytest.raises(DatasetError, match=path.name):
            chosen.open(path)
        assert before is None or path.read_bytes() == before


@pytest.mark.parametrize("name", writable_formats())
def test_an_abandoned_draft_is_gone_on_with(name: str, tmp_path: Path, awkward: Dataset) -> None:
    """What a writer says is safely there really is, and the rest follows."""
    chosen, (contents, episodes) = writable(name), awkward
    path = tmp_path / f"data{chosen.suffix}"
    writer = chosen.create(path, contents)
    for episode in episodes[:2]:
        writer.append(episode)
    writer.abandon()
    writer = chosen.create(path, contents)
    assert 0 <= writer.num_episodes <= 2
    for episode in episodes[writer.num_episodes :]:
        writer.append(episode)
    writer.finish()
    with chosen.open(path) as reader:
        for got, wanted in zip(reader.episodes(), episodes, strict=True):
            assert_same(got, wanted)

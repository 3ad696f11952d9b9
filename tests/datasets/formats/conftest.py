"""An awkward dataset, and the way through a format and back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.formats.format import Contents, WritableFormat
from alula.datasets.schema import OUTCOME

AWKWARD = Contents(
    observation=SpaceSpec(
        (
            FieldSpec("observation.state", (3,), "float64", units=("rad", "rad", "m"), element_names=("α", "β", "z")),
            FieldSpec("observation.grip", (), "float16", low=(0.0,), high=(0.08,)),
            FieldSpec("observation.contact", (2,), "bool"),
            FieldSpec("observation.images.front", (4, 5, 3), "uint8"),
            FieldSpec("observation.front_image", (2,), "int8"),
        )
    ),
    action=SpaceSpec(
        (FieldSpec("action", (2,), "float32", control_mode=ControlMode.TORQUE, rate=50.0, units=("N m",)),)
    ),
    extra=SpaceSpec(
        (
            FieldSpec("estimate", (2, 2), "float32", allow_nan=True),
            FieldSpec("obs", (), "uint64"),
            FieldSpec("timestamp", (), "int64", units=("ns",)),
        )
    ),
    streams={
        "imu": SpaceSpec(
            (FieldSpec("timestamp", (), "int64", units=("ns",)), FieldSpec("gyro", (3,), "float32", rate=200.0))
        ),
    },
    metadata={"licence": "CC0-1.0", "task": "größer 把手", "nested": {"a": [1, 2.5, None]}},
)


def awkward_episode(length: int, seed: int) -> Episode:
    """An episode of `AWKWARD` with extreme values."""
    rng = np.random.default_rng(seed)
    fields = (*AWKWARD.observation.fields, *AWKWARD.action.fields, *OUTCOME.fields, *AWKWARD.extra.fields)
    steps = {field.name: rng.integers(0, 2, (length, *field.shape)).astype(field.dtype) for field in fields}
    steps["observation.state"] = rng.standard_normal((length, 3)) * 10.0 ** rng.integers(-300, 300, (length, 3))
    steps["observation.images.front"] = rng.integers(0, 256, (length, 4, 5, 3), dtype=np.uint8)
    steps["action"] = rng.standard_normal((length, 2)).astype(np.float32) * 7
    steps["next.reward"] = rng.standard_normal(length)
    steps["timestamp"] = np.sort(rng.integers(0, 2**62, length))
    steps["obs"] = np.full(length, np.iinfo(np.uint64).max)
    steps["estimate"] = np.where(rng.random((length, 2, 2)) < 0.5, np.nan, 1).astype(np.float32)
    samples = 3 * seed
    imu = {
        "timestamp": np.arange(samples, dtype=np.int64) * 5_000_000,
        "gyro": rng.standard_normal((samples, 3)).astype(np.float32),
    }
    return Episode(steps, {"seed": seed, "instruction": "öffne die Tür 🚪", "split": "train"}, {"imu": imu})


@pytest.fixture
def awkward() -> tuple[Contents, list[Episode]]:
    """Fields of odd types and clashing names, episodes of 0, 1 and more steps, streams, texts beyond ASCII."""
    return AWKWARD, [awkward_episode(length, seed) for seed, length in enumerate((4, 0, 1, 7))]


@pytest.fixture
def write() -> Callable[[WritableFormat, Path, Contents, list[Episode]], None]:
    """`write(format, path, contents, episodes)`: a whole dataset."""

    def write(target: WritableFormat, path: Path, contents: Contents, episodes: list[Episode]) -> None:
        writer = target.create(path, contents)
        for episode in episodes:
            writer.append(episode)
        assert writer.num_episodes == len(episodes)
        writer.finish()

    return write


@pytest.fixture
def assert_same() -> Callable[[Episode, Episode], None]:
    """`assert_same(left, right)`: the episodes are equal bit by bit."""

    def compare(left: Episode, right: Episode) -> None:
        assert json.dumps(left.metadata, sort_keys=True) == json.dumps(right.metadata, sort_keys=True)
        for mine, theirs in (
            (left.steps, right.steps),
            *((left.streams[name], right.streams[name]) for name in left.streams),
        ):
            assert set(mine) == set(theirs)
            for name, values in mine.items():
                assert values.dtype == theirs[name].dtype, name
                assert values.shape == theirs[name].shape, name
                assert values.tobytes() == theirs[name].tobytes(), name
        assert set(left.streams) == set(right.streams)

    return compare


@pytest.fixture(scope="session")
def example_message() -> Any:
    """`tf.train.Example` as Google's protobuf library knows it, from the published definition."""
    return message_class(packed=True)


@pytest.fixture(scope="session")
def unpacked_example_message() -> Any:
    """The same with every number on its own, which decoders must understand, too."""
    return message_class(packed=False)


def message_class(packed: bool) -> Any:
    """The class of Examples whose lists of numbers are packed or not."""
    package = f"example_{'packed' if packed else 'unpacked'}"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    types = descriptor_pb2.FieldDescriptorProto
    lists = (("BytesList", types.TYPE_BYTES), ("FloatList", types.TYPE_FLOAT), ("Int64List", types.TYPE_INT64))
    feature = descriptor_pb2.DescriptorProto(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, kind) in enumerate(lists, start=1):
        value = file.message_type.add(name=name).field.add(name="value", number=1, type=kind, label=3)
        if kind != types.TYPE_BYTES:
            value.options.packed = packed
        member = ("bytes_list", "float_list", "int64_list")[number - 1]
        feature.field.add(name=member, number=number, type=11, label=1, type_name=f".{package}.{name}", oneof_index=0)
    file.message_type.append(feature)
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=types.TYPE_STRING, label=1)
    entry.field.add(name="value", number=2, type=11, label=1, type_name=f".{package}.Feature")
    features.field.add(name="feature", number=1, type=11, label=3, type_name=f".{package}.Features.FeatureEntry")
    example = file.message_type.add(name="Example")
    example.field.add(name="features", number=1, type=11, label=1, type_name=f".{package}.Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Example"))

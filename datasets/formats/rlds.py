"""RLDS datasets: a folder of TFRecords as TensorFlow Datasets writes them, read and written without TensorFlow.

    <dataset>/
        <name>-<split>.tfrecord-00000-of-0000N      one episode per record (`tfrecord.py`)
        features.json                               names, shapes and encodings (`rlds_features.py`)
        dataset_info.json                           name, splits, lengths of the shards
        alula.json                                  ours: the exact `Contents`; others ignore it

`tensorflow_datasets.builder_from_directory` reads what is written here. Images are PNG, so nothing is lost.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from alula.core.errors import DatasetError, SpecError
from alula.core.transitions import Episode
from alula.datasets.commits import encode_json, sync
from alula.datasets.formats.format import Contents, Mapping, Plan, Reader, WritableFormat, Writer
from alula.datasets.formats.rlds_features import Feature, Unsupported, flatten, to_json
from alula.datasets.formats.rlds_info import INFO_FILE, about, describe, shard_lengths, tfds_name
from alula.datasets.formats.rlds_layout import (
    FLAGS,
    INSTRUCTION,
    METADATA,
    find_instruction,
    foreign_layout,
    metadata_key,
    own_layout,
)
from alula.datasets.formats.tfrecord import (
    Values,
    encode_example,
    encode_record,
    parse_example,
    read_records,
    strings,
)

FEATURES_FILE, SIDECAR_FILE = "features.json", "alula.json"
SHARD = re.compile(r"(?P<name>.+)-(?P<split>[^-]+)\.tfrecord-(?P<index>\d{5})-of-(?P<count>\d{5})")
SHARD_BYTES = 256 * 2**20
"""Files grow to about this size; readers shuffle and parallelise by file."""


class Place(NamedTuple):
    """Where a record is."""

    path: Path
    split: str
    start: int
    """Its first byte."""
    number: int
    """Counted from 0 in its file."""


class RldsReader(Reader):
    """An open RLDS folder."""

    def __init__(self, path: Path) -> None:
        """Index the records of all splits, without reading their arrays."""
        self.path = path
        self._places: list[Place] = []
        self._changing = False
        """Whether an instruction changes within an episode."""
        info = _read_json(path / INFO_FILE)
        features = list(flatten(_read_json(path / FEATURES_FILE)))
        own = (path / SIDECAR_FILE).exists()
        absent = self._index(info, None if own else find_instruction(features))
        if own:
            self._layout = own_layout(_read_contents(path / SIDECAR_FILE))
        else:
            self._layout = foreign_layout([self._sized(item) for item in features], about(info), self._changing)
        self.contents = self._layout.contents
        self.num_episodes = len(self._places)
        plan = self._layout.plan
        self.plan = Plan(plan.mappings, (*plan.losses, *absent))

    def episodes(self, start: int = 0) -> Iterator[Episode]:
        """The episodes of all splits behind each other."""
        for place in self._places[start:]:
            with self._explaining(place):
                yield self._episode(self._example(place), place)

    def _index(self, info: dict[str, Any], instruction: Feature | None) -> list[str]:
        """Find all records; returns which splits are announced but absent."""
        announced = shard_lengths(info)
        shards = _find_shards(self.path)
        for split, files in shards.items():
            lengths = []
            for file in files:
                first = len(self._places)
                self._index_file(file, split, instruction)
                lengths.append(len(self._places) - first)
            if lengths != (announced.get(split) or lengths):
                raise DatasetError(
                    f"split '{split}' of '{self.path}' has {lengths} records in its files, but {INFO_FILE} says "
                    f"{announced[split]}; the files were copied incompletely: fetch them again"
                )
        return [
            f"split '{name}' is announced in {INFO_FILE}, but has no files" for name in announced if name not in shards
        ]

    def _index_file(self, file: Path, split: str, instruction: Feature | None) -> None:
        start = 0
        for number, record in enumerate(read_records(file, verify=False)):
            place = Place(file, split, start, number)
            with self._explaining(place):
                example = parse_example(record.payload)
                self._changing |= instruction is not None and len(set(_texts(instruction, example))) > 1
            self._places.append(place)
            start = record.end

    def _sized(self, feature: Feature | Unsupported) -> Feature | Unsupported:
        """The same; where only the data show its shape, with the shape of the first value."""
        if isinstance(feature, Unsupported) or -1 not in feature.shape:
            return feature
        if not self._places:
            raise DatasetError(f"'{self.path}' has no episodes to take the shape of feature '{feature.path}' from")
        with self._explaining(self._places[0]):
            return replace(feature, shape=_decode(feature, self._example(self._places[0])).shape[1:])

    def _example(self, place: Place) -> dict[str, memoryview]:
        return parse_example(next(read_records(place.path, place.start)).payload)

    def _episode(self, example: dict[str, memoryview], place: Place) -> Episode:
        layout = self._layout
        steps = {
            name: _joined(name, [_decode(part, example) for part in parts]) for name, parts in layout.arrays.items()
        }
        lengths = {name: len(values) for name, values in steps.items()}
        if len(set(lengths.values())) > 1:
            raise DatasetError(f"its features have different numbers of steps: {lengths}")
        if layout.own:
            streams = {
                stream: {name: _decode(feature, example) for name, feature in features.items()}
                for stream, features in layout.streams.items()
            }
            return Episode(steps, json.loads(_texts(METADATA, example)[0]), streams)
        length = next(iter(lengths.values()), 0)
        metadata: dict[str, Any] = {"split": place.split}
        metadata |= {metadata_key(feature): _plain(feature, example) for feature in layout.episode}
        metadata |= {metadata_key(feature): _condensed(_texts(feature, example)) for feature in layout.texts}
        if layout.instruction:
            sentences = _texts(layout.instruction, example)
            distinct = list(dict.fromkeys(sentences))
            metadata["instruction"] = distinct[0] if distinct else ""
            if self._changing:
                metadata["instructions"] = distinct
                steps["instruction_index"] = np.array([distinct.index(sentence) for sentence in sentences], np.int64)
        return Episode(_with_outcome(steps, length), metadata)

    @contextmanager
    def _explaining(self, place: Place) -> Iterator[None]:
        try:
            yield
        except DatasetError as error:
            raise DatasetError(f"record {place.number} of '{place.path}' cannot be read: {error}") from error


class RldsWriter(Writer):
    """An RLDS folder under construction; every complete record is an episode that is safely there."""

    def __init__(self, path: Path, contents: Contents) -> None:
        """Take up what an earlier writer left, up to its last complete record."""
        self._path = path
        self._contents = contents
        self._layout = own_layout(contents)
        self._name = tfds_name(str(contents.metadata.get("name", "")))
        path.mkdir(parents=True, exist_ok=True)
        self._lengths: list[int] = []
        """Records of each shard."""
        for index, shard in enumerate(sorted(path.glob("*.tfrecord-*"))):
            shard.rename(self._shard(index))
            self._lengths.append(_keep_complete(self._shard(index)))
        self._file = self._shard(max(len(self._lengths) - 1, 0)).open("ab")
        self._lengths = self._lengths or [0]
        self.num_episodes = sum(self._lengths)

    def append(self, episode: Episode) -> None:
        """Add one episode as a record."""
        if self._file.tell() > SHARD_BYTES:
            self._close_shard()
            self._file = self._shard(len(self._lengths)).open("ab")
            self._lengths.append(0)
        self._file.write(encode_record(encode_example(self._example(episode))))
        self._file.flush()
        self._lengths[-1] += 1
        self.num_episodes += 1

    def finish(self) -> None:
        """Describe the dataset and give the files their final names."""
        self._close_shard()
        sequences = ("steps", *(f"streams/{stream}" for stream in self._layout.streams))
        num_bytes = sum(self._shard(index).stat().st_size for index in range(len(self._lengths)))
        _write_json(self._path / FEATURES_FILE, to_json(self._features(), sequences))
        _write_json(self._path / INFO_FILE, describe(self._name, self._lengths, num_bytes, self._contents))
        _write_json(self._path / SIDECAR_FILE, {"contents": self._contents.to_dict()})
        for index in range(len(self._lengths)):
            shard = self._shard(index)
            shard.rename(shard.with_name(f"{shard.name}-of-{len(self._lengths):05d}"))

    def abandon(self) -> None:
        """Close the file; what is in it stays for the next writer."""
        self._file.close()

    def _example(self, episode: Episode) -> dict[str, Values]:
        layout = self._layout
        example = {
            feature.path: feature.encode(episode.steps[name])
            for name, features in layout.arrays.items()
            for feature in features
        }
        example |= {
            feature.path: feature.encode(episode.streams[stream][name])
            for stream, features in layout.streams.items()
            for name, feature in features.items()
        }
        flags = _flags(episode)
        example |= {flag.path: flag.encode(flags[flag.path]) for flag in self._derived_flags()}
        example[INSTRUCTION.path] = [sentence.encode() for sentence in _instructions(episode)]
        example[METADATA.path] = [encode_json(episode.metadata, f"episode {self.num_episodes}").encode()]
        return example

    def _features(self) -> list[Feature]:
        arrays = [feature for features in self._layout.arrays.values() for feature in features]
        streams = [feature for features in self._layout.streams.values() for feature in features.values()]
        return [*arrays, *self._derived_flags(), INSTRUCTION, METADATA, *streams]

    def _derived_flags(self) -> list[Feature]:
        """Flags that are no fields of the dataset and follow from its outcome."""
        return [
            Feature(f"steps/{flag}", "tensor", (), "float32" if flag == "discount" else "bool")
            for flag in FLAGS
            if flag not in self._contents.extra
        ]

    def _shard(self, index: int) -> Path:
        return self._path / f"{self._name}-train.tfrecord-{index:05d}"

    def _close_shard(self) -> None:
        self._file.close()
        sync(Path(self._file.name))


class Rlds(WritableFormat):
    """RLDS/TFDS folders of TFRecords."""

    name = "rlds"
    suffix = ""

    def detect(self, path: Path) -> bool:
        """A folder with a description of features and at least one TFRecord file."""
        return (path / FEATURES_FILE).is_file() and any(path.glob("*.tfrecord-*"))

    def open(self, path: Path) -> RldsReader:
        """A reader of the folder that holds `features.json`."""
        return RldsReader(path)

    def plan(self, contents: Contents) -> Plan:
        """Everything finds a place; images become PNG."""
        layout = own_layout(contents)
        arrays = [
            Mapping(name, feature.path, "PNG, without loss" if feature.kind == "image" else "")
            for name, features in layout.arrays.items()
            for feature in features
        ]
        streams = [
            Mapping(f"streams/{stream}/{name}", feature.path)
            for stream, features in layout.streams.items()
            for name, feature in features.items()
        ]
        instruction = Mapping("metadata instruction", INSTRUCTION.path, "repeated at every step")
        return Plan((*arrays, *streams, instruction, Mapping("metadata", METADATA.path, "as JSON")))

    def create(self, path: Path, contents: Contents) -> RldsWriter:
        """A writer of a new folder."""
        return RldsWriter(path, contents)


def _decode(feature: Feature, example: dict[str, memoryview]) -> Shaped[ndarray, "steps *shape"]:
    if feature.path not in example:
        raise DatasetError(f"feature '{feature.path}' is missing; it has {sorted(example)}")
    try:
        return feature.decode(example[feature.path])
    except DatasetError as error:
        raise DatasetError(f"feature '{feature.path}': {error}") from error


def _texts(feature: Feature, example: dict[str, memoryview]) -> list[str]:
    if feature.path not in example:
        raise DatasetError(f"feature '{feature.path}' is missing; it has {sorted(example)}")
    return [value.decode(errors="surrogateescape") for value in strings(example[feature.path])]


def _plain(feature: Feature, example: dict[str, memoryview]) -> Any:
    """A feature of an episode as metadata."""
    values = _texts(feature, example) if feature.kind == "text" else _decode(feature, example).tolist()
    if len(values) != 1:
        raise DatasetError(f"feature '{feature.path}' has {len(values)} values for an episode, expected is 1")
    return values[0]


def _condensed(sentences: list[str]) -> str | list[str]:
    """One text for all steps where it never changes."""
    return sentences[0] if len(set(sentences)) == 1 else sentences


def _joined(name: str, parts: list[Shaped[ndarray, "_ ..."]]) -> Shaped[ndarray, "steps *field"]:
    """One array of the parts; an action gets one axis."""
    if name != "action":
        return parts[0]
    return np.concatenate([part.reshape(len(part), int(np.prod(part.shape[1:]))) for part in parts], axis=1)


def _with_outcome(steps: dict[str, Shaped[ndarray, "..."]], length: int) -> dict[str, Shaped[ndarray, "..."]]:
    """Others' steps with our outcome: what is not terminal at its end was cut off; success is unknown."""
    terminated = steps.get("is_terminal", np.zeros(length, bool)).astype(bool)
    outcome = {
        "next.reward": steps.get("next.reward", np.zeros(length)).astype(np.float64),
        "next.terminated": terminated,
        "next.truncated": (np.arange(length) == length - 1) & ~terminated,
        "next.success": np.zeros(length, bool),
    }
    return {**steps, **outcome}


def _flags(episode: Episode) -> dict[str, Shaped[ndarray, " steps"]]:
    index = np.arange(episode.length)
    terminated = episode.steps["next.terminated"]
    return {
        "steps/is_first": index == 0,
        "steps/is_last": index == episode.length - 1,
        "steps/is_terminal": terminated,
        "steps/discount": np.where(terminated, 0, 1).astype(np.float32),
    }


def _instructions(episode: Episode) -> list[str]:
    """One for every step."""
    if "instruction_index" in episode.steps:
        return [episode.metadata["instructions"][index] for index in episode.steps["instruction_index"]]
    return [str(episode.metadata.get("instruction", ""))] * episode.length


def _find_shards(path: Path) -> dict[str, list[Path]]:
    """The files of each split, in order and without gaps."""
    shards: dict[str, dict[int, Path]] = defaultdict(dict)
    counts: dict[str, int] = {}
    for file in sorted(path.glob("*.tfrecord-*")):
        if match := SHARD.fullmatch(file.name):
            shards[match["split"]][int(match["index"])] = file
            counts[match["split"]] = int(match["count"])
    for split, files in shards.items():
        missing = [index for index in range(counts[split]) if index not in files]
        if missing:
            raise DatasetError(f"split '{split}' of '{path}' lacks files {missing} of {counts[split]}; fetch them")
    return {split: [files[index] for index in sorted(files)] for split, files in shards.items()}


def _keep_complete(shard: Path) -> int:
    """Cut off what is not a complete record; returns how many are left."""
    end = count = 0
    try:
        for record in read_records(shard):
            end, count = record.end, count + 1
    except DatasetError:
        with shard.open("r+b") as file:
            file.truncate(end)
    return count


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"'{path}' cannot be read ({error}); give the folder of an RLDS dataset that holds it, such as <name>/1.0.0"
        ) from error
    if not isinstance(values, dict):
        raise DatasetError(f"'{path}' holds {type(values).__name__} instead of an object; fetch it again")
    return values


def _read_contents(path: Path) -> Contents:
    try:
        return Contents.from_dict(_read_json(path)["contents"])
    except (KeyError, TypeError, AttributeError, SpecError) as error:
        raise DatasetError(
            f"'{path}' is damaged ({type(error).__name__}: {error}); restore it, or delete it to read the folder "
            f"by convention"
        ) from error


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")
    sync(path)

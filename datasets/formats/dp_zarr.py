"""diffusion_policy's replay buffer: a zarr 2 folder, or a .zip of one, with all episodes behind each other.

    <dataset>.zarr/
        data/<key>            all steps of a field; images one frame per chunk
        meta/episode_ends     int64, index of the step after the last one of each episode
        alula/                ours: the exact `Contents`, metadata and streams; others ignore it

The layout is that of `diffusion_policy/common/replay_buffer.py` (Chi et al. 2023, arXiv:2303.04137). It is written
in zarr format 2 with Blosc, which zarr before version 3 reads.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numcodecs
import numpy as np
import zarr
from jaxtyping import Shaped
from numcodecs.errors import UnknownCodecError
from numpy import ndarray
from zarr.storage import LocalStore, ZipStore

from alula.core.errors import DatasetError, SpecError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.commits import encode_json
from alula.datasets.formats.format import Contents, Mapping, Plan, Reader, WritableFormat, Writer
from alula.datasets.formats.short_names import short_names
from alula.datasets.schema import DTYPES, OUTCOME, step_fields

CHUNK_BYTES = 256 * 1024
ENDS = "meta/episode_ends"
OWN_GROUP = "alula"
LOG_FILE = "episodes.jsonl"
"""In a draft: one line for each complete episode. Moves into the attributes of `alula/` at the end."""
IMAGE_CHANNELS = (1, 3, 4)
OUTCOME_KEYS = {name.removeprefix("next."): name for name in OUTCOME}
Array = zarr.Array[Any]
Ends = dict[str, int]
"""Of each clock (a stream's name, or STEPS) where an episode ends."""
STEPS = ""


@dataclass(frozen=True)
class _Column:
    """One array of the replay buffer, and the field that it is."""

    key: str
    """Its path in the hierarchy."""
    field: FieldSpec
    clock: str = STEPS

    @property
    def name(self) -> str:
        """In plans."""
        return f"streams/{self.clock}/{self.field.name}" if self.clock else self.field.name


def _columns(contents: Contents) -> list[_Column]:
    """The arrays of a dataset that we write."""
    fields = step_fields(contents)
    short = short_names(fields)
    steps = [_Column(f"data/{short[name]}", field) for name, field in fields.items()]
    return steps + [
        _Column(f"{OWN_GROUP}/streams/{stream}/{name}", field, stream)
        for stream, space in contents.streams.items()
        for name, field in space.items()
    ]


class DiffusionPolicyReader(Reader):
    """An open replay buffer."""

    def __init__(self, path: Path) -> None:
        """Open all arrays and check that they fit together."""
        self.path = path
        self._store = _open_store(path)
        try:
            try:
                self._interpret()
            except UnknownCodecError as error:
                _register_codecs(path, error)
                self._interpret()
        except DatasetError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SpecError) as error:
            raise DatasetError(
                f"'{path}' is not a diffusion_policy replay buffer, or damaged ({type(error).__name__}: {error}); it "
                f"needs the groups data and meta, and meta/episode_ends"
            ) from error
        self._check()
        self.num_episodes = len(self._ends)
        self.plan = Plan(tuple(self._mapping(column) for column in self._columns))

    def _interpret(self) -> None:
        """What the arrays are: as our attributes say, or else by their names and shapes."""
        root = zarr.open_group(self._store, mode="r", zarr_format=2)
        self._own = OWN_GROUP in root
        if self._own:
            attributes: dict[str, Any] = root[OWN_GROUP].attrs.asdict()
            self.contents = Contents.from_dict(attributes["contents"])
            self._columns = _columns(self.contents)
            episodes = attributes["episodes"]
            self._ends: list[Ends] = [{STEPS: entry["end"], **entry["streams"]} for entry in episodes]
            self._metadata: list[dict[str, Any]] = [entry["metadata"] for entry in episodes]
        else:
            self._columns = _foreign_columns(root)
            self.contents = _foreign_contents(self._columns)
            self._ends = [{STEPS: int(end)} for end in np.asarray(_array(root, ENDS)[:])]
            self._metadata = [{} for _ in self._ends]
        self._arrays = {column.key: _array(root, column.key) for column in self._columns}
        files = _files(self.path)
        self._absent = {key: array.nchunks - _count_chunks(files, key) for key, array in self._arrays.items()}
        """Chunks without a file, which zarr reads as zeros."""

    def episodes(self, start: int = 0) -> Iterator[Episode]:
        """The episodes in order."""
        for index in range(start, self.num_episodes):
            steps: dict[str, Shaped[ndarray, ...]] = {}
            streams: dict[str, dict[str, Shaped[ndarray, ...]]] = {name: {} for name in self.contents.streams}
            for column in self._columns:
                target = streams[column.clock] if column.clock else steps
                target[column.field.name] = self._read(column, index)
            yield Episode(_with_outcome(steps, self._length(index)), dict(self._metadata[index]), streams)

    def close(self) -> None:
        """Close the archive."""
        self._store.close()

    def _start(self, index: int, clock: str) -> int:
        return self._ends[index - 1][clock] if index else 0

    def _length(self, index: int) -> int:
        return self._ends[index][STEPS] - self._start(index, STEPS)

    def _read(self, column: _Column, index: int) -> Shaped[ndarray, "steps *field"]:
        start, stop = self._start(index, column.clock), self._ends[index][column.clock]
        try:
            values = np.asarray(self._arrays[column.key][start:stop])
        except (OSError, ValueError, RuntimeError, BadZipFile) as error:
            raise DatasetError(
                f"entries {start} to {stop} of '{column.key}' in '{self.path}' are damaged ({error}); fetch it again"
            ) from error
        return values.astype(column.field.dtype, copy=False).reshape(len(values), *column.field.shape)

    def _check(self) -> None:
        """Ends that rise, and arrays exactly as long as the last of them says."""
        for clock in ("", *self.contents.streams):
            ends = [0, *(entry[clock] for entry in self._ends)]
            if any(later < earlier for earlier, later in itertools.pairwise(ends)):
                raise DatasetError(f"{ENDS} of '{self.path}' must never fall, got {ends[1:6]} ...")
        for column in self._columns:
            array, needed = self._arrays[column.key], self._ends[-1][column.clock] if self._ends else 0
            if array.shape[0] != needed:
                raise DatasetError(
                    f"'{column.key}' of '{self.path}' has {array.shape[0]} entries, but the last episode ends at "
                    f"{needed}; the dataset was copied incompletely: fetch it again"
                )
            if self._own and self._absent[column.key]:
                raise DatasetError(
                    f"'{column.key}' of '{self.path}' lacks {self._absent[column.key]} of {array.nchunks} chunks; "
                    f"the dataset was copied incompletely: fetch it again"
                )

    def _mapping(self, column: _Column) -> Mapping:
        absent, fill = self._absent[column.key], self._arrays[column.key].fill_value
        return Mapping(column.key, column.name, f"{absent} absent chunks are read as {fill}" if absent else "")


class DiffusionPolicyWriter(Writer):
    """A replay buffer under construction; an episode is there once its line is in the log."""

    def __init__(self, path: Path, contents: Contents) -> None:
        """Take up what an earlier writer left."""
        self._path = path
        self._contents = contents
        self._columns = _columns(contents)
        self._log = path / LOG_FILE
        root = zarr.open_group(path, mode="a", zarr_format=2)
        for group in ("data", "meta", OWN_GROUP):
            root.require_group(group)
        self._arrays = {column.key: _require_array(root, column) for column in self._columns}
        self._entries = _read_log(self._log)
        self.num_episodes = len(self._entries)
        self._ends: Ends = {STEPS: 0, **dict.fromkeys(contents.streams, 0)}
        if self._entries:
            self._ends = {STEPS: self._entries[-1]["end"], **self._entries[-1]["streams"]}

    def append(self, episode: Episode) -> None:
        """Add one episode behind the others."""
        ends = {STEPS: self._ends[STEPS] + episode.length}
        ends |= {name: self._ends[name] + len(stream["timestamp"]) for name, stream in episode.streams.items()}
        for column in self._columns:
            values = (episode.streams[column.clock] if column.clock else episode.steps)[column.field.name]
            array, start = self._arrays[column.key], self._ends[column.clock]
            array.resize((ends[column.clock], *column.field.shape))
            array[start : ends[column.clock]] = values
        streams = {name: end for name, end in ends.items() if name != STEPS}
        entry = {"end": ends[STEPS], "streams": streams, "metadata": episode.metadata}
        with self._log.open("a", encoding="utf-8") as log:
            log.write(encode_json(entry, f"episode {self.num_episodes}") + "\n")
        self._entries.append(entry)
        self._ends = ends
        self.num_episodes += 1

    def finish(self) -> None:
        """Write the ends of the episodes and what only we read."""
        for column in self._columns:  # A killed writer may have left more.
            self._arrays[column.key].resize((self._ends[column.clock], *column.field.shape))
        root = zarr.open_group(self._path, mode="r+", zarr_format=2)
        ends = np.array([entry["end"] for entry in self._entries], dtype=np.int64)
        array = root.create_array(ENDS, shape=ends.shape, dtype="int64", chunks=(max(len(ends), 1),), overwrite=True)
        array[:] = ends
        root[OWN_GROUP].attrs.update({"contents": self._contents.to_dict(), "episodes": self._entries})
        self._log.unlink(missing_ok=True)


class DiffusionPolicyZarr(WritableFormat):
    """diffusion_policy's replay buffers."""

    name = "dp_zarr"
    suffix = ".zarr"

    def detect(self, path: Path) -> bool:
        """A zarr 2 hierarchy with `meta/episode_ends`."""
        if path.is_dir():
            return (path / ENDS / ".zarray").is_file()
        try:
            with ZipFile(path) as archive:
                return f"{ENDS}/.zarray" in archive.namelist()
        except (OSError, BadZipFile):
            return False

    def open(self, path: Path) -> DiffusionPolicyReader:
        """A reader of a folder or a .zip."""
        return DiffusionPolicyReader(path)

    def plan(self, contents: Contents) -> Plan:
        """Everything finds a place; streams and metadata where only alula looks."""
        mappings = (Mapping(column.name, column.key) for column in _columns(contents))
        return Plan((*mappings, Mapping("metadata", f"attributes of {OWN_GROUP}/")))

    def create(self, path: Path, contents: Contents) -> DiffusionPolicyWriter:
        """A writer of a folder."""
        return DiffusionPolicyWriter(path, contents)


def _require_array(root: zarr.Group, column: _Column) -> Array:
    """The array that an earlier writer left, or a new one."""
    if column.key in root:
        array = _array(root, column.key)
    else:
        shape = column.field.shape
        step_bytes = column.field.size * np.dtype(column.field.dtype).itemsize
        array = root.create_array(
            column.key,
            shape=(0, *shape),
            dtype=column.field.dtype,
            chunks=(1 if len(shape) == 3 else max(1, CHUNK_BYTES // step_bytes), *shape),
            compressors=numcodecs.Blosc(cname="lz4", clevel=5, shuffle=numcodecs.Blosc.NOSHUFFLE),
        )
    # A chunk of zeros must be there, too: a missing file is then always a damage.
    return array.with_config({"write_empty_chunks": True})


def _read_log(log: Path) -> list[dict[str, Any]]:
    """The finished lines; what a killed writer left of the last one is cut off."""
    if not log.exists():
        return []
    content = log.read_bytes()
    finished = content[: content.rfind(b"\n") + 1]
    log.write_bytes(finished)
    return [json.loads(line) for line in finished.splitlines()]


def _open_store(path: Path) -> LocalStore | ZipStore:
    if not path.exists():
        raise DatasetError(f"there is no replay buffer at '{path}'; check the path")
    if path.is_dir():
        return LocalStore(path, read_only=True)
    try:
        store = ZipStore(path, mode="r", read_only=True)
        store._sync_open()
    except (OSError, BadZipFile) as error:
        raise DatasetError(f"'{path}' is not a readable .zip ({error}); fetch it again") from error
    return store


def _files(path: Path) -> list[str]:
    """Everything inside a folder or archive, by its relative path."""
    if path.is_dir():
        return [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    with ZipFile(path) as archive:
        return [name for name in archive.namelist() if not name.endswith("/")]


def _count_chunks(files: list[str], key: str) -> int:
    return sum(file.startswith(f"{key}/") and not file.startswith(f"{key}/.z") for file in files)


def _array(root: zarr.Group, key: str) -> Array:
    array = root[key]
    if not isinstance(array, zarr.Array):
        raise DatasetError(f"'{key}' is a group, expected is an array")
    return array


def _register_codecs(path: Path, error: UnknownCodecError) -> None:
    """Make JPEG 2000 readable, which diffusion_policy compresses images with, if its package is there."""
    try:
        import_module("imagecodecs.numcodecs").register_codecs(verbose=False)
    except ImportError:
        raise DatasetError(
            f"'{path}' is compressed by a codec that is not installed ({error}); for JPEG 2000 images install it by "
            f"pip install 'alula[jpeg2k]'"
        ) from error


def _foreign_columns(root: zarr.Group) -> list[_Column]:
    """What others' arrays mean, by their names and shapes."""
    data = root["data"]
    if not isinstance(data, zarr.Group):
        raise DatasetError("'data' is an array, expected is a group of arrays")
    columns = []
    for key in sorted(data.keys()):
        array = _array(root, f"data/{key}")
        dtype = str(array.dtype)
        if dtype not in DTYPES or 0 in array.shape[1:]:
            raise DatasetError(
                f"'data/{key}' holds {dtype} of shape {array.shape[1:]} in each step; allowed are {', '.join(DTYPES)}"
            )
        columns.append(_Column(f"data/{key}", _foreign_field(key, array.shape[1:], dtype)))
    return columns


def _foreign_field(key: str, shape: tuple[int, ...], dtype: str) -> FieldSpec:
    if key == "action":
        return FieldSpec("action", (int(np.prod(shape)),), dtype)
    if key in OUTCOME_KEYS and shape == ():
        return OUTCOME[OUTCOME_KEYS[key]]
    if key == "timestamp":  # In seconds, while a field `timestamp` has nanoseconds.
        return FieldSpec("source_timestamp", shape, dtype, ("s",))
    image = dtype == "uint8" and len(shape) == 3 and shape[-1] in IMAGE_CHANNELS
    return FieldSpec(f"observation.images.{key}" if image else f"observation.{key}", shape, dtype)


def _foreign_contents(columns: list[_Column]) -> Contents:
    fields = [column.field for column in columns if column.field.name not in OUTCOME]
    observation = SpaceSpec(tuple(field for field in fields if field.name.startswith("observation.")))
    action = SpaceSpec(tuple(field for field in fields if field.name == "action"))
    extra = SpaceSpec(tuple(field for field in fields if field.name not in observation and field.name not in action))
    return Contents(observation, action, extra, metadata={"success_recorded": False})


def _with_outcome(steps: dict[str, Shaped[ndarray, "..."]], length: int) -> dict[str, Shaped[ndarray, "..."]]:
    """An outcome for steps without: no reward, and the episode was cut off at its end."""
    outcome = {name: np.zeros(length, field.dtype) for name, field in OUTCOME.items()}
    outcome["next.truncated"][-1:] = "next.terminated" not in steps
    return {**outcome, **steps}

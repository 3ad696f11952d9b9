"""The native dataset: a zarr v3 folder with one array per field, to which episodes are added whole or not at all.

    <dataset>/
        zarr.json          format, observation, action and extra specifications, metadata
        episodes.jsonl     one line per committed episode (`commits.py`)
        <field>/           `observation.*`, `action`, `next.*`: steps of all episodes behind each other (`arrays.py`)
        statistics.npz     cache (`statistics.py`)

Any number of processes may read while one appends; each sees the episodes that were committed when it opened.
"""

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Int64, Shaped
from numpy import ndarray

from alula.core.errors import DatasetError, SpecError, unknown_name
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.arrays import FieldArray
from alula.datasets.commits import Commit, CommitLog, encode_json, sync

FORMAT = 1
"""Raised when older code could no longer read what newer code writes."""
EPISODES_FILE = "episodes.jsonl"
OUTCOME = SpaceSpec(
    (
        FieldSpec("next.reward", (), "float64"),
        FieldSpec("next.terminated", (), "bool"),
        FieldSpec("next.truncated", (), "bool"),
        FieldSpec("next.success", (), "bool"),
    )
)
"""What every step led to; part of every dataset."""
NO_FIELDS = SpaceSpec(())
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = ("bool", *INTEGERS, "float16", "float32", "float64")


class EpisodeStore:
    """Recorded episodes on disk."""

    def __init__(self, path: Path, append: bool, schema: Mapping[str, Any], log: CommitLog) -> None:
        """Use `open` or `create`."""
        self.path = path
        self.observation: SpaceSpec = schema["observation"]
        self.action: SpaceSpec = schema["action"]
        self.extra: SpaceSpec = schema["extra"]
        self.metadata: dict[str, Any] = schema["metadata"]
        """Plain values about the whole: provenance, licence, task, ..."""
        self.repaired: str | None = None
        """What opening for append had to drop after a recorder was killed; None where nothing was."""
        self._append = append
        self._log = log
        self._arrays = {name: FieldArray(path, field, append) for name, field in self.fields.items()}
        for array in self._arrays.values():
            array.require(self.num_steps)

    @classmethod
    def create(
        cls,
        path: Path,
        observation: SpaceSpec,
        action: SpaceSpec,
        metadata: Mapping[str, Any] | None = None,
        *,
        extra: SpaceSpec = NO_FIELDS,
        overwrite: bool = False,
    ) -> "EpisodeStore":
        """A new dataset without episodes, open for appending.

        Args:
            path: Folder to make; parents are made as needed.
            observation: Fields named `observation.*`.
            action: The field `action`, one axis.
            metadata: Plain values about the whole dataset: provenance, licence, task, ...
            extra: Further fields of every step, such as capture timestamps.
            overwrite: Replace a dataset that is there already. Nothing but a dataset is ever replaced.

        Raises:
            DatasetError: something is there already, cannot be stored, or the folder cannot be written. Then
                nothing is left behind.
        """
        _require_storable(observation, action, extra)
        schema = {
            "format": FORMAT,
            **{"observation": observation.to_list(), "action": action.to_list(), "extra": extra.to_list()},
            "metadata": _plain(metadata or {}, "the dataset"),
        }
        with building(path, overwrite) as draft:
            zarr.create_group(draft, attributes={"alula": schema})
            for field in (*observation.values(), *action.values(), *OUTCOME.values(), *extra.values()):
                FieldArray.create(draft, field)
            (draft / EPISODES_FILE).touch()
        return cls.open(path, append=True)

    @classmethod
    def open(cls, path: Path, append: bool = False) -> "EpisodeStore":
        """An existing dataset.

        Opening for append cuts off what a killed recorder left uncommitted and says so in `repaired`; reading only
        ignores it.

        Raises:
            DatasetError: there is no dataset, it is damaged, or it may not be written.
        """
        path = Path(path).resolve()
        schema = _read_schema(path)
        # The log first: every array is at least as long as a log that was read before it was opened.
        store = cls(path, append, schema, CommitLog.read(path / EPISODES_FILE))
        if append:
            store._repair()
        return store

    @property
    def fields(self) -> SpaceSpec:
        """Every field of a step: observation, action, outcome, extra."""
        return SpaceSpec((*self.observation.fields, *self.action.fields, *OUTCOME.fields, *self.extra.fields))

    @property
    def num_episodes(self) -> int:
        """Committed episodes."""
        return len(self._log.commits)

    @property
    def num_steps(self) -> int:
        """Committed steps of all episodes together."""
        return self._log.num_steps

    @property
    def episode_ends(self) -> Int64[ndarray, " episodes"]:
        """Index of the step after the last one of each episode."""
        return np.array([commit.end for commit in self._log.commits], dtype=np.int64)

    @property
    def lengths(self) -> Int64[ndarray, " episodes"]:
        """Steps of each episode."""
        return np.diff(self.episode_ends, prepend=0)

    @property
    def episode_metadata(self) -> list[dict[str, Any]]:
        """Metadata of each episode, without reading its steps."""
        return [commit.metadata for commit in self._log.commits]

    @property
    def digests(self) -> list[str]:
        """Hash of each episode's arrays: equal for equal content."""
        return [commit.digest for commit in self._log.commits]

    @property
    def fingerprint(self) -> str:
        """Hash of all committed episodes and their metadata; changes with every append."""
        return self._log.fingerprint

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Shaped[ndarray, "steps *field"]:
        """Committed steps `start` to `stop` (exclusive; None: all) of one field.

        Raises:
            DatasetError: there is no such field, or its files are damaged.
        """
        if name not in self._arrays:
            raise DatasetError(f"dataset '{self.path}': " + unknown_name("field", name, self._arrays))
        stop = self.num_steps if stop is None else min(stop, self.num_steps)
        return self._arrays[name].read(start, stop)

    def episode(self, index: int) -> Episode:
        """One episode, counted from 0 in the order of recording.

        Raises:
            DatasetError: there is no such episode, or its files are damaged.
        """
        if not 0 <= index < self.num_episodes:
            raise DatasetError(
                f"dataset '{self.path}' has no episode {index}; allowed are 0 to {self.num_episodes - 1} "
                f"({self.num_episodes} episodes)"
            )
        commit = self._log.commits[index]
        start = self._log.commits[index - 1].end if index else 0
        return Episode({name: self.read(name, start, commit.end) for name in self._arrays}, dict(commit.metadata))

    def damaged_episodes(self) -> list[int]:
        """Episodes whose arrays no longer match the digest taken when they were recorded; reads everything."""
        return [index for index, digest in enumerate(self.digests) if _digest(self.episode(index).steps) != digest]

    def append(self, episode: Episode) -> None:
        """Add one episode; when this returns, it survives a kill and a power failure.

        Floats are stored in the precision of their field; other types must fit their field exactly.

        Raises:
            DatasetError: the episode does not fit the dataset or holds a value that is not finite, or the dataset
                cannot be written. Then it is as if nothing had been added.
        """
        self.extend([episode])

    def extend(self, episodes: Sequence[Episode]) -> None:
        """Add several episodes in one go, all or none; much faster than one by one where they are short.

        Raises:
            DatasetError: as for `append`.
        """
        if not self._append:
            raise DatasetError(f"dataset '{self.path}' was opened for reading; open it with append=True to add to it")
        if not episodes:
            return
        steps, commits, end = [], [], self.num_steps
        for index, episode in enumerate(episodes, start=self.num_episodes):
            steps.append(self._checked(f"episode {index}", episode))
            end += episode.length
            commits.append(Commit(end, _digest(steps[-1]), _plain(episode.metadata, f"episode {index}")))
        with self._log.writing() as file:
            try:
                for name, array in self._arrays.items():
                    array.write(self.num_steps, np.concatenate([arrays[name] for arrays in steps]))
                self._log.append(file, commits)
            except OSError as error:
                raise DatasetError(
                    f"cannot write to dataset '{self.path}': {error.strerror}; its {self.num_episodes} committed "
                    f"episodes are unharmed. Free some space or check the permissions, then append again"
                ) from error

    def _checked(self, owner: str, episode: Episode) -> dict[str, Shaped[ndarray, "length *field"]]:
        """The episode's arrays in the order and types of the fields, or a `DatasetError`."""
        missing = [name for name in self._arrays if name not in episode.steps]
        surplus = [name for name in episode.steps if name not in self._arrays]
        if missing or surplus:
            raise DatasetError(
                f"{owner} does not fit dataset '{self.path}': missing fields {missing}, unknown fields {surplus}; "
                f"allowed are exactly {list(self._arrays)}. Nothing was written"
            )
        if episode.length == 0:
            raise DatasetError(f"{owner} has no steps, at least 1 is needed. Nothing was written")
        return {name: _fitted(owner, field, episode) for name, field in self.fields.items()}

    def _repair(self) -> None:
        with self._log.writing():
            dropped = max(array.truncate(self.num_steps) for array in self._arrays.values())
        if dropped:
            self.repaired = (
                f"dropped {dropped} steps that a killed recorder left uncommitted; "
                f"all {self.num_episodes} committed episodes are kept"
            )


@contextmanager
def building(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder beside `path` to build a dataset in; it becomes `path` at the end, or vanishes when building fails.

    Raises:
        DatasetError: something is at `path` already that may not be replaced, or the disk cannot be written.
    """
    path = Path(path).resolve()
    occupied = path.exists() and not (path.is_dir() and not any(path.iterdir()))
    if occupied and not (path / EPISODES_FILE).is_file():
        raise DatasetError(f"'{path}' exists and is not a dataset; it is never replaced. Choose another path")
    if occupied and not overwrite:
        raise DatasetError(f"dataset '{path}' exists already; choose another folder, or replace it with overwrite=true")
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        for written in draft.rglob("*"):
            sync(written)
        _publish(draft, path, occupied)
    except OSError as error:
        raise DatasetError(
            f"cannot create dataset '{path}': {error.strerror}; choose a folder that you may write to. "
            f"Nothing was left behind"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _publish(draft: Path, path: Path, occupied: bool) -> None:
    """Give the finished `draft` its name; a dataset that is there already goes only once it has a successor."""
    retired = draft.with_name(f"{draft.name}.old")
    if occupied:
        path.rename(retired)
    try:
        draft.rename(path)
    except OSError:
        if occupied:
            retired.rename(path)
        raise
    sync(path.parent)
    shutil.rmtree(retired, ignore_errors=True)


def _read_schema(path: Path) -> dict[str, Any]:
    """Specifications and metadata of the dataset at `path`, or a `DatasetError`."""
    if not os.path.lexists(path):
        raise DatasetError(f"there is no dataset at '{path}'; check the path, or record or convert one first")
    if not os.path.isfile(path / EPISODES_FILE):
        raise DatasetError(
            f"'{path}' is not an alula dataset (it has no {EPISODES_FILE}); give the .zarr folder that alula wrote"
        )
    try:
        schema: dict[str, Any] = json.loads((path / "zarr.json").read_bytes())["attributes"]["alula"]
        if schema["format"] != FORMAT:
            raise DatasetError(
                f"dataset '{path}' has format {schema['format']}, this version of alula reads format {FORMAT}; "
                f"update alula"
            )
        spaces = {name: SpaceSpec.from_list(schema[name]) for name in ("observation", "action", "extra")}
        return {**spaces, "metadata": dict(schema["metadata"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SpecError) as error:
        raise DatasetError(
            f"'{path / 'zarr.json'}' is damaged ({type(error).__name__}: {error}); restore it from a copy"
        ) from error


def _require_storable(observation: SpaceSpec, action: SpaceSpec, extra: SpaceSpec) -> None:
    """Refuse specifications that cannot become arrays."""
    for name in observation:
        if not name.startswith("observation."):
            raise DatasetError(f"observation field '{name}' must be named 'observation.*'; rename it")
    if list(action) != ["action"] or len(action["action"].shape) != 1:
        shapes = {name: field.shape for name, field in action.items()}
        raise DatasetError(f"the action space must be one field 'action' with one axis, got {shapes}; flatten it")
    fields = (*observation.fields, *action.fields, *OUTCOME.fields, *extra.fields)
    for field in fields:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", field.name) or field.name.startswith("__"):
            raise DatasetError(f"field name '{field.name}' cannot be stored; use letters, digits, '_', '-' and '.'")
        if field.dtype not in DTYPES:
            raise DatasetError(f"field '{field.name}' has dtype '{field.dtype}'; allowed are {', '.join(DTYPES)}")
        if field.size == 0:
            raise DatasetError(f"field '{field.name}' has shape {field.shape}, which holds no element; leave it out")
    try:
        SpaceSpec(fields)
    except SpecError as error:
        raise DatasetError(f"{error}; rename the extra ones") from error


def _fitted(owner: str, field: FieldSpec, episode: Episode) -> Shaped[ndarray, "length *field"]:
    """The field's array of `episode` in the field's type, or a `DatasetError`."""
    values = np.asarray(episode.steps[field.name])
    where = f"field '{field.name}' of {owner}"
    if values.shape != (episode.length, *field.shape):
        raise DatasetError(
            f"{where} has shape {values.shape}, needed is {(episode.length, *field.shape)} "
            f"(steps first). Nothing was written"
        )
    dtype = np.dtype(field.dtype)
    both_float = values.dtype.kind == "f" and dtype.kind == "f"
    if not both_float and not np.can_cast(values.dtype, dtype, "safe"):
        raise DatasetError(
            f"{where} has dtype {values.dtype}, which does not fit into {dtype}; convert it. Nothing was written"
        )
    with np.errstate(over="ignore"):  # What overflows is infinite and refused below.
        stored = values.astype(dtype, copy=False)
    if dtype.kind == "f" and not np.isfinite(stored).all():
        step = int(np.argwhere(~np.isfinite(stored))[0, 0])
        raise DatasetError(
            f"{where} is not a finite {dtype} at step {step}: {values[step].tolist()}; "
            f"drop or mend the episode. Nothing was written"
        )
    return stored


def _plain(metadata: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """The metadata as they will be read back, or a `DatasetError`."""
    plain: dict[str, Any] = json.loads(encode_json(metadata, owner))
    return plain


def _digest(steps: Mapping[str, Shaped[ndarray, "length *field"]]) -> str:
    content = hashlib.blake2b(digest_size=16)
    for name, values in steps.items():
        content.update(f"{name} {values.dtype} {values.shape};".encode())
        content.update(np.ascontiguousarray(values).data)
    return content.hexdigest()

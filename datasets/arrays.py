"""The arrays of a dataset on disk: per field one zarr v3 array whose first axis counts the steps of all episodes."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Shaped
from numpy import ndarray
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from alula.core.errors import DatasetError, unknown_name
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.datasets.commits import UNFINISHED, replace_file, sync

READ_ATTEMPTS = 5
"""A writer may replace the last shard between the reading of its index and of its chunks; then we look again."""


@dataclass(frozen=True)
class Chunking:
    """How steps are grouped on disk."""

    chunk_bytes: int = 256 * 1024
    """Decompressed together: small, so that a window of a few steps costs little to read."""
    chunks_per_shard: int = 8
    """Kept in one file: few files, and little to rewrite when an episode is appended."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("chunk_bytes", "chunks_per_shard"):
            if getattr(self, name) < 1:
                raise DatasetError(f"{name} is {getattr(self, name)}; at least 1 is needed")


class DurableStore(LocalStore):
    """Files that are on the disk before they get their names.

    Without this, a power failure can leave a shard of committed steps empty, because a later episode was about to be
    added to it: some file systems put the new name on the disk before the new content.
    """

    async def set(self, key: str, value: Buffer) -> None:
        """Write a file whole."""
        await asyncio.to_thread(replace_file, self.root / key, value.to_bytes())


class FieldArray:
    """Steps of one field; longer than the committed steps while an episode is being written."""

    def __init__(self, folder: Path, field: FieldSpec, writable: bool) -> None:
        """Open the array of `field` inside the dataset `folder`.

        Raises:
            DatasetError: it is missing, or differs from the specification.
        """
        self.path = folder / field.name
        self.field = field
        try:
            array = zarr.open_array(DurableStore(self.path), mode="r+" if writable else "r")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"field '{field.name}' of dataset '{folder}' cannot be opened ({error}); restore it from a copy"
            ) from error
        if array.shape[1:] != field.shape or array.dtype != np.dtype(field.dtype):
            raise DatasetError(
                f"field '{field.name}' of dataset '{folder}' holds {array.dtype} of shape {array.shape[1:]}, but its "
                f"specification says {field.dtype} of shape {field.shape}; restore the dataset from a copy"
            )
        self._array: zarr.Array[Any] = array.with_config({"write_empty_chunks": True})

    @classmethod
    def create(cls, folder: Path, field: FieldSpec, chunking: Chunking) -> "FieldArray":
        """An array without steps."""
        step_bytes = field.size * np.dtype(field.dtype).itemsize
        chunk_steps = max(1, chunking.chunk_bytes // step_bytes)
        zarr.create_array(
            folder / field.name,
            shape=(0, *field.shape),
            dtype=field.dtype,
            chunks=(chunk_steps, *field.shape),
            shards=(chunk_steps * chunking.chunks_per_shard, *field.shape),
            # The checksum turns a damaged or half-replaced chunk into an error instead of wrong numbers.
            compressors=[BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec()],
            # Dots keep all shards in one folder, which is then one folder to flush.
            chunk_key_encoding={"name": "default", "separator": "."},
            dimension_names=("step", *(f"axis_{axis}" for axis in range(len(field.shape)))),
        )
        return cls(folder, field, writable=True)

    @property
    def length(self) -> int:
        """Steps in the array, committed or not."""
        return int(self._array.shape[0])

    def require(self, num_steps: int) -> None:
        """Check that the committed steps are there: zarr itself reads a missing shard as zeros.

        Raises:
            DatasetError: the array is too short or a file is missing.
        """
        present = {path.name for path in self.path.iterdir()}
        absent = [name for name in self._shard_names(0, num_steps) if name not in present]
        # A listing may miss a file that a writer is replacing just then.
        absent = [name for name in absent if not (self.path / name).exists()]
        if self.length < num_steps or absent:
            found = f"file '{absent[0]}' is missing" if absent else f"only {self.length} steps are there"
            raise DatasetError(
                f"field '{self.field.name}' should hold {num_steps} steps in '{self.path}', but {found}; "
                f"the dataset was copied incompletely or damaged: copy it again"
            )

    def read(self, start: int, stop: int) -> Shaped[ndarray, "steps *field"]:
        """Steps `start` to `stop` (exclusive).

        Raises:
            DatasetError: the files are damaged.
        """
        failure: Exception | None = None
        for _ in range(READ_ATTEMPTS):
            try:
                return np.asarray(self._array[start:stop])
            except (OSError, ValueError, RuntimeError) as error:
                failure = error
        raise DatasetError(
            f"steps {start} to {stop} of field '{self.field.name}' in '{self.path}' are damaged ({failure}); "
            f"restore the dataset from a copy"
        ) from failure

    def write(self, start: int, values: Shaped[ndarray, "steps *field"]) -> None:
        """Make `values` the last steps, from `start` on, and wait until they are on the disk."""
        stop = start + len(values)
        self._array.resize((stop, *self.field.shape))
        self._array[start:stop] = values
        sync(self.path)

    def truncate(self, num_steps: int) -> int:
        """Drop everything behind the first `num_steps` steps; returns how many steps that were."""
        for unfinished in self.path.glob(f"*{UNFINISHED}"):
            unfinished.unlink()
        dropped = self.length - num_steps
        if dropped:
            self._array.resize((num_steps, *self.field.shape))
        return dropped

    def _shard_names(self, start: int, stop: int) -> list[str]:
        shard_steps = (self._array.shards or self._array.chunks)[0]
        suffix = ".0" * len(self.field.shape)
        return [f"c.{row}{suffix}" for row in range(start // shard_steps, math.ceil(stop / shard_steps))]


class Table:
    """Arrays of equal length: all fields of the steps, or of one stream."""

    def __init__(self, folder: Path, fields: SpaceSpec, writable: bool, length: int) -> None:
        """Open the arrays of `fields` inside `folder`; each must hold at least `length` steps.

        Raises:
            DatasetError: one is missing, too short, or differs from its specification.
        """
        self._folder = folder
        self._arrays = {name: FieldArray(folder, field, writable) for name, field in fields.items()}
        for array in self._arrays.values():
            array.require(length)

    def read(self, name: str, start: int, stop: int) -> Shaped[ndarray, "steps *field"]:
        """Steps `start` to `stop` (exclusive) of one field.

        Raises:
            DatasetError: there is no such field, or its files are damaged.
        """
        if name not in self._arrays:
            raise DatasetError(f"dataset '{self._folder}': " + unknown_name("field", name, self._arrays))
        return self._arrays[name].read(start, stop)

    def read_all(self, start: int, stop: int) -> dict[str, ndarray]:
        """Steps `start` to `stop` (exclusive) of every field.

        Raises:
            DatasetError: the files are damaged.
        """
        return {name: array.read(start, stop) for name, array in self._arrays.items()}

    def write(self, start: int, parts: Sequence[Mapping[str, ndarray]]) -> None:
        """Make these, behind each other, the last steps, from `start` on, and wait until they are on the disk."""
        for name, array in self._arrays.items():
            # One alone may be larger than the memory, mapped from a file.
            array.write(start, parts[0][name] if len(parts) == 1 else np.concatenate([part[name] for part in parts]))

    def truncate(self, length: int) -> int:
        """Drop everything behind the first `length` steps; returns how many steps that were."""
        return max(array.truncate(length) for array in self._arrays.values())

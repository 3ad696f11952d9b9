"""Rings of records in shared memory: one process writes, many read, and nobody ever waits for anybody.

A record is numbers and arrays of fixed shapes; nothing is pickled. There is no lock that a killed writer could hold:
before it touches a slot it writes the record's number in front, and behind when it is done, so a reader sees whether
what it copied is whole. A checksum says the same on processors that reorder what they store.

The memory is a file below `/dev/shm`, which is what POSIX shared memory is on Linux. `multiprocessing.shared_memory`
is not used: until Python 3.13 a process that only reads takes the memory away from all when it ends.
"""

import json
import mmap
import os
import secrets
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from alula.core.errors import DeviceError

FOLDER = Path("/dev/shm")
MAGIC = int.from_bytes(b"alularng", "little")
MAGIC_AT, COUNT, SLOTS, LAYOUT_BYTES = range(4)
"""Places in the header, 8 bytes each: `COUNT` is the number of records that have been completed."""
HEADER = 4 * 8
BEGUN, COMPLETED, CHECKSUM = range(3)
"""Places in front of a record in its slot, 8 bytes each."""
FRONT = 3 * 8
LINE = 64
"""Slots begin at multiples of this, a processor's cache line [byte]."""
TRIES = 100
"""Times that the newest record is tried to be had before the writer can overwrite it: our choice."""

Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""Element type by NumPy's name, and shape, of every field."""


class Ring:
    """A ring, as one process sees it; made by `create` or `attach`."""

    def __init__(self, path: Path, owner: bool) -> None:
        self.path, self._owner = path, owner
        with path.open("r+b") as file:
            memory = mmap.mmap(file.fileno(), 0)
        # The memory lives as long as these arrays.
        self._header = np.frombuffer(memory, "<u8", 4)
        slots, length = int(self._header[SLOTS]), int(self._header[LAYOUT_BYTES])
        layout = json.loads(memory[HEADER : HEADER + length])
        self.dtype = _record(layout)
        """Of a record."""
        start, stride = _aligned(HEADER + length), _aligned(FRONT + self.dtype.itemsize)
        slot = np.dtype({"names": ["front", "record"], "formats": [("<u8", 3), self.dtype], "offsets": [0, FRONT],
                         "itemsize": stride})  # fmt: skip
        self._slots = np.frombuffer(memory, slot, slots, start)
        self._bytes = np.frombuffer(memory, "u1", slots * stride, start).reshape(slots, stride)

    @classmethod
    def create(cls, layout: Layout, slots: int = 4) -> "Ring":
        """A new, empty ring, which is gone once it is closed by whoever made it.

        Args:
            layout: Element type and shape of every field.
            slots: Records that it holds; at least 2, so that one is whole while another is written.

        Raises:
            DeviceError: there is no memory for it, or a field is not made of numbers, or of none.
        """
        dtype, description = _record(layout), json.dumps(layout).encode()
        size = _aligned(HEADER + len(description)) + slots * _aligned(FRONT + dtype.itemsize)
        path = FOLDER / f"alula-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600), "r+b") as file:
                # Without this, memory that runs out would kill whoever writes.
                os.posix_fallocate(file.fileno(), 0, size)
                header = np.array([MAGIC, 0, slots, len(description)], "<u8")
                file.write(header.tobytes() + description)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise DeviceError(
                f"no shared memory of {size} bytes in {FOLDER}: {error.strerror}. Free some there, make it larger "
                "(docker run --shm-size), or ask for smaller pictures"
            ) from None
        return cls(path, owner=True)

    @classmethod
    def attach(cls, path: Path) -> "Ring":
        """A ring that another process has made, to read it, or to be its only writer.

        Raises:
            DeviceError: there is none.
        """
        try:
            with path.open("rb") as file:
                known = file.read(8) == MAGIC.to_bytes(8, "little")
        except OSError as error:
            raise DeviceError(f"there is no ring {path}: {error.strerror}; has its owner ended?") from None
        if not known:
            raise DeviceError(f"{path} is no ring of shared memory; give the path of one")
        return cls(path, owner=False)

    @property
    def count(self) -> int:
        """Number of records that have been written so far, by all its writers; the newest record's number."""
        return int(self._header[COUNT])

    def write(self, **fields: Shaped[ndarray, "..."] | float) -> int:
        """Add a record; returns its number, from 1 on.

        Raises:
            DeviceError: a field is missing or unknown, or has another shape or type.
        """
        self._require_fit(fields)
        number = self.count + 1
        index = (number - 1) % len(self._slots)
        front, record = self._slots["front"][index], self._slots["record"][index : index + 1]
        front[BEGUN] = number
        for name, value in fields.items():
            np.copyto(record[name][0, ...], value, casting="same_kind")
        front[CHECKSUM] = zlib.crc32(self._bytes[index, FRONT : FRONT + self.dtype.itemsize].data)
        front[COMPLETED] = number
        self._header[COUNT] = number
        return number

    def _require_fit(self, fields: Mapping[str, ndarray | float]) -> None:
        assert self.dtype.names is not None
        if set(fields) != set(self.dtype.names):
            raise DeviceError(f"a record of {self.path.name} has {sorted(self.dtype.names)}, not {sorted(fields)}")
        for name, value in fields.items():
            expected, found = self.dtype[name], np.asarray(value)
            if found.shape != expected.shape or not np.can_cast(found.dtype, expected.base, "same_kind"):
                raise DeviceError(
                    f"{name} of a record of {self.path.name} has shape {found.shape} and type {found.dtype}; "
                    f"it takes {expected.shape} and {expected.base}"
                )

    def read(self, number: int) -> np.void | None:
        """Copy of the record of this number; None where it is not there yet, or not any more, or not whole."""
        index = (number - 1) % len(self._slots)
        front = self._slots["front"][index]
        if number < 1 or front[COMPLETED] != number:
            return None
        copy = self._bytes[index, FRONT : FRONT + self.dtype.itemsize].copy()
        if front[CHECKSUM] != zlib.crc32(copy.data) or front[BEGUN] != number:
            return None
        record: np.void = copy.view(self.dtype)[0]
        return record

    def newest(self, after: int = 0) -> tuple[int, np.void] | None:
        """Number and copy of the newest record, if there is one with a number above `after`."""
        for _ in range(TRIES):
            number = self.count
            if number <= after:
                return None
            record = self.read(number)
            if record is not None:
                return number, record
        return None

    def close(self) -> None:
        """Let go of it; whoever made it takes it away, which others that are attached do not feel."""
        if hasattr(self, "_header"):
            del self._header, self._slots, self._bytes
        if self._owner:
            self.path.unlink(missing_ok=True)


def _aligned(size: int) -> int:
    return -(-size // LINE) * LINE


def _record(layout: Mapping[str, Any]) -> np.dtype[np.void]:
    """Type of a record.

    Raises:
        DeviceError: a field is not made of numbers, or of none.
    """
    for name, (kind, shape) in layout.items():
        if np.dtype(kind).kind not in "biuf":
            raise DeviceError(f"field {name} of a ring has elements of type {kind}; only numbers can be shared")
        if 0 in shape:
            raise DeviceError(f"field {name} of a ring has shape {tuple(shape)}: nothing to share")
    return np.dtype([(name, np.dtype(kind).newbyteorder("<"), tuple(shape)) for name, (kind, shape) in layout.items()])

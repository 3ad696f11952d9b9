"""Fields that are too large for memory: uncompressed copies on disk, of which the pages that are needed are mapped.

    <cache>/<fingerprint of the dataset>/
        <field>.<dtype>    the values of all steps behind each other

A copy is built once, as a draft that gets its name when it is complete and on the disk; whoever finds the name may
rely on it, and any number of processes may. One builds at a time, the others wait for it.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from mmap import ACCESS_READ, MADV_DONTNEED, mmap
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped
from numpy import ndarray

from alula.core.errors import DatasetError
from alula.datasets.commits import sync
from alula.datasets.store import EpisodeStore

FOLDER = "__windows__"
"""Inside the dataset, where it may be written; copies of its earlier states are removed. No field has this name."""
BLOCK_BYTES = 8 * 2**20
"""Read from the dataset at a time."""
FOLIO_BYTES = 2 * 2**20
"""A page fault maps what lies around it in the same large folio of the page cache: up to so much (Linux)."""


class MappedFields:
    """Fields gathered from mapped copies, never keeping more than a number of bytes resident.

    Pages that were let go stay in the kernel's page cache while memory is free, so returning to them is quick.
    """

    def __init__(self, store: EpisodeStore, names: Sequence[str], cache: Path | None, resident_bytes: int) -> None:
        """Map the copies, after building those that are missing.

        Args:
            store: Dataset.
            names: Fields to map.
            cache: Folder for the copies; None for one inside the dataset, or the user's where that is read-only.
            resident_bytes: Most bytes of mapped pages at any time, but at least the pages of one row of `steps`.

        Raises:
            DatasetError: the dataset is damaged, or a copy cannot be written.
        """
        self._maps = {name: _mapped(store, name, cache) for name in names}
        self._rows = {
            name: np.frombuffer(pages, window_dtype(store, name)).reshape(-1, *store.fields[name].shape)
            for name, pages in self._maps.items()
        }
        self._resident_bytes = resident_bytes
        self._touched = 0

    def take(self, name: str, steps: Int64[ndarray, "batch *span"]) -> Shaped[ndarray, "batch *values"]:
        """Values of field `name` at these steps; those of one row lie close together."""
        rows = self._rows[name]
        values = np.empty((*steps.shape, *rows.shape[1:]), rows.dtype)
        worst = 2 * FOLIO_BYTES + values[:1].nbytes
        at_once = max(1, self._resident_bytes // worst)
        for start in range(0, len(steps), at_once):
            part = slice(start, start + at_once)
            if self._touched + at_once * worst > self._resident_bytes:
                for pages in self._maps.values():
                    pages.madvise(MADV_DONTNEED)
                self._touched = 0
            rows.take(steps[part], axis=0, out=values[part], mode="clip")  # Which writes into `out` without a buffer.
            self._touched += len(steps[part]) * worst
        return values


def window_dtype(store: EpisodeStore, name: str) -> str:
    """Type of a field in windows: images stay uint8, everything else becomes float32."""
    return "uint8" if store.fields[name].dtype == "uint8" and name != "action" else "float32"


def window_bytes(store: EpisodeStore, name: str) -> int:
    """Size of all steps of a field in its type in windows."""
    return store.num_steps * store.fields[name].size * np.dtype(window_dtype(store, name)).itemsize


def load(store: EpisodeStore, name: str) -> Shaped[ndarray, "steps *field"]:
    """All steps of a field, in memory."""
    values = np.empty((store.num_steps, *store.fields[name].shape), window_dtype(store, name))
    start = 0
    for block in _blocks(store, name):
        values[start : start + len(block)] = block
        start += len(block)
    return values


def _blocks(store: EpisodeStore, name: str) -> Iterator[Shaped[ndarray, "steps *field"]]:
    """All steps of a field in its type in windows, a few at a time."""
    field = store.fields[name]
    block_steps = max(1, BLOCK_BYTES // (field.size * np.dtype(field.dtype).itemsize))
    for start in range(0, store.num_steps, block_steps):
        yield np.ascontiguousarray(store.read(name, start, start + block_steps), window_dtype(store, name))


def _mapped(store: EpisodeStore, name: str, cache: Path | None) -> mmap:
    """The copy of a field, from the first folder that has it; else built in the first that may be written."""
    inside = store.path / FOLDER
    users = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "alula" / "windows"
    folders = (inside, users) if cache is None else (cache,)
    copies = [folder / store.fingerprint / f"{name}.{window_dtype(store, name)}" for folder in folders]
    num_bytes = window_bytes(store, name)
    for copy in copies:
        if (pages := _open(copy, num_bytes)) is not None:
            return pages
    copy = copies[0] if cache is not None or os.access(store.path, os.W_OK) else copies[1]
    try:
        with _building(copy.parents[1]):
            if (pages := _open(copy, num_bytes)) is None:
                _build(store, name, copy)
                pages = _open(copy, num_bytes)
                assert pages is not None
            if copy.parents[1] == inside:
                _remove_outdated(inside, store.fingerprint)
    except OSError as error:
        raise DatasetError(
            f"cannot write {num_bytes / 2**20:,.1f} MiB to '{copy}' for windows of dataset '{store.path}': "
            f"{error.strerror}; give another folder as cache, raise memory_limit, or choose fewer fields"
        ) from error
    return pages


def _open(copy: Path, num_bytes: int) -> mmap | None:
    try:
        with copy.open("rb") as file:
            complete = os.fstat(file.fileno()).st_size == num_bytes
            return mmap(file.fileno(), 0, access=ACCESS_READ) if complete else None
    except OSError:
        return None  # Not built yet.


@contextmanager
def _building(folder: Path) -> Iterator[None]:
    """No other process builds in `folder` meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # The kernel drops it when the process dies.
        yield


def _build(store: EpisodeStore, name: str, copy: Path) -> None:
    copy.parent.mkdir(exist_ok=True)
    draft = copy.with_name(f"{copy.name}.draft")
    try:
        with draft.open("wb") as file:
            for block in _blocks(store, name):
                file.write(block.data)
        sync(draft)
        draft.replace(copy)
    finally:
        draft.unlink(missing_ok=True)


def _remove_outdated(folder: Path, fingerprint: str) -> None:
    """Copies of earlier states; whoever has mapped one keeps it."""
    for other in folder.iterdir():
        if other.is_dir() and other.name != fingerprint:
            shutil.rmtree(other)

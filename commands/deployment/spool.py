"""Room for the pictures of a run that does not grow in memory."""

import os
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from alula.core.spaces import FieldSpec
from alula.real_robot.priority import BESIDE, hurry


class Spool:
    """Arrays that arrive one at a time, in files without names: they vanish with the process, however it ends.

    A thread writes them, so that nobody waits for the disk. What the disk does not take stays in memory, and is tried
    again with the next array, and by `rows`.

    Args:
        fields: Of the arrays.
        folder: On the disk to write to.

    Raises:
        OSError: nothing can be written there.
    """

    def __init__(self, fields: Iterable[FieldSpec], folder: Path) -> None:
        self._fields = {field.name: field for field in fields}
        self._files = {name: TemporaryFile(dir=folder) for name in self._fields}  # noqa: SIM115 - `close` does
        self._lengths = dict.fromkeys(self._fields, 0)
        self._waiting = deque[tuple[str, int, ndarray]]()
        self._lock, self._news = threading.Lock(), threading.Semaphore(0)
        self._closed = False
        if self._files:
            threading.Thread(target=self._work, daemon=True).start()

    def append(self, name: str, value: Shaped[ndarray, "*field"]) -> int:
        """Keep a copy of an array; returns its row. Takes no longer than copying."""
        row = self._lengths[name]
        self._waiting.append((name, row, np.array(value, self._fields[name].dtype, order="C")))
        self._lengths[name] += 1
        self._news.release()
        return row

    def rows(self, name: str) -> Shaped[ndarray, "rows *field"]:
        """All arrays of a field, read from the disk where they are looked at.

        Raises:
            OSError: the disk is full, or broken. The arrays are still there: it may be called again.
        """
        self._write()
        field, length = self._fields[name], self._lengths[name]
        if not length:
            return np.empty((0, *field.shape), field.dtype)
        return np.memmap(self._files[name], field.dtype, "r", shape=(length, *field.shape))

    def close(self) -> None:
        """Forget everything; rows that are in use remain."""
        self._closed = True
        self._news.release()
        with self._lock:
            for file in self._files.values():
                file.close()

    def _work(self) -> None:
        hurry(BESIDE)
        while self._news.acquire() and not self._closed:
            with suppress(OSError):
                self._write()

    def _write(self) -> None:
        with self._lock:
            while self._waiting and not self._closed:
                name, row, value = self._waiting[0]
                left, place = value.reshape(-1).view(np.uint8).data, row * value.nbytes
                while left:
                    written = os.pwrite(self._files[name].fileno(), left, place)
                    left, place = left[written:], place + written
                self._waiting.popleft()

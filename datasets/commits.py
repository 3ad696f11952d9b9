"""The list of committed episodes, which alone decides what a dataset contains.

One episode is one line of JSON in `episodes.jsonl`: where it ends, in the steps and in every stream, a digest of its
content, its metadata. The line is written and flushed to the disk after the episode's arrays are, so a recorder that
is killed leaves at most steps that no line claims. A last line without its newline was never finished and counts as
absent.
"""

import errno
import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from alula.core.errors import DatasetError

EPISODES_FILE = "episodes.jsonl"
"""In a dataset's folder."""
UNFINISHED = ".partial"
"""Suffix of files that a killed process may leave behind."""


@dataclass(frozen=True)
class Commit:
    """What is recorded of one finished episode."""

    end: int
    """Index of the step after its last one, counted from the start of the dataset."""
    digest: str
    """Hash of its arrays: equal for equal content."""
    metadata: dict[str, Any]
    stream_ends: dict[str, int] = field(default_factory=dict)
    """The same index for every stream, counted in its samples."""


def encode_json(values: Mapping[str, Any], owner: str) -> str:
    """`values` as one line of JSON.

    Args:
        values: Plain values.
        owner: Whose metadata this is, for the message.

    Raises:
        DatasetError: a value cannot be written as JSON.
    """
    try:
        return json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"metadata of {owner} cannot be written as JSON: {error}; allowed are finite numbers, strings, booleans, "
            f"None, lists and dicts of them (arrays: use .tolist()). Nothing was written"
        ) from error


def sync(path: Path) -> None:
    """Wait until the file or folder is on the disk, so that it survives a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Exchange the content of a file: whoever opens it finds the old or the new one, whole, also after a power failure.

    Only after the folder is flushed, too, it is sure to be the new one.

    Raises:
        OSError: the disk is full or failed; then nothing has changed.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{UNFINISHED}")
    try:
        draft.write_bytes(content)
        sync(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@dataclass
class CommitLog:
    """The committed episodes of one dataset, as of the moment it was opened, and the file they are listed in."""

    path: Path
    start: Commit
    """Stands before the first episode: all ends are 0."""
    commits: list[Commit] = field(default_factory=list)
    num_bytes: int = 0
    """Length of the finished lines; what lies behind was not committed."""
    _hash: "hashlib.blake2b" = field(default_factory=lambda: hashlib.blake2b(digest_size=16))

    @classmethod
    def read(cls, path: Path, streams: Iterable[str] = ()) -> "CommitLog":
        """The finished lines of `path`.

        Args:
            path: The file.
            streams: Names of the dataset's streams; every line says where the episode ends in each.

        Raises:
            DatasetError: the file cannot be read, or a finished line is damaged.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DatasetError(f"cannot read '{path}': {error.strerror}; check the dataset's permissions") from error
        finished = content[: content.rfind(b"\n") + 1]
        log = cls(path, Commit(0, "", {}, dict.fromkeys(streams, 0)), num_bytes=len(finished))
        for number, line in enumerate(finished.splitlines(), start=1):
            log.commits.append(log._parse(number, line))
        log._hash.update(finished)
        return log

    def _parse(self, number: int, line: bytes) -> Commit:
        try:
            commit = Commit(**json.loads(line))
            before, after = _ends(self.last), _ends(commit)
            if before.keys() != after.keys() or any(after[name] < before[name] for name in before):
                raise ValueError(f"ends {after} do not follow {before}")
        except (TypeError, ValueError, AttributeError) as error:
            raise DatasetError(
                f"line {number} of '{self.path}' is damaged ({error}); restore the file from a copy, or cut it before "
                f"that line to keep the first {number - 1} episodes"
            ) from error
        return commit

    @property
    def last(self) -> Commit:
        """The last episode's, or `start` where there is none."""
        return self.commits[-1] if self.commits else self.start

    def before(self, index: int) -> Commit:
        """The one that ends where episode `index` starts."""
        return self.commits[index - 1] if index else self.start

    @property
    def fingerprint(self) -> str:
        """Hash of the committed episodes, contents and metadata; changes with every commit."""
        return self._hash.hexdigest()

    @contextmanager
    def writing(self) -> Iterator[FileIO]:
        """The file, positioned behind the last commit, while no other process may write.

        An unfinished last line is cut off.

        Raises:
            DatasetError: another process is writing, or has written since this log was read; or no permission.
        """
        try:
            file = self.path.open("r+b", buffering=0)
        except OSError as error:
            raise DatasetError(
                f"cannot write to dataset '{self.path.parent}': {error.strerror}; check its permissions, or copy it "
                f"to a folder that you may write to"
            ) from error
        with file:
            try:
                # The kernel drops this lock when the process dies, however it dies.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DatasetError(
                    f"another process is writing to dataset '{self.path.parent}'; wait for it, or record elsewhere"
                ) from error
            file.seek(self.num_bytes)
            replaced = not os.path.samestat(os.fstat(file.fileno()), os.stat(self.path))
            if replaced or b"\n" in file.readall() or file.tell() < self.num_bytes:
                raise DatasetError(
                    f"dataset '{self.path.parent}' was changed by another writer since it was opened; open it again"
                )
            file.truncate(self.num_bytes)
            file.seek(self.num_bytes)
            yield file

    def append(self, file: FileIO, commits: Sequence[Commit]) -> None:
        """Commit episodes whose arrays are on the disk already; `file` comes from `writing`.

        Raises:
            OSError: the disk is full or failed; then nothing was committed.
        """
        lines = _encode(commits)
        # One write: a kill between two lines would be harmless, too, but a reader would see part of a batch.
        try:
            if file.write(lines) < len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(self.num_bytes)
            raise
        self.commits += commits
        self.num_bytes += len(lines)
        self._hash.update(lines)

    def replace(self, commits: Sequence[Commit]) -> None:
        """Exchange all lines at once, while `writing`; readers and writers that have the dataset open keep the old.

        Raises:
            OSError: the disk is full or failed; then nothing has changed.
        """
        replace_file(self.path, _encode(commits))
        sync(self.path.parent)


def _encode(commits: Sequence[Commit]) -> bytes:
    lines = []
    for commit in commits:
        values = asdict(commit)
        if not commit.stream_ends:
            del values["stream_ends"]  # As in format 1.
        lines.append(json.dumps(values, allow_nan=False).encode() + b"\n")
    return b"".join(lines)


def _ends(commit: Commit) -> dict[str, int]:
    return {"steps": commit.end, **{f"stream '{name}'": end for name, end in commit.stream_ends.items()}}

"""The list of committed episodes, which alone decides what a dataset contains.

One episode is one line of JSON in `episodes.jsonl`: where it ends, a digest of its content, its metadata. The line
is written and flushed to the disk after the episode's arrays are, so a recorder that is killed leaves at most
steps that no line claims. A last line without its newline was never finished and counts as absent.
"""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from alula.core.errors import DatasetError


@dataclass(frozen=True)
class Commit:
    """What is recorded of one finished episode."""

    end: int
    """Index of the step after its last one, counted from the start of the dataset."""
    digest: str
    """Hash of its arrays: equal for equal content."""
    metadata: dict[str, Any]


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


@dataclass
class CommitLog:
    """The committed episodes of one dataset, as of the moment it was opened, and the file they are listed in."""

    path: Path
    commits: list[Commit] = field(default_factory=list)
    num_bytes: int = 0
    """Length of the finished lines; what lies behind was not committed."""

    @classmethod
    def read(cls, path: Path) -> "CommitLog":
        """The finished lines of `path`.

        Raises:
            DatasetError: the file cannot be read, or a finished line is damaged.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DatasetError(f"cannot read '{path}': {error.strerror}; check the dataset's permissions") from error
        finished = content[: content.rfind(b"\n") + 1]
        log = cls(path, num_bytes=len(finished))
        for number, line in enumerate(finished.splitlines(), start=1):
            log.commits.append(log._parse(number, line))
        return log

    def _parse(self, number: int, line: bytes) -> Commit:
        try:
            commit = Commit(**json.loads(line))
            if commit.end <= self.num_steps:
                raise ValueError(f"end {commit.end} does not follow {self.num_steps}")
        except (TypeError, ValueError) as error:
            raise DatasetError(
                f"line {number} of '{self.path}' is damaged ({error}); restore the file from a copy, or cut it before "
                f"that line to keep the first {number - 1} episodes"
            ) from error
        return commit

    @property
    def num_steps(self) -> int:
        """Committed steps of all episodes together."""
        return self.commits[-1].end if self.commits else 0

    @property
    def fingerprint(self) -> str:
        """Hash of the committed episodes, contents and metadata; changes with every commit."""
        with self.path.open("rb") as file:
            return hashlib.blake2b(file.read(self.num_bytes), digest_size=16).hexdigest()

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
            if b"\n" in file.readall() or file.tell() < self.num_bytes:
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
        lines = b"".join(json.dumps(asdict(commit), allow_nan=False).encode() + b"\n" for commit in commits)
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

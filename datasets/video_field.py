"""A field of images that is stored as one video file per episode instead of an array.

    <dataset>/
        videos/<field>/<episode>.mp4    none for an episode without steps
        .cache/<field>.frames           cache: the decoded frames of all steps behind each other
        .cache/<field>.json             the digests of the episodes that the cache holds

Committed episodes never change, so the cache only grows: whoever has mapped it keeps what it sees.
"""

import fcntl
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile, gettempdir
from typing import IO

import numpy as np

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec
from alula.datasets.commits import Commit, replace_file, sync
from alula.datasets.video import Frames, VideoSettings, encode_video, read_video

VIDEOS_FOLDER = "videos"
CACHE_FOLDER = ".cache"


class VideoField:
    """The videos of one field."""

    def __init__(self, folder: Path, field: FieldSpec, settings: VideoSettings, rate: float) -> None:
        """Nothing is opened yet.

        Args:
            folder: Of the dataset.
            field: The images of one step.
            settings: How to encode.
            rate: Steps per second [Hz], for whoever plays a video.
        """
        self.field = field
        self.settings = settings
        self._rate = rate
        self._folder = folder
        self._path = folder / VIDEOS_FOLDER / field.name
        self._cache = folder / CACHE_FOLDER
        self._mapped: Frames = np.empty((0, *field.shape), np.uint8)

    def create(self) -> None:
        """Make the folder.

        Raises:
            DatasetError: pictures of this size cannot be encoded.
        """
        self.encode(np.zeros((1, *self.field.shape), np.uint8))
        self._path.mkdir(parents=True)

    def file(self, index: int) -> Path:
        """The video of one episode."""
        return self._path / f"{index:06d}.mp4"

    def require(self, commits: Sequence[Commit]) -> None:
        """Check that the committed videos are there.

        Raises:
            DatasetError: one is missing.
        """
        present = {path.name for path in self._path.glob("*.mp4")}
        for index, length in enumerate(_lengths(commits)):
            if length and self.file(index).name not in present:
                raise DatasetError(
                    f"video '{self.file(index)}' is missing; the dataset was copied incompletely or damaged: copy it "
                    f"again"
                )

    def encode(self, frames: Frames) -> bytes:
        """The content of a video file of these frames; nothing where there are none.

        Raises:
            DatasetError: pictures of this size cannot be encoded, or there is no room for temporary files.
        """
        if len(frames) == 0:
            return b""
        try:
            with NamedTemporaryFile(suffix=".mp4") as file:
                encode_video(frames, Path(file.name), self._rate, self.settings)
                return Path(file.name).read_bytes()
        except OSError as error:
            raise DatasetError(
                f"cannot encode {len(frames)} frames of '{self.field.name}' in '{gettempdir()}': {error.strerror}; "
                f"free some space there, or set TMPDIR to another folder. Nothing was written"
            ) from error

    def write(self, index: int, contents: Sequence[bytes]) -> None:
        """Make these the videos of the episodes from `index` on, and wait until they are on the disk."""
        for episode, content in enumerate(contents, start=index):
            # What an append that failed has left here.
            self.file(episode).unlink(missing_ok=True)
            if content:
                self.file(episode).write_bytes(content)
                sync(self.file(episode))
        sync(self._path)

    def content(self, index: int) -> bytes:
        """The file of one episode as it is; nothing where it has no steps."""
        return self.file(index).read_bytes() if self.file(index).exists() else b""

    def truncate(self, num_episodes: int) -> int:
        """Drop the videos behind the first `num_episodes` episodes; returns how many those were."""
        surplus = [path for path in self._path.glob("*.mp4") if int(path.stem) >= num_episodes]
        for path in surplus:
            path.unlink()
        return len(surplus)

    def read_episode(self, index: int, length: int) -> Frames:
        """The frames of one episode, decoded.

        Raises:
            DatasetError: the video is damaged.
        """
        frames = np.empty((length, *self.field.shape), np.uint8)
        if length:
            read_video(self.file(index), frames)
        return frames

    def frames(self, commits: Sequence[Commit]) -> Frames:
        """The frames of all these episodes, mapped into memory from the cache; read-only.

        What the cache lacks is decoded into it first; one process does it while others wait. A dataset that may not
        be written is decoded into a temporary file.

        Raises:
            DatasetError: a video is damaged, or the cache cannot be written.
        """
        num_steps = commits[-1].end if commits else 0
        if len(self._mapped) < num_steps:
            try:
                self._mapped = self._map(commits, num_steps)
            except OSError as error:
                raise DatasetError(
                    f"cannot decode {num_steps * self.field.size / 2**20:,.1f} MiB of video into '{self._cache}': "
                    f"{error.strerror}; free some space"
                ) from error
        return self._mapped[:num_steps]

    def _map(self, commits: Sequence[Commit], num_steps: int) -> Frames:
        shape = (num_steps, *self.field.shape)
        if not os.access(self._folder, os.W_OK):
            with TemporaryFile() as file:
                self._decode(file, commits, 0)
                return np.memmap(file, np.uint8, "r", shape=shape)
        with self._locked_cache() as (path, digests_path):
            self._update(path, digests_path, commits)
            return np.memmap(path, np.uint8, "r", shape=shape)

    @contextmanager
    def _locked_cache(self) -> Iterator[tuple[Path, Path]]:
        """The two files of the cache, while no other process looks at them."""
        self._cache.mkdir(exist_ok=True)
        with (self._cache / f"{self.field.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # The kernel drops it when the process dies.
            yield self._cache / f"{self.field.name}.frames", self._cache / f"{self.field.name}.json"

    def _update(self, path: Path, digests_path: Path, commits: Sequence[Commit]) -> None:
        """Make the cache hold at least these episodes."""
        wanted = [commit.digest for commit in commits]
        cached = _read_digests(digests_path) if path.exists() else []
        common = min(len(cached), len(wanted))
        if cached[:common] != wanted[:common]:
            cached, common = [], 0
        if not cached:
            # Of another dataset, or none: a new file, so that whoever has mapped the old one keeps it.
            path.unlink(missing_ok=True)
            path.touch()
        if common == len(wanted):
            return
        with path.open("r+b") as file:
            self._decode(file, commits, common)
            os.fsync(file.fileno())
        replace_file(digests_path, json.dumps(wanted).encode())

    def _decode(self, file: IO[bytes], commits: Sequence[Commit], first: int) -> None:
        """Write the frames of the episodes from `first` on to where they belong in `file`."""
        file.seek((commits[first - 1].end if first else 0) * self.field.size)
        for index, length in enumerate(_lengths(commits)):
            if index >= first and length:
                file.write(self.read_episode(index, length).data)
        file.flush()


def _lengths(commits: Sequence[Commit]) -> list[int]:
    ends = [0, *(commit.end for commit in commits)]
    return [stop - start for start, stop in itertools.pairwise(ends)]


def _read_digests(path: Path) -> list[str]:
    try:
        digests: list[str] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return []  # Absent or damaged: it is only a cache.
    return digests

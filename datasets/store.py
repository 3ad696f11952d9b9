"""The native dataset: a zarr v3 folder with one array per field, to which episodes are added whole or not at all.

    <dataset>/
        zarr.json          format, observation, action, extra and stream specifications, metadata (`schema.py`)
        episodes.jsonl     one line per committed episode (`commits.py`)
        <field>/           `observation.*`, `action`, `next.*`: steps of all episodes behind each other (`arrays.py`)
        streams/<stream>/<field>/    the same for samples with a clock of their own
        videos/<field>/    images that are stored as video instead (`video_field.py`)
        statistics.npz     cache (`statistics.py`)

Any number of processes may read while one appends; each sees the episodes that were committed when it opened.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Int64, Shaped
from numpy import ndarray

from alula.core.errors import DatasetError, unknown_name
from alula.core.spaces import SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.arrays import Chunking, FieldArray, Table
from alula.datasets.commits import EPISODES_FILE, UNFINISHED, Commit, CommitLog
from alula.datasets.drafts import building
from alula.datasets.formats.format import NO_FIELDS, Contents
from alula.datasets.schema import (
    STREAMS_FOLDER,
    digest,
    fitted,
    plain,
    read_schema,
    require_same_fields,
    require_storable,
    require_video,
    schema_attributes,
    step_fields,
)
from alula.datasets.video import Frames, VideoSettings
from alula.datasets.video_field import VideoField

UNKNOWN_RATE = 30.0
"""Steps per second [Hz] at which a video plays where nothing says how fast the steps were."""


class EpisodeStore:
    """Recorded episodes on disk."""

    def __init__(
        self, path: Path, append: bool, contents: Contents, video: Mapping[str, VideoSettings], log: CommitLog
    ) -> None:
        """Use `open` or `create`."""
        self.path = path
        self.contents = contents
        """Specifications and metadata together, as `datasets/formats` pass them on."""
        self.fields: SpaceSpec = step_fields(contents)
        """Every field of a step: observation, action, outcome, extra."""
        self.video: dict[str, VideoSettings] = dict(video)
        """Observation fields that are stored as video, and how."""
        self.repaired: str | None = None
        """What opening for append had to drop after a recorder was killed; None where nothing was."""
        self._append = append
        self._log = log
        in_arrays = SpaceSpec(tuple(field for field in self.fields.values() if field.name not in video))
        self._steps = Table(path, in_arrays, append, log.last.end)
        self._videos = _video_fields(path, contents, video)
        for videos in self._videos.values():
            videos.require(log.commits)
        self._streams = {
            name: Table(path / STREAMS_FOLDER / name, fields, append, log.last.stream_ends[name])
            for name, fields in contents.streams.items()
        }

    @classmethod
    def create(
        cls,
        path: Path,
        observation: SpaceSpec,
        action: SpaceSpec,
        metadata: Mapping[str, Any] | None = None,
        *,
        extra: SpaceSpec = NO_FIELDS,
        streams: Mapping[str, SpaceSpec] | None = None,
        video: Mapping[str, VideoSettings] | None = None,
        chunking: Chunking | None = None,
        overwrite: bool = False,
    ) -> "EpisodeStore":
        """A new dataset without episodes, open for appending.

        Args:
            path: Folder to make; parents are made as needed.
            observation: Fields named `observation.*`.
            action: The field `action`, one axis; no fields where nothing was commanded.
            metadata: Plain values about the whole dataset: provenance, licence, task, ...
            extra: Further fields of every step. One named `timestamp` is its capture time, int64 [ns].
            streams: Fields with a clock of their own, by the stream's name; each has a field `timestamp`, int64 [ns].
            video: Observation fields to store as one video per episode instead of an array, and how. Unless lossless,
                what is read is close to what was appended, not equal.
            chunking: How steps are grouped on disk; None: small windows at random are cheap.
            overwrite: Replace a dataset that is there already. Nothing but a dataset is ever replaced.

        Raises:
            DatasetError: something is there already, cannot be stored, or the folder cannot be written. Then
                nothing is left behind.
        """
        contents = Contents(observation, action, extra, dict(streams or {}), plain(metadata or {}, "the dataset"))
        video = video or {}
        require_storable(contents)
        require_video(contents, video)
        with building(path, overwrite) as draft:
            zarr.create_group(draft, attributes=schema_attributes(contents, video))
            for field in step_fields(contents).values():
                if field.name not in video:
                    FieldArray.create(draft, field, chunking or Chunking())
            for videos in _video_fields(draft, contents, video).values():
                videos.create()
            for stream, fields in contents.streams.items():
                folder = draft / STREAMS_FOLDER / stream
                zarr.create_group(folder)
                for field in fields.values():
                    FieldArray.create(folder, field, chunking or Chunking())
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
        _require_dataset(path)
        contents, video = read_schema(path)
        # The log first: every array is at least as long as a log that was read before it was opened.
        store = cls(path, append, contents, video, CommitLog.read(path / EPISODES_FILE, contents.streams))
        if append:
            store._repair()
        return store

    @property
    def observation(self) -> SpaceSpec:
        """Fields named `observation.*`."""
        return self.contents.observation

    @property
    def action(self) -> SpaceSpec:
        """The field `action`; no fields in a pure recording."""
        return self.contents.action

    @property
    def extra(self) -> SpaceSpec:
        """Further fields of every step."""
        return self.contents.extra

    @property
    def streams(self) -> dict[str, SpaceSpec]:
        """Fields with a clock of their own, by the stream's name."""
        return self.contents.streams

    @property
    def metadata(self) -> dict[str, Any]:
        """Plain values about the whole: provenance, licence, task, ..."""
        return self.contents.metadata

    @property
    def num_episodes(self) -> int:
        """Committed episodes."""
        return len(self._log.commits)

    @property
    def num_steps(self) -> int:
        """Committed steps of all episodes together."""
        return self._log.last.end

    @property
    def episode_ends(self) -> Int64[ndarray, " episodes"]:
        """Index of the step after the last one of each episode; repeats where an episode has no steps."""
        return np.array([commit.end for commit in self._log.commits], dtype=np.int64)

    def stream_ends(self, stream: str) -> Int64[ndarray, " episodes"]:
        """Index of the sample after the last one of each episode in that stream.

        Raises:
            DatasetError: there is no such stream.
        """
        self._stream(stream)
        return np.array([commit.stream_ends[stream] for commit in self._log.commits], dtype=np.int64)

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
        stop = self.num_steps if stop is None else min(stop, self.num_steps)
        if name in self._videos:
            return np.array(self.frames(name)[start:stop])
        return self._steps.read(name, start, stop)

    def frames(self, name: str) -> Frames:
        """Committed steps of a field that is stored as video, read-only, mapped into memory without being loaded.

        The first call decodes all videos into `.cache/`; that takes a while and, uncompressed, much space.

        Raises:
            DatasetError: there is no such field, a video is damaged, or the disk is full.
        """
        if name not in self._videos:
            raise DatasetError(f"dataset '{self.path}': " + unknown_name("field stored as video", name, self._videos))
        return self._videos[name].frames(self._log.commits)

    def read_stream(
        self, stream: str, name: str, start: int = 0, stop: int | None = None
    ) -> Shaped[ndarray, "samples *field"]:
        """Committed samples `start` to `stop` (exclusive; None: all) of one field of a stream.

        Raises:
            DatasetError: there is no such stream or field, or its files are damaged.
        """
        table, end = self._stream(stream), self._log.last.stream_ends[stream]
        return table.read(name, start, end if stop is None else min(stop, end))

    def _stream(self, stream: str) -> Table:
        if stream not in self._streams:
            raise DatasetError(f"dataset '{self.path}': " + unknown_name("stream", stream, self._streams))
        return self._streams[stream]

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
        episode = self._without_videos(index)
        frames = {name: videos.read_episode(index, episode.length) for name, videos in self._videos.items()}
        steps = {**episode.steps, **frames}
        return replace(episode, steps={name: steps[name] for name in self.fields})

    def _without_videos(self, index: int) -> Episode:
        before, commit = self._log.before(index), self._log.commits[index]
        streams = {
            name: table.read_all(before.stream_ends[name], commit.stream_ends[name])
            for name, table in self._streams.items()
        }
        return Episode(self._steps.read_all(before.end, commit.end), dict(commit.metadata), streams)

    def _stored(self, index: int) -> "_Stored":
        files = {name: videos.content(index) for name, videos in self._videos.items()}
        return _Stored(self._without_videos(index), files)

    def _intact(self, index: int) -> "_Stored":
        stored = self._stored(index)
        if stored.digest != self.digests[index]:
            raise DatasetError(
                f"episode {index} of dataset '{self.path}' is not what was recorded; restore the dataset from a copy, "
                f"or leave the episode out"
            )
        return stored

    def damaged_episodes(self) -> list[int]:
        """Episodes that no longer match the digest taken when they were recorded; reads everything."""
        damaged = []
        for index in range(self.num_episodes):
            try:
                self._intact(index)
            except DatasetError:
                damaged.append(index)
        return damaged

    def append(self, episode: Episode) -> None:
        """Add one episode; when this returns, it survives a kill and a power failure.

        Floats are stored in the precision of their field; other types must fit their field exactly.

        Raises:
            DatasetError: the episode does not fit the dataset or holds a value that may not be there (infinite, NaN
                where the field does not allow it, a falling timestamp), or the dataset cannot be written. Then it is
                as if nothing had been added.
        """
        self.extend([episode])

    def extend(self, episodes: Sequence[Episode]) -> None:
        """Add several episodes in one go, all or none; much faster than one by one where they are short.

        Raises:
            DatasetError: as for `append`.
        """
        self._commit(
            [
                self._encoded(fitted(self.contents, episode, f"episode {index}"))
                for index, episode in enumerate(episodes, start=self.num_episodes)
            ]
        )

    def copy_episodes(self, source: "EpisodeStore", indices: Sequence[int]) -> None:
        """Add episodes of another dataset of the same fields, all or none; videos as the files they are.

        Raises:
            DatasetError: the other dataset is damaged or stores its videos otherwise, or as for `append`.
            SpecError: its fields differ.
        """
        require_same_fields(self.contents, source.contents, str(self.path), str(source.path))
        intact = [source._intact(index) for index in indices]
        if source.video == self.video:
            self._commit(intact)
        else:
            self.extend([source.episode(index) for index in indices])

    def _encoded(self, episode: Episode) -> "_Stored":
        files = {name: videos.encode(episode.steps[name]) for name, videos in self._videos.items()}
        steps = {name: values for name, values in episode.steps.items() if name not in files}
        return _Stored(replace(episode, steps=steps), files)

    def _commit(self, batch: "Sequence[_Stored]") -> None:
        """Write all episodes or none."""
        if not self._append:
            raise DatasetError(f"dataset '{self.path}' was opened for reading; open it with append=True to add to it")
        if not batch:
            return
        with self._log.writing() as file:
            try:
                self._write(batch)
                self._log.append(file, self._commits(batch))
            except OSError as error:
                raise DatasetError(
                    f"cannot write to dataset '{self.path}': {error.strerror}; its {self.num_episodes} committed "
                    f"episodes are unharmed. Free some space or check the permissions, then append again"
                ) from error

    def _write(self, batch: "Sequence[_Stored]") -> None:
        """Put arrays and videos behind the committed ones and wait until they are on the disk."""
        self._steps.write(self.num_steps, [stored.episode.steps for stored in batch])
        for name, table in self._streams.items():
            table.write(self._log.last.stream_ends[name], [stored.episode.streams[name] for stored in batch])
        for name, videos in self._videos.items():
            videos.write(self.num_episodes, [stored.files[name] for stored in batch])

    def _commits(self, batch: "Sequence[_Stored]") -> list[Commit]:
        commits, last = [], self._log.last
        for stored in batch:
            episode, ends = stored.episode, last.stream_ends
            ends = {name: end + len(episode.streams[name]["timestamp"]) for name, end in ends.items()}
            last = Commit(last.end + episode.length, stored.digest, episode.metadata, ends)
            commits.append(last)
        return commits

    def _repair(self) -> None:
        with self._log.writing():
            for unfinished in self.path.glob(f"*{UNFINISHED}"):
                unfinished.unlink()
            dropped = {"steps": self._steps.truncate(self.num_steps)}
            for name, table in self._streams.items():
                dropped[f"samples of stream '{name}'"] = table.truncate(self._log.last.stream_ends[name])
            for name, videos in self._videos.items():
                dropped[f"videos of '{name}'"] = videos.truncate(self.num_episodes)
        if any(dropped.values()):
            self.repaired = (
                f"dropped {', '.join(f'{count} {what}' for what, count in dropped.items() if count)} that a killed "
                f"recorder left uncommitted; all {self.num_episodes} committed episodes are kept"
            )


@dataclass
class _Stored:
    """One episode as it is on disk."""

    episode: Episode
    """Without the fields that are stored as video."""
    files: dict[str, bytes]
    """The video of each field that is stored so."""

    @property
    def digest(self) -> str:
        return digest(self.episode, self.files)


def _video_fields(path: Path, contents: Contents, video: Mapping[str, VideoSettings]) -> dict[str, VideoField]:
    action_rate = next((field.rate for field in contents.action.values()), None) or UNKNOWN_RATE
    fields = {name: contents.observation[name] for name in video}
    return {name: VideoField(path, fields[name], video[name], fields[name].rate or action_rate) for name in video}


def _require_dataset(path: Path) -> None:
    if not os.path.lexists(path):
        raise DatasetError(f"there is no dataset at '{path}'; check the path, or record or convert one first")
    if not os.path.isfile(path / EPISODES_FILE):
        raise DatasetError(
            f"'{path}' is not an alula dataset (it has no {EPISODES_FILE}); give the .zarr folder that alula wrote"
        )

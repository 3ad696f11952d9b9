"""What a dataset format offers, so that any format converts into any other.

Between formats, a dataset is its `Contents` and a stream of `Episode`s; nothing else passes from one to the other.
A reader translates a format's layout into them, a writer translates them back. What a target has no place for is
named in its `Plan` before anything is written. Writers keep `Contents.to_dict()` in a place of their format that
others ignore; a reader that finds it there restores every name, unit, type and text exactly.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alula.core.spaces import SpaceSpec
from alula.core.transitions import Episode

NO_FIELDS = SpaceSpec(())


@dataclass(frozen=True)
class Contents:
    """What a dataset holds, without its episodes."""

    observation: SpaceSpec
    """Fields named `observation.*`."""
    action: SpaceSpec
    """The field `action`, one axis; none where nothing was commanded."""
    extra: SpaceSpec = NO_FIELDS
    """Further fields of every step: capture timestamps, embeddings, ..."""
    streams: dict[str, SpaceSpec] = field(default_factory=dict)
    """Fields with a clock of their own, by the stream's name. Each stream has a field `timestamp` (int64 [ns])."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Plain values about the whole: `provenance`, `licence`, `rate` [Hz], `success_recorded`, ..."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "observation": self.observation.to_list(),
            "action": self.action.to_list(),
            "extra": self.extra.to_list(),
            "streams": {name: space.to_list() for name, space in self.streams.items()},
            "metadata": self.metadata,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Contents":
        """Inverse of `to_dict`.

        Raises:
            SpecError: a property of a field is unknown.
        """
        spaces = {name: SpaceSpec.from_list(values[name]) for name in ("observation", "action", "extra")}
        streams = {name: SpaceSpec.from_list(space) for name, space in values["streams"].items()}
        return cls(**spaces, streams=streams, metadata=dict(values["metadata"]))


@dataclass(frozen=True)
class Mapping:
    """One line of a plan: where an array comes from and what it becomes."""

    source: str
    """Its name in the source, such as `data/demo_*/obs/robot0_eef_pos`."""
    target: str
    """Its name in the target."""
    change: str = ""
    """What happens to its values on the way ("float64 becomes float32"); empty where they stay as they are."""


@dataclass(frozen=True)
class Plan:
    """What a conversion will do, known before anything is written."""

    mappings: tuple[Mapping, ...]
    losses: tuple[str, ...] = ()
    """What the target will not hold, in words; empty where the way back is exact."""


class Reader(ABC):
    """An open source. Read-only; use it as a context manager."""

    contents: Contents
    num_episodes: int
    plan: Plan
    """From the source's names to those of `contents`."""

    @abstractmethod
    def episodes(self, start: int = 0) -> Iterator[Episode]:
        """The episodes from number `start` on, in order, one in memory at a time.

        An episode's instruction, where it has one, is its metadata's `instruction` (a string).

        Raises:
            DatasetError: one is damaged; the message names file and place.
        """

    def close(self) -> None:  # noqa: B027 - few readers keep files open
        """Let go of files; by default there are none."""

    def __enter__(self) -> "Reader":
        """Itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()


class Writer(ABC):
    """A target under construction at a path that nobody sees yet."""

    num_episodes: int
    """Episodes that are safely there: more than 0 where an interrupted conversion is taken up again."""

    @abstractmethod
    def append(self, episode: Episode) -> None:
        """Add one episode.

        Raises:
            DatasetError: it does not fit.
            OSError: the disk is full or failed.
        """

    @abstractmethod
    def finish(self) -> None:
        """Write what needs all episodes (indices, statistics) and close; the target is complete then."""

    def abandon(self) -> None:  # noqa: B027 - few writers have anything to close
        """Close files after a failure or an interruption; by default there are none."""


class Format(ABC):
    """One dataset format; a line in `registry.py` names it."""

    name: str
    """On the command line."""
    suffix: str
    """Customary end of a path, such as `.hdf5`; empty where it is a plain folder."""

    @abstractmethod
    def detect(self, path: Path) -> bool:
        """Whether what is at `path` looks like this format: by its content, quickly, and without raising."""

    @abstractmethod
    def open(self, path: Path) -> Reader:
        """A reader of what is at `path`.

        Raises:
            DatasetError: it is not this format, or damaged.
        """


class WritableFormat(Format):
    """A format that can be written, too."""

    @abstractmethod
    def plan(self, contents: Contents) -> Plan:
        """What writing `contents` would do.

        Raises:
            DatasetError: this format cannot hold such a dataset at all; the message says what would help.
        """

    @abstractmethod
    def create(self, path: Path, contents: Contents) -> Writer:
        """A writer at `path`, where nothing is, or what an earlier writer of the same contents left unfinished."""

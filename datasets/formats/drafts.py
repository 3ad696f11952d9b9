"""Drafts that survive a kill, for formats whose files do not.

An HDF5 file that is being written when its writer is killed may be lost whole; so may an archive. So a draft is a
folder of small files, one an episode, each of which is complete once it has its name; the target is built from them
at the end.
"""

import os
import shutil
from abc import abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from alula.core.spaces import SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.commits import sync
from alula.datasets.formats.format import Contents, Writer
from alula.datasets.formats.hdf5 import open_hdf5, read_beside, read_field, write_beside
from alula.datasets.schema import fitted, step_fields


class DraftWriter(Writer):
    """Collects episodes in small files, and builds the target from them in the end."""

    def __init__(self, path: Path, contents: Contents) -> None:
        """Start at `path`, or take up what an earlier writer left there."""
        self.path = path
        self.contents = contents
        self._parts = path / "parts"
        if not self._parts.is_dir():
            _remove(path)
            self._parts.mkdir(parents=True)
        self.num_episodes = len(list(self._parts.glob("episode_*.hdf5")))

    def append(self, episode: Episode) -> None:
        """Add one episode; when this returns, it survives a kill."""
        owner = f"episode {self.num_episodes}"
        unfinished = self._parts / "unfinished.hdf5"
        with _plainly(), h5py.File(unfinished, "w") as file:
            write_exact(file, fitted(self.contents, episode, owner), owner)
        sync(unfinished)
        unfinished.rename(self._part(self.num_episodes))
        self.num_episodes += 1

    def finish(self) -> None:
        """Build the target; it replaces the parts."""
        whole, aside = self.path / "whole", self.path.with_name(f"{self.path.name}.whole")
        _remove(whole)
        with _plainly():
            self.build(whole)
        for file in [whole, *whole.rglob("*")]:
            sync(file)
        _remove(aside)
        whole.rename(aside)
        shutil.rmtree(self.path)
        aside.rename(self.path)

    @abstractmethod
    def build(self, whole: Path) -> None:
        """Write the target to `whole` from `lengths` and `episodes`."""

    def lengths(self) -> Iterator[int]:
        """Number of steps of each episode."""
        for index in range(self.num_episodes):
            with open_hdf5(self._part(index)) as file:
                yield int(file.attrs["length"])

    def episodes(self, names: Collection[str] | None = None) -> Iterator[Episode]:
        """All episodes in order, one in memory at a time; of their steps only the fields `names` (None: all)."""
        fields = step_fields(self.contents)
        chosen = fields if names is None else SpaceSpec(tuple(fields[name] for name in names))
        for index in range(self.num_episodes):
            with open_hdf5(self._part(index)) as file:
                yield read_exact(file, self.contents, chosen)

    def _part(self, index: int) -> Path:
        return self._parts / f"episode_{index:08d}.hdf5"


@contextmanager
def _plainly() -> Iterator[None]:
    """Let a full disk say that it is full, and no more; HDF5 adds a page."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno)) from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def write_exact(group: h5py.Group, episode: Episode, owner: str) -> None:
    """Keep a whole episode in a group, by the names of its fields."""
    for name, values in episode.steps.items():
        group.create_dataset(f"steps/{name}", data=values)
    write_beside(group, episode, owner)
    group.attrs["length"] = episode.length


def read_exact(group: h5py.Group, contents: Contents, fields: SpaceSpec) -> Episode:
    """Inverse of `write_exact`; of the steps only `fields`.

    Raises:
        DatasetError: as `read_field`.
    """
    length = int(group.attrs["length"])
    steps = {name: read_field(group, f"steps/{name}", field, 0, length) for name, field in fields.items()}
    return Episode(steps, *read_beside(group, contents))

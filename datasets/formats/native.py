"""alula's own store (`datasets/store.py`) as a format among the others."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from alula.core.transitions import Episode
from alula.datasets.commits import EPISODES_FILE
from alula.datasets.formats.format import Contents, Mapping, Plan, Reader, WritableFormat, Writer
from alula.datasets.schema import require_storable, step_fields
from alula.datasets.store import EpisodeStore
from alula.datasets.video import VideoSettings

BATCH_BYTES = 16 * 2**20
"""Committed in one go: every commit waits for the disk, which short episodes share this way."""


@dataclass(frozen=True)
class Native(WritableFormat):
    """A zarr v3 folder to which episodes are added whole or not at all."""

    name = "zarr"
    suffix = ".zarr"

    video: bool = False
    """Store images as AV1 video: small, but not exact."""

    def detect(self, path: Path) -> bool:
        """Whether it has a list of committed episodes."""
        return (path / EPISODES_FILE).is_file() and (path / "zarr.json").is_file()

    def open(self, path: Path) -> "NativeReader":
        """A reader of the committed episodes."""
        return NativeReader(EpisodeStore.open(path))

    def plan(self, contents: Contents) -> Plan:
        """Everything stays as it is, but for images that become video."""
        require_storable(contents)
        videos = self._videos(contents)
        mappings = [
            replace(mapping, change="AV1 video" if mapping.source in videos else "")
            for mapping in identity(contents).mappings
        ]
        return Plan(tuple(mappings), tuple(f"exact pixels of '{name}': AV1 video loses detail" for name in videos))

    def _videos(self, contents: Contents) -> dict[str, VideoSettings]:
        """Fields to encode, and how."""
        images = [field for field in contents.observation.values() if field.dtype == "uint8" and len(field.shape) == 3]
        return {field.name: VideoSettings() for field in images if field.shape[2] == 3} if self.video else {}

    def create(self, path: Path, contents: Contents) -> "NativeWriter":
        """A writer that goes on behind the episodes that are committed already."""
        if path.exists():
            return NativeWriter(EpisodeStore.open(path, append=True))
        spaces = (contents.observation, contents.action)
        store = EpisodeStore.create(
            path,
            *spaces,
            contents.metadata,
            extra=contents.extra,
            streams=contents.streams,
            video=self._videos(contents),
        )
        return NativeWriter(store)


def identity(contents: Contents) -> Plan:
    """The plan of a format that holds every field under its own name."""
    names = list(step_fields(contents))
    names += [f"streams/{stream}/{name}" for stream, fields in contents.streams.items() for name in fields]
    return Plan(tuple(Mapping(name, name) for name in names))


class NativeReader(Reader):
    """Episodes of a store."""

    def __init__(self, store: EpisodeStore) -> None:
        self.store = store
        self.contents = store.contents
        self.num_episodes = store.num_episodes
        self.plan = identity(store.contents)

    def episodes(self, start: int = 0) -> Iterator[Episode]:
        """See `Reader.episodes`."""
        return (self.store.episode(index) for index in range(start, self.num_episodes))


class NativeWriter(Writer):
    """Appends to a store, several short episodes at a time."""

    def __init__(self, store: EpisodeStore) -> None:
        self.store = store
        self.num_episodes = store.num_episodes
        self._waiting: list[Episode] = []
        self._waiting_bytes = 0

    def append(self, episode: Episode) -> None:
        """See `Writer.append`; committed once enough is waiting."""
        self._waiting.append(episode)
        arrays = [*episode.steps.values(), *(array for fields in episode.streams.values() for array in fields.values())]
        self._waiting_bytes += sum(array.nbytes for array in arrays)
        if self._waiting_bytes >= BATCH_BYTES:
            self._commit()

    def _commit(self) -> None:
        self.store.extend(self._waiting)
        self.num_episodes = self.store.num_episodes
        self._waiting, self._waiting_bytes = [], 0

    def finish(self) -> None:
        """Commit the rest."""
        self._commit()

    def abandon(self) -> None:
        """Keep what is complete, so that the conversion goes on there."""
        self._commit()

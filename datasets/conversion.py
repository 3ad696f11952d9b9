"""From any dataset format to any other: a plan first, then a draft that nobody sees, then the target, whole.

The draft lies hidden beside the target. An interrupted conversion leaves it there, and the same conversion goes on
where it stopped; one that fails removes it. The source is only ever read.
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alula.core.errors import DatasetError
from alula.core.transitions import Episode
from alula.datasets.drafts import publish, remove
from alula.datasets.formats.format import Contents, Format, Plan, Reader, WritableFormat
from alula.datasets.formats.registry import FORMATS, get_format
from alula.datasets.transforms import Chain, Transform

NOTHING = Chain(())
"""No change."""
Report = Callable[[int, int], None]
"""Told how many episodes are done, of how many."""


def detect(path: Path) -> str:
    """Name of the format of what is at `path`.

    Raises:
        DatasetError: nothing is there, or no format recognises it.
    """
    if not path.exists():
        raise DatasetError(f"there is nothing at '{path}'; check the path")
    for name in FORMATS:
        if get_format(name).detect(path):
            return name
    raise DatasetError(
        f"'{path}' is none of the formats {', '.join(FORMATS)}, or is damaged; if you know what it is, say so with "
        f"source_format=NAME to learn what is wrong with it"
    )


def for_target(path: Path, name: str | None, **options: Any) -> WritableFormat:
    """The format to write at `path`: the one named, or the one whose suffix the path has.

    Raises:
        DatasetError: it cannot be told, or only be read.
    """
    if name is None:
        suffixes = {get_format(known).suffix: known for known in ("zarr", "robomimic")}
        if path.suffix not in suffixes:
            raise DatasetError(
                f"which format should '{path}' get? Give format=NAME, one of {', '.join(writable_formats())}; only "
                f"{' and '.join(f'{suffix} ({known})' for suffix, known in suffixes.items())} need none"
            )
        name = suffixes[path.suffix]
    chosen = get_format(name, **options)
    if not isinstance(chosen, WritableFormat):
        raise DatasetError(f"format '{name}' can only be read; to write, choose of {', '.join(writable_formats())}")
    return chosen


def writable_formats() -> list[str]:
    """Names of the formats that can be written."""
    return [name for name in FORMATS if isinstance(get_format(name), WritableFormat)]


@dataclass
class Conversion:
    """One conversion, planned but not begun."""

    source: Path
    target: Path
    reader: Reader
    format: WritableFormat
    transform: Transform = NOTHING
    """What changes on the way."""

    def __post_init__(self) -> None:
        """Ask both sides what they will do."""
        self.contents: Contents = self.transform.contents(self.reader.contents)
        self.writing: Plan = self.format.plan(self.contents)

    @property
    def num_episodes(self) -> int:
        """Of the source."""
        return self.reader.num_episodes

    @property
    def losses(self) -> tuple[str, ...]:
        """What the target will not hold of the source."""
        return (*self.reader.plan.losses, *self.writing.losses)

    def episodes(self, start: int = 0) -> Iterator[Episode]:
        """What the writer is given."""
        return map(self.transform.episode, self.reader.episodes(start))

    def run(self, force: bool = False, report: Report = lambda done, total: None) -> None:
        """Write the target.

        Args:
            force: Replace a dataset that is there already.
            report: Told after every episode.

        Raises:
            DatasetError: the source is damaged, the target is taken, or the disk is full; then no draft is left.
        """
        self.require_free(force)
        with drafting(self.target, self._identity()) as draft:
            # An earlier attempt had the same identity, so what it holds are this source's first episodes.
            writer = self.format.create(draft, self.contents)
            try:
                begun = writer.num_episodes
                report(begun, self.num_episodes)
                for done, episode in enumerate(self.episodes(begun), start=begun + 1):
                    writer.append(episode)
                    report(done, self.num_episodes)
                writer.finish()
            except BaseException:
                writer.abandon()
                raise

    def require_free(self, force: bool) -> None:
        """Refuse to touch what is at the target.

        Raises:
            DatasetError: something is there that may not be replaced.
        """
        if self.target.resolve() == self.source.resolve():
            raise DatasetError(f"source and target are both '{self.source}'; choose another target")
        if not occupied(self.target):
            return
        if not force:
            raise DatasetError(f"'{self.target}' exists already; choose another path, or replace it with --force")
        if not any(get_format(name).detect(self.target) for name in FORMATS):
            raise DatasetError(f"'{self.target}' is not a dataset; it is never replaced. Choose another path")

    def _identity(self) -> dict[str, Any]:
        """What must be equal for a draft to be gone on with."""
        files = [self.source] if self.source.is_file() else sorted(self.source.rglob("*"))
        stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
        return {
            "source": str(self.source.resolve()),
            "files": hashlib.blake2b(repr(stamps).encode(), digest_size=16).hexdigest(),
            "format": [self.format.name, repr(vars(self.format))],
            "contents": self.contents.to_dict(),
        }


def occupied(path: Path) -> bool:
    """Whether anything is at `path` but an empty folder."""
    return path.exists() and not (path.is_dir() and not any(path.iterdir()))


@contextmanager
def drafting(target: Path, identity: dict[str, Any]) -> Iterator[Path]:
    """A hidden path beside `target` to write at; it becomes `target` at the end.

    On an interruption it stays for the next attempt of the same identity, on any error it goes.

    Raises:
        DatasetError: another process is at it, or the disk cannot be written.
    """
    folder = target.resolve().with_name(f".{target.name}.converting")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "identity.json").open("a+b") as lock:
            try:
                # The kernel drops this lock when the process dies, however it dies.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DatasetError(f"another process is converting to '{target}' right now; wait for it") from error
            try:
                yield _draft(folder, identity)
                publish(folder / "draft", target.resolve())
                shutil.rmtree(folder)
            except Exception:
                shutil.rmtree(folder, ignore_errors=True)
                raise
    except OSError as error:
        raise DatasetError(
            f"cannot write '{target}': {error.strerror or error}; free some space or choose a folder that you may "
            f"write to. Nothing was left behind, the source is untouched"
        ) from error


def _draft(folder: Path, identity: dict[str, Any]) -> Path:
    """Where to write inside `folder`, emptied if it belongs to another conversion."""
    known, wanted = folder / "identity.json", json.dumps(identity, sort_keys=True).encode()
    draft = folder / "draft"
    if known.read_bytes() != wanted:
        remove(draft)
        known.write_bytes(wanted)
    return draft


def source_format(path: Path, name: str | None, **options: Any) -> Format:
    """The format to read `path` in: the one named, or the one that recognises it."""
    return get_format(name or detect(path), **options)

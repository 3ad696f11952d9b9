"""A new dataset is built beside its place and takes it only when it is complete."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alula.core.errors import DatasetError
from alula.datasets.commits import EPISODES_FILE, sync


@contextmanager
def building(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder beside `path` to build a dataset in; it becomes `path` at the end, or vanishes when building fails.

    Raises:
        DatasetError: something is at `path` already that may not be replaced, or the disk cannot be written.
    """
    path = Path(path).resolve()
    occupied = path.exists() and not (path.is_dir() and not any(path.iterdir()))
    if occupied and not (path / EPISODES_FILE).is_file():
        raise DatasetError(f"'{path}' exists and is not a dataset; it is never replaced. Choose another path")
    if occupied and not overwrite:
        raise DatasetError(f"dataset '{path}' exists already; choose another folder, or replace it with overwrite=true")
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        publish(draft, path)
    except OSError as error:
        raise DatasetError(
            f"cannot create dataset '{path}': {error.strerror}; choose a folder that you may write to. "
            f"Nothing was left behind"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def publish(draft: Path, path: Path) -> None:
    """Give the finished `draft` its name; what is there already goes only once it has a successor.

    Raises:
        OSError: the disk failed; what was at `path` is there still.
    """
    for written in (draft, *draft.rglob("*")):
        sync(written)
    retired = draft.with_name(f"{draft.name}.old")
    replaced = path.exists()
    if replaced:
        path.rename(retired)
    try:
        draft.rename(path)
    except OSError:
        if replaced:
            retired.rename(path)
        raise
    sync(path.parent)
    remove(retired)


def remove(path: Path) -> None:
    """Delete a file or a folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

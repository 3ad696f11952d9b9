"""A damaged file becomes an error, never wrong numbers."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec
from alula.datasets.arrays import Chunking, FieldArray
from alula.datasets.store import EpisodeStore

MakeStore = Callable[..., EpisodeStore]


def test_any_flipped_byte_is_noticed(make_store: MakeStore) -> None:
    store = make_store([50])
    shard = store.path / "action" / "c.0.0"
    content = shard.read_bytes()
    wanted = store.read("action")
    noticed = 0
    for position in range(0, len(content), 7):
        shard.write_bytes(content[:position] + bytes([content[position] ^ 0x40]) + content[position + 1 :])
        try:
            np.testing.assert_array_equal(store.read("action"), wanted)
        except DatasetError as error:
            assert "damaged" in str(error)  # noqa: PT017
            noticed += 1
    assert noticed > len(content) // 7 // 2


def test_content_that_was_exchanged_is_found_by_its_digest(make_store: MakeStore) -> None:
    store = make_store([5, 5, 5])
    array = FieldArray(store.path, store.fields["action"], writable=True)
    changed = store.read("action")
    changed[7] = 0.5
    array.write(0, changed)
    assert EpisodeStore.open(store.path).damaged_episodes() == [1]
    shard = store.path / "next.reward" / "c.0"
    shard.write_bytes(bytes(len(shard.read_bytes())))
    assert EpisodeStore.open(store.path).damaged_episodes() == [0, 1, 2]


def test_truncating_drops_steps_and_unfinished_files(tmp_path: Path) -> None:
    array = FieldArray.create(tmp_path, FieldSpec("action", (2,)), Chunking())
    values = np.arange(20, dtype=np.float32).reshape(10, 2)
    array.write(0, values)
    (tmp_path / "action" / "c.0.abc.partial").touch()
    assert array.truncate(6) == 4
    assert list((tmp_path / "action").glob("*.partial")) == []
    array.write(6, values[:2])
    np.testing.assert_array_equal(array.read(0, array.length), np.concatenate([values[:6], values[:2]]))


def test_content_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a power failure may leave committed steps in an empty file."""
    array = FieldArray.create(tmp_path, FieldSpec("action", (2,)), Chunking())
    flushed, renamed, replace = set(), [], Path.replace

    def named(draft: Path, path: Path) -> Path:
        assert draft.stat().st_ino in flushed
        renamed.append(Path(path).name)
        return replace(draft, path)

    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.add(os.fstat(descriptor).st_ino))
    monkeypatch.setattr(Path, "replace", named)
    for start in (0, 3):
        array.write(start, np.zeros((3, 2), np.float32))
    assert renamed == ["zarr.json", "c.0.0"] * 2
    assert array.path.stat().st_ino in flushed

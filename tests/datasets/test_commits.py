"""What is committed is decided by whole lines of one file, written by one process at a time."""

import fcntl
import json
from collections.abc import Callable
from typing import Any

import pytest

from alula.core.errors import DatasetError
from alula.core.transitions import Episode
from alula.datasets.arrays import FieldArray
from alula.datasets.commits import EPISODES_FILE
from alula.datasets.store import EpisodeStore

Same = Callable[[Episode, Episode], None]
MakeEpisode = Callable[..., Episode]
MakeStore = Callable[..., EpisodeStore]


class KilledError(BaseException):
    """Stands for a process that ends in the middle of something."""


@pytest.mark.parametrize("written_fields", [0, 1, 6])
def test_steps_without_a_commit_are_ignored_and_repaired(
    written_fields: int,
    make_store: MakeStore,
    make_episode: MakeEpisode,
    assert_same: Same,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, write, calls = make_store([3, 4]), FieldArray.write, []

    def killed(array: FieldArray, *arguments: Any) -> None:
        if len(calls) == written_fields:
            raise KilledError
        calls.append(array)
        write(array, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(FieldArray, "write", killed)
        with pytest.raises(KilledError):
            store.append(make_episode(7, 11))

    assert EpisodeStore.open(store.path).read("observation.state").shape == (7, 3)
    reopened = EpisodeStore.open(store.path, append=True)
    assert (reopened.repaired is None) == (written_fields == 0)
    if reopened.repaired is not None:
        assert "dropped 11 steps" in reopened.repaired
    assert EpisodeStore.open(store.path, append=True).repaired is None
    reopened.append(make_episode(2, 5))
    for index, length in enumerate((3, 4, 5)):
        assert_same(EpisodeStore.open(store.path).episode(index), make_episode(index, length))


def test_an_unfinished_line_is_no_commit(make_store: MakeStore, make_episode: MakeEpisode, assert_same: Same) -> None:
    store = make_store([3])
    log = store.path / EPISODES_FILE
    finished = log.read_bytes()
    log.write_bytes(finished + b'{"end": 9, "dig')
    assert EpisodeStore.open(store.path).num_episodes == 1
    writer = EpisodeStore.open(store.path, append=True)
    assert log.read_bytes() == finished
    writer.append(make_episode(1))
    assert_same(EpisodeStore.open(store.path).episode(1), make_episode(1))


@pytest.mark.parametrize("failing", ["alula.datasets.arrays.sync", "alula.datasets.commits.sync", "os.fsync"])
def test_a_full_disk_costs_only_the_new_episode(
    failing: str, make_store: MakeStore, make_episode: MakeEpisode, assert_same: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store([3])

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(failing, full)
        with pytest.raises(DatasetError, match=r"No space left.*1 committed"):
            store.append(make_episode(5, 30))
    assert EpisodeStore.open(store.path).num_episodes == 1
    store.append(make_episode(1))
    assert_same(EpisodeStore.open(store.path).episode(1), make_episode(1))


def test_a_commit_that_fails_is_taken_back(
    make_store: MakeStore, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line itself may be written when flushing it fails; it must not count then."""
    store = make_store([3])
    before = (store.path / EPISODES_FILE).read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("alula.datasets.arrays.sync", lambda _: None)
        patch.setattr("os.fsync", full)
        with pytest.raises(DatasetError, match=r"No space left"):
            store.append(make_episode(5))
    assert (store.path / EPISODES_FILE).read_bytes() == before


def test_two_writers_do_not_mix(make_store: MakeStore, make_episode: MakeEpisode) -> None:
    first = make_store([3])
    second = EpisodeStore.open(first.path, append=True)
    first.append(make_episode(1))
    with pytest.raises(DatasetError, match=r"another writer since it was opened; open it again"):
        second.append(make_episode(2))
    with (first.path / EPISODES_FILE).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DatasetError, match=r"another process is writing"):
            first.append(make_episode(2))
    assert EpisodeStore.open(first.path).num_episodes == 2


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b'{"end": 3}', json.dumps({"end": 2, "digest": "", "metadata": {}}).encode()]
)
def test_a_damaged_line_is_named(line: bytes, make_store: MakeStore) -> None:
    store = make_store([3])
    with (store.path / EPISODES_FILE).open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(DatasetError, match=r"line 2 of .*episodes\.jsonl' is damaged.*first 1 episodes"):
        EpisodeStore.open(store.path)

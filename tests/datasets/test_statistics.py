"""Streaming statistics are those of the whole array, and never those of other data."""

from collections.abc import Callable

import numpy as np
import pytest

from alula.core.errors import DatasetError
from alula.core.transitions import Episode
from alula.datasets.statistics import CACHE_FILE, statistics
from alula.datasets.store import EpisodeStore

MakeEpisode = Callable[..., Episode]
MakeStore = Callable[..., EpisodeStore]


def assert_statistics_of(store: EpisodeStore) -> None:
    """What `statistics` answers is what NumPy computes from everything at once."""
    found = statistics(store)
    assert set(found) == set(store.fields)
    for name, field in store.fields.items():
        values = store.read(name).astype(np.float64)
        assert found[name].count == store.num_steps
        assert found[name].low.shape == field.shape
        np.testing.assert_array_equal(found[name].low, values.min(0))
        np.testing.assert_array_equal(found[name].high, values.max(0))
        np.testing.assert_allclose(found[name].mean, values.mean(0), rtol=1e-12, atol=1e-12)
        variance = found[name].squares / store.num_steps
        np.testing.assert_allclose(variance, values.var(0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("block_bytes", [1, 100, 2**20])
def test_statistics_equal_those_of_the_whole_array(
    block_bytes: int, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alula.datasets.statistics.BLOCK_BYTES", block_bytes)
    assert_statistics_of(make_store([1, 30, 7]))


def test_statistics_are_read_from_the_cache(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store([5, 6])
    first = statistics(store)
    monkeypatch.setattr(EpisodeStore, "read", lambda *_: pytest.fail("the data were read again"))
    again = statistics(EpisodeStore.open(store.path))
    for name, found in first.items():
        assert again[name].count == found.count
        for part in ("low", "high", "mean", "squares"):
            np.testing.assert_array_equal(getattr(again[name], part), getattr(found, part))


def test_appending_invalidates_the_cache(make_store: MakeStore, make_episode: MakeEpisode) -> None:
    store = make_store([5, 6])
    reader = EpisodeStore.open(store.path)
    statistics(store)
    store.append(make_episode(2, 40))
    assert_statistics_of(store)
    assert_statistics_of(reader)  # Still sees two episodes, although the cache now speaks of three.


@pytest.mark.parametrize("content", [b"", b"not an archive"])
def test_a_damaged_cache_is_computed_again(content: bytes, make_store: MakeStore) -> None:
    store = make_store([5, 6])
    statistics(store)
    (store.path / CACHE_FILE).write_bytes(content)
    assert_statistics_of(store)
    assert (store.path / CACHE_FILE).read_bytes() != content


def test_a_dataset_that_cannot_keep_a_cache_has_statistics(make_store: MakeStore) -> None:
    store = make_store([5, 6])
    (store.path / CACHE_FILE).mkdir()
    assert_statistics_of(store)
    assert [path.name for path in store.path.glob(".*")] == []


def test_an_empty_dataset_has_none(make_store: MakeStore) -> None:
    with pytest.raises(DatasetError, match=r"no episodes.*record or convert"):
        statistics(make_store([]))

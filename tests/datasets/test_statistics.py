"""Streaming statistics are those of the whole array, and never those of other data."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alula.core.errors import DatasetError
from alula.core.normalizer import QUANTILE_RANKS, FieldStatistics
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.statistics import CACHE_FILE, combined, statistics
from alula.datasets.store import EpisodeStore

MakeEpisode = Callable[..., Episode]
MakeStore = Callable[..., EpisodeStore]


def assert_statistics_of(store: EpisodeStore) -> None:
    """What `statistics` answers is what NumPy computes from everything at once; of pictures channel by channel."""
    found = statistics(store)
    assert set(found) == set(store.fields)
    for name, field in store.fields.items():
        values = store.read(name).astype(np.float64)
        if len(field.shape) == 3:
            values = values.reshape(-1, 1, 1, field.shape[-1])
        assert found[name].count == len(values)
        assert found[name].low.shape == values.shape[1:]
        np.testing.assert_array_equal(found[name].low, values.min(0))
        np.testing.assert_array_equal(found[name].high, values.max(0))
        np.testing.assert_allclose(found[name].mean, values.mean(0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found[name].std ** 2, values.var(0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(
            found[name].quantiles, np.quantile(values, QUANTILE_RANKS, axis=0), rtol=1e-12, atol=1e-12
        )
        np.testing.assert_array_equal(found[name].missing, 0)


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
        for part in ("low", "high", "mean", "squares", "missing", "quantiles"):
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


def test_missing_values_are_left_out(tmp_path: Path) -> None:
    """Quantiles and moments are those of the numbers; an element that was never recorded has none."""
    gaps = FieldSpec("observation.state", (3,), "float64", allow_nan=True)
    store = EpisodeStore.create(tmp_path / "data", SpaceSpec((gaps,)), SpaceSpec(()))
    values = np.random.default_rng(0).standard_normal((40, 3))
    values[::3, 0] = np.nan
    values[:, 2] = np.nan
    flags = np.zeros(40, dtype=bool)
    outcome = dict.fromkeys(("next.terminated", "next.truncated", "next.success"), flags)
    store.append(Episode({"observation.state": values, "next.reward": np.zeros(40), **outcome}))
    found = statistics(store)["observation.state"]
    np.testing.assert_array_equal(found.missing, np.isnan(values).sum(0))
    assert found.quantiles is not None
    np.testing.assert_allclose(
        found.quantiles[:, :2], np.nanquantile(values[:, :2], QUANTILE_RANKS, axis=0), rtol=1e-12
    )
    np.testing.assert_allclose(found.mean[:2], np.nanmean(values[:, :2], axis=0), rtol=1e-12)
    assert np.isnan(found.quantiles[:, 2]).all()


def test_episodes_without_steps_change_nothing(make_store: MakeStore) -> None:
    assert_statistics_of(make_store([0, 5, 0, 3, 0]))
    with pytest.raises(DatasetError, match=r"no episodes with steps"):
        statistics(make_store([0, 0], name="empty"))


def of(values: np.ndarray) -> FieldStatistics:
    """Statistics with quantiles of a single field."""
    found = FieldStatistics.of(values)
    found.quantiles = np.nanquantile(values, QUANTILE_RANKS, axis=0)
    return found


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_combined_statistics_are_those_of_the_weighted_mixture(repeats: list[int], random: Random) -> None:
    """Weights proportional to repeats of equally long recordings are the statistics of the repeated recordings."""
    rng = np.random.default_rng(random.randrange(2**32))
    parts = [rng.normal(rng.normal(), 1 + rng.random(), (2000, 2)) for _ in repeats]
    found = combined([of(part) for part in parts], np.array(repeats, dtype=np.float64))
    whole = np.concatenate([np.tile(part, (count, 1)) for part, count in zip(parts, repeats, strict=True)])
    assert found.count == 2000 * len(parts)
    np.testing.assert_array_equal((found.low, found.high), (whole.min(0), whole.max(0)))
    np.testing.assert_allclose(found.mean, whole.mean(0), atol=1e-9)
    np.testing.assert_allclose(found.std, whole.std(0), rtol=1e-9)
    assert found.quantiles is not None
    for element in range(2):
        ranks = np.searchsorted(np.sort(whole[:, element]), found.quantiles[:, element]) / len(whole)
        np.testing.assert_allclose(ranks, QUANTILE_RANKS, atol=2e-3)


def test_a_single_part_and_constants_stay_as_they_are() -> None:
    part = of(np.random.default_rng(0).standard_normal((500, 2)))
    found = combined([part], np.array([0.3]))
    np.testing.assert_allclose(found.quantiles, part.quantiles, rtol=1e-12)
    constant, missing = of(np.full((10, 1), 4.0)), FieldStatistics.of(np.full((10, 1), np.nan))
    missing.quantiles = np.full((len(QUANTILE_RANKS), 1), np.nan)
    found = combined([constant, missing], np.array([0.5, 0.5]))
    assert (found.low, found.high, found.mean, found.std) == (4.0, 4.0, 4.0, 0.0)
    np.testing.assert_array_equal(found.quantiles, 4.0)

"""The sketch's quantiles are exact while it keeps everything, and never worse than it says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alula.datasets.quantiles import QuantileSketch, weighted_quantiles

RANKS = np.array([0.0, 0.01, 0.1, 0.25, 0.5, 0.9, 0.99, 1.0])


def sketch_of(values: np.ndarray, capacity: int, cuts: list[int]) -> QuantileSketch:
    """A sketch with small levels, which has seen `values` in several parts."""
    sketch = QuantileSketch(values.shape[1])
    sketch.capacity = capacity
    for part in np.split(values, cuts):
        sketch.add(part)
    return sketch


def streams(seed: int, length: int) -> np.ndarray:
    """Rising, falling, random, heavy-tailed, and with many ties: orders that a sketch might stumble over."""
    rng = np.random.default_rng(seed)
    rising = np.arange(length, dtype=np.float64)
    return np.stack(
        [rising, -rising, rng.random(length), rng.standard_cauchy(length), rng.integers(0, 3, length)], axis=1
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.sampled_from([4, 16, 64]), st.integers(0, 1000), st.data())
def test_ranks_are_within_the_stated_error(length: int, capacity: int, seed: int, data: st.DataObject) -> None:
    """A quantile lies between the values whose ranks are off by the stated error (and one place, interpolating)."""
    values = streams(seed, length)
    cuts = sorted(data.draw(st.lists(st.integers(0, length), max_size=4)))
    sketch = sketch_of(values, capacity, cuts)
    found = sketch.quantiles(RANKS, np.zeros(values.shape[1], dtype=np.int64))
    allowed = sketch.rank_error * length + 1
    for column, quantiles in zip(values.T, found.T, strict=True):
        places = RANKS * (length - 1)
        assert ((column[:, None] < quantiles).sum(0) <= places + allowed).all()
        assert ((column[:, None] <= quantiles).sum(0) >= places - allowed).all()


@given(st.integers(1, 63), st.integers(0, 1000))
def test_few_values_have_the_quantiles_of_numpy(length: int, seed: int) -> None:
    values = streams(seed, length)
    sketch = sketch_of(values, 64, [length // 2])
    assert sketch.rank_error == 0
    found = sketch.quantiles(RANKS, np.zeros(values.shape[1], dtype=np.int64))
    np.testing.assert_allclose(found, np.quantile(values, RANKS, axis=0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("length", [10, 1000])
def test_missing_values_are_left_out(length: int) -> None:
    values = streams(0, length)
    absent = np.random.default_rng(1).random(values.shape) < 0.4
    absent[:, 3] = True
    sketch = sketch_of(np.where(absent, np.nan, values), 64, [])
    found = sketch.quantiles(RANKS, absent.sum(0))
    assert np.isnan(found[:, 3]).all()
    for element in (0, 1, 2, 4):
        there = np.sort(values[~absent[:, element], element])
        places, allowed = RANKS * (len(there) - 1), sketch.rank_error * length + 1
        assert (np.searchsorted(there, found[:, element], side="left") <= places + allowed).all()
        assert (np.searchsorted(there, found[:, element], side="right") >= places - allowed).all()


def test_a_million_values_are_within_three_hundredths_of_a_percent() -> None:
    """What the documentation promises of fields of usual size; powers of two are the worst case."""
    sketch = QuantileSketch(1)
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2**20, 1))
    sketch.add(values)
    assert sketch.rank_error <= 3e-4
    found = sketch.quantiles(RANKS, np.zeros(1, dtype=np.int64))[:, 0]
    ranks = np.searchsorted(np.sort(values[:, 0]), found) / len(values)
    assert np.abs(ranks - RANKS).max() <= sketch.rank_error


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(1, 4)), min_size=1, max_size=8))
def test_weights_stand_for_repeated_values(pairs: list[tuple[int, int]]) -> None:
    values, counts = (np.array(column) for column in zip(*pairs, strict=True))
    repeated = np.repeat(values, counts)
    found = weighted_quantiles(values.astype(np.float64), counts.astype(np.float64), RANKS * (len(repeated) - 1))
    np.testing.assert_allclose(found, np.quantile(repeated, RANKS), atol=1e-12)

"""Random streams: SplitMix64's numbers, and each environment's draws depend on its own seed alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alula.core.seeding import GOLDEN, BatchRng, mix

SEEDS = st.integers(-(2**63), 2**63 - 1)
MASK = 2**64 - 1


def splitmix64(state: int, count: int) -> list[int]:
    """The published algorithm in Python's integers."""
    words = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        words.append(z ^ (z >> 31))
    return words


def test_the_mixer_is_splitmix64() -> None:
    """Golden values of the reference implementation for the state 1234567."""
    counters = np.arange(1, 6, dtype=np.uint64)
    golden = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert mix(np.uint64(1234567) + counters * GOLDEN).tolist() == golden == splitmix64(1234567, 5)


def test_first_values_of_a_stream() -> None:
    """Golden: the numbers that seeds 0 and 1 have always given; changing them changes every recorded episode."""
    got = BatchRng.from_seeds([0, 1]).uniform(np.arange(2), 0.0, 1.0, 3)
    golden = [
        [0.6524484863740322, 0.7012121095215252, 0.3871241409757855],
        [0.36818951565166946, 0.9435642308648544, 0.04525699773739167],
    ]
    assert got.tolist() == golden


@given(SEEDS, st.integers(1, 5))
def test_a_stream_is_splitmix64_started_from_the_hashed_seed(seed: int, size: int) -> None:
    """53 high bits of each word, as a number in [0, 1)."""
    key = splitmix64(seed & MASK, 1)[0]
    expected = [(word >> 11) * 2.0**-53 for word in splitmix64(key, size)]
    assert BatchRng.from_seeds([seed]).uniform(np.arange(1), 0.0, 1.0, size)[0].tolist() == expected


@given(st.lists(SEEDS, min_size=1, max_size=5), st.lists(st.integers(1, 4), max_size=4), st.data())
def test_draws_depend_on_the_own_seed_alone(seeds: list[int], sizes: list[int], data: st.DataObject) -> None:
    """Alone or among others that draw more, less or in another order: the same numbers."""
    together = BatchRng.from_seeds(seeds)
    alone = [BatchRng.from_seeds([seed]) for seed in seeds]
    for size in sizes:
        chosen = data.draw(st.lists(st.integers(0, len(seeds) - 1), min_size=1, unique=True))
        got = together.uniform(np.array(chosen), -1.0, 2.0, size)
        for row, env in zip(got, chosen, strict=True):
            assert row.tolist() == alone[env].uniform(np.arange(1), -1.0, 2.0, size)[0].tolist()


@given(SEEDS, st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_how_draws_are_grouped_does_not_matter(seed: int, sizes: list[int]) -> None:
    """Three numbers at once are the same as one after another."""
    whole, pieces = BatchRng.from_seeds([seed]), BatchRng.from_seeds([seed])
    row = np.arange(1)
    parts = np.concatenate([pieces.uniform(row, 0.0, 1.0, size)[0] for size in sizes])
    assert parts.tolist() == whole.uniform(row, 0.0, 1.0, sum(sizes))[0].tolist()


def test_reseeding_restarts_only_the_chosen_streams() -> None:
    """The others go on where they were."""
    rng, untouched = BatchRng.from_seeds([1, 2, 3]), BatchRng.from_seeds([1, 2, 3])
    everyone = np.arange(3)
    rng.uniform(everyone, 0, 1, 4)
    untouched.uniform(everyone, 0, 1, 4)
    rng.reseed(np.array([2, 0]), [1, 7])
    got, after = rng.uniform(everyone, 0, 1, 4), untouched.uniform(everyone, 0, 1, 4)
    fresh = BatchRng.from_seeds([7, 1]).uniform(np.arange(2), 0, 1, 4)
    assert got.tolist() == [fresh[0].tolist(), after[1].tolist(), fresh[1].tolist()]


def test_saved_arrays_restore_the_generator() -> None:
    """Keys and counters are all there is."""
    rng, row = BatchRng.from_seeds([5]), np.arange(1)
    rng.normal(row, 1.0, 3)
    copy = BatchRng(rng.keys.copy(), rng.counters.copy())
    assert rng.normal(row, 1.0, 9).tolist() == copy.normal(row, 1.0, 9).tolist()


def test_distinct_seeds_give_distinct_streams() -> None:
    """Consecutive, huge and negative seeds: no first word repeats, and neighbours are uncorrelated."""
    seeds = [*range(20_000), *range(-20_000, 0), 2**62, -(2**63)]
    first = BatchRng.from_seeds(seeds).uniform(np.arange(len(seeds)), 0.0, 1.0, 2)
    assert len(np.unique(first[:, 0])) == len(seeds)
    for other in (first[1:20_000, 0], first[: 20_000 - 1, 1]):  # Three standard errors are 0.021.
        assert abs(np.corrcoef(first[: 20_000 - 1, 0], other)[0, 1]) < 0.021


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), SEEDS)
def test_uniform_stays_in_its_range(low: float, width: float, seed: int) -> None:
    """Between low and high, for any range."""
    got = BatchRng.from_seeds([seed]).uniform(np.arange(1), low, low + width, 50)
    assert (got >= low).all()
    assert (got <= low + width).all()


def test_uniform_fills_its_range_evenly() -> None:
    """Every tenth holds a tenth, within four standard deviations; 1 itself never occurs."""
    got = BatchRng.from_seeds(range(1000)).uniform(np.arange(1000), 0.0, 1.0, 100)
    counts = np.histogram(got, 10, (0, 1))[0]
    assert np.abs(counts - 10_000).max() < 4 * np.sqrt(100_000 * 0.1 * 0.9)
    assert got.max() < 1.0


@pytest.mark.parametrize("std", [1.0, 0.02])
def test_normal_has_the_moments_of_the_normal_distribution(std: float) -> None:
    """Mean 0, variance 1, skewness 0, kurtosis 3 to four standard errors; scaled by the standard deviation."""
    got = BatchRng.from_seeds(range(1000)).normal(np.arange(1000), std, 100).ravel() / std
    root = np.sqrt(got.size)
    assert abs(got.mean()) < 4 / root
    assert abs((got**2).mean() - 1) < 4 * np.sqrt(2) / root
    assert abs((got**3).mean()) < 4 * np.sqrt(15) / root
    assert abs((got**4).mean() - 3) < 4 * np.sqrt(96) / root


def test_no_deviation_means_exactly_zero() -> None:
    """Noise switched off is off."""
    assert not BatchRng.from_seeds([1]).normal(np.arange(1), 0.0, 5).any()

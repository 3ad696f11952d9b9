"""Normaliser: statistics in one pass equal those of the whole, and the scaling is invertible."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from alula.core.errors import SpecError
from alula.core.normalizer import CONSTANT_RANGE, QUANTILE_RANKS, FieldStatistics, Normalizer

SHAPES = st.sampled_from([(), (1,), (3,), (2, 2)])
VALUES = st.floats(-1e3, 1e3, width=32)


@st.composite
def cut_arrays(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    """A recording of up to 20 steps of a field of any shape, and where it is cut (parts may be empty)."""
    shape = draw(SHAPES)
    length = draw(st.integers(1, 20))
    values = draw(hnp.arrays(np.float64, (length, *shape), elements=VALUES))
    return values, sorted(draw(st.lists(st.integers(0, length), max_size=4)))


@given(cut_arrays())
def test_merging_parts_gives_the_statistics_of_the_whole(case: tuple[np.ndarray, list[int]]) -> None:
    """However a recording is cut, count and extremes are equal and the moments agree to rounding."""
    values, cuts = case
    found = FieldStatistics.empty(values.shape[1:])
    for part in np.split(values, cuts):
        found = found.merged(FieldStatistics.of(part))
    assert found.count == len(values)
    for array in (found.low, found.high, found.mean, found.squares, found.std):
        assert isinstance(array, np.ndarray)
        assert array.shape == values.shape[1:]
    np.testing.assert_array_equal(found.low, values.min(0))
    np.testing.assert_array_equal(found.high, values.max(0))
    np.testing.assert_allclose(found.mean, values.mean(0), rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(found.std, values.std(0), rtol=1e-9, atol=1e-6)


def test_the_variance_survives_a_large_mean() -> None:
    """A sum of squares minus the squared mean would lose all digits here."""
    values = 1e8 + np.tile([-1.0, 1.0], 50)
    found = FieldStatistics.empty(())
    for part in np.split(values, 10):
        found = found.merged(FieldStatistics.of(part))
    assert found.std == 1.0


@given(cut_arrays(), st.data())
def test_missing_values_are_counted_and_left_out(case: tuple[np.ndarray, list[int]], data: st.DataObject) -> None:
    """Every element has the statistics of those of its values that are there, however the recording is cut."""
    values, cuts = case
    absent = data.draw(hnp.arrays(np.bool_, values.shape))
    found = FieldStatistics.empty(values.shape[1:])
    for part in np.split(np.where(absent, np.nan, values), cuts):
        found = found.merged(FieldStatistics.of(part))
    assert found.count == len(values)
    np.testing.assert_array_equal(found.missing, absent.sum(0))
    for element in np.ndindex(values.shape[1:]):
        there = values[(slice(None), *element)][~absent[(slice(None), *element)]]
        assert found.present[element] == len(there)
        assert (found.low[element], found.high[element]) == (min(there, default=np.inf), max(there, default=-np.inf))
        if len(there):
            np.testing.assert_allclose(found.mean[element], there.mean(), rtol=1e-12, atol=1e-10)
            np.testing.assert_allclose(found.std[element], there.std(), rtol=1e-9, atol=1e-6)


def fitted(values: dict[str, np.ndarray]) -> Normalizer:
    """A normaliser fitted to recordings by field."""
    normalizer = Normalizer({name: array.shape[1:] for name, array in values.items()})
    normalizer.fit({name: FieldStatistics.of(array) for name, array in values.items()})
    return normalizer


@given(cut_arrays())
def test_recorded_values_fill_the_unit_range_and_come_back(case: tuple[np.ndarray, list[int]]) -> None:
    """Extremes map to -1 and 1, elements that never changed to 0; the inverse returns every value."""
    values, _ = case
    normalizer = fitted({"x": values})
    recorded = torch.from_numpy(values).float()
    scaled = normalizer.normalize("x", recorded)
    constant = (values.max(0) - values.min(0)) / 2 < CONSTANT_RANGE
    tolerance = 1e-6 + 1e-6 * np.abs(values).max(0) / np.where(constant, 1.0, (values.max(0) - values.min(0)) / 2)
    ends = scaled.double().numpy().min(0), scaled.double().numpy().max(0)
    for got, wanted in zip(ends, (-1.0, 1.0), strict=True):
        assert (np.abs(got - np.where(constant, 0.0, wanted)) <= np.where(constant, 1e-3, tolerance)).all()
    torch.testing.assert_close(normalizer.unnormalize("x", scaled), recorded, rtol=1e-5, atol=1e-3)


def test_golden_scaling() -> None:
    """By hand: 2..6 has centre 4 and half-range 2; a constant 5 is only shifted, so 5.3 becomes 0.3."""
    normalizer = fitted({"x": np.array([[2.0, 5.0], [6.0, 5.0]])})
    got = normalizer.normalize("x", torch.tensor([[2.0, 5.0], [4.0, 5.3], [7.0, 4.0]]))
    torch.testing.assert_close(got, torch.tensor([[-1.0, 0.0], [0.0, 0.3], [1.5, -1.0]]))
    torch.testing.assert_close(normalizer.scale("x"), torch.tensor([2.0, 1.0]))


def test_before_fitting_nothing_is_changed() -> None:
    """The scaling starts as the identity."""
    value = torch.randn(4, 3)
    assert torch.equal(Normalizer({"x": (3,)}).normalize("x", value), value)


def test_fields_are_scaled_each_by_their_own_statistics() -> None:
    """Neither order nor the number of fields mixes them up."""
    normalizer = fitted({"a": np.array([0.0, 2.0]), "b": np.array([[10.0], [30.0]])})
    assert normalizer.normalize("a", torch.tensor(2.0)) == 1.0
    assert normalizer.normalize("b", torch.tensor([[10.0]])) == -1.0


def test_a_missing_field_is_an_error_with_the_nearest_name() -> None:
    """Neither an identity nor a KeyError: the name, its neighbour and all that is valid."""
    normalizer = Normalizer({"observation.state": (1,), "action": (1,)})
    for use in (normalizer.normalize, normalizer.unnormalize):
        with pytest.raises(SpecError, match=r"unknown field of the normalizer 'acton'\. Did you mean 'action'"):
            use("acton", torch.zeros(1))
    with pytest.raises(SpecError, match=r"unknown field in the statistics 'observation\.state'.*Valid: action"):
        normalizer.fit({"action": FieldStatistics.of(np.zeros((2, 1)))})


def test_fields_with_gaps_are_refused() -> None:
    """One NaN in the input makes the whole output of a network NaN."""
    gaps = FieldStatistics.of(np.array([[1.0, 2.0], [3.0, np.nan], [5.0, np.nan]]))
    with pytest.raises(SpecError, match="'x' is NaN in up to 2 of 3 steps"):
        Normalizer({"x": (2,)}).fit({"x": gaps})


def test_quantiles_are_those_of_the_nearest_rank() -> None:
    """A field that runs evenly from 0 to 1 has each rank as its quantile; moments alone have none."""
    found = FieldStatistics.of(QUANTILE_RANKS)
    with pytest.raises(SpecError, match=r"quantile 0\.5 was asked of statistics that hold moments only"):
        found.quantile(0.5)
    found.quantiles = QUANTILE_RANKS
    assert [found.quantile(rank).item() for rank in (0, 0.01, 0.5004, 1)] == [0, 0.01, 0.5, 1]


@pytest.mark.parametrize("extreme", [np.nan, np.inf, None])
def test_statistics_of_nothing_or_of_non_numbers_are_refused(extreme: float | None) -> None:
    """They would make every later action NaN."""
    found = FieldStatistics.of(np.zeros((3, 1) if extreme is not None else (0, 1)))
    if extreme is not None:
        found.high[0] = extreme
    with pytest.raises(SpecError, match="'x' are empty or not finite"):
        Normalizer({"x": (1,)}).fit({"x": found})


def test_the_scaling_travels_with_the_module() -> None:
    """A state dict restores it in a fresh module, and one field can be taken over alone."""
    source = fitted({"a": np.array([0.0, 2.0]), "b": np.array([0.0, 4.0])})
    loaded, partial = Normalizer({"a": (), "b": ()}), Normalizer({"b": ()})
    loaded.load_state_dict(source.state_dict())
    partial.copy_field("b", source)
    value = torch.tensor([1.0, 3.0])
    for name in ("a", "b"):
        assert torch.equal(loaded.normalize(name, value), source.normalize(name, value))
    assert torch.equal(partial.normalize("b", value), source.normalize("b", value))

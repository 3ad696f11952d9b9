"""Spaces: what is said of a field survives JSON, and a mismatch names everything that differs."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alula.core.errors import SpecError
from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec

NUMBERS = st.floats(allow_nan=False, width=32)
NAMES = st.text(min_size=1, max_size=8)


@st.composite
def properties(draw: st.DrawFn) -> dict[str, Any]:
    """Of any field that the constructor accepts.

    Tests construct the fields themselves: run-time type checkers draw random numbers, which strategies must not.
    """
    shape = tuple(draw(st.lists(st.integers(1, 4), max_size=3)))
    size = shape[-1] if shape else 1

    def entries(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
        return st.sampled_from([1, size]).flatmap(lambda n: st.tuples(*[values] * n))

    return dict(
        name=draw(NAMES),
        shape=shape,
        dtype=draw(st.sampled_from(["float32", "float64", "uint8", "int64", "bool"])),
        units=draw(entries(NAMES)),
        element_names=draw(st.just(()) | st.tuples(*[NAMES] * size)),
        low=draw(st.none() | entries(NUMBERS)),
        high=draw(st.none() | entries(NUMBERS)),
        resolution=draw(st.none() | entries(NUMBERS)),
        control_mode=draw(st.none() | st.sampled_from(list(ControlMode))),
        rate=draw(st.none() | st.floats(0.1, 1e4)),
    )


FIELDS = st.lists(properties(), max_size=4, unique_by=lambda field: field["name"])
TOOL = FieldSpec("observation.state", (2,), units=("m", "rad"), low=(-1.0,), high=(1.0,))
ACTION = FieldSpec("action", (2,), low=(-1.0,), high=(1.0,), control_mode=ControlMode.TORQUE, rate=20.0)


def space_of(fields: list[dict[str, Any]]) -> SpaceSpec:
    """The space of fields with these properties."""
    return SpaceSpec(tuple(FieldSpec(**field) for field in fields))


@given(FIELDS)
def test_json_round_trip_is_the_identity(fields: list[dict[str, Any]]) -> None:
    """A space written as JSON and read back is equal, types included."""
    space = space_of(fields)
    again = SpaceSpec.from_list(json.loads(json.dumps(space.to_list())))
    assert again == space
    assert [type(field.control_mode) for field in again.fields] == [type(field.control_mode) for field in space.fields]


@given(FIELDS)
def test_a_space_is_a_mapping_in_order(fields: list[dict[str, Any]]) -> None:
    """Names come in the order of the fields, and every name finds its own field."""
    space = space_of(fields)
    assert list(space) == [field.name for field in space.fields]
    assert len(space) == len(space.fields)
    assert all(space[name].name == name for name in space)


@given(FIELDS)
def test_equal_spaces_satisfy_require(fields: list[dict[str, Any]]) -> None:
    """No complaint about a copy."""
    space = space_of(fields)
    space.require(SpaceSpec.from_list(space.to_list()), "a", "b", "nothing")


CHANGES: dict[str, Any] = {
    "shape": (2, 2),
    "dtype": "float64",
    "units": ("rad", "m"),
    "element_names": ("left", "right"),
    "low": (-2.0,),
    "high": None,
    "resolution": (0.1, 0.0),
    "control_mode": ControlMode.VELOCITY,
    "rate": 10.0,
    "allow_nan": True,
}


def test_the_changes_cover_every_property() -> None:
    """A new property of a field needs a line in CHANGES."""
    assert set(CHANGES) | {"name"} == {field.name for field in dataclasses.fields(FieldSpec)}


@pytest.mark.parametrize("key", CHANGES)
def test_require_names_the_field_the_property_and_both_sides(key: str) -> None:
    """Any single difference is an error with both values, both owners and the remedy, and nothing else."""
    mine = SpaceSpec((TOOL, ACTION))
    theirs = SpaceSpec((TOOL, dataclasses.replace(ACTION, **{key: CHANGES[key]})))
    expected = (
        f"field 'action': {key} is {getattr(ACTION, key)} in the checkpoint, "
        f"{getattr(theirs['action'], key)} in the environment. Retrain"
    )
    with pytest.raises(SpecError) as caught:
        mine.require(theirs, "the checkpoint", "the environment", "Retrain")
    assert str(caught.value) == expected


def test_require_lists_all_differences_at_once() -> None:
    """Fields of one side only, and several differing properties, stand in one message."""
    mine = SpaceSpec((TOOL, ACTION))
    other = dataclasses.replace(ACTION, rate=5.0, low=(-3.0,))
    theirs = SpaceSpec((other, FieldSpec("observation.image", (2, 2, 3), dtype="uint8")))
    with pytest.raises(SpecError) as caught:
        mine.require(theirs, "the data", "the task", "Convert")
    message = str(caught.value)
    assert "field 'observation.state' exists only in the data" in message
    assert "field 'observation.image' exists only in the task" in message
    assert "low is (-1.0,) in the data, (-3.0,) in the task" in message
    assert "rate is 20.0 in the data, 5.0 in the task" in message
    assert message.endswith(". Convert")


def test_an_unknown_field_is_answered_with_the_nearest_and_all_names() -> None:
    """A misspelt name gets the likely one and the list; a foreign one only the list."""
    space = SpaceSpec((TOOL, ACTION))
    with pytest.raises(KeyError, match=r"'acton'\. Did you mean 'action'\? Valid: action, observation\.state"):
        space["acton"]
    with pytest.raises(KeyError) as caught:
        space["zzz"]
    assert "Did you mean" not in str(caught.value)
    assert "zzz" not in space


def test_an_unknown_property_is_answered_with_the_nearest() -> None:
    """Files of a later version fail by name, not by a constructor's TypeError."""
    with pytest.raises(SpecError, match=r"unknown property of a field 'unit'\. Did you mean 'units'"):
        FieldSpec.from_dict({"name": "a", "shape": [1], "unit": ["m"]})


def test_an_unknown_control_mode_is_answered_with_the_nearest() -> None:
    """The message lists what an action may command."""
    with pytest.raises(SpecError, match=r"unknown control mode 'torques'. Did you mean 'torque'\? Valid: .*velocity"):
        FieldSpec.from_dict({"name": "a", "shape": [1], "control_mode": "torques"})


def test_repeated_names_are_refused() -> None:
    """A name addresses one field."""
    with pytest.raises(SpecError, match="repeat"):
        SpaceSpec((TOOL, TOOL))


@pytest.mark.parametrize("attribute", ["units", "low", "high", "resolution"])
def test_per_element_properties_have_one_entry_or_one_per_element(attribute: str) -> None:
    """Two entries for three elements are refused, one and three are accepted."""
    make = {"units": ("m",)}.get(attribute, (0.0,))
    for count in (1, 3):
        FieldSpec("a", (5, 3), **{attribute: make * count})
    with pytest.raises(SpecError, match=f"field 'a': {attribute} has 2 entries, allowed are 1 or 3"):
        FieldSpec("a", (5, 3), **{attribute: make * 2})
    with pytest.raises(SpecError, match="2 element names for 3 elements"):
        FieldSpec("a", (5, 3), element_names=("x", "y"))


@given(properties())
def test_bounds_have_the_field_s_shape_and_type(values: dict[str, Any]) -> None:
    """Also for scalars, images and fields without bounds."""
    if values["dtype"] not in ("float32", "float64"):
        values = values | {"low": None, "high": None}
    field = FieldSpec(**values)
    for bound in field.bounds():
        assert bound.shape == field.shape
        assert bound.dtype == field.dtype
        assert bound.flags.writeable


def test_bounds_are_the_given_ones_or_those_of_the_type() -> None:
    """Entries are broadcast over the last axis; unbounded means infinite, or the range of an integer type."""
    low, high = FieldSpec("a", (2, 2), low=(-1.0, -2.0), high=(3.0,)).bounds()
    np.testing.assert_array_equal(low, [[-1, -2], [-1, -2]])
    np.testing.assert_array_equal(high, [[3, 3], [3, 3]])
    for dtype, bounds in {"float32": (-np.inf, np.inf), "uint8": (0, 255), "bool": (False, True)}.items():
        assert tuple(bound[0] for bound in FieldSpec("a", (1,), dtype).bounds()) == bounds
    assert FieldSpec("a", (), low=(2.0,)).bounds()[0] == 2.0


@given(properties())
def test_size_counts_the_elements_of_one_step(values: dict[str, Any]) -> None:
    """One for a scalar, the product of the axes otherwise."""
    field = FieldSpec(**values)
    assert field.size == np.zeros(field.shape).size


def test_require_names_the_first_element_that_differs_and_not_what_follows_from_the_shape() -> None:
    """Long per-element properties are not printed whole, and another shape explains all the rest."""
    mine = FieldSpec("observation.state", (3,), units=("m", "m", "rad"))
    turned = dataclasses.replace(mine, units=("m", "rad", "m"))
    larger = FieldSpec("observation.state", (4,), units=("N",))
    for theirs, expected in (
        (turned, "field 'observation.state': units[1] is m in A, rad in B. Fix it"),
        (larger, "field 'observation.state': shape is (3,) in A, (4,) in B. Fix it"),
    ):
        with pytest.raises(SpecError) as caught:
            SpaceSpec((mine,)).require(SpaceSpec((theirs,)), "A", "B", "Fix it")
        assert str(caught.value) == expected

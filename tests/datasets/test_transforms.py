"""Rotations inside a field change their representation, and everything that is said of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alula.core.errors import DatasetError
from alula.core.geometry import REPRESENTATIONS, convert_rotation
from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.formats.format import Contents
from alula.datasets.transforms import Chain, Rotation

ACTION = FieldSpec(
    "action",
    (7,),
    "float64",
    units=("m", "m", "m", "rad", "rad", "rad", "1"),
    element_names=("x", "y", "z", "rx", "ry", "rz", "gripper"),
    low=(-1.0,),
    high=(1.0, 2.0, 3.0, 4.0, 4.0, 4.0, 5.0),
    resolution=(0.01, 0.01, 0.01, 0.1, 0.1, 0.1, 0.0),
    control_mode=ControlMode.END_EFFECTOR_POSE_ABSOLUTE,
    rate=20.0,
)
CONTENTS = Contents(SpaceSpec((FieldSpec("observation.state", (3,)),)), SpaceSpec((ACTION,)), metadata={"task": "lift"})
TO_ROT6D = Rotation("action", 3, "axis_angle", "rot6d")


def episode(action: np.ndarray) -> Episode:
    steps = {"action": action, "observation.state": np.zeros((len(action), 3), np.float32)}
    return Episode(steps, {"seed": 3})


def test_seven_numbers_become_ten() -> None:
    """As diffusion_policy does with robomimic's actions: a quarter turn about z, by hand."""
    turned = TO_ROT6D.episode(episode(np.array([[1, 2, 3, 0, 0, np.pi / 2, -1]])))
    np.testing.assert_allclose(turned.steps["action"], [[1, 2, 3, 0, -1, 0, 1, 0, 0, -1]], atol=1e-12)
    assert turned.metadata == {"seed": 3}
    assert turned.steps["observation.state"].shape == (1, 3)


def test_what_is_said_of_the_elements_moves_with_them() -> None:
    changed = TO_ROT6D.contents(CONTENTS)
    spec = changed.action["action"]
    assert spec.shape == (10,)
    assert spec.units == ("m", "m", "m", *["1"] * 7)
    assert spec.element_names == ("x", "y", "z", *(f"rot6d_{index}" for index in range(6)), "gripper")
    assert spec.low == (-1.0,) * 10
    assert spec.high == (1.0, 2.0, 3.0, *[1.0] * 6, 5.0)
    assert spec.resolution == (0.01, 0.01, 0.01, *[0.0] * 6, 0.0)
    assert (spec.control_mode, spec.rate, spec.dtype) == (ACTION.control_mode, 20.0, "float64")
    assert changed.observation == CONTENTS.observation
    assert changed.metadata == CONTENTS.metadata


def test_angles_have_the_unit_of_angles() -> None:
    back = Chain((TO_ROT6D, Rotation("action", 3, "rot6d", "axis_angle"))).contents(CONTENTS)
    spec = back.action["action"]
    assert spec.units == ACTION.units
    assert spec.high == (1.0, 2.0, 3.0, np.pi, np.pi, np.pi, 5.0)


@given(
    st.lists(st.tuples(*[st.floats(-1.8, 1.8)] * 7), max_size=3),
    st.sampled_from(sorted(REPRESENTATIONS)),
)
def test_there_and_back_is_the_same_rotation(rows: list[tuple[float, ...]], name: str) -> None:
    """Of any number of steps, none included; the axis-angles are shorter than half a turn."""
    action = np.array(rows).reshape(-1, 7)
    chain = Chain((Rotation("action", 3, "axis_angle", name), Rotation("action", 3, name, "axis_angle")))
    assert chain.contents(CONTENTS).action["action"].shape == (7,)
    got = chain.episode(episode(action)).steps["action"]
    assert got.dtype == action.dtype
    np.testing.assert_array_equal(got[:, [0, 1, 2, 6]], action[:, [0, 1, 2, 6]])
    matrices = [convert_rotation(values[:, 3:6], "axis_angle", "matrix") for values in (got, action)]
    np.testing.assert_allclose(*matrices, atol=1e-12)


def test_a_second_arm_is_counted_from_where_it_is_then() -> None:
    spec = FieldSpec("action", (14,), "float32")
    contents = Contents(SpaceSpec(()), SpaceSpec((spec,)))
    chain = Chain((TO_ROT6D, Rotation("action", 13, "axis_angle", "rot6d")))
    assert chain.contents(contents).action["action"].shape == (20,)
    arm = [1, 2, 3, 0, 0, 0, 9]
    got = chain.episode(Episode({"action": np.array([arm + arm], np.float32)})).steps["action"]
    identity = [1, 2, 3, 1, 0, 0, 0, 1, 0, 9]
    np.testing.assert_array_equal(got, [identity + identity])
    assert got.dtype == np.float32


def test_the_source_keeps_its_arrays() -> None:
    action = np.arange(7.0)[None]
    source = episode(action.copy())
    TO_ROT6D.episode(source)
    np.testing.assert_array_equal(source.steps["action"], action)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (Rotation("actoin", 3, "axis_angle", "rot6d"), "unknown field 'actoin'. Did you mean 'action'"),
        (Rotation("action", 5, "axis_angle", "rot6d"), "no axis_angle at elements 5 to 7"),
        (Rotation("action", -3, "axis_angle", "rot6d"), "no axis_angle at elements -3"),
        (Rotation("action", 0, "matrix", "rot6d"), "no matrix at elements 0 to 8"),
    ],
)
def test_a_field_without_such_a_rotation_is_refused(transform: Rotation, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        transform.contents(CONTENTS)


def test_integers_and_pictures_hold_no_rotation() -> None:
    for spec in (FieldSpec("action", (7,), "int64"), FieldSpec("action", (7, 7))):
        with pytest.raises(DatasetError, match="has no axis_angle"):
            TO_ROT6D.contents(Contents(SpaceSpec(()), SpaceSpec((spec,))))


def test_an_unknown_representation_is_refused_at_once() -> None:
    with pytest.raises(DatasetError, match=r"'rot6'\. Did you mean 'rot6d'"):
        Rotation("action", 3, "axis_angle", "rot6")

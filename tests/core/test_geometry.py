"""Rotations in every representation, and frames."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from alula.core.geometry import (
    REPRESENTATIONS,
    attitude_enu_from_ned,
    axis_angle_from_rotation,
    convert_rotation,
    enu_from_ned,
    euler_from_rotation,
    flu_from_frd,
    quaternion_from_rotation,
    quaternion_from_yaw,
    rotate_by_yaw,
    rotation_from_axis_angle,
    rotation_from_euler,
    rotation_from_rot6d,
    wrap_angle,
    wxyz_from_xyzw,
    xyzw_from_wxyz,
)

ANGLES = st.floats(-1e3, 1e3)
VECTORS = st.tuples(*[st.floats(-10, 10)] * 3).map(lambda vector: np.array([vector]))


def quaternion_matrix(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrix of a unit quaternion wxyz, from its definition v' = q v q*."""
    w, x, y, z = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


@given(ANGLES)
def test_wrapping_keeps_the_direction_and_lands_within_half_a_turn(angle: float) -> None:
    """Same sine and cosine, at most pi, and wrapping again changes nothing beyond rounding."""
    wrapped = wrap_angle(np.array([angle]))
    assert abs(wrapped[0]) <= np.pi
    np.testing.assert_allclose([np.cos(wrapped[0]), np.sin(wrapped[0])], [np.cos(angle), np.sin(angle)], atol=1e-12)


def test_wrapped_angles_by_hand() -> None:
    """Angles within half a turn stay, others lose whole turns."""
    got = wrap_angle(np.array([0.0, 1.0, -3.0, np.pi + 0.5, -np.pi - 0.5, 7 * np.pi]))
    np.testing.assert_allclose(got, [0.0, 1.0, -3.0, 0.5 - np.pi, np.pi - 0.5, -np.pi], atol=1e-12)


@given(ANGLES, VECTORS)
def test_quaternion_and_rotation_agree(yaw: float, vector: np.ndarray) -> None:
    """The unit quaternion turns vectors as the formula for the plane does."""
    angle = np.array([yaw])
    quaternion = quaternion_from_yaw(angle)[0]
    np.testing.assert_allclose(np.linalg.norm(quaternion), 1.0, atol=1e-12)
    np.testing.assert_allclose(quaternion_matrix(quaternion) @ vector[0], rotate_by_yaw(vector, angle)[0], atol=1e-10)


@given(ANGLES, ANGLES, VECTORS)
def test_turns_add_and_undo_each_other(first: float, second: float, vector: np.ndarray) -> None:
    """Turning by a then b is turning by a + b; by a then -a is nothing."""
    a, b = np.array([first]), np.array([second])
    np.testing.assert_allclose(rotate_by_yaw(rotate_by_yaw(vector, a), b), rotate_by_yaw(vector, a + b), atol=1e-10)
    np.testing.assert_allclose(rotate_by_yaw(rotate_by_yaw(vector, a), -a), vector, atol=1e-12)


def test_a_quarter_turn_is_counterclockwise_from_above() -> None:
    """The x axis goes to y, y to -x, z stays."""
    got = rotate_by_yaw(np.array([[1.0, 0.0, 5.0], [0.0, 1.0, 6.0]]), np.full(2, np.pi / 2))
    np.testing.assert_allclose(got, [[0, 1, 5], [-1, 0, 6]], atol=1e-15)


UNIT_QUATERNIONS = (
    st.tuples(*[st.floats(-1, 1)] * 4)
    .filter(lambda values: np.linalg.norm(values) > 0.1)
    .map(lambda values: np.array([values]) / np.linalg.norm(values))
)
NAMES = sorted(REPRESENTATIONS)
HALF = np.sqrt(0.5)


def turn(axis: str, angle: float) -> np.ndarray:
    """Rotation about one axis, from the textbook."""
    c, s = np.cos(angle), np.sin(angle)
    matrices = {
        "X": [[1, 0, 0], [0, c, -s], [0, s, c]],
        "Y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "Z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }
    return np.array(matrices[axis])


def matrices(quaternion: np.ndarray) -> np.ndarray:
    return np.stack([quaternion_matrix(single) for single in quaternion])


@settings(max_examples=30)
@given(UNIT_QUATERNIONS)
@pytest.mark.parametrize("name", NAMES)
def test_every_representation_and_back_is_the_same_rotation(name: str, quaternion: np.ndarray) -> None:
    size, to_rotation, from_rotation = REPRESENTATIONS[name]
    rotation = matrices(quaternion)
    values = from_rotation(rotation)
    assert values.shape == (1, size)
    np.testing.assert_allclose(to_rotation(values), rotation, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_half_turns_and_gimbal_lock_are_rotations_like_others(name: str) -> None:
    """Where formulas divide by zero: no turn, half turns, and every middle angle of a right angle."""
    exact = [np.eye(3), *(turn(axis, np.pi) for axis in "XYZ")]
    exact += [turn(axis, sign * np.pi / 2) @ turn(other, 0.7) for axis in "XYZ" for other in "XYZ" for sign in (1, -1)]
    exact += [turn(other, 0.7) @ turn(axis, sign * np.pi / 2) for axis in "XYZ" for other in "XYZ" for sign in (1, -1)]
    _, to_rotation, from_rotation = REPRESENTATIONS[name]
    np.testing.assert_allclose(to_rotation(from_rotation(np.stack(exact))), exact, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("quaternion_wxyz", [HALF, 0, 0, HALF]),
        ("quaternion_xyzw", [0, 0, HALF, HALF]),
        ("axis_angle", [0, 0, np.pi / 2]),
        ("matrix", [0, -1, 0, 1, 0, 0, 0, 0, 1]),
        ("rot6d", [0, -1, 0, 1, 0, 0]),
        ("euler_XYZ", [0, 0, np.pi / 2]),
        ("euler_zyx", [np.pi / 2, 0, 0]),
    ],
)
def test_a_quarter_turn_about_z_in_every_representation(name: str, values: list[float]) -> None:
    _, to_rotation, from_rotation = REPRESENTATIONS[name]
    np.testing.assert_allclose(to_rotation(np.array([values], float))[0], turn("Z", np.pi / 2), atol=1e-12)
    np.testing.assert_allclose(from_rotation(turn("Z", np.pi / 2)[None])[0], values, atol=1e-12)


@pytest.mark.parametrize("axes", ["XYZ", "XZY", "YXZ", "YZX", "ZXY", "ZYX"])
def test_euler_angles_turn_about_their_axes_in_order(axes: str) -> None:
    """Intrinsic: the next axis has turned along. Extrinsic: the axes stay, so the last turn is the leftmost."""
    angles = np.array([[0.3, -1.1, 2.5]])
    first, second, third = (turn(axis, angle) for axis, angle in zip(axes, angles[0], strict=True))
    np.testing.assert_allclose(rotation_from_euler(angles, axes)[0], first @ second @ third, atol=1e-12)
    np.testing.assert_allclose(rotation_from_euler(angles, axes.lower())[0], third @ second @ first, atol=1e-12)
    for name in (axes, axes.lower()):
        np.testing.assert_allclose(euler_from_rotation(rotation_from_euler(angles, name), name), angles, atol=1e-12)


@given(VECTORS)
def test_the_axis_stays_and_the_angle_is_its_length(vector: np.ndarray) -> None:
    """Also for tiny angles; and a turn by more than half comes back as the shorter one the other way."""
    rotation = rotation_from_axis_angle(vector)
    np.testing.assert_allclose(rotation @ vector[0], vector, atol=1e-9)
    angle = np.linalg.norm(vector)
    np.testing.assert_allclose(np.trace(rotation[0]), 1 + 2 * np.cos(angle), atol=1e-9)
    back = axis_angle_from_rotation(rotation)
    assert np.linalg.norm(back) <= np.pi + 1e-12
    np.testing.assert_allclose(rotation_from_axis_angle(back), rotation, atol=1e-7)


def test_tiny_angles_keep_their_digits() -> None:
    """No loss where cos(angle) is 1 to all digits."""
    tiny = np.array([[1e-10, -2e-10, 3e-10], [0, 0, 0]])
    np.testing.assert_allclose(axis_angle_from_rotation(rotation_from_axis_angle(tiny)), tiny, rtol=1e-5, atol=1e-300)


@given(UNIT_QUATERNIONS)
def test_quaternions_come_back_with_the_real_part_not_negative(quaternion: np.ndarray) -> None:
    back = quaternion_from_rotation(matrices(quaternion))
    assert back[0, 0] >= 0
    np.testing.assert_allclose(abs((back * quaternion).sum()), 1, atol=1e-9)
    np.testing.assert_array_equal(wxyz_from_xyzw(xyzw_from_wxyz(quaternion)), quaternion)


@given(st.tuples(*[st.floats(-2, 2)] * 6))
def test_any_six_numbers_that_span_a_plane_are_a_rotation(values: tuple[float, ...]) -> None:
    """Networks give numbers that are not orthonormal: the first row keeps its direction, the second its side."""
    rot6d = np.array([values])
    first, second = rot6d[0, :3], rot6d[0, 3:]
    assume(np.linalg.norm(np.cross(first, second)) > 1e-2)
    rotation = rotation_from_rot6d(rot6d)[0]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) > 0
    np.testing.assert_allclose(rotation[0] * np.linalg.norm(first), first, atol=1e-9)
    assert rotation[1] @ second > 0


def test_north_east_down_is_east_north_up() -> None:
    vectors = np.array([[1.0, 2.0, -3.0]])
    np.testing.assert_array_equal(enu_from_ned(vectors), [[2, 1, 3]])
    np.testing.assert_array_equal(flu_from_frd(vectors), [[1, -2, 3]])


@given(UNIT_QUATERNIONS, VECTORS)
def test_frames_of_attitude_and_vectors_agree(quaternion: np.ndarray, vector: np.ndarray) -> None:
    """Turn a body's vector into the world, then change the world's frame; or change the body's frame first."""
    turned_then_changed = enu_from_ned(vector @ quaternion_matrix(quaternion[0]).T)
    changed_then_turned = flu_from_frd(vector) @ quaternion_matrix(attitude_enu_from_ned(quaternion)[0]).T
    np.testing.assert_allclose(turned_then_changed, changed_then_turned, atol=1e-9)
    for there_and_back in (enu_from_ned, flu_from_frd):
        np.testing.assert_array_equal(there_and_back(there_and_back(vector)), vector)
    np.testing.assert_allclose(attitude_enu_from_ned(attitude_enu_from_ned(quaternion)), quaternion, atol=1e-12)


def test_conversion_by_name() -> None:
    np.testing.assert_allclose(
        convert_rotation(np.array([[0, 0, np.pi / 2]]), "axis_angle", "rot6d"), [[0, -1, 0, 1, 0, 0]], atol=1e-12
    )

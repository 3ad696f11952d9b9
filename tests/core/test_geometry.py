"""Rotations about the vertical."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from alula.core.geometry import quaternion_from_yaw, rotate_by_yaw, wrap_angle

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

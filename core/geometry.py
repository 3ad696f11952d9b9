"""Rotations and frames: angles in radians, quaternions wxyz, everything in batches.

A rotation is a matrix that turns column vectors; every other representation has a function to it and one from it.
Euler angles are named by their axes in the order of turning: "XYZ" about the axes of the turning body (intrinsic),
"xyz" about axes that stay (extrinsic; roll, pitch and yaw of ROS).
"""

from collections.abc import Callable
from itertools import permutations

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def wrap_angle(angle: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
    """The same angle in [-pi, pi] [rad]."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def quaternion_from_yaw(yaw: Float[ndarray, " batch"]) -> Float[ndarray, "batch 4"]:
    """Rotation by `yaw` [rad] about the vertical, as wxyz."""
    zero = np.zeros_like(yaw)
    return np.stack([np.cos(yaw / 2), zero, zero, np.sin(yaw / 2)], axis=-1)


def rotate_by_yaw(vectors: Float[ndarray, "batch 3"], yaw: Float[ndarray, " batch"]) -> Float[ndarray, "batch 3"]:
    """Vectors turned by `yaw` [rad] about the vertical."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    x, y, z = vectors.T
    return np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=-1)


def rotation_from_quaternion(quaternion: Float[ndarray, "batch 4"]) -> Float[ndarray, "batch 3 3"]:
    """Rotation matrices of unit quaternions wxyz."""
    w, x, y, z = np.ascontiguousarray(quaternion.T)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    rotation = np.empty((len(quaternion), 3, 3))
    for row, entries in enumerate(rows):
        for column, values in enumerate(entries):
            rotation[:, row, column] = values
    return rotation


def xyzw_from_wxyz(quaternion: Float[ndarray, "batch 4"]) -> Float[ndarray, "batch 4"]:
    """The real part last, as ROS, SciPy and PyBullet have it."""
    return np.roll(quaternion, -1, axis=-1)


def wxyz_from_xyzw(quaternion: Float[ndarray, "batch 4"]) -> Float[ndarray, "batch 4"]:
    """The real part first, as MuJoCo, PX4 and alula have it."""
    return np.roll(quaternion, 1, axis=-1)


def quaternion_from_rotation(rotation: Float[ndarray, "batch 3 3"]) -> Float[ndarray, "batch 4"]:
    """Unit quaternions wxyz with w >= 0, without dividing by a small number (Shepperd 1978)."""
    m = rotation
    trace = m[:, 0, 0] + m[:, 1, 1] + m[:, 2, 2]
    xx, yy, zz = (1 + 2 * m[:, axis, axis] - trace for axis in range(3))
    wx, wy, wz = m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]
    xy, xz, yz = m[:, 0, 1] + m[:, 1, 0], m[:, 0, 2] + m[:, 2, 0], m[:, 1, 2] + m[:, 2, 1]
    # Each row is 4 times the quaternion times one of its own elements; the largest element gives the best row.
    rows = np.array([[1 + trace, wx, wy, wz], [wx, xx, xy, xz], [wy, xy, yy, yz], [wz, xz, yz, zz]])
    diagonal = np.array([1 + trace, xx, yy, zz])
    best = rows[diagonal.argmax(axis=0), :, np.arange(len(m))]
    quaternion = best / np.linalg.norm(best, axis=-1, keepdims=True)
    return np.where(quaternion[:, :1] < 0, -quaternion, quaternion)


def rotation_from_axis_angle(axis_angle: Float[ndarray, "batch 3"]) -> Float[ndarray, "batch 3 3"]:
    """Rotations about an axis by its length [rad]."""
    angle = np.linalg.norm(axis_angle, axis=-1, keepdims=True)
    # sin(angle / 2) / angle, also at 0.
    scale = np.sinc(angle / (2 * np.pi)) / 2
    return rotation_from_quaternion(np.concatenate([np.cos(angle / 2), axis_angle * scale], axis=-1))


def axis_angle_from_rotation(rotation: Float[ndarray, "batch 3 3"]) -> Float[ndarray, "batch 3"]:
    """Axis times angle, the angle in [0, pi] [rad]."""
    quaternion = quaternion_from_rotation(rotation)
    real, imaginary = quaternion[:, :1], quaternion[:, 1:]
    sine = np.linalg.norm(imaginary, axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, real)
    small = sine < 1e-12
    return imaginary * np.where(small, 2.0, angle / np.where(small, 1.0, sine))


def rotation_from_rot6d(rot6d: Float[ndarray, "batch 6"]) -> Float[ndarray, "batch 3 3"]:
    """Rotations whose first two rows are `rot6d`, made orthonormal by Gram-Schmidt.

    Source: Zhou et al. 2019, arXiv:1812.07035, section 3; rows as in PyTorch3D and diffusion_policy, where the paper
    has columns.
    """
    first = rot6d[:, :3] / np.linalg.norm(rot6d[:, :3], axis=-1, keepdims=True)
    second = rot6d[:, 3:] - (first * rot6d[:, 3:]).sum(axis=-1, keepdims=True) * first
    second = second / np.linalg.norm(second, axis=-1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], axis=1)


def rot6d_from_rotation(rotation: Float[ndarray, "batch 3 3"]) -> Float[ndarray, "batch 6"]:
    """The first two rows, one after the other."""
    return rotation[:, :2].reshape(-1, 6)


def rotation_from_euler(angles: Float[ndarray, "batch 3"], axes: str) -> Float[ndarray, "batch 3 3"]:
    """Rotations by three angles [rad] about three axes, such as "XYZ" (intrinsic) or "xyz" (extrinsic)."""
    first, second, third = (
        rotation_from_axis_angle(angles[:, index, None] * np.eye(3)["XYZ".index(axis.upper())])
        for index, axis in enumerate(axes)
    )
    return first @ second @ third if axes.isupper() else third @ second @ first


def euler_from_rotation(rotation: Float[ndarray, "batch 3 3"], axes: str) -> Float[ndarray, "batch 3"]:
    """Angles [rad] about three different axes; the middle one in [-pi/2, pi/2].

    Where the middle one is a right angle, the first and the third turn about the same line, and only their sum or
    difference means something; it is exact there, too.
    """
    if axes.islower():  # Extrinsic is intrinsic backwards.
        return euler_from_rotation(rotation, axes[::-1].upper())[:, ::-1]
    i, j, k = ("XYZ".index(axis) for axis in axes)
    sign = 1 if (j - i) % 3 == 1 else -1
    m = rotation
    first = np.arctan2(-sign * m[:, j, k], m[:, k, k])
    second = np.arctan2(sign * m[:, i, k], np.hypot(m[:, i, i], m[:, i, j]))
    # With the first turn undone, row j knows the third angle whatever the second is.
    row = np.cos(first)[:, None] * m[:, j] + sign * np.sin(first)[:, None] * m[:, k]
    third = np.arctan2(sign * row[:, i], row[:, j])
    return np.stack([first, second, third], axis=-1)


def enu_from_ned(vectors: Float[ndarray, "batch 3"]) -> Float[ndarray, "batch 3"]:
    """North-east-down as east-north-up; its own inverse."""
    return vectors[:, [1, 0, 2]] * [1, 1, -1]


def flu_from_frd(vectors: Float[ndarray, "batch 3"]) -> Float[ndarray, "batch 3"]:
    """Front-right-down of a body as front-left-up; its own inverse."""
    return vectors * [1, -1, -1]


def attitude_enu_from_ned(quaternion: Float[ndarray, "batch 4"]) -> Float[ndarray, "batch 4"]:
    """The attitude of a front-right-down body in north-east-down as that of front-left-up in east-north-up.

    Both changes of frame are half turns: about x for the body, about the diagonal of x and y for the world. Written
    out, their product with a quaternion wxyz is this, up to the sign that means nothing; its own inverse.
    """
    w, x, y, z = quaternion.T
    return np.stack([w + z, x + y, x - y, w - z], axis=-1) * np.sqrt(0.5)


FromRotation = Callable[[Float[ndarray, "batch 3 3"]], Float[ndarray, "batch elements"]]
ToRotation = Callable[[Float[ndarray, "batch elements"]], Float[ndarray, "batch 3 3"]]


def _euler(axes: str) -> tuple[int, ToRotation, FromRotation]:
    return 3, lambda angles: rotation_from_euler(angles, axes), lambda rotation: euler_from_rotation(rotation, axes)


REPRESENTATIONS: dict[str, tuple[int, ToRotation, FromRotation]] = {
    "quaternion_wxyz": (4, rotation_from_quaternion, quaternion_from_rotation),
    "quaternion_xyzw": (
        4,
        lambda quaternion: rotation_from_quaternion(wxyz_from_xyzw(quaternion)),
        lambda rotation: xyzw_from_wxyz(quaternion_from_rotation(rotation)),
    ),
    "matrix": (9, lambda values: values.reshape(-1, 3, 3), lambda rotation: rotation.reshape(-1, 9)),
    "axis_angle": (3, rotation_from_axis_angle, axis_angle_from_rotation),
    "rot6d": (6, rotation_from_rot6d, rot6d_from_rotation),
    **{
        f"euler_{axes}": _euler(axes)
        for order in permutations("XYZ")
        for axes in ("".join(order), "".join(order).lower())
    },
}
"""By name: number of elements, to rotations, from rotations."""


def convert_rotation(
    values: Float[ndarray, "batch elements"], source: str, target: str
) -> Float[ndarray, "batch other_elements"]:
    """Rotations in another representation, by the names in `REPRESENTATIONS`."""
    return REPRESENTATIONS[target][2](REPRESENTATIONS[source][1](values))

"""Small rotations toolbox: angles in radians, quaternions wxyz."""

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

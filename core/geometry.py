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

"""Pinhole cameras in OpenCV's convention, and clouds of points from depth images."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64
from numpy import ndarray


@dataclass(frozen=True)
class Pinhole:
    """Which pixel sees which point of the world.

    OpenCV's convention: in the camera's frame x points right, y down and z forward; a pixel is (u, v), column and row,
    with integers at the centres of pixels and (0, 0) at the top left.
    """

    K: Float64[ndarray, "3 3"]
    """Intrinsics [px]: the camera's frame (x, y, z) is seen at `K @ (x / z, y / z, 1)`."""
    T_world_camera: Float64[ndarray, "4 4"]
    """Pose of the camera: takes points from its frame to the world's [m]."""

    def project(self, points: Float[ndarray, "points 3"]) -> Float64[ndarray, "points 2"]:
        """Pixels (u, v) at which points of the world [m] in front of the camera appear, inside the image or not."""
        rotation, position = self.T_world_camera[:3, :3], self.T_world_camera[:3, 3]
        seen = (points - position) @ rotation @ self.K.T
        return seen[:, :2] / seen[:, 2:]

    def unproject(self, depth: Float[ndarray, "height width"]) -> Float64[ndarray, "height width 3"]:
        """The point of the world [m] in every pixel of a depth image [m along the optical axis]."""
        v, u = np.indices(depth.shape)
        rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(self.K).T
        rotation, position = self.T_world_camera[:3, :3], self.T_world_camera[:3, 3]
        return depth[..., None] * rays @ rotation.T + position


def crop(points: Float32[ndarray, "points 3"], corners: Float[ndarray, "2 3"]) -> Float32[ndarray, "kept 3"]:
    """The points within an upright box, given by its lowest and its highest corner [m]."""
    low, high = corners
    return points[((points >= low) & (points <= high)).all(axis=1)]


def subsample(points: Float32[ndarray, "points 3"], num_points: int) -> Float32[ndarray, "{num_points} 3"]:
    """Exactly `num_points` of the points, drawn evenly and always alike; some repeated where there are too few.

    Raises:
        ValueError: there is no point at all.
    """
    if len(points) == 0:
        raise ValueError(f"no point to choose {num_points} from: the camera sees nothing, or nothing within the crop")
    order = np.random.default_rng(0).permutation(len(points))
    return points[np.resize(order, num_points)]

"""Pinhole cameras and clouds of points, without drawing."""

import numpy as np
import pytest

from alula.sims.pointcloud import Pinhole, crop, subsample


@pytest.fixture
def pinhole() -> Pinhole:
    """A camera at (1, 2, 3) that looks along the world's x axis, with its own z up: right is -y, down is -z."""
    K = np.array([[100.0, 0, 40], [0, 120, 30], [0, 0, 1]])
    T_world_camera = np.array([[0.0, 0, 1, 1], [-1, 0, 0, 2], [0, -1, 0, 3], [0, 0, 0, 1]])
    return Pinhole(K, T_world_camera)


@pytest.mark.parametrize(
    ("point", "pixel"),
    [
        ((3.0, 2.0, 3.0), (40.0, 30.0)),  # On the optical axis.
        ((3.0, 1.0, 3.0), (90.0, 30.0)),  # To the right: 1 m at 2 m is 50 px.
        ((3.0, 2.0, 4.0), (40.0, -30.0)),  # Above, out of the image: 60 px.
    ],
)
def test_a_known_point_is_seen_at_its_pixel(pinhole: Pinhole, point: tuple, pixel: tuple) -> None:
    np.testing.assert_allclose(pinhole.project(np.array([point])), [pixel], atol=1e-12)


def test_projecting_is_the_inverse_of_unprojecting(pinhole: Pinhole) -> None:
    """Any depths, and depth is measured along the optical axis: the world's x, 1 m behind."""
    depth = np.random.default_rng(0).uniform(0.1, 10.0, (50, 70)).astype(np.float32)
    points = pinhole.unproject(depth)
    np.testing.assert_allclose(points[..., 0] - 1.0, depth, rtol=1e-12)
    v, u = np.indices(depth.shape)
    pixels = pinhole.project(points.reshape(-1, 3)).reshape(50, 70, 2)
    np.testing.assert_allclose(pixels, np.stack([u, v], axis=-1), atol=1e-9)


def test_a_subsample_has_the_wanted_size_and_only_given_points() -> None:
    points = np.random.default_rng(1).normal(size=(300, 3)).astype(np.float32)
    chosen = subsample(points, 100)
    assert chosen.shape == (100, 3)
    assert len(np.unique(chosen, axis=0)) == 100
    assert {tuple(point) for point in chosen} <= {tuple(point) for point in points}
    np.testing.assert_array_equal(chosen, subsample(points, 100))


def test_a_small_cloud_is_repeated_evenly() -> None:
    points = np.arange(9, dtype=np.float32).reshape(3, 3)
    unique, counts = np.unique(subsample(points, 8), axis=0, return_counts=True)
    np.testing.assert_array_equal(unique, points)
    assert sorted(counts) == [2, 3, 3]
    with pytest.raises(ValueError, match="no point to choose 8 from"):
        subsample(points[:0], 8)


def test_cropping_keeps_order_and_corners() -> None:
    points = np.array([[0, 0, 0], [1, 1, 1], [0.5, 2, 0.5], [0.5, 0.5, 0.5]], dtype=np.float32)
    np.testing.assert_array_equal(crop(points, np.array([[0.0, 0, 0], [1, 1, 1]])), points[[0, 1, 3]])

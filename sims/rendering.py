"""Pictures and videos, off the hot path."""

import os
from collections.abc import Sequence
from copy import copy
from fractions import Fraction
from pathlib import Path

import av
import mujoco
import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8
from numpy import ndarray

from alula.core.errors import RenderError
from alula.sims.engine import BatchState
from alula.sims.pointcloud import Pinhole, crop, subsample

Frame = tuple[ndarray, ndarray, ndarray, ndarray]
"""qpos, qvel, mocap position and orientation of one environment: what decides a picture."""
Picture = UInt8[ndarray, "height width 3"]
"""RGB."""
Depth = Float32[ndarray, "height width"]
"""Distance along the optical axis [m]; where the camera sees nothing, that of the model's far plane."""
Segmentation = Int32[ndarray, "height width"]
"""Number of the geom in every pixel (`model.geom_bodyid` tells its body); -1 where there is none."""

SHADOW_FINENESS = 4
"""Texels of the shadow map per pixel of the picture; on a processor MuJoCo's own 4096 take most of the time."""


class Camera:
    """Draws environments of a batch, one at a time, with one OpenGL context.

    Depth, segmentation and points are of all geoms that a picture shows, translucent ones too, but not of sites: those
    are marks, not matter. Planes and boxes are exact to micrometres; round geoms are drawn as polyhedra, which
    lie within 1.1 % of the radius. Equal states give images that are equal bit for bit.

    Args:
        model: The model to draw.
        name: Name of a camera in it.
        width: Pixels.
        height: Pixels.

    Raises:
        RenderError: no OpenGL context can be made.
    """

    def __init__(self, model: mujoco.MjModel, name: str, width: int = 320, height: int = 240) -> None:
        self._model, self._name = model, name
        self._data = mujoco.MjData(model)
        self._marks, self._matter = mujoco.MjvOption(), mujoco.MjvOption()
        self._matter.sitegroup[:] = 0
        try:
            self._renderer = _renderer(model, width, height)
        except Exception as error:  # MuJoCo's GL backends raise many unrelated types
            raise RenderError(
                f"cannot make an OpenGL context with MUJOCO_GL={os.environ.get('MUJOCO_GL', '(unset)')} ({error}). "
                "Install a software renderer (Debian: apt-get install libegl1 libgl1-mesa-dri) and set "
                "MUJOCO_GL=egl, or go without pictures (evaluation.videos=0)"
            ) from error

    def beside(self, name: str) -> "Camera":
        """Another camera of the same model, with the same size and OpenGL context: closing one closes both."""
        other = copy(self)
        other._name = name
        return other

    def picture(self, state: BatchState, env: int) -> Picture:
        """RGB image of environment `env`."""
        return self.draw(*_frame(state, env))

    def draw(self, qpos: ndarray, qvel: ndarray, mocap_pos: ndarray, mocap_quat: ndarray) -> Picture:
        """RGB image of one state."""
        self._aim((qpos, qvel, mocap_pos, mocap_quat), self._marks)
        return self._renderer.render()

    def depth(self, state: BatchState, env: int) -> Depth:
        """Distances in environment `env`, at the centres of the pixels."""
        self._aim(_frame(state, env), self._matter)
        self._renderer.enable_depth_rendering()
        image = self._renderer.render()
        self._renderer.disable_depth_rendering()
        return image

    def segmentation(self, state: BatchState, env: int) -> Segmentation:
        """Which geom each pixel's centre shows in environment `env`."""
        self._aim(_frame(state, env), self._matter)
        self._renderer.enable_segmentation_rendering()
        ids, types = np.moveaxis(self._renderer.render(), -1, 0)
        self._renderer.disable_segmentation_rendering()
        return np.where(types == mujoco.mjtObj.mjOBJ_GEOM.value, ids, np.int32(-1))

    def point_cloud(
        self,
        state: BatchState,
        env: int,
        num_points: int | None = None,
        corners: Float[ndarray, "2 3"] | None = None,
    ) -> Float32[ndarray, "points 3"]:
        """What the camera sees of environment `env`, as points in the world's frame; without the background.

        Args:
            state: The batch.
            env: Which environment.
            num_points: Exactly so many points, see `subsample`; default all, in the order of the pixels.
            corners: Lowest and highest corner of the box [m] within which points are kept; default all.

        Raises:
            ValueError: `num_points` are wanted, but there is none.
        """
        depth = self.depth(state, env)
        far = self._model.vis.map.zfar * self._model.stat.extent
        points = self.pinhole(state, env).unproject(depth)[depth < 0.999 * far].astype(np.float32)
        if corners is not None:
            points = crop(points, corners)
        return points if num_points is None else subsample(points, num_points)

    def pinhole(self, state: BatchState, env: int) -> Pinhole:
        """Intrinsics, and the pose in environment `env`: a camera may ride on a robot. Not for orthographic cameras."""
        self._aim(_frame(state, env), self._matter)
        # MuJoCo's own frustum covers field of view, focal length and principal point alike; its scene has two eyes.
        lens = mujoco.mjv_averageCamera(*self._renderer.scene.camera)
        width, height = self._renderer.width, self._renderer.height
        tall = lens.frustum_top - lens.frustum_bottom
        wide = 2 * lens.frustum_width or tall * width / height
        focal = lens.frustum_near * np.array([width / wide, height / tall])
        # The frustum is measured from the image's edge, half a pixel before the first pixel's centre.
        centre = np.array([width / 2 - lens.frustum_center * width / wide, lens.frustum_top * height / tall]) - 0.5
        intrinsics = np.array([[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1]])
        seen = self._data.camera(self._name)
        pose = np.eye(4)
        pose[:3, :3] = seen.xmat.reshape(3, 3) * (1, -1, -1)  # OpenGL's y points up and its z backwards.
        pose[:3, 3] = seen.xpos
        return Pinhole(intrinsics, pose)

    def _aim(self, frame: Frame, shown: mujoco.MjvOption) -> None:
        data = self._data
        data.qpos[:], data.qvel[:], data.mocap_pos[:], data.mocap_quat[:] = frame
        mujoco.mj_forward(self._model, data)
        self._renderer.update_scene(data, self._name, shown)

    def close(self) -> None:
        """Free the context."""
        self._renderer.close()


def _frame(state: BatchState, env: int) -> Frame:
    return state.qpos[env], state.qvel[env], state.mocap_pos[env], state.mocap_quat[env]


def _renderer(model: mujoco.MjModel, width: int, height: int) -> mujoco.Renderer:
    """A renderer whose shadows are as fine as the picture: their size is read from the model only here."""
    quality = model.vis.quality
    size = quality.shadowsize
    quality.shadowsize = min(size, SHADOW_FINENESS * max(width, height))
    try:
        return mujoco.Renderer(model, height, width)
    finally:
        quality.shadowsize = size


def write_video(path: Path, pictures: Sequence[Picture], rate: float) -> None:
    """Encode pictures as H.264 in MP4, playable in every browser.

    Args:
        path: File to write.
        pictures: Frames of equal, even size.
        rate: Frames per second [Hz].
    """
    height, width, _ = pictures[0].shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "26", "preset": "veryfast"}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())

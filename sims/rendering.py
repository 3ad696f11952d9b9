"""Pictures and videos, off the hot path."""

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import mujoco
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from alula.core.errors import RenderError
from alula.sims.engine import BatchState

Picture = UInt8[ndarray, "height width 3"]


class Camera:
    """Draws environments of a batch, one at a time, with one OpenGL context.

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
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        except Exception as error:  # MuJoCo's GL backends raise many unrelated types
            raise RenderError(
                f"cannot make an OpenGL context with MUJOCO_GL={os.environ.get('MUJOCO_GL', '(unset)')} ({error}). "
                "Install a software renderer (Debian: apt-get install libegl1 libgl1-mesa-dri) and set "
                "MUJOCO_GL=egl, or go without pictures (evaluation.videos=0)"
            ) from error

    def picture(self, state: BatchState, env: int) -> Picture:
        """RGB image of environment `env`."""
        return self.draw(state.qpos[env], state.qvel[env], state.mocap_pos[env], state.mocap_quat[env])

    def draw(self, qpos: ndarray, qvel: ndarray, mocap_pos: ndarray, mocap_quat: ndarray) -> Picture:
        """RGB image of one state."""
        data = self._data
        data.qpos[:], data.qvel[:] = qpos, qvel
        data.mocap_pos[:], data.mocap_quat[:] = mocap_pos, mocap_quat
        mujoco.mj_forward(self._model, data)
        self._renderer.update_scene(data, self._name)
        return self._renderer.render().copy()

    def close(self) -> None:
        """Free the context."""
        self._renderer.close()


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

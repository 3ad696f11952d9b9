"""Pictures and videos."""

import subprocess
import sys
from pathlib import Path

import av
import gymnasium
import numpy as np
import pytest

import alula.sims  # noqa: F401  # registers the tasks with Gymnasium
from alula.core.errors import RenderError
from alula.sims.registry import TASKS
from alula.sims.rendering import Camera, write_video
from alula.sims.task import Task
from alula.sims.vector import TaskVectorEnv


@pytest.fixture(scope="module", autouse=True)
def opengl(task: Task) -> None:
    """Skip all of this module where nothing can be drawn."""
    try:
        Camera(task.model, task.camera, 32, 24).close()
    except RenderError as error:
        pytest.skip(str(error))


def test_pictures_show_the_scene_and_its_motion(task: Task) -> None:
    """One picture per environment, not blank, a function of the state, another one once the robot has moved."""
    env = TaskVectorEnv(task, 2)
    env.reset(seed=0)
    before = env.render()
    assert [(picture.shape, picture.dtype) for picture in before] == [((240, 320, 3), np.uint8)] * 2
    assert all(picture.std() > 10 for picture in before)
    assert (before[0] != before[1]).any()  # The scenes differ.
    np.testing.assert_array_equal(env.render(), before)
    state = env.get_state()
    for _ in range(10):
        env.step(np.tile(task.action["action"].bounds()[1], (2, 1)))
    after = env.render()
    for old, new in zip(before, after, strict=True):
        assert (np.abs(old.astype(int) - new).max(axis=2) > 30).mean() > 0.001
    env.set_state(state)
    np.testing.assert_array_equal(env.render(), before)
    env.close()


def test_drawing_does_not_disturb_the_simulation(task: Task) -> None:
    """States with and without pictures in between are equal."""
    low, high = task.action["action"].bounds()
    finals = []
    for draw in (False, True):
        env = TaskVectorEnv(task, 1)
        env.reset(seed=0)
        for bound in (low, high, low):
            env.step(bound[None])
            if draw:
                env.render()
        finals.append(env.get_state()["physics"])
        env.close()
    np.testing.assert_array_equal(*finals)


def test_the_single_environment_draws_for_gymnasium(task_name: str) -> None:
    """`render_mode="rgb_array"` works through `gymnasium.make`."""
    env = gymnasium.make(TASKS[task_name].gymnasium_id, render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert isinstance(picture, np.ndarray)
    assert picture.shape == (240, 320, 3)
    env.close()


@pytest.mark.parametrize("rate", [20.0, 100.0, 12.5])
def test_a_video_holds_every_frame(tmp_path: Path, rate: float) -> None:
    """Decoded by FFmpeg: number, size, order and rate of the frames, and a pixel format that browsers play."""
    pictures = [np.full((48, 64, 3), 20 * index, dtype=np.uint8) for index in range(11)]
    path = tmp_path / "video.mp4"
    write_video(path, pictures, rate)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate or 0) == rate
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == len(pictures)
    for frame, picture in zip(frames, pictures, strict=True):
        assert frame.shape == picture.shape
        assert abs(frame.mean() - picture.mean()) < 6


WITHOUT_OPENGL = """
import mujoco
from alula.core.errors import RenderError
from alula.sims.rendering import Camera
try:
    Camera(mujoco.MjModel.from_xml_string("<mujoco/>"), "any")
except RenderError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="EGL is Linux's")
def test_a_machine_without_opengl_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """No driver for EGL, as on a bare server: one message with the setting, the package and the way without."""
    monkeypatch.setenv("MUJOCO_GL", "egl")
    for variable in ("__EGL_VENDOR_LIBRARY_DIRS", "__EGL_VENDOR_LIBRARY_FILENAMES"):
        monkeypatch.setenv(variable, "/nonexistent")
    done = subprocess.run([sys.executable, "-c", WITHOUT_OPENGL], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cannot make an OpenGL context with MUJOCO_GL=egl (")
    assert "apt-get install libegl1" in done.stdout
    assert "or go without pictures (" in done.stdout

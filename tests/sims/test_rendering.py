"""Pictures and videos."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import gymnasium
import mujoco
import numpy as np
import pytest
from numpy import ndarray

import alula.sims  # noqa: F401  # registers the tasks with Gymnasium
from alula.core.errors import RenderError
from alula.sims.engine import BatchState
from alula.sims.rendering import Camera, write_video
from alula.sims.task import Task
from alula.sims.vector import TaskVectorEnv

SCENE = """
<mujoco>
  <visual><headlight diffuse="0.5 0.5 0.5"/></visual>
  <statistic extent="2"/>
  <worldbody>
    <light pos="1 1 3" dir="-1 -1 -3"/>
    <camera name="above" pos="0 0 1.2" fovy="60"/>
    <camera name="aslant" pos="0.2 -1 0.8" xyaxes="1 0.1 0 0 0.6 0.8" fovy="50"/>
    <camera name="lens" pos="-0.3 -0.9 0.9" xyaxes="1 -0.2 0 0.1 0.7 0.7" resolution="97 73"
            sensorsize="0.008 0.006" focal="0.006 0.008" principal="0.0005 -0.0003"/>
    <camera name="sky" pos="0 0 1" xyaxes="1 0 0 0 -1 0"/>
    <geom name="floor" type="plane" size="4 4 0.1"/>
    <geom name="sphere" type="sphere" size="0.1" pos="0 0 0.3"/>
    <site type="sphere" size="0.05" pos="0 0 0.8"/>
    <body name="box" mocap="true"><geom name="box" type="box" size="0.1 0.2 0.05"/></body>
  </worldbody>
</mujoco>
"""
WIDTH, HEIGHT = 97, 73  # Odd: the middle pixel's centre is on the optical axis.
GEOMS = {"floor": 0, "sphere": 1, "box": 2}


@pytest.fixture(scope="module", autouse=True)
def scene() -> Iterator[Camera]:
    """The camera "above" of the scene; skips all of this module where nothing can be drawn."""
    try:
        camera = Camera(mujoco.MjModel.from_xml_string(SCENE), "above", WIDTH, HEIGHT)
    except RenderError as error:
        pytest.skip(str(error))
    yield camera
    camera.close()


@pytest.fixture(scope="module")
def state() -> BatchState:
    """In environment 0 the box is far away, in 1 it lies turned on the floor."""
    pos = np.array([[[0.0, 50.0, 0.0]], [[0.25, -0.1, 0.3]]])
    quat = np.array([[[1.0, 0.0, 0.0, 0.0]], [[0.8, 0.36, 0.48, 0.0]]])
    empty = np.zeros((2, 0))
    return BatchState(np.zeros(2), empty, empty, empty, pos, quat, np.zeros((2, 1, 0)), {})


def rotation_of(quaternion: ndarray) -> ndarray:
    """Rotation matrix."""
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def test_depth_is_the_distance_along_the_optical_axis(scene: Camera, state: BatchState) -> None:
    """The sphere's top is 0.8 m below; the floor is 1.2 m below everywhere, also in the corners of the image."""
    depth = scene.depth(state, 0)
    assert (depth.shape, depth.dtype) == ((HEIGHT, WIDTH), np.float32)
    assert depth[HEIGHT // 2, WIDTH // 2] == pytest.approx(0.8, abs=1e-5)
    np.testing.assert_allclose(depth[[0, 0, -1, -1], [0, -1, 0, -1]], 1.2, atol=1e-5)


def test_segmentation_counts_the_geom(scene: Camera, state: BatchState) -> None:
    """From distance d a sphere is a disc of radius f r / sqrt(d² - r²); the site before it is none of the geoms."""
    ids = scene.segmentation(state, 0)
    assert (ids.shape, ids.dtype) == ((HEIGHT, WIDTH), np.int32)
    assert set(np.unique(ids)) == {GEOMS["floor"], GEOMS["sphere"]}
    focal = HEIGHT / 2 / np.tan(np.radians(30))
    radius = focal * 0.1 / np.sqrt(0.9**2 - 0.1**2)
    assert (ids == GEOMS["sphere"]).sum() == pytest.approx(np.pi * radius**2, abs=2 * radius)


def test_the_sky_is_background(scene: Camera, state: BatchState) -> None:
    """-1, the far plane's distance (50 extents by default), and no points."""
    sky = scene.beside("sky")
    assert (sky.segmentation(state, 0) == -1).all()
    np.testing.assert_allclose(sky.depth(state, 0), 100.0, rtol=1e-4)
    assert sky.point_cloud(state, 0).shape == (0, 3)
    with pytest.raises(ValueError, match="no point to choose 10 from"):
        sky.point_cloud(state, 0, num_points=10)


@pytest.mark.parametrize("name", ["aslant", "lens"])
def test_points_lie_on_the_surfaces_they_show(scene: Camera, state: BatchState, name: str) -> None:
    """The floor at z = 0, the box's faces in its own frame, the sphere at its radius.

    A sphere is drawn by 28 slices and 16 stacks, which lie within cos(π/28) cos(π/32) of its radius.
    """
    camera = scene.beside(name)
    seen = camera.depth(state, 1) < 99.0
    ids, points = camera.segmentation(state, 1)[seen], camera.point_cloud(state, 1).astype(float)
    assert points.shape == (len(ids), 3)
    near = np.linalg.norm(points, axis=1) < 3.0
    floor, sphere, box = (points[near & (ids == number)] for number in GEOMS.values())
    assert min(len(floor), len(sphere), len(box)) > 50
    assert np.abs(floor[:, 2]).max() < 1e-5
    radii = np.linalg.norm(sphere - (0, 0, 0.3), axis=1)
    assert radii.max() < 0.1 + 1e-5
    assert radii.min() > 0.1 * np.cos(np.pi / 28) * np.cos(np.pi / 32) - 1e-5
    local = (box - state.mocap_pos[1, 0]) @ rotation_of(state.mocap_quat[1, 0])
    outside = np.abs(local) - (0.1, 0.2, 0.05)
    np.testing.assert_allclose(outside.max(axis=1), 0.0, atol=1e-5)
    assert len(np.unique(outside.argmax(axis=1))) > 1  # More than one face is in view.


@pytest.mark.parametrize("name", ["above", "aslant", "lens"])
def test_points_project_back_to_their_pixels(scene: Camera, state: BatchState, name: str) -> None:
    """To a thousandth of a pixel, through K and T_world_camera alone."""
    camera = scene.beside(name)
    v, u = np.nonzero(camera.depth(state, 1) < 99.0)
    pixels = camera.pinhole(state, 1).project(camera.point_cloud(state, 1))
    np.testing.assert_allclose(pixels, np.column_stack([u, v]), atol=1e-3)


def test_intrinsics_follow_from_the_field_of_view(scene: Camera, state: BatchState) -> None:
    """The principal point is the middle of the image, half a pixel short of half its size; OpenCV's z looks down."""
    pinhole = scene.pinhole(state, 0)
    focal = HEIGHT / 2 / np.tan(np.radians(30))
    np.testing.assert_allclose(pinhole.K, [[focal, 0, 48], [0, focal, 36], [0, 0, 1]], atol=1e-4)
    np.testing.assert_array_equal(
        pinhole.T_world_camera, np.diag([1, -1, -1, 1]) + 1.2 * np.eye(4)[[2]].T @ [[0, 0, 0, 1]]
    )


def test_points_within_a_box_and_of_a_wanted_number(scene: Camera, state: BatchState) -> None:
    """Cropping above the floor leaves the sphere alone; as many points as wanted, of these."""
    corners = np.array([[-0.2, -0.2, 0.01], [0.2, 0.2, 1.0]])
    points = scene.point_cloud(state, 0, corners=corners)
    assert len(points) == (scene.segmentation(state, 0) == GEOMS["sphere"]).sum()
    chosen = scene.point_cloud(state, 0, 64, corners)
    assert (chosen.shape, chosen.dtype) == ((64, 3), np.float32)
    assert {tuple(point) for point in chosen} <= {tuple(point) for point in points}


def test_equal_states_give_equal_images_and_cameras_differ(scene: Camera, state: BatchState) -> None:
    """Bit for bit: whatever was drawn in between, by whichever camera or context."""

    def images(camera: Camera, env: int) -> list[ndarray]:
        return [getattr(camera, kind)(state, env) for kind in ("picture", "depth", "segmentation", "point_cloud")]

    before, other, moved = images(scene, 0), images(scene.beside("aslant"), 0), images(scene, 1)
    fresh = Camera(mujoco.MjModel.from_xml_string(SCENE), "above", WIDTH, HEIGHT)
    for again in (images(scene, 0), images(fresh, 0)):
        assert [image.tobytes() for image in again] == [image.tobytes() for image in before]
    for different in (other, moved):
        assert all(image.tobytes() != old.tobytes() for image, old in zip(different, before, strict=True))
    fresh.close()


def test_pictures_show_the_scene_and_its_motion(task: Task, assert_identical: Callable[[Any, Any], None]) -> None:
    """One picture per environment, not blank, a function of the state, which drawing leaves as it was."""
    env = TaskVectorEnv(task, 2)
    env.reset(seed=0)
    state, before = env.get_state(), env.render()
    assert_identical(env.get_state(), state)
    assert [(picture.shape, picture.dtype) for picture in before] == [((240, 320, 3), np.uint8)] * 2
    assert all(picture.std() > 10 for picture in before)
    starts = env.engine.state.qpos
    assert (before[0] != before[1]).any() or (starts[0] == starts[1]).all()  # The scenes differ where the starts do.
    for _ in range(10):
        env.step(np.tile(task.action["action"].bounds()[1], (2, 1)))
    for old, new in zip(before, env.render(), strict=True):
        assert np.abs(old.astype(int) - new).max() > 30
    env.set_state(state)
    np.testing.assert_array_equal(env.render(), before)
    env.close()


@pytest.mark.parametrize(("mode", "shape", "dtype"), [("rgb_array", (3,), np.uint8), ("depth_array", (), np.float32)])
def test_the_single_environment_draws_for_gymnasium(mode: str, shape: tuple[int, ...], dtype: type) -> None:
    """Both modes work through `gymnasium.make`."""
    env = gymnasium.make("alula/PegInsertion-v0", render_mode=mode)
    env.reset(seed=0)
    picture = env.render()
    assert isinstance(picture, ndarray)
    assert (picture.shape, picture.dtype) == ((240, 320, *shape), dtype)
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

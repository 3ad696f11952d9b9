"""Pictures come with their age, nobody waits for them, and what is wrong with them is said in words."""

import importlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alula.core.errors import ConfigError, DeviceError
from alula.real_robot import cameras
from alula.real_robot.cameras.camera import Camera, Driver, Frame
from alula.real_robot.cameras.config import CameraConfig, OpenCVConfig, RealSenseConfig, SyntheticConfig
from alula.real_robot.cameras.group import Cameras
from alula.real_robot.cameras.process import CameraProcess
from alula.real_robot.cameras.registry import CAMERAS, make_driver
from alula.real_robot.cameras.synthetic import Pattern, read_time
from alula.real_robot.emulators import mjpeg
from alula.real_robot.emulators.emulation import Emulation

pytestmark = pytest.mark.real_time

SIZE = {"width": 160, "height": 120}
WAIT_S = 15.0
"""Longest that a test waits for anything; a loaded machine is slow."""
PATIENT = 5.0
"""Age of a picture that nothing on a loaded machine reaches [s]."""


def wait_for(condition: Callable[[], Any]) -> Any:
    """What it returns, once that is anything."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.005)
    raise AssertionError("waited in vain")


@pytest.fixture
def start() -> Iterator[Callable[[CameraConfig], CameraProcess]]:
    """Opens cameras, and closes them at the end."""
    opened = list[CameraProcess]()

    def open_one(config: CameraConfig) -> CameraProcess:
        opened.append(CameraProcess("front", config))
        opened[-1].open()
        return opened[-1]

    yield open_one
    for camera in opened:
        camera.close()


@pytest.fixture
def emulate(tmp_path: Path) -> Iterator[Callable[..., Emulation]]:
    """Starts a network camera."""
    started = list[Emulation]()

    def start_one(rate: float = 30.0) -> Emulation:
        started.append(Emulation(mjpeg.__name__, tmp_path, {**SIZE, "rate": rate, "faults": [], "seed": 0}))
        return started[-1]

    yield start_one
    for emulation in started:
        emulation.end()


def newest(camera: CameraProcess, after: int = 0) -> Frame:
    """The next picture."""

    def look() -> Frame | None:
        frame = camera.latest(time.monotonic_ns(), PATIENT)
        return frame if frame is not None and frame.sequence > after else None

    frame: Frame = wait_for(look)
    return frame


def complaint(camera: CameraProcess, max_age: float = PATIENT) -> str:
    """What it complains of, sooner or later."""
    words: str = wait_for(lambda: camera.problem(time.monotonic_ns(), max_age))
    return words


@given(
    st.integers(0, 2**63 - 1), st.integers(16, 200), st.integers(16, 200), st.integers(0, 1000), st.integers(0, 1000)
)
def test_the_time_in_a_picture_can_be_read(stamp: int, width: int, height: int, number: int, seed: int) -> None:
    assert read_time(Pattern(width, height, seed).draw(number, stamp)) == stamp


def test_pictures_of_a_pattern_differ_in_time_and_by_seed() -> None:
    pattern = Pattern(64, 48, 0)
    assert (pattern.draw(1, 0) != pattern.draw(2, 0)).mean() > 0.3
    assert (pattern.draw(1, 0) != Pattern(64, 48, 1).draw(1, 0)).mean() > 0.3


def test_a_camera_delivers_what_its_specification_says(start: Callable[[CameraConfig], CameraProcess]) -> None:
    camera = start(SyntheticConfig(**SIZE, rate=50.0))
    assert isinstance(camera, Camera)
    frame = newest(camera)
    (field,) = camera.spec.values()
    assert field.name == "observation.images.front"
    assert (frame.image.shape, frame.image.dtype.name) == (field.shape, field.dtype) == ((120, 160, 3), "uint8")
    assert frame.depth is None
    assert camera.problem(time.monotonic_ns(), PATIENT) is None
    # The stamp is the time at which the picture was drawn, over there, by the same clock.
    assert abs(read_time(frame.image) - frame.captured_ns) < 1e6
    later = newest(camera, after=frame.sequence)
    assert later.captured_ns > frame.captured_ns
    # A picture that somebody holds does not change under his eyes.
    assert abs(read_time(frame.image) - frame.captured_ns) < 1e6


def test_age_is_counted_from_the_stamp_and_bounds_what_is_used(start: Callable[[CameraConfig], CameraProcess]) -> None:
    camera = start(SyntheticConfig(**SIZE))
    frame = newest(camera)
    os.killpg(camera._process.pid, signal.SIGSTOP)  # type: ignore[union-attr]
    frame = newest(camera)
    now = frame.captured_ns + 300_000_000
    at_limit = camera.latest(now, 0.3)
    assert at_limit is not None
    assert at_limit.age == pytest.approx(0.3)
    assert camera.latest(now, 0.299) is None
    assert camera.problem(now, 0.3) is None
    assert camera.problem(now, 0.1) == "camera 'front': late, its newest picture is 300 ms old, allowed are 100 ms"


def test_a_known_latency_makes_stamps_earlier(start: Callable[[CameraConfig], CameraProcess]) -> None:
    frame = newest(start(SyntheticConfig(**SIZE, latency=0.2)))
    assert read_time(frame.image) - frame.captured_ns == pytest.approx(2e8, abs=1e6)


def test_looking_takes_no_time(start: Callable[[CameraConfig], CameraProcess]) -> None:
    """A loop may ask as often as it likes; the camera's rate does not matter to it."""
    camera = start(SyntheticConfig(width=640, height=480, rate=2.0))
    newest(camera)
    begun = time.process_time()
    for _ in range(1000):
        camera.latest(time.monotonic_ns(), PATIENT)
    assert time.process_time() - begun < 0.2


def test_a_camera_whose_process_is_killed_says_so_and_can_be_opened_again(
    start: Callable[[CameraConfig], CameraProcess],
) -> None:
    camera = start(SyntheticConfig(**SIZE))
    newest(camera)
    os.kill(camera._process.pid, signal.SIGKILL)  # type: ignore[union-attr]
    assert complaint(camera) == "camera 'front': its process has ended (code -9)"
    assert camera.latest(time.monotonic_ns(), 1e9) is not None
    camera.open()
    newest(camera)
    assert camera.problem(time.monotonic_ns(), PATIENT) is None
    camera.close()
    camera.close()
    assert camera.latest(time.monotonic_ns(), PATIENT) is None
    assert camera.problem(time.monotonic_ns(), PATIENT) == "camera 'front': it is not open"


OPENS_A_CAMERA = """
import time
from alula.real_robot.cameras.config import SyntheticConfig
from alula.real_robot.cameras.process import CameraProcess
camera = CameraProcess("front", SyntheticConfig(width=160, height=120))
camera.open()
print(camera._process.pid, camera._ring.path, flush=True)
time.sleep(60)
"""


def test_a_camera_outlives_nobody() -> None:
    """When whoever opened it is killed, its process ends and its memory is given back."""
    owner = subprocess.Popen([sys.executable, "-c", OPENS_A_CAMERA], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    number, path = owner.stdout.readline().split()
    assert Path(path).exists()
    owner.kill()
    owner.communicate()
    wait_for(lambda: not Path(path).exists())
    wait_for(lambda: _has_ended(int(number)))


def _has_ended(number: int) -> bool:
    """Whether there is no such process any more, or only its remains, which nobody has collected."""
    try:
        return Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_a_network_camera_delivers_pictures_in_order_and_on_time(
    start: Callable[[CameraConfig], CameraProcess], emulate: Callable[..., Emulation]
) -> None:
    camera = start(OpenCVConfig(**SIZE, source=emulate().address))
    frames = [newest(camera)]
    while len(frames) < 10:
        frames.append(newest(camera, after=frames[-1].sequence))
    drawn = [read_time(frame.image) for frame in frames]
    assert drawn == sorted(set(drawn))
    delays = [frame.captured_ns - time for frame, time in zip(frames, drawn, strict=True)]
    assert min(delays) > 0
    assert np.median(delays) < 2e8
    # Colours in the right order: the pattern's own, but for what JPEG changes.
    ours = Pattern(160, 120, 0)
    likeness = [np.abs(frames[0].image.astype(int) - ours.draw(number, drawn[0])).mean() for number in range(200)]
    assert min(likeness) < 8


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "frozen"}, r"frozen, it has shown the same picture for 0\.\d s"),
        ({"kind": "black"}, "black, is its lens covered"),
        ({"kind": "drop", "probability": 0.7}, r"slow, it delivers [\d.]+ pictures per second, 30 are asked for"),
        ({"kind": "drop"}, r"late, its newest picture is \d+ ms old, allowed are 500 ms"),
        ({"kind": "ended"}, "delivers no pictures any more: is it still plugged in"),
    ],
)
def test_what_is_wrong_with_pictures_is_said(
    start: Callable[[CameraConfig], CameraProcess],
    emulate: Callable[..., Emulation],
    fault: dict[str, Any],
    words: str,
) -> None:
    emulation = emulate()
    camera = start(OpenCVConfig(**SIZE, source=emulation.address))
    newest(camera)
    emulation.ask(fault=fault)

    def said() -> bool:
        found = camera.problem(time.monotonic_ns(), 0.5 if "late" in words else PATIENT)
        return found is not None and re.search(words, found) is not None

    wait_for(said)


def test_a_constant_delay_does_not_show_but_in_the_picture(
    start: Callable[[CameraConfig], CameraProcess], emulate: Callable[..., Emulation]
) -> None:
    """That is why latency is measured once: nothing in the stream tells it."""
    emulation = emulate()
    emulation.ask(fault={"kind": "late", "value": 250.0})
    camera = start(OpenCVConfig(**SIZE, source=emulation.address, latency=0.25))
    frames = [newest(camera)]
    while len(frames) < 10:
        frames.append(newest(camera, after=frames[-1].sequence))
    errors = [frame.captured_ns - read_time(frame.image) for frame in frames]
    assert 0 < np.median(errors) < 1.5e8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 320}, "delivers pictures of 160 x 120, 320 x 120 are asked for"),
        ({"rate": 120.0}, r"delivers [\d.]+ pictures per second, 120 are asked for"),
        ({"source": "http://127.0.0.1:9/none"}, "cannot be opened: is it plugged in"),
        ({"source": "/dev/video99"}, "'/dev/video99' cannot be opened"),
        ({"source": "99"}, "'99' cannot be opened"),
    ],
)
def test_a_camera_that_is_not_what_was_asked_for_is_refused(
    emulate: Callable[..., Emulation], changes: dict[str, Any], words: str
) -> None:
    camera = CameraProcess("front", OpenCVConfig(**{**SIZE, "source": emulate().address, **changes}))
    with pytest.raises(DeviceError, match=words):
        camera.open()
    assert camera.latest(time.monotonic_ns(), PATIENT) is None


def test_several_cameras_are_seen_together_or_not_at_all() -> None:
    group = Cameras(
        [CameraProcess("top", SyntheticConfig(**SIZE)), CameraProcess("wrist", SyntheticConfig(**SIZE, seed=1))],
        max_age=PATIENT,
    )
    assert list(group.spec) == ["observation.images.top", "observation.images.wrist"]
    group.open()
    try:
        seen = wait_for(lambda: group.observe(time.monotonic_ns()))
        assert {name: field.shape for name, field in group.spec.items()} == {n: a.shape for n, a in seen.items()}
        assert (seen["observation.images.top"] != seen["observation.images.wrist"]).any()
        wait_for(lambda: group.problems(time.monotonic_ns()) == ())
        group.cameras[1].close()
        assert group.observe(time.monotonic_ns()) is None
        assert group.problems(time.monotonic_ns()) == ("camera 'wrist': it is not open",)
    finally:
        group.close()
    with pytest.raises(ConfigError, match=r"several cameras deliver observation.images.top"):
        Cameras([CameraProcess("top", SyntheticConfig()) for _ in range(2)])


def test_if_one_of_several_cannot_be_opened_none_is() -> None:
    good, bad = CameraProcess("a", SyntheticConfig(**SIZE)), CameraProcess("b", OpenCVConfig(source="/dev/video99"))
    with pytest.raises(DeviceError, match="camera 'b': '/dev/video99' cannot be opened"):
        Cameras([good, bad]).open()
    assert good.problem(time.monotonic_ns(), PATIENT) == "camera 'a': it is not open"


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="is impossible"):
        SyntheticConfig(rate=0.0)
    with pytest.raises(ConfigError, match="latency of a camera"):
        SyntheticConfig(latency=-0.1)
    with pytest.raises(ConfigError, match="no camera has the configuration"):
        make_driver(CameraConfig())


def test_every_kind_has_a_driver() -> None:
    for entry in CAMERAS.values():
        module, driver = entry.driver.split(":")
        path = Path(cameras.__file__).parent / f"{module}.py"
        assert f"class {driver}:" in path.read_text(encoding="utf-8")
    for config in (SyntheticConfig(), OpenCVConfig()):
        assert isinstance(make_driver(config), Driver)


def test_a_missing_library_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError("libusb-1.0.so.0: cannot open shared object file")

    monkeypatch.setattr("alula.real_robot.cameras.realsense.import_module", missing)
    with pytest.raises(DeviceError, match=r"realsense cameras cannot be used: libusb.*pip install 'alula\[cameras\]'"):
        make_driver(RealSenseConfig())


class SoftRealSense:
    """librealsense's own software device: what we deliver goes through the real sensors, queues and alignment."""

    def __init__(self, serial: str) -> None:
        try:
            self.sdk = importlib.import_module("pyrealsense2")
        except ImportError as error:
            pytest.skip(f"librealsense is not usable here: {error}")
        sdk, self.device = self.sdk, self.sdk.software_device()
        self.device.register_info(sdk.camera_info.name, "software")
        self.device.register_info(sdk.camera_info.serial_number, serial)
        self.sensors = [self.device.add_sensor("Stereo Module"), self.device.add_sensor("RGB Camera")]
        self.sensors[0].add_read_only_option(sdk.option.depth_units, 0.001)
        kinds = ((sdk.stream.depth, sdk.format.z16, 2), (sdk.stream.color, sdk.format.rgb8, 3))
        self.profiles = [
            sensor.add_video_stream(self._stream(*kind, uid))
            for uid, (sensor, kind) in enumerate(zip(self.sensors, kinds, strict=True))
        ]
        same = sdk.extrinsics()
        same.rotation, same.translation = [1, 0, 0, 0, 1, 0, 0, 0, 1], [0, 0, 0]
        for one, other in (self.profiles, self.profiles[::-1]):
            one.register_extrinsics_to(other, same)
        self.device.create_matcher(sdk.matchers.dlr_c)

    def _stream(self, kind: Any, format: Any, size: int, uid: int) -> Any:
        lens, stream = self.sdk.intrinsics(), self.sdk.video_stream()
        lens.width, lens.height, lens.ppx, lens.ppy, lens.fx, lens.fy = 64, 48, 32, 24, 60, 60
        lens.model = self.sdk.distortion.none
        stream.type, stream.index, stream.uid, stream.fmt, stream.bpp = kind, 0, uid, format, size
        stream.width, stream.height, stream.fps, stream.intrinsics = 64, 48, 30, lens
        return stream

    def push(self, number: int, age: float) -> None:
        """Deliver a picture whose elements are all `number`, and a distance of `number` millimetres, this old [s]."""
        pixels = np.full((48, 64), number, np.uint16), np.full((48, 64, 3), number, np.uint8)
        for sensor, profile, array in zip(self.sensors, self.profiles, pixels, strict=True):
            frame = self.sdk.software_video_frame()
            frame.pixels, frame.bpp, frame.stride = array, array[0, 0].nbytes, array[0].nbytes
            frame.frame_number, frame.profile = number, profile.as_video_stream_profile()
            frame.timestamp, frame.domain = 1e3 * (time.time() - age), self.sdk.timestamp_domain.system_time
            frame.depth_units = 0.001
            sensor.on_video_frame(frame)


def realsense(soft: SoftRealSense, **changes: Any) -> Any:
    config = RealSenseConfig(**{"width": 64, "height": 48, "depth": True, **changes})
    return importlib.import_module("alula.real_robot.cameras.realsense").RealSenseDriver(config, lambda: [soft.device])


@pytest.mark.parametrize("depth", [False, True])
def test_a_realsense_delivers_colour_and_depth_stamped_when_exposed(depth: bool) -> None:
    soft = SoftRealSense("123")
    driver = realsense(soft, serial="123", depth=depth)
    assert isinstance(driver, Driver)
    driver.open()
    over = threading.Event()

    def feed() -> None:
        number = 0
        while not over.wait(0.02):
            number += 1
            # Up to 60 its stamps are 100 ms old, afterwards an hour ahead: somebody has set the clock.
            soft.push(number, 0.1 if number <= 60 else -3600.0)

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    try:
        picture = driver.grab()
        number = int(picture.image[0, 0, 0])
        assert (picture.image.shape, picture.image.dtype, np.ptp(picture.image)) == ((48, 64, 3), np.uint8, 0)
        if depth:
            assert (picture.depth.shape, picture.depth.dtype) == ((48, 64), np.float32)
            np.testing.assert_allclose(picture.depth[24, 32], number / 1000)
        else:
            assert picture.depth is None
        wait_for(lambda: 0.1 <= (-driver.grab().captured_ns + time.monotonic_ns()) / 1e9 < 1.0)
        while int(picture.image[0, 0, 0]) <= 60:
            picture = driver.grab()
        wait_for(lambda: 0.0 <= (-driver.grab().captured_ns + time.monotonic_ns()) / 1e9 < 1.0)
    finally:
        over.set()
        thread.join()
        driver.close()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"serial": "999"}, "no RealSense '999' is connected; there are: 123"),
        ({"width": 1280, "height": 720}, "the RealSense 123 has no color and depth of 1280 x 720 at 30 Hz"),
        ({"rate": 90.0}, "at 90 Hz: choose what rs-enumerate-devices lists"),
    ],
)
def test_a_realsense_that_is_not_what_was_asked_for_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        realsense(SoftRealSense("123"), **changes).open()

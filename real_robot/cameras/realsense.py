"""Intel RealSense cameras through librealsense, on the level of its sensors, which its software devices have, too."""

import time
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import numpy as np

from alula.core.errors import DeviceError
from alula.real_robot.cameras.camera import Picture
from alula.real_robot.cameras.config import RealSenseConfig

PATIENCE_MS = 3000
"""Time within which every picture must come [ms]: our choice."""
OLDEST_NS = 1_000_000_000
"""Age at arrival from which the camera's own stamp is not believed [ns]: our choice."""


class RealSenseDriver:
    """Colour and, if asked for, depth in the colour picture's frame; stamped when exposed, where the camera tells it.

    Args:
        config: Settings.
        devices: What is connected; by default what librealsense finds.
    """

    def __init__(self, config: RealSenseConfig, devices: Callable[[], Iterable[Any]] | None = None) -> None:
        self._sdk: Any = import_module("pyrealsense2")
        self._config = config
        self._devices = devices or (lambda: self._sdk.context().query_devices())
        self._opened: list[Any] = []

    def open(self) -> None:
        """Find the camera and start its sensors."""
        sdk, config = self._sdk, self._config
        streams = {sdk.stream.color: sdk.format.rgb8}
        if config.depth:
            streams[sdk.stream.depth] = sdk.format.z16
        device = self._find()
        self._frames, self._align = sdk.syncer(), sdk.align(sdk.stream.color)
        for sensor in device.query_sensors():
            profiles = [profile for kind, format in streams.items() for profile in self._matching(sensor, kind, format)]
            if profiles:
                sensor.open(profiles)
                sensor.start(self._frames)
                self._opened.append(sensor)
                for profile in profiles:
                    del streams[profile.stream_type()]
        if streams:
            missing = " and ".join(str(kind).removeprefix("stream.") for kind in streams)
            self.close()
            raise DeviceError(
                f"the RealSense {_serial(sdk, device)} has no {missing} of {config.width} x {config.height} at "
                f"{config.rate:g} Hz: choose what rs-enumerate-devices lists; on USB 2 there is less"
            )

    def _find(self) -> Any:
        found = {_serial(self._sdk, device): device for device in self._devices()}
        wanted = self._config.serial or (next(iter(found)) if len(found) == 1 else "")
        if wanted not in found:
            raise DeviceError(
                f"no RealSense '{self._config.serial}' is connected; there are: {', '.join(found) or 'none'}. "
                "Give the serial number of one, and check its cable and the udev rules of librealsense"
            )
        return found[wanted]

    def _matching(self, sensor: Any, kind: Any, format: Any) -> list[Any]:
        """The profile of a sensor that is asked for, if it has it."""
        config = self._config
        wanted = (kind, format, config.width, config.height, round(config.rate))
        for profile in sensor.get_stream_profiles():
            if profile.is_video_stream_profile():
                video = profile.as_video_stream_profile()
                offered = (video.stream_type(), video.format(), video.width(), video.height(), video.fps())
                if offered == wanted:
                    return [video]
        return []

    def grab(self) -> Picture:
        """The next picture that has all that is asked for."""
        while True:
            try:
                frames = self._frames.wait_for_frames(PATIENCE_MS)
            except RuntimeError as error:
                raise DeviceError(f"the RealSense delivers no pictures any more: {error}") from None
            color = frames.get_color_frame()
            if not color or (self._config.depth and not frames.get_depth_frame()):
                continue
            stamp = self._stamp(color)
            if not self._config.depth:
                return Picture(np.array(color.get_data()), stamp)
            frames = self._align.process(frames)
            depth = frames.get_depth_frame()
            distance = np.array(depth.get_data(), dtype=np.float32) * np.float32(depth.get_units())
            return Picture(np.array(frames.get_color_frame().get_data()), stamp, distance)

    def _stamp(self, frame: Any) -> int:
        """When a frame was exposed, by the monotonic clock.

        librealsense tells it by the host's wall clock, so the frame's age now is subtracted from the time now. An age
        that cannot be (somebody has set the clock) or a stamp by the camera's own clock counts for nothing.
        """
        now_ns, wall_ms = time.monotonic_ns(), 1e3 * time.time()
        domains = self._sdk.timestamp_domain
        if frame.get_frame_timestamp_domain() not in (domains.global_time, domains.system_time):
            return now_ns
        age_ns = round(1e6 * (wall_ms - frame.get_timestamp()))
        return now_ns - age_ns if 0 <= age_ns < OLDEST_NS else now_ns

    def close(self) -> None:
        """Stop the sensors."""
        for sensor in self._opened:
            sensor.stop()
            sensor.close()
        self._opened = []


def _serial(sdk: Any, device: Any) -> str:
    serial: str = device.get_info(sdk.camera_info.serial_number)
    return serial

"""Webcams and network streams through OpenCV."""

import time

import cv2
import numpy as np

from alula.core.errors import DeviceError
from alula.real_robot.cameras.camera import Picture
from alula.real_robot.cameras.config import OpenCVConfig

PROBED = 10
"""Pictures by which the rate is judged."""
SLOWEST = 0.7
"""Share of the rate that a camera must keep: our choice; webcams halve theirs in the dark."""
PATIENCE_MS = 3000
"""Time within which a stream must open, and every picture of it must come [ms]: our choice."""


class OpenCVDriver:
    """A camera that `cv2.VideoCapture` can open; a picture is stamped when it has been taken from the camera.

    Args:
        config: Settings.
    """

    def __init__(self, config: OpenCVConfig) -> None:
        self._config = config
        self._capture = cv2.VideoCapture()

    def open(self) -> None:
        """Connect, ask for size and rate, and see what comes."""
        config, source = self._config, self._config.source
        if "://" in source:
            patience = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, PATIENCE_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, PATIENCE_MS]
            self._capture.open(source, cv2.CAP_FFMPEG, patience)
        else:
            wishes = [cv2.CAP_PROP_FRAME_WIDTH, config.width, cv2.CAP_PROP_FRAME_HEIGHT, config.height]
            wishes += [cv2.CAP_PROP_FPS, round(config.rate), cv2.CAP_PROP_BUFFERSIZE, 1]
            if source.isdecimal():
                self._capture.open(int(source), cv2.CAP_V4L2, wishes)
            else:
                self._capture.open(source, cv2.CAP_V4L2, wishes)
        if not self._capture.isOpened():
            raise DeviceError(
                f"'{source}' cannot be opened: is it plugged in and free, and may you read it? "
                "(ls -l /dev/v4l/by-id; sudo usermod -aG video $USER; a stream: open its address in a browser)"
            )
        self._require_delivery()

    def _require_delivery(self) -> None:
        config = self._config
        stamps = [self.grab().captured_ns for _ in range(PROBED + 1)]
        # The median: the first pictures may come in a burst or late.
        rate = 1e9 / float(np.median(np.diff(stamps)).clip(1))
        if rate < SLOWEST * config.rate:
            raise DeviceError(
                f"'{config.source}' delivers {rate:.1f} pictures per second, {config.rate:g} are asked for: "
                "give it light, fix its exposure, or ask for fewer (v4l2-ctl --list-formats-ext says what it can do)"
            )

    def grab(self) -> Picture:
        """The next picture, which must have the right size."""
        config = self._config
        grabbed = self._capture.grab()
        now = time.monotonic_ns()
        image = self._capture.retrieve()[1] if grabbed else None
        if image is None:
            raise DeviceError(f"'{config.source}' delivers no pictures any more: is it still plugged in?")
        if image.shape[:2] != (config.height, config.width):
            raise DeviceError(
                f"'{config.source}' delivers pictures of {image.shape[1]} x {image.shape[0]}, "
                f"{config.width} x {config.height} are asked for: ask for a size that it has "
                "(v4l2-ctl --list-formats-ext)"
            )
        return Picture(cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False), now)

    def close(self) -> None:
        """Let go of the camera."""
        self._capture.release()

"""Frames as a video file and back, by FFmpeg through PyAV.

`VideoSettings()` is what LeRobot writes (AV1, a key frame every other frame, so that random access is cheap). It loses
detail; `LOSSLESS` does not: every pixel comes back exactly, at several times the size.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8
from numpy import ndarray

from alula.core.errors import ConfigError, DatasetError, unknown_name

Frame = UInt8[ndarray, "height width 3"]
Frames = UInt8[ndarray, "frames height width 3"]

# The AV1 encoder prints its settings to stderr unless told otherwise; 1 lets only errors through.
os.environ.setdefault("SVT_LOG", "1")

PIXEL_FORMATS = {"libsvtav1": "yuv420p", "libx264": "yuv420p", "libx264rgb": "rgb24"}
"""Encoders and what they store of a pixel: yuv420p halves the resolution of colour, rgb24 keeps everything."""
PRESETS = {"libsvtav1": "12", "libx264": "veryfast", "libx264rgb": "veryfast"}
"""How hard the encoder tries: the fastest that still compresses well."""


@dataclass(frozen=True)
class VideoSettings:
    """How to encode; the defaults are LeRobot's."""

    codec: str = "libsvtav1"
    """FFmpeg's encoder, one of `PIXEL_FORMATS`."""
    crf: int = 30
    """Constant rate factor: 0 is best (and exact with libx264rgb), 51 worst (63 for AV1)."""
    gop: int = 2
    """Frames from one key frame to the next: a random frame costs up to so many decoded ones."""

    def __post_init__(self) -> None:
        """Check the codec and the ranges."""
        if self.codec not in PIXEL_FORMATS:
            raise ConfigError(unknown_name("video codec", self.codec, PIXEL_FORMATS))
        worst = 63 if self.codec == "libsvtav1" else 51
        if not 0 <= self.crf <= worst:
            raise ConfigError(f"video crf is {self.crf}; for {self.codec} allowed are 0 (best) to {worst}")
        if self.gop < 1:
            raise ConfigError(f"video gop is {self.gop} frames; at least 1 is needed")

    @property
    def lossless(self) -> bool:
        """Whether every pixel comes back exactly."""
        return self.codec == "libx264rgb" and self.crf == 0


LOSSLESS = VideoSettings("libx264rgb", crf=0, gop=10)


class VideoWriter:
    """A video file under construction: readable once it is closed. Flushing it to the disk is the caller's."""

    def __init__(self, path: Path, rate: float, settings: VideoSettings) -> None:
        """Nothing is written before the first frame, and no file without one.

        Args:
            path: File to write; its suffix names the container (`.mp4`).
            rate: Frames per second [Hz].
            settings: How to encode.
        """
        self.path = path
        self.num_frames = 0
        self.num_bytes = 0
        """Size of the file so far; the encoder may still hold some frames back."""
        self._settings = settings
        self._rate = Fraction(rate).limit_denominator(1001)
        self._container: OutputContainer | None = None
        self._stream: VideoStream

    def add(self, frame: Frame) -> None:
        """Append one frame; all have the size of the first.

        Raises:
            DatasetError: the encoder refuses frames of this size or rate.
            OSError: the disk is full or failed.
        """
        try:
            if self._container is None:
                self._container = av.open(str(self.path), "w")
                self._stream = self._make_stream(self._container, *frame.shape[:2])
            self._mux(self._container, av.VideoFrame.from_ndarray(frame, format="rgb24"))
        except av.error.FFmpegError as error:
            raise self._explained(error, frame) from error
        self.num_frames += 1

    def close(self) -> None:
        """Write what the encoder still holds back, and the file's index.

        Raises:
            OSError: the disk is full or failed.
        """
        if self._container is None:
            return
        try:
            if self.num_frames:
                self._mux(self._container, None)
        except av.error.FFmpegError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        finally:
            self._container.close()

    def _mux(self, container: OutputContainer, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self.num_bytes += packet.size
            container.mux(packet)

    def _make_stream(self, container: OutputContainer, height: int, width: int) -> VideoStream:
        settings = self._settings
        options = {"crf": str(settings.crf), "g": str(settings.gop), "preset": PRESETS[settings.codec]}
        stream = container.add_stream(settings.codec, rate=self._rate, options=options)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = height, width, PIXEL_FORMATS[settings.codec]
        return stream

    def _explained(self, error: av.error.FFmpegError, frame: Frame) -> Exception:
        if self.num_frames or isinstance(error, OSError):
            return OSError(error.errno, error.strerror, str(self.path))
        height, width = frame.shape[:2]
        return DatasetError(
            f"{self._settings.codec} cannot encode {width} x {height} pixels at {float(self._rate):g} Hz "
            f"({error.strerror}); most codecs need even sizes of at least 4 pixels and libsvtav1 at most 240 Hz, "
            f"libx264rgb takes any. Choose another codec, or store the images singly"
        )


def encode_video(frames: Iterable[Frame], path: Path, rate: float, settings: VideoSettings) -> int:
    """Write all frames to a video file at `path`.

    Args:
        frames: Pictures of one size, red, green and blue from 0 to 255.
        path: File to write; its suffix names the container (`.mp4`).
        rate: Frames per second [Hz].
        settings: How to encode.

    Returns:
        How many frames there were.

    Raises:
        DatasetError: the encoder refuses frames of this size or rate.
        OSError: the disk is full or failed.
    """
    writer = VideoWriter(path, rate, settings)
    try:
        for frame in frames:
            writer.add(frame)
    finally:
        writer.close()
    return writer.num_frames


def decode_video(path: Path, start: int = 0) -> Iterator[Frame]:
    """The frames of a video from number `start` on, one in memory at a time.

    Raises:
        DatasetError: there is no such file, or it is damaged.
    """
    reformatter = VideoReformatter()
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            first = 0.0
            if start and stream.average_rate and stream.time_base:
                first = float((start - 0.5) / stream.average_rate)  # s; half a frame early, as times are rounded
                container.seek(round(first / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if not start or frame.time > first:
                    yield reformatter.reformat(frame, format="rgb24").to_ndarray()
    except (av.error.FFmpegError, IndexError) as error:
        raise DatasetError(f"video '{path}' cannot be decoded ({error}); restore it from a copy") from error


def read_video(path: Path, out: Frames, start: int = 0) -> None:
    """Decode as many frames as `out` has into it, from number `start` on.

    Raises:
        DatasetError: the file is damaged, its frames have another size, or there are fewer.
    """
    count = 0
    for count, frame in enumerate(decode_video(path, start), start=1):
        if frame.shape != out.shape[1:]:
            raise DatasetError(f"video '{path}' has frames of shape {frame.shape}, expected {out.shape[1:]}")
        out[count - 1] = frame
        if count == len(out):
            return
    if count < len(out):
        raise DatasetError(
            f"video '{path}' ends after {start + count} frames, {start + len(out)} are needed; restore it from a copy"
        )


def psnr(first: UInt8[ndarray, "*shape"], second: UInt8[ndarray, "*shape"]) -> float:
    """Peak signal-to-noise ratio of two pictures or videos [dB]; infinite where they are equal."""
    squared_error = float(np.mean(np.square(first.astype(np.float32) - second), dtype=np.float64))
    return 10 * float(np.log10(255.0**2 / squared_error)) if squared_error else float("inf")

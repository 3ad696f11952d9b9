"""Settings of every kind of camera; light, so that the command line knows them without loading a driver."""

from dataclasses import dataclass

from alula.core.errors import ConfigError


@dataclass
class CameraConfig:
    """What all cameras are told."""

    width: int = 640
    height: int = 480
    """Size of the picture; a camera that delivers another is refused."""
    rate: float = 30.0
    """Pictures per second [Hz]; a camera that delivers clearly fewer is refused."""
    latency: float = 0.0
    """Time from exposure until the picture is here [s], measured once; stamps are earlier by it."""
    frozen: float = 0.5
    """A picture that has not changed in any bit for so long [s] is reported; real sensors always have noise."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.width < 16 or self.height < 16 or not 0 < self.rate <= 1000:
            raise ConfigError(
                f"a camera of {self.width} x {self.height} at {self.rate} Hz is impossible; "
                "allowed are 16 x 16 and more, up to 1000 Hz"
            )
        if not 0 <= self.latency <= 1:
            raise ConfigError(f"latency of a camera is {self.latency} s; allowed are 0 to 1 s")


@dataclass
class OpenCVConfig(CameraConfig):
    """Webcams and network streams through OpenCV."""

    source: str = "0"
    """Number of the camera, its path (/dev/v4l/by-id/... stays the same), or the address of a stream (http, rtsp)."""


@dataclass
class RealSenseConfig(CameraConfig):
    """Intel RealSense through librealsense."""

    serial: str = ""
    """Serial number; may be empty where there is only one."""
    depth: bool = False
    """Also depth, aligned with the picture."""


@dataclass
class SyntheticConfig(CameraConfig):
    """No camera at all: a moving pattern. For dry runs and tests."""

    seed: int = 0
    """Of the pattern."""

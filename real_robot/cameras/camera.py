"""What a camera is, and what it says."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float32, UInt8
from numpy import ndarray

from alula.core.spaces import FieldSpec, SpaceSpec
from alula.real_robot.cameras.config import CameraConfig

Image = UInt8[ndarray, "height width 3"]
"""Red, green, blue."""
Depth = Float32[ndarray, "height width"]
"""Distance along the optical axis [m]; 0 where it was not measured."""


@dataclass(frozen=True)
class Picture:
    """What a driver delivers."""

    image: Image
    captured_ns: int
    """When it came, or was exposed where the camera tells that; monotonic [ns]."""
    depth: Depth | None = None


@dataclass(frozen=True)
class Frame:
    """The newest picture, seen from whoever uses it."""

    image: Image
    depth: Depth | None
    sequence: int
    """Number of the picture, from 1 on."""
    captured_ns: int
    """When it was exposed, as far as is known [ns]."""
    age: float
    """[s]"""


@runtime_checkable
class Driver(Protocol):
    """A kind of camera, in the process that is made for it; may wait as long as it likes."""

    def open(self) -> None:
        """Connect.

        Raises:
            DeviceError: it is not there, or does not deliver what it is asked for.
        """
        ...

    def grab(self) -> Picture:
        """Wait for the next picture.

        Raises:
            DeviceError: none comes any more.
        """
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


@runtime_checkable
class Camera(Protocol):
    """A camera as a control loop sees it: nothing here waits, but for `open`."""

    spec: SpaceSpec
    """The picture, `observation.images.<name>`, and the depth, `observation.depth.<name>`, where there is one."""

    def open(self) -> None:
        """Start it and wait for its first picture.

        Raises:
            DeviceError: it is not there, or does not deliver what it is asked for.
        """
        ...

    def latest(self, now_ns: int, max_age: float) -> Frame | None:
        """The newest picture; None where it is older than `max_age` [s]."""
        ...

    def problem(self, now_ns: int, max_age: float) -> str | None:
        """What is wrong with its pictures, in words."""
        ...

    def close(self) -> None:
        """Stop it; doing it again changes nothing."""
        ...


def specification(name: str, config: CameraConfig, depth: bool) -> SpaceSpec:
    """Fields of a camera called `name`."""
    shape = (config.height, config.width)
    image = FieldSpec(f"observation.images.{name}", (*shape, 3), "uint8", rate=config.rate)
    distance = FieldSpec(f"observation.depth.{name}", shape, units=("m",), low=(0.0,), rate=config.rate)
    return SpaceSpec((image, distance) if depth else (image,))

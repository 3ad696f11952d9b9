"""All cameras of a robot together."""

from collections.abc import Mapping, Sequence

from jaxtyping import Shaped
from numpy import ndarray

from alula.core.errors import ConfigError
from alula.core.spaces import SpaceSpec
from alula.real_robot.cameras.camera import Camera, Frame

MAX_AGE = 0.1
"""Age up to which a picture is used [s]: our choice, three periods of a usual webcam."""


class Cameras:
    """Several cameras, opened and closed together; none of their fields may have the same name.

    Args:
        cameras: Not opened yet.
        max_age: Age up to which a picture is used [s].

    Raises:
        ConfigError: two cameras have the same name.
    """

    def __init__(self, cameras: Sequence[Camera], max_age: float = MAX_AGE) -> None:
        self.cameras, self.max_age = tuple(cameras), max_age
        names = [name for camera in cameras for name in camera.spec]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ConfigError(f"several cameras deliver {', '.join(repeated)}; give every camera a name of its own")
        self.spec = SpaceSpec(tuple(field for camera in cameras for field in camera.spec.values()))

    def open(self) -> None:
        """Open all of them, or none.

        Raises:
            DeviceError: one is not there, or does not deliver what it is asked for.
        """
        try:
            for camera in self.cameras:
                camera.open()
        except BaseException:
            self.close()
            raise

    def observe(self, now_ns: int) -> Mapping[str, Shaped[ndarray, "*field"]] | None:
        """The newest picture of every camera; None as long as one of them is too old."""
        frames = [camera.latest(now_ns, self.max_age) for camera in self.cameras]
        fields: dict[str, Shaped[ndarray, "*field"]] = {}
        for camera, frame in zip(self.cameras, frames, strict=True):
            if frame is None:
                return None
            fields |= zip(camera.spec, _arrays(frame), strict=True)
        return fields

    def problems(self, now_ns: int) -> tuple[str, ...]:
        """What is wrong with any of them, in words."""
        found = (camera.problem(now_ns, self.max_age) for camera in self.cameras)
        return tuple(words for words in found if words is not None)

    def close(self) -> None:
        """Close all of them."""
        for camera in self.cameras:
            camera.close()


def _arrays(frame: Frame) -> tuple[ndarray, ...]:
    """In the order of a camera's fields."""
    return (frame.image,) if frame.depth is None else (frame.image, frame.depth)

"""Numeric fields of ROS 2 messages as arrays with units.

Messages are what `mcap_ros2` decodes: namespaces of Python numbers, arrays and texts. Its scalars have lost their
width, so they become float64 and int64. Vectors and quaternions (x, y, z, w in ROS) become one array each, times
nanoseconds, images pixels.
"""

import io
from array import array
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray
from PIL import Image, UnidentifiedImageError

from alula.core.errors import DatasetError

Values = dict[str, Shaped[ndarray, "..."]]

ENCODINGS: dict[str, tuple[str, tuple[int, ...]]] = {
    "rgb8": ("u1", (0, 1, 2)),
    "bgr8": ("u1", (2, 1, 0)),
    "rgba8": ("u1", (0, 1, 2, 3)),
    "bgra8": ("u1", (2, 1, 0, 3)),
    "mono8": ("u1", (0,)),
    "8UC1": ("u1", (0,)),
    "8UC3": ("u1", (0, 1, 2)),
    "mono16": ("u2", (0,)),
    "16UC1": ("u2", (0,)),
    "32FC1": ("f4", (0,)),
}
"""Element type, and which channels make red, green and blue; by the names of `sensor_msgs/image_encodings.hpp`."""
QUATERNION = ("x", "y", "z", "w")
VECTORS = (QUATERNION, QUATERNION[:3])
UNITS: dict[str, dict[str, str]] = {
    "sensor_msgs/msg/Imu": {"angular_velocity": "rad/s", "linear_acceleration": "m/s^2"},
    "sensor_msgs/msg/MagneticField": {"magnetic_field": "T"},
    "sensor_msgs/msg/Range": {"range": "m", "min_range": "m", "max_range": "m", "field_of_view": "rad"},
    "geometry_msgs/msg/PoseStamped": {"pose.position": "m"},
    "geometry_msgs/msg/Pose": {"position": "m"},
    "geometry_msgs/msg/PointStamped": {"point": "m"},
    "geometry_msgs/msg/TransformStamped": {"transform.translation": "m"},
    "geometry_msgs/msg/Twist": {"linear": "m/s", "angular": "rad/s"},
    "geometry_msgs/msg/TwistStamped": {"twist.linear": "m/s", "twist.angular": "rad/s"},
    "geometry_msgs/msg/WrenchStamped": {"wrench.force": "N", "wrench.torque": "N m"},
    "nav_msgs/msg/Odometry": {
        **{"pose.pose.position": "m", "twist.twist.linear": "m/s", "twist.twist.angular": "rad/s"},
    },
}
"""By message type and field, from the comments of the message definitions. A joint may turn or slide: no unit."""


def unit_of(message_type: str, field: str) -> str:
    """The unit of a field, "1" where it is a pure number or not defined."""
    if field == "stamp" or field.endswith(".stamp"):
        return "ns"
    return UNITS.get(message_type, {}).get(field, "1")


def arrays_of(message: Any, message_type: str) -> Values:
    """The numbers in a message, by their paths.

    Raises:
        DatasetError: an image cannot be decoded.
    """
    if message_type == "sensor_msgs/msg/Image":
        return {"header.stamp": _nanoseconds(message.header.stamp), "image": _image(message)}
    if message_type == "sensor_msgs/msg/CompressedImage":
        return {"header.stamp": _nanoseconds(message.header.stamp), "image": _compressed_image(message)}
    return dict(_flatten(message, ""))


def texts_of(message: Any) -> list[str]:
    """Paths of the texts in a message, which arrays cannot hold."""
    return [path for path, value in _leaves(message, "") if _is_text(value)]


def _flatten(message: Any, prefix: str) -> Iterator[tuple[str, Shaped[ndarray, "..."]]]:
    for path, value in _leaves(message, prefix):
        if isinstance(value, ndarray):
            yield path, value
        elif isinstance(value, bytes | bytearray | memoryview):
            yield path, np.frombuffer(value, np.uint8)
        elif not _is_text(value):
            yield path, np.asarray(value)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Path and value of everything that is no message itself; vectors and times count as one value."""
    if isinstance(value, SimpleNamespace):
        names = tuple(getattr(type(value), "__slots__"))  # noqa: B009 - SimpleNamespace itself has none, for mypy
        members = {name: getattr(value, name) for name in names}
        if names == ("sec", "nanosec"):
            yield path, _nanoseconds(value)
        elif names in VECTORS and all(isinstance(member, float) for member in members.values()):
            yield path, np.array(list(members.values()))
        else:
            for name, member in members.items():
                yield from _leaves(member, f"{path}.{name}" if path else name)
    elif isinstance(value, list | tuple) and value and isinstance(value[0], SimpleNamespace):
        for index, member in enumerate(value):
            yield from _leaves(member, f"{path}.{index}")
    else:
        yield path, value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, Sequence) and len(value) > 0 and isinstance(value[0], str))


def _nanoseconds(time: Any) -> Shaped[ndarray, ""]:
    return np.asarray(time.sec * 1_000_000_000 + time.nanosec, dtype=np.int64)


def _image(message: Any) -> Shaped[ndarray, "height width channels"]:
    if message.encoding not in ENCODINGS:
        raise DatasetError(f"an image has encoding '{message.encoding}'; readable are {', '.join(ENCODINGS)}")
    element, channels = ENCODINGS[message.encoding]
    dtype = np.dtype(element).newbyteorder(">" if message.is_bigendian else "<")
    data = bytes(message.data) if not isinstance(message.data, array) else message.data.tobytes()
    row_bytes = message.width * len(channels) * dtype.itemsize
    if len(data) != message.height * message.step or message.step < row_bytes:
        raise DatasetError(
            f"an image of {message.width} x {message.height} pixels in {message.encoding} has {len(data)} bytes in "
            f"rows of {message.step}; needed are {message.height} rows of at least {row_bytes}"
        )
    rows = np.frombuffer(data, np.uint8).reshape(message.height, message.step)[:, :row_bytes]
    pixels = np.ascontiguousarray(rows).view(dtype).reshape(message.height, message.width, len(channels))
    return pixels[..., list(channels)].astype(dtype.newbyteorder("="))


def _compressed_image(message: Any) -> Shaped[ndarray, "height width channels"]:
    data = bytes(message.data) if not isinstance(message.data, array) else message.data.tobytes()
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DatasetError(f"an image in format '{message.format}' cannot be decoded ({error})") from error
    return pixels[..., None] if pixels.ndim == 2 else pixels

"""MCAP recordings, written by the library of the format's authors."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alula.core.errors import DatasetError
from alula.core.transitions import Episode
from alula.datasets.formats import mcap as mcap_format
from alula.datasets.formats.mcap import Mcap
from alula.datasets.schema import require_storable

ros2 = pytest.importorskip("mcap_ros2.writer", reason="needs pip install 'alula[rosbag]'")
Record = Callable[..., Path]

HEADER = """
================================================================================
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
"""
VECTOR = """
================================================================================
MSG: geometry_msgs/Vector3
float64 x
float64 y
float64 z
"""
QUATERNION = """
================================================================================
MSG: geometry_msgs/Quaternion
float64 x
float64 y
float64 z
float64 w
"""
POINT = VECTOR.replace("Vector3", "Point")
TYPES = {
    "sensor_msgs/msg/JointState": "std_msgs/Header header\nstring[] name\nfloat64[] position\nfloat64[] velocity\n"
    "float64[] effort" + HEADER,
    "sensor_msgs/msg/Imu": "std_msgs/Header header\ngeometry_msgs/Quaternion orientation\n"
    "float64[9] orientation_covariance\ngeometry_msgs/Vector3 angular_velocity\n"
    "geometry_msgs/Vector3 linear_acceleration" + HEADER + QUATERNION + VECTOR,
    "sensor_msgs/msg/Image": "std_msgs/Header header\nuint32 height\nuint32 width\nstring encoding\n"
    "uint8 is_bigendian\nuint32 step\nuint8[] data" + HEADER,
    "sensor_msgs/msg/CompressedImage": "std_msgs/Header header\nstring format\nuint8[] data" + HEADER,
    "geometry_msgs/msg/PoseStamped": "std_msgs/Header header\ngeometry_msgs/Pose pose"
    + HEADER
    + """
================================================================================
MSG: geometry_msgs/Pose
geometry_msgs/Point position
geometry_msgs/Quaternion orientation
"""
    + POINT
    + QUATERNION,
    "geometry_msgs/msg/Twist": "geometry_msgs/Vector3 linear\ngeometry_msgs/Vector3 angular" + VECTOR,
    "std_msgs/msg/Int32": "int32 data",
    "std_msgs/msg/String": "string data",
}
"""Message definitions of ROS 2 with what they refer to, as recorders write them."""


def header(seconds: int = 5, nanoseconds: int = 7) -> dict[str, Any]:
    return {"stamp": {"sec": seconds, "nanosec": nanoseconds}, "frame_id": "base"}


def xyz(*values: float) -> dict[str, float]:
    return dict(zip("xyzw", values, strict=False))


def picture(pixels: np.ndarray, encoding: str, padding: int = 0) -> dict[str, Any]:
    """An image message whose rows end with `padding` bytes that belong to no pixel."""
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    size = {"height": pixels.shape[0], "width": pixels.shape[1], "step": padded.shape[1]}
    return {"header": header(), **size, "encoding": encoding, "is_bigendian": 0, "data": padded.tobytes()}


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """`record((topic, type, time [ns], message), ...)`: a file of these messages, in this order."""

    def make(*messages: tuple[str, str, int, dict[str, Any]], name: str = "run.mcap") -> Path:
        path = tmp_path / name
        with path.open("wb") as file:
            writer = ros2.Writer(file)
            schemas = {kind: writer.register_msgdef(kind, TYPES[kind]) for _, kind, _, _ in messages}
            for topic, kind, time, content in messages:
                writer.write_message(topic, schemas[kind], content, log_time=time, publish_time=time)
            writer.finish()
        return path

    return make


def joints(*position: float, names: tuple[str, ...] = ("shoulder", "elbow")) -> dict[str, Any]:
    return {"header": header(), "name": list(names), "position": list(position), "velocity": [0.5, 1.5], "effort": []}


def read(path: Path) -> Episode:
    with Mcap().open(path) as reader:
        require_storable(reader.contents)
        (episode,) = reader.episodes()
    return episode


def test_topics_become_streams_with_their_own_clocks(record: Record) -> None:
    path = record(
        ("/joint_states", "sensor_msgs/msg/JointState", 10, joints(1.0, 2.0)),
        ("/arm/count", "std_msgs/msg/Int32", 15, {"data": -3}),
        ("/joint_states", "sensor_msgs/msg/JointState", 1_000_000_010, joints(3.0, 4.0)),
    )
    assert Mcap().detect(path)
    with Mcap().open(path) as reader:
        space = reader.contents.streams["joint_states"]
        assert space["position"].element_names == ("shoulder", "elbow")
        assert space["position"].rate == pytest.approx(1.0)
        assert len(reader.contents.action) == 0
        assert "joint_states: effort changes its size or is empty" in reader.plan.losses
        assert "joint_states: header.frame_id is text" in reader.plan.losses
        assert not any("name" in loss for loss in reader.plan.losses)
        (episode,) = reader.episodes()
        assert list(reader.episodes(start=1)) == []
    assert episode.length == 0
    stream = episode.streams["joint_states"]
    assert stream["timestamp"].tolist() == [10, 1_000_000_010]
    np.testing.assert_array_equal(stream["position"], [[1, 2], [3, 4]])
    assert stream["header.stamp"].tolist() == [5_000_000_007] * 2
    assert episode.streams["arm.count"]["data"].tolist() == [-3]
    assert episode.metadata["message_types"]["arm.count"] == "std_msgs/msg/Int32"


def test_vectors_have_their_units(record: Record) -> None:
    imu = {
        "header": header(),
        "orientation": xyz(0.1, 0.2, 0.3, 0.9),
        "orientation_covariance": [float(value) for value in range(9)],
        "angular_velocity": xyz(1.0, 2.0, 3.0),
        "linear_acceleration": xyz(0.0, 0.0, 9.81),
    }
    pose = {"header": header(), "pose": {"position": xyz(1.0, 2.0, 3.0), "orientation": xyz(0.0, 0.0, 0.0, 1.0)}}
    twist = {"linear": xyz(1.0, 0.0, 0.0), "angular": xyz(0.0, 0.0, 2.0)}
    path = record(
        ("/imu", "sensor_msgs/msg/Imu", 1, imu),
        ("/pose", "geometry_msgs/msg/PoseStamped", 2, pose),
        ("/cmd_vel", "geometry_msgs/msg/Twist", 3, twist),
    )
    with Mcap().open(path) as reader:
        units = {
            f"{stream}.{name}": spec.units[0]
            for stream, space in reader.contents.streams.items()
            for name, spec in space.items()
        }
    assert units["imu.angular_velocity"] == "rad/s"
    assert units["imu.linear_acceleration"] == "m/s^2"
    assert units["pose.pose.position"] == "m"
    assert units["cmd_vel.linear"] == "m/s"
    assert units["imu.header.stamp"] == "ns"
    streams = read(path).streams
    np.testing.assert_array_equal(streams["imu"]["orientation"], [[0.1, 0.2, 0.3, 0.9]])
    np.testing.assert_array_equal(streams["imu"]["orientation_covariance"], [np.arange(9)])
    np.testing.assert_array_equal(streams["pose"]["pose.orientation"], [[0, 0, 0, 1]])
    np.testing.assert_array_equal(streams["cmd_vel"]["angular"], [[0, 0, 2]])


@pytest.mark.parametrize("padding", [0, 3])
def test_images_are_red_green_blue_whatever_their_order_was(record: Record, padding: int) -> None:
    pixels = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3)
    depth = np.arange(10, dtype=np.uint16).reshape(2, 5) * 6000
    path = record(
        ("/rgb", "sensor_msgs/msg/Image", 1, picture(pixels, "rgb8", padding)),
        ("/bgr", "sensor_msgs/msg/Image", 1, picture(pixels[..., ::-1], "bgr8", padding)),
        ("/depth", "sensor_msgs/msg/Image", 1, picture(depth, "16UC1", padding)),
    )
    streams = read(path).streams
    np.testing.assert_array_equal(streams["rgb"]["image"], [pixels])
    np.testing.assert_array_equal(streams["bgr"]["image"], [pixels])
    np.testing.assert_array_equal(streams["depth"]["image"], [depth[..., None]])
    assert streams["depth"]["image"].dtype == np.uint16


def test_big_endian_depth_is_turned(record: Record) -> None:
    depth = np.array([[1, 256]], np.uint16)
    message = {**picture(depth.astype(">u2"), "mono16"), "is_bigendian": 1}
    np.testing.assert_array_equal(
        read(record(("/depth", "sensor_msgs/msg/Image", 1, message))).streams["depth"]["image"][0, ..., 0], depth
    )


def test_compressed_images_are_decoded(record: Record) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    message = {"header": header(), "format": "png", "data": buffer.getvalue()}
    streams = read(record(("/cam/compressed", "sensor_msgs/msg/CompressedImage", 1, message))).streams
    np.testing.assert_array_equal(streams["cam.compressed"]["image"], [pixels])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoding": "bayer_rggb8"}, "encoding 'bayer_rggb8'; readable are rgb8"),
        ({"data": b"abc"}, r"5 x 2 pixels in rgb8 has 3 bytes"),
        ({"width": 50}, r"rows of at least 150"),
    ],
)
def test_a_bad_image_is_refused_with_its_topic_and_time(record: Record, change: dict[str, Any], message: str) -> None:
    content = {**picture(np.zeros((2, 5, 3), np.uint8), "rgb8"), **change}
    path = record(("/cam", "sensor_msgs/msg/Image", 42, content))
    with pytest.raises(DatasetError, match=f"'/cam' .* at 42 ns.*{message}"):
        Mcap().open(path)


def test_fields_that_change_their_size_are_named_as_lost(record: Record) -> None:
    path = record(
        ("/j", "sensor_msgs/msg/JointState", 1, joints(1.0, 2.0)),
        ("/j", "sensor_msgs/msg/JointState", 2, joints(1.0)),
        ("/words", "std_msgs/msg/String", 3, {"data": "hello"}),
    )
    with Mcap().open(path) as reader:
        assert {"j: position changes its size or is empty", "words: data is text"} <= set(reader.plan.losses)
        (episode,) = reader.episodes()
    assert set(episode.streams["j"]) == {"timestamp", "header.stamp", "velocity"}
    assert set(episode.streams["words"]) == {"timestamp"}


def test_messages_in_another_encoding_are_named_as_lost(tmp_path: Path) -> None:
    from mcap.writer import Writer

    path = tmp_path / "run.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        schema = writer.register_schema("demo", "jsonschema", b"{}")
        channel = writer.register_channel("/web", "json", schema)
        writer.add_message(channel, 1, b"{}", 1)
        writer.finish()
    with Mcap().open(path) as reader:
        assert reader.plan.losses == ("topic /web: messages in json",)
        assert reader.contents.streams == {}


def test_a_folder_of_files_is_one_recording(tmp_path: Path, record: Record) -> None:
    (tmp_path / "bag").mkdir()
    for part in range(2):
        record(("/n", "std_msgs/msg/Int32", 10 + part, {"data": part}), name=f"bag/run_{part}.mcap")
    assert Mcap().detect(tmp_path / "bag")
    stream = read(tmp_path / "bag").streams["n"]
    assert (stream["timestamp"].tolist(), stream["data"].tolist()) == ([10, 11], [0, 1])


def test_time_that_runs_backwards_between_files_is_refused(tmp_path: Path, record: Record) -> None:
    (tmp_path / "bag").mkdir()
    for part in range(2):
        record(("/n", "std_msgs/msg/Int32", 10 - part, {"data": part}), name=f"bag/run_{part}.mcap")
    with pytest.raises(DatasetError, match=r"'/n' .* back in time at message 1, from 10 to 9 ns"):
        Mcap().open(tmp_path / "bag")


def test_topics_that_would_share_a_name_are_refused(record: Record) -> None:
    path = record(("/a/b", "std_msgs/msg/Int32", 1, {"data": 1}), ("/a.b", "std_msgs/msg/Int32", 1, {"data": 1}))
    with pytest.raises(DatasetError, match=r"'/a/b' and '/a.b' would both become 'a.b'"):
        Mcap().open(path)


def test_truncated_and_damaged_files_are_refused(tmp_path: Path, record: Record) -> None:
    """Cut at every tenth byte; and with bits flipped where the messages are."""
    path = record(*(("/n", "std_msgs/msg/Int32", time, {"data": time}) for time in range(50)))
    content = path.read_bytes()
    for size in range(len(mcap_format.MAGIC), len(content) - 1, 10):
        path.write_bytes(content[:size])
        with pytest.raises(DatasetError, match="damaged MCAP file"):
            Mcap().open(path)
    damaged = bytearray(content)
    damaged[content.index(b"zstd") + 30] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(DatasetError, match="damaged MCAP file"):
        Mcap().open(path)


def test_without_the_libraries_the_message_says_what_to_install(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = record(("/n", "std_msgs/msg/Int32", 1, {"data": 1}))
    monkeypatch.setattr(mcap_format, "find_spec", lambda name: None)
    assert Mcap().detect(path)
    with pytest.raises(DatasetError, match=r"pip install 'alula\[rosbag\]'"):
        Mcap().open(path)

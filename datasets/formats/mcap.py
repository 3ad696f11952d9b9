"""MCAP recordings of ROS 2 (read by the libraries mcap and mcap-ros2-support): one recording is one episode.

Every topic is a stream with its own clock, the time of logging; a folder as rosbag2 writes it is read as one recording.
There are no steps: which topic commands and which observes is not in the file.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.formats.format import NO_FIELDS, Contents, Format, Mapping, Plan, Reader
from alula.datasets.formats.ros_messages import Values, arrays_of, texts_of, unit_of
from alula.datasets.schema import OUTCOME, TIMESTAMP

MAGIC = b"\x89MCAP0\r\n"
JOINT_STATE = "sensor_msgs/msg/JointState"


@dataclass
class _Topic:
    """What a first look at all messages of a topic showed."""

    stream: str
    message_type: str
    timestamps: list[int] = field(default_factory=list)
    kinds: dict[str, set[tuple[tuple[int, ...], str]]] = field(default_factory=dict)
    """Shapes and types that each field has had."""
    counts: dict[str, int] = field(default_factory=dict)
    """Messages that had each field."""
    joints: tuple[str, ...] = ()
    texts: set[str] = field(default_factory=set)

    def add(self, time: int, values: Values, message: Any) -> None:
        """Take note of one message."""
        self.timestamps.append(time)
        self.texts |= set(texts_of(message))
        if self.message_type == JOINT_STATE:
            self.joints = tuple(message.name)
        for name, array in values.items():
            self.kinds.setdefault(name, set()).add((array.shape, str(array.dtype)))
            self.counts[name] = self.counts.get(name, 0) + 1

    @property
    def kept(self) -> list[str]:
        """Fields that look the same in every message."""
        count = len(self.timestamps)
        return [
            name
            for name, kinds in self.kinds.items()
            if len(kinds) == 1 and self.counts[name] == count and 0 not in next(iter(kinds))[0]
        ]

    @property
    def losses(self) -> list[str]:
        """What its stream does not hold."""
        varying = [name for name in self.kinds if name not in self.kept]
        texts = [name for name in sorted(self.texts) if not (self.message_type == JOINT_STATE and name == "name")]
        losses = [f"{self.stream}: {name} changes its size or is empty" for name in varying]
        return losses + [f"{self.stream}: {name} is text" for name in texts]

    def space(self) -> SpaceSpec:
        """Specifications of the stream's fields."""
        span = (self.timestamps[-1] - self.timestamps[0]) * 1e-9
        rate = (len(self.timestamps) - 1) / span if span > 0 else None
        return SpaceSpec((replace(TIMESTAMP, rate=rate), *(self._spec(name, rate) for name in self.kept)))

    def _spec(self, name: str, rate: float | None) -> FieldSpec:
        ((shape, dtype),) = self.kinds[name]
        per_joint = shape == (len(self.joints),)
        unit = unit_of(self.message_type, name)
        names = self.joints if per_joint else ()
        return FieldSpec(name, shape, dtype, (unit,), names, rate=rate, allow_nan=dtype.startswith("float"))


class McapReader(Reader):
    """An open recording."""

    num_episodes = 1

    def __init__(self, path: Path, files: list[Path]) -> None:
        """Look at every message once, to learn which fields keep their size."""
        self.path = path
        self._files = files
        self._topics: dict[str, _Topic] = {}
        undecodable: dict[str, str] = {}
        for topic, message_type, time, message in self._messages(undecodable):
            entry = self._topics.setdefault(topic, _Topic(_stream_name(topic), message_type))
            with self._explaining(topic, time):
                entry.add(time, arrays_of(message, message_type), message)
        self._check()
        streams = {topic.stream: topic.space() for topic in self._topics.values()}
        about = {"provenance": f"MCAP recording {path.name}", "success_recorded": False}
        self.contents = Contents(NO_FIELDS, NO_FIELDS, streams=streams, metadata=about)
        mappings = [
            Mapping(f"{name}: {kept}", f"streams/{topic.stream}/{kept}")
            for name, topic in self._topics.items()
            for kept in topic.kept
        ]
        losses = [loss for topic in self._topics.values() for loss in topic.losses]
        losses += [f"topic {topic}: messages in {encoding}" for topic, encoding in undecodable.items()]
        self.plan = Plan(tuple(mappings), tuple(losses))

    def episodes(self, start: int = 0) -> Iterator[Episode]:
        """The recording."""
        if start > 0:
            return
        collected: dict[str, dict[str, list[Shaped[ndarray, ...]]]] = {
            name: {kept: [] for kept in topic.kept} for name, topic in self._topics.items()
        }
        for topic, message_type, _, message in self._messages({}):
            values = arrays_of(message, message_type)
            for name, samples in collected[topic].items():
                samples.append(values[name])
        streams = {
            topic.stream: {
                "timestamp": np.array(topic.timestamps, np.int64),
                **{name: np.stack(samples) for name, samples in collected.pop(key).items()},
            }
            for key, topic in self._topics.items()
        }
        steps = {name: np.zeros(0, spec.dtype) for name, spec in OUTCOME.items()}
        types = {topic.stream: topic.message_type for topic in self._topics.values()}
        yield Episode(steps, {"source": "recording", "message_types": types}, streams)

    def _messages(self, undecodable: dict[str, str]) -> Iterator[tuple[str, str, int, Any]]:
        """Topic, message type, time of logging and content of every message; notes what cannot be decoded."""
        from mcap.reader import make_reader
        from mcap_ros2.decoder import DecoderFactory

        for file in self._files:
            decoders = DecoderFactory()
            try:
                with file.open("rb") as stream:
                    for schema, channel, message in make_reader(stream, validate_crcs=True).iter_messages():
                        decode = decoders.decoder_for(channel.message_encoding, schema)
                        if decode is None or schema is None:
                            undecodable[channel.topic] = channel.message_encoding
                        else:
                            yield channel.topic, schema.name, message.log_time, decode(message.data)
            except Exception as error:  # Whatever the decompressor and the decoder raise on damaged bytes.
                raise DatasetError(
                    f"'{file}' is a damaged MCAP file ({type(error).__name__}: {error}); if it was cut off, mend it "
                    f"by `mcap recover`, otherwise copy it again"
                ) from error

    def _check(self) -> None:
        """One stream for each topic, none of them going back in time."""
        names: dict[str, str] = {}
        for name, topic in self._topics.items():
            if topic.stream in names:
                raise DatasetError(f"topics '{names[topic.stream]}' and '{name}' would both become '{topic.stream}'")
            names[topic.stream] = name
            falls = np.flatnonzero(np.diff(topic.timestamps) < 0)
            if len(falls):
                raise DatasetError(
                    f"topic '{name}' of '{self.path}' goes back in time at message {falls[0] + 1}, from "
                    f"{topic.timestamps[falls[0]]} to {topic.timestamps[falls[0] + 1]} ns; sort the recording"
                )

    @contextmanager
    def _explaining(self, topic: str, time: int) -> Iterator[None]:
        try:
            yield
        except DatasetError as error:
            raise DatasetError(f"topic '{topic}' of '{self.path}' at {time} ns: {error}") from error


class Mcap(Format):
    """MCAP recordings of ROS 2."""

    name = "mcap"
    suffix = ".mcap"

    def detect(self, path: Path) -> bool:
        """A file that starts as every MCAP does, or a folder of them."""
        try:
            for file in _files(path):
                with file.open("rb") as stream:
                    if stream.read(len(MAGIC)) == MAGIC:
                        return True
        except OSError:
            pass
        return False

    def open(self, path: Path) -> McapReader:
        """A reader; all streams are in memory when the episode is."""
        files = _files(path)
        if not self.detect(path):
            raise DatasetError(f"'{path}' is not an MCAP file, which starts with {MAGIC!r}, nor a folder of them")
        missing = [library for library in ("mcap", "mcap_ros2") if find_spec(library) is None]
        if missing:
            raise DatasetError(
                f"reading '{path}' needs libraries that are not installed ({', '.join(missing)}): "
                f"pip install 'alula[rosbag]'"
            )
        return McapReader(path, files)


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.mcap")) if path.is_dir() else [path]


def _stream_name(topic: str) -> str:
    """`/camera/color/image_raw` → `camera.color.image_raw`."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", topic.strip("/").replace("/", "."))

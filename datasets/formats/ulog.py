"""Flight logs of PX4 (ULog, read by pyulog): one log is one episode.

Every topic is a stream with its own clock, and holds exactly what was logged. Beside them, steps that a policy can
learn from: one for each sample of the motors' commands, with the latest estimate of the vehicle's state at that time.
"""

import io
import re
import struct
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped
from numpy import ndarray
from pyulog import ULog as Log
from pyulog.exceptions import ULogException

from alula.core.errors import ConfigError, DatasetError, unknown_name
from alula.core.geometry import attitude_enu_from_ned, enu_from_ned, flu_from_frd
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.formats.format import Contents, Format, Mapping, Plan, Reader
from alula.datasets.formats.ulog_units import unit_of
from alula.datasets.schema import OUTCOME, RESERVED, TIMESTAMP

MAGIC = b"ULog\x01\x12\x35"
HEADER_BYTES = 16
MESSAGE = struct.Struct("<HB")
"""Size and type in front of every message."""
DTYPES = {"bool": "bool", "char": "uint8", "float": "float32", "double": "float64"}
"""ULog's types that NumPy calls otherwise than by dropping `_t`."""
MICROSECOND = 1000
"""[ns]"""
COMMANDS = {"actuator_motors": "control", "actuator_outputs": "output"}
"""Topics with the motors' commands, the best first, and the field."""
Arrays = dict[str, Shaped[ndarray, "samples *field"]]


@dataclass(frozen=True)
class _Signal:
    """One field of the steps."""

    name: str
    topic: str
    fields: tuple[str, ...]
    """Of the topic; put side by side."""
    unit: str
    element_names: tuple[str, ...]


SIGNALS = (
    _Signal("observation.position", "vehicle_local_position", ("x", "y", "z"), "m", ("x", "y", "z")),
    _Signal("observation.velocity", "vehicle_local_position", ("vx", "vy", "vz"), "m/s", ("x", "y", "z")),
    _Signal("observation.attitude", "vehicle_attitude", ("q",), "1", ("w", "x", "y", "z")),
    _Signal("observation.angular_velocity", "vehicle_angular_velocity", ("xyz",), "rad/s", ("x", "y", "z")),
)
FRAMES = {
    "ned": "PX4's frames: position and velocity north-east-down, rates front-right-down, attitude between them",
    "enu": "position and velocity turned to east-north-up, rates to front-left-up, attitude between them",
}
TURNS = {
    "observation.position": enu_from_ned,
    "observation.velocity": enu_from_ned,
    "observation.attitude": attitude_enu_from_ned,
    "observation.angular_velocity": flu_from_frd,
}
"""From PX4's frames to those of `frame="enu"`."""


class ULogReader(Reader):
    """An open flight log."""

    num_episodes = 1

    def __init__(self, path: Path, frame: str) -> None:
        """Read the log."""
        self._frame = frame
        self._log, left_out = _read(path)
        self._streams = {_stream_name(topic): _arrays(topic, path) for topic in self._log.data_list}
        self._command = next((topic for topic in COMMANDS if topic in self._streams), None)
        """The topic whose samples are the steps."""
        self._signals = [signal for signal in SIGNALS if self._command and signal.topic in self._streams]
        self._steps = self._make_steps()
        rate = _rate(self._streams[self._command]["timestamp"]) if self._command else None
        streams = zip(self._log.data_list, self._streams.items(), strict=True)
        self.contents = Contents(
            SpaceSpec(tuple(self._signal_spec(signal) for signal in self._signals)),
            SpaceSpec((self._action_spec(self._command, rate),) if self._command else ()),
            SpaceSpec((TIMESTAMP,)),
            {name: _space(topic.name, arrays) for topic, (name, arrays) in streams},
            {
                "provenance": f"PX4 flight log {path.name}",
                "rate": rate,
                "frame": FRAMES[frame],
                "success_recorded": False,
            },
        )
        self.plan = Plan(tuple(self._mappings()), tuple(left_out))

    def episodes(self, start: int = 0) -> Iterator[Episode]:
        """The flight."""
        if start == 0:
            yield Episode(self._steps, _metadata(self._log), self._streams)

    def _make_steps(self) -> Arrays:
        """Commands and what was known of the vehicle then, from when every signal has been measured on."""
        clock = self._streams[self._command]["timestamp"] if self._command else np.zeros(0, np.int64)
        latest = [
            np.searchsorted(self._streams[signal.topic]["timestamp"], clock, side="right") - 1
            for signal in self._signals
        ]
        first = max((np.count_nonzero(indices < 0) for indices in latest), default=0)
        steps = {
            signal.name: self._signal(signal)[indices[first:]]
            for signal, indices in zip(self._signals, latest, strict=True)
        }
        steps |= {"action": self._connected(self._command)[first:]} if self._command else {}
        length = len(clock) - first
        outcome = {name: np.zeros(length, field.dtype) for name, field in OUTCOME.items()}
        outcome["next.truncated"][-1:] = True
        return {**steps, "timestamp": clock[first:], **outcome}

    def _signal(self, signal: _Signal) -> Shaped[ndarray, "samples elements"]:
        """All samples of a signal, in the frame that was asked for."""
        stream = self._streams[signal.topic]
        missing = [field for field in signal.fields if field not in stream]
        if missing:
            raise DatasetError(f"topic '{signal.topic}' lacks the fields {missing}; it has {list(stream)}")
        values = np.concatenate([stream[field].reshape(len(stream[field]), -1) for field in signal.fields], axis=1)
        return TURNS[signal.name](values).astype(values.dtype) if self._frame == "enu" else values

    def _connected(self, topic: str) -> Shaped[ndarray, "samples motors"]:
        """Commands without the outputs behind the last one in use."""
        stream = self._streams[topic]
        values = stream[COMMANDS[topic]]
        in_use = np.flatnonzero(np.isfinite(values).any(axis=0)) + 1
        return values[:, : int(stream.get("noutputs", in_use).max(initial=1))]

    def _signal_spec(self, signal: _Signal) -> FieldSpec:
        values = self._steps[signal.name]
        return FieldSpec(
            signal.name,
            values.shape[1:],
            str(values.dtype),
            (signal.unit,),
            signal.element_names,
            rate=_rate(self._streams[signal.topic]["timestamp"]),
            allow_nan=True,
        )

    def _action_spec(self, topic: str, rate: float | None) -> FieldSpec:
        values = self._steps["action"]
        unit = unit_of(topic, COMMANDS[topic])
        return FieldSpec("action", values.shape[1:], str(values.dtype), (unit,), rate=rate, allow_nan=True)

    def _mappings(self) -> Iterator[Mapping]:
        for signal in self._signals:
            source = f"{signal.topic}: {', '.join(signal.fields)}"
            yield Mapping(source, signal.name, f"latest sample at each step; {FRAMES[self._frame]}")
        if self._command:
            yield Mapping(f"{self._command}: {COMMANDS[self._command]}", "action", "each sample is one step")
        for stream, arrays in self._streams.items():
            for name in arrays:
                change = "microseconds become nanoseconds" if name == TIMESTAMP.name else ""
                yield Mapping(f"{stream}: {name}", f"streams/{stream}/{name}", change)


@dataclass(frozen=True)
class ULog(Format):
    """PX4 flight logs."""

    name = "ulog"
    suffix = ".ulg"

    frame: str = "ned"
    """Of the steps: "ned" (as logged) or "enu" (east-north-up, body front-left-up). Streams stay as logged."""

    def __post_init__(self) -> None:
        """Check the frame."""
        if self.frame not in FRAMES:
            raise ConfigError(unknown_name("frame", self.frame, FRAMES))

    def detect(self, path: Path) -> bool:
        """A file that starts as every ULog does."""
        try:
            with path.open("rb") as file:
                return file.read(len(MAGIC)) == MAGIC
        except OSError:
            return False

    def open(self, path: Path) -> ULogReader:
        """A reader; the whole log is in memory."""
        return ULogReader(path, self.frame)


def _read(path: Path) -> tuple[Log, list[str]]:
    """The log, and what is missing of it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read '{path}': {error.strerror}; check the path") from error
    if not content.startswith(MAGIC) or len(content) < HEADER_BYTES:
        raise DatasetError(f"'{path}' is not a ULog file, which starts with {MAGIC!r}; give a .ulg file of PX4")
    complaints = io.StringIO()  # pyulog prints them.
    try:
        with redirect_stdout(complaints):
            log = Log(io.BytesIO(content))
    except (ValueError, KeyError, IndexError, TypeError, struct.error, ULogException) as error:
        raise DatasetError(
            f"'{path}' is a damaged ULog file ({type(error).__name__}: {error}); copy it again"
        ) from error
    if log.file_corruption:
        reason = " ".join(complaints.getvalue().split()) or "unreadable messages"
        raise DatasetError(f"'{path}' is a damaged ULog file ({reason}); copy it again from the vehicle")
    rest = len(content) - _complete_bytes(content)
    return log, [f"the last {rest} bytes: the log ends within a message, as after a loss of power"] if rest else []


def _complete_bytes(content: bytes) -> int:
    """Length of the header and all complete messages."""
    end = HEADER_BYTES
    while end + MESSAGE.size <= len(content):
        size, _ = MESSAGE.unpack_from(content, end)
        if end + MESSAGE.size + size > len(content):
            break
        end += MESSAGE.size + size
    return end


def _stream_name(topic: Any) -> str:
    """The topic, and its instance where it is not the first."""
    return f"{topic.name}.{topic.multi_id}" if topic.multi_id else topic.name


def _arrays(topic: Any, path: Path) -> Arrays:
    """A topic's fields; elements `q[0]`, `q[1]`, ... become one array `q`."""
    timestamps = topic.data["timestamp"].astype(np.int64) * MICROSECOND
    if (np.diff(timestamps) < 0).any():
        index = int(np.argmax(np.diff(timestamps) < 0)) + 1
        raise DatasetError(
            f"topic '{_stream_name(topic)}' of '{path}' goes back in time at sample {index}, from "
            f"{timestamps[index - 1]} to {timestamps[index]} ns; the log is damaged"
        )
    columns: dict[str, list[Shaped[ndarray, " samples"]]] = {}
    single = set()
    for field in topic.field_data:
        name = re.sub(r"\[\d+\]$", "", field.field_name)
        if name == "timestamp" or name.split(".")[-1].startswith("_padding"):
            continue
        name = re.sub(r"\[(\d+)\]", r".\1", name)
        name = f"{name}_" if name in RESERVED else name
        if not field.field_name.endswith("]"):
            single.add(name)
        dtype = DTYPES.get(field.type_str, field.type_str.removesuffix("_t"))
        columns.setdefault(name, []).append(topic.data[field.field_name].astype(dtype))
    arrays = {name: parts[0] if name in single else np.stack(parts, axis=1) for name, parts in columns.items()}
    return {"timestamp": timestamps, **arrays}


def _space(topic: str, arrays: Arrays) -> SpaceSpec:
    """Specifications of a stream's fields."""
    rate = _rate(arrays["timestamp"])
    fields = [
        FieldSpec(
            name,
            values.shape[1:],
            str(values.dtype),
            (unit_of(topic, name),),
            rate=rate,
            allow_nan=values.dtype.kind == "f",
        )
        for name, values in arrays.items()
        if name != "timestamp"
    ]
    return SpaceSpec((replace(TIMESTAMP, rate=rate), *fields))


def _rate(timestamps: Int64[ndarray, " samples"]) -> float | None:
    """Mean rate [Hz]; None where there are not two times."""
    if len(timestamps) < 2 or timestamps[-1] == timestamps[0]:
        return None
    return float((len(timestamps) - 1) / ((timestamps[-1] - timestamps[0]) * 1e-9))


def _metadata(log: Log) -> dict[str, Any]:
    """What the log says of the vehicle and the flight."""
    parameters = {name: value for name, value in log.initial_parameters.items() if np.isfinite(value)}
    messages = [
        {"timestamp": int(message.timestamp) * MICROSECOND, "level": message.log_level_str(), "text": message.message}
        for message in log.logged_messages
    ]
    return {
        "source": "flight",
        "vehicle": {name: value for name, value in log.msg_info_dict.items() if isinstance(value, str | int)},
        "parameters": parameters,
        "messages": messages,
        "dropouts_ms": [int(dropout.duration) for dropout in log.dropouts],
    }

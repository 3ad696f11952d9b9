"""Universal Robots' real-time data exchange (RTDE): bytes to packages and back.

A package is `size of it all (2 bytes) | kind (1 byte) | payload`; numbers are big-endian. What is exchanged is agreed
on once: a client names variables, the robot answers with a recipe, the types of these variables in this order; data
packages are then a recipe's number and the values, without names. There is no checksum: after something that is no
package, nothing more can be understood.

Sources:
    Universal Robots, "Real-time data exchange (RTDE) guide", protocol version 2.
    UniversalRobots/RTDE_Python_Client_Library, rtde/serialize.py (types, answers to a request of a recipe).
"""

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

from alula.core.errors import DeviceError

VERSION = 2
"""Of the protocol."""
HEADER = struct.Struct(">HB")
TYPES: Mapping[str, tuple[str, int]] = {
    "BOOL": ("?", 1),
    "UINT8": ("B", 1),
    "UINT32": ("I", 1),
    "UINT64": ("Q", 1),
    "INT32": ("i", 1),
    "DOUBLE": ("d", 1),
    "VECTOR3D": ("d", 3),
    "VECTOR6D": ("d", 6),
    "VECTOR6INT32": ("i", 6),
    "VECTOR6UINT32": ("I", 6),
}
"""Format and count of every type."""
NOT_FOUND, IN_USE = "NOT_FOUND", "IN_USE"
"""In place of a type: there is no such variable; somebody else writes it already."""

Value = float | tuple[float, ...]
"""Of a variable: a number, or as many as its type has."""


class Kind(IntEnum):
    """What a package is; requests and their answers are of the same kind."""

    PROTOCOL = ord("V")
    ROBOT_VERSION = ord("v")
    TEXT = ord("M")
    DATA = ord("U")
    OUTPUTS = ord("O")
    INPUTS = ord("I")
    START = ord("S")
    PAUSE = ord("P")


KINDS = frozenset(kind.value for kind in Kind)


@dataclass(frozen=True)
class Package:
    """One package."""

    kind: Kind
    payload: bytes


@dataclass(frozen=True)
class Text:
    """What the robot wishes to say."""

    message: str
    source: str
    level: int
    """0 exception, 1 error, 2 warning, 3 information."""


def frame(kind: Kind, payload: bytes = b"") -> bytes:
    """The bytes of a package."""
    return HEADER.pack(HEADER.size + len(payload), kind) + payload


def parse(stream: bytes) -> tuple[list[Package], bytes]:
    """Take the packages from a stream.

    Returns:
        The packages, and the end of the stream, the beginning of another.

    Raises:
        DeviceError: it is no stream of packages.
    """
    packages: list[Package] = []
    at = 0
    while len(stream) - at >= HEADER.size:
        size, kind = HEADER.unpack_from(stream, at)
        if size < HEADER.size or kind not in KINDS:
            raise DeviceError(
                f"what came is not RTDE: a package of kind {kind} and {size} bytes; the connection must be made anew"
            )
        if len(stream) - at < size:
            break
        packages.append(Package(Kind(kind), stream[at + HEADER.size : at + size]))
        at += size
    return packages, stream[at:]


def request_protocol(version: int = VERSION) -> bytes:
    """Asks for a version of the protocol; the answer is `accepted`."""
    return frame(Kind.PROTOCOL, struct.pack(">H", version))


def request_robot_version() -> bytes:
    """Asks for the version of the robot's software; the answer is `robot_version`."""
    return frame(Kind.ROBOT_VERSION)


def request_outputs(names: Iterable[str], rate: float) -> bytes:
    """Asks for these variables so many times a second [Hz]; the answer is a `Recipe`."""
    return frame(Kind.OUTPUTS, struct.pack(">d", rate) + ",".join(names).encode())


def request_inputs(names: Iterable[str]) -> bytes:
    """Asks to write these variables; the answer is a `Recipe`."""
    return frame(Kind.INPUTS, ",".join(names).encode())


def request_start() -> bytes:
    """Lets data packages flow; the answer is `accepted`."""
    return frame(Kind.START)


def request_pause() -> bytes:
    """Stops their flow; the answer is `accepted`."""
    return frame(Kind.PAUSE)


def accepted(payload: bytes) -> bool:
    """Whether a request was granted.

    Raises:
        DeviceError: the payload is no such answer.
    """
    (granted,) = _unpack(">?", payload, "an answer of yes or no")
    return bool(granted)


def robot_version(payload: bytes) -> tuple[int, int, int, int]:
    """Major, minor, bug fix and build of the robot's software.

    Raises:
        DeviceError: the payload is no such answer.
    """
    major, minor, fix, build = _unpack(">4I", payload, "a version")
    return major, minor, fix, build


def text(payload: bytes) -> Text:
    """A message in words.

    Raises:
        DeviceError: the payload is no such message.
    """
    words, rest = [], payload
    for _ in range(2):
        size = rest[0] if rest else 0
        words.append(rest[1 : 1 + size].decode("utf-8", "replace"))
        rest = rest[1 + size :]
    (level,) = _unpack(">B", rest, "the level of a message")
    return Text(words[0], words[1], level)


@dataclass(frozen=True)
class Recipe:
    """Variables of a data package, in order."""

    number: int
    types: Mapping[str, str]
    """Type by variable."""

    @classmethod
    def read(cls, names: Iterable[str], payload: bytes) -> "Recipe":
        """The robot's answer to a request for these variables.

        Raises:
            DeviceError: a variable does not exist or is taken, or the payload is no such answer.
        """
        names = tuple(names)
        types = payload[1:].decode("utf-8", "replace").rstrip(",").split(",")
        if len(types) != len(names):
            raise DeviceError(f"asked for {len(names)} variables, the robot answered with {len(types)} types: {types}")
        found = dict(zip(names, types, strict=True))
        for problem, remedy in (
            (NOT_FOUND, "its software is too old, or of another kind: PolyScope 5 is needed"),
            (IN_USE, "another program or a fieldbus writes them: end that"),
        ):
            if wrong := [name for name, kind in found.items() if kind == problem]:
                raise DeviceError(f"the robot says {problem} of {', '.join(wrong)}: {remedy}")
        if unknown := sorted(set(types) - set(TYPES)):
            raise DeviceError(f"the robot answered with types that RTDE does not have: {', '.join(unknown)}")
        return cls(payload[0], found)

    @cached_property
    def _format(self) -> struct.Struct:
        parts = (TYPES[kind] for kind in self.types.values())
        return struct.Struct(">B" + "".join(f"{count}{code}" for code, count in parts))

    def pack(self, values: Mapping[str, Value]) -> bytes:
        """The data package with these values.

        Raises:
            DeviceError: a value is missing, of another size, out of its type's range, or not finite.
        """
        flat: list[float] = []
        for name, kind in self.types.items():
            value = values.get(name, ())
            parts = value if isinstance(value, tuple) else (value,)
            if len(parts) != TYPES[kind][1] or not all(map(math.isfinite, parts)):
                raise DeviceError(f"{name} is {value}; it must be {TYPES[kind][1]} finite numbers")
            flat += parts
        try:
            return frame(Kind.DATA, self._format.pack(self.number, *flat))
        except struct.error as error:
            raise DeviceError(f"{dict(values)} does not fit {dict(self.types)}: {error}") from error

    def unpack(self, payload: bytes) -> dict[str, Any]:
        """Values of a data package; they may be anything, also not finite.

        Raises:
            DeviceError: it is of another recipe.
        """
        number, *flat = _unpack(self._format.format, payload, f"data of {len(self.types)} variables")
        if number != self.number:
            raise DeviceError(f"the robot sent data of recipe {number}; agreed on was {self.number}")
        values, at = dict[str, Any](), 0
        for name, kind in self.types.items():
            count = TYPES[kind][1]
            values[name] = flat[at] if count == 1 else tuple(flat[at : at + count])
            at += count
        return values


def _unpack(form: str, payload: bytes, what: str) -> tuple[Any, ...]:
    try:
        return struct.unpack(form, payload)
    except struct.error as error:
        raise DeviceError(f"{len(payload)} bytes are not {what}: {payload[:32].hex()}") from error

"""Messages between a robot and its policy: msgpack in frames of known length, arrays as raw bytes, nothing that runs.

A frame is its body's length (4 bytes, big-endian) and the body: a map with texts as keys. Arrays are msgpack's
extension type 1: element type, shape and bytes.
"""

import contextlib
import math
import socket
import struct
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
from numpy import ndarray

from alula.core.real_time import Committed
from alula.real_robot.planning.planner import Plan, Request

PROTOCOL = 1
"""Version; both sides must speak the same."""
LARGEST = 64 * 2**20
"""Longest body [byte]: room for ten cameras of two megapixels; our choice."""
HEADER = struct.Struct(">I")
ARRAY = 1
TYPES = frozenset({"|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8"})
"""Element types that may cross, by NumPy's names."""


def pack(message: Mapping[str, Any]) -> bytes:
    """A message as a frame."""
    body = msgpack.packb(message, default=_pack_array)
    return HEADER.pack(len(body)) + body


def unpack(body: bytes) -> dict[str, Any]:
    """The message of a frame's body.

    Raises:
        ValueError: it is none.
    """
    message = msgpack.unpackb(body, ext_hook=_unpack_array)
    if not isinstance(message, dict):
        raise ValueError(f"a message is a map, this is {type(message).__name__}")
    return message


def _pack_array(value: Any) -> msgpack.ExtType:
    if not isinstance(value, ndarray):
        raise TypeError(f"{type(value).__name__} cannot be sent")
    value = value.astype(value.dtype.newbyteorder("<"), copy=False)
    if value.dtype.str not in TYPES:
        raise TypeError(f"arrays of {value.dtype} cannot be sent")
    return msgpack.ExtType(ARRAY, msgpack.packb([value.dtype.str, value.shape, value.tobytes()]))


def _unpack_array(code: int, data: bytes) -> ndarray:
    if code != ARRAY:
        raise ValueError(f"extension type {code} is unknown")
    match msgpack.unpackb(data):
        case [str(name), [*shape], bytes(content)] if name in TYPES and all(
            type(size) is int and 0 <= size <= LARGEST for size in shape
        ):
            if math.prod(shape) * np.dtype(name).itemsize != len(content):
                raise ValueError(f"{len(content)} bytes are no {name} array of shape {tuple(shape)}")
            return np.frombuffer(content, name).reshape(shape).copy()
        case _:
            raise ValueError("an array is a known element type, a shape and bytes")


class Link:
    """Messages over a connected socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message.

        Raises:
            OSError: the link is lost, or its time-out has passed.
        """
        self.connection.sendall(pack(message))

    def receive(self, largest: int = LARGEST) -> dict[str, Any]:
        """Wait for a message.

        Raises:
            OSError: the link is lost, or its time-out has passed.
            ValueError: what arrives is no message, or longer than `largest` bytes; nothing after it makes sense.
        """
        (length,) = HEADER.unpack(self._exactly(HEADER.size))
        if length > largest:
            raise ValueError(f"a message of {length} bytes, allowed are {largest}")
        return unpack(self._exactly(length))

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            if not (piece := self.connection.recv(min(size - len(data), 2**20))):
                raise ConnectionResetError("the other side has closed the link")
            data += piece
        return bytes(data)

    def close(self) -> None:
        """Close the link, whoever waits for it; doing it again changes nothing."""
        with contextlib.suppress(OSError):  # which it raises where nothing is connected any more
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()


def answer(plan: Plan) -> dict[str, Any]:
    """A plan as a message."""
    return {"failure": plan.failure} if plan.chunk is None else {"chunk": plan.chunk}


def answered(request: Request, message: Mapping[str, Any]) -> Plan:
    """Inverse of `answer`.

    Raises:
        ValueError: the message is none.
    """
    match message:
        case {"chunk": ndarray() as chunk}:
            return Plan(request, chunk)
        case {"failure": str(failure)} if failure:
            return Plan(request, None, failure)
        case _:
            raise ValueError("an answer has a chunk, or says why there is none")


def question(request: Request, deadline: float) -> dict[str, Any]:
    """A request as a message; after `deadline` [s] its answer is of no use."""
    committed = None if request.committed is None else dict(vars(request.committed))
    observation = dict(request.observation)
    return {"step": request.step, "observation": observation, "committed": committed, "deadline": deadline}


def asked(message: Mapping[str, Any]) -> tuple[Request, float]:
    """Inverse of `question`.

    Raises:
        ValueError: the message is none.
    """
    committed = None
    match message.get("committed"):
        case None:
            pass
        case {"actions": ndarray() as actions, "weights": ndarray() as weights} if (
            actions.ndim == 2 and weights.shape == actions.shape[:1] and actions.dtype.kind == weights.dtype.kind == "f"
        ):
            committed = Committed(actions, weights)
        case _:
            raise ValueError("committed actions are two arrays of numbers, an action and a weight for each step")
    match message:
        case {"step": int(step), "observation": {**fields}, "deadline": float(deadline)}:
            observation = {str(name): value for name, value in fields.items() if isinstance(value, ndarray)}
            return Request(step, observation, committed), deadline
        case _:
            raise ValueError("a question has a step, an observation of arrays, and a deadline")

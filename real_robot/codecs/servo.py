"""What the languages of bus servos have in common: questions as bytes, and answers with a piece of memory."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Reply:
    """A servo's answer."""

    servo: int
    alerts: int
    """Bits of what it complains of."""
    data: bytes
    """The memory that was asked for."""


@runtime_checkable
class Register(Protocol):
    """A number in a servo's memory."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def address(self) -> int:
        """Of its first byte."""
        ...

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    def encode(self, value: int) -> bytes:
        """The register's bytes.

        Raises:
            ValueError: the value has no room in it.
        """
        ...

    def decode(self, data: bytes) -> int:
        """The value of the register's bytes."""
        ...


@runtime_checkable
class ServoCodec(Protocol):
    """One language; a module of functions."""

    PING_SIZE: int
    """Bytes of data in the reply to a ping."""

    def ping(self, servo: int) -> bytes:
        """Asks whether a servo is there; its reply has `PING_SIZE` bytes of data."""
        ...

    def read(self, servo: int, address: int, size: int) -> bytes:
        """Asks one servo for a piece of its memory."""
        ...

    def sync_read(self, servos: Iterable[int], address: int, size: int) -> bytes:
        """Asks several servos for the same piece; they reply one after the other, in this order."""
        ...

    def sync_write(self, address: int, data: Mapping[int, bytes]) -> bytes:
        """Changes the same piece of several servos' memory at once, all of one size; nobody replies."""
        ...

    def parse(self, stream: bytes, size: int) -> tuple[list[Reply], bytes]:
        """Find the replies that carry `size` bytes; whatever else is in the stream is passed over.

        Returns:
            The replies, and the end of the stream that may be the start of another.
        """
        ...

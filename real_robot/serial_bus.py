"""A bus of servos on a serial port, whatever they speak: questions with deadlines, and answers from whoever gives one.

Servos share one wire and answer in turn. One that is silent costs its neighbours nothing: those who waited for it in
vain are asked alone while there is time, and from then on it is asked last, so that nobody waits for it.
"""

import os
import select
import termios
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import serial

from alula.core.errors import DeviceError
from alula.real_robot.codecs.servo import Reply, ServoCodec

CHUNK = 4096
"""Most bytes taken from the port at a time."""
TOGETHER = 0.6
"""Share of the time that everybody together has for answering; the rest is for asking alone."""
ALONE_NS = 3_000_000
"""Longest time that one servo has when it is asked alone."""


class SerialBus:
    """Servos at one port. A lost link raises nothing: nobody answers any more, and `lost` says why.

    Args:
        port: Path of the device, such as "/dev/ttyACM0".
        baud: Bits per second.
        codec: Their language.
    """

    def __init__(self, port: str, baud: int, codec: ServoCodec) -> None:
        self.port, self.baud, self.codec = port, baud, codec
        self.lost: str | None = "not open"
        self._suspects: list[int] = []
        """Servos that others have waited for; those who did so last are last."""

    def open(self) -> None:
        """Take the port, for this process alone.

        Raises:
            DeviceError: it is not there, not permitted, or in use.
        """
        try:
            self._serial = serial.Serial(self.port, self.baud, timeout=0, exclusive=True)
        except (OSError, termios.error) as error:
            raise DeviceError(
                f"the port {self.port} cannot be opened: {error}. It needs a serial adapter that is plugged in, "
                "permission to use it (group dialout), and no other program that does"
            ) from None
        with suppress(ValueError):  # not every adapter keeps answers back to send them together
            self._serial.set_low_latency_mode(True)
        self.lost = None
        self._suspects.clear()

    def close(self) -> None:
        """Give the port back; doing it again changes nothing."""
        self._lose("closed")

    def ping(self, servo: int, deadline_ns: int) -> Reply | None:
        """Ask whether a servo is there."""
        self._take()
        return self._ask(self.codec.ping(servo), [servo], self.codec.PING_SIZE, deadline_ns).get(servo)

    def read(self, servos: Sequence[int], address: int, size: int, deadline_ns: int) -> dict[int, Reply]:
        """A piece of the memory of those servos that answer in time.

        Args:
            servos: Whom to ask.
            address: Of the piece.
            size: Of the piece in bytes.
            deadline_ns: Monotonic time by which it returns [ns].
        """
        self._take()  # what comes before the question is no answer to it
        now = time.monotonic_ns()
        together = now + round(TOGETHER * (deadline_ns - now))
        order = [servo for servo in servos if servo not in self._suspects]
        order += [servo for servo in self._suspects if servo in servos]
        found = self._ask(self.codec.sync_read(order, address, size), order, size, together)
        missing = [servo for servo in order if servo not in found]
        if missing:
            self._suspects = [servo for servo in self._suspects if servo != missing[0]] + missing[:1]
        for servo in missing[1:] + missing[:1]:
            # Meanwhile it may have given its late answer to the first question.
            if servo not in found:
                patience = min(time.monotonic_ns() + ALONE_NS, deadline_ns)
                found |= self._ask(self.codec.read(servo, address, size), [servo], size, patience)
        return {servo: found[servo] for servo in servos if servo in found}

    def write(self, address: int, data: Mapping[int, bytes]) -> bool:
        """Change the same piece of several servos' memory; whether the port took it."""
        return self._send(self.codec.sync_write(address, data))

    def _ask(self, question: bytes, servos: Sequence[int], size: int, deadline_ns: int) -> dict[int, Reply]:
        """Whatever is answered until these servos have, or time is up."""
        found: dict[int, Reply] = {}
        stream = b""
        sent = self._send(question)
        while sent and not found.keys() >= set(servos) and self._wait(deadline_ns):
            replies, stream = self.codec.parse(stream + self._take(), size)
            found |= {reply.servo: reply for reply in replies}
        return found

    def _wait(self, deadline_ns: int) -> bool:
        """Whether something arrives before the deadline."""
        left = deadline_ns - time.monotonic_ns()
        return self.lost is None and left > 0 and bool(select.select([self._serial], [], [], left / 1e9)[0])

    def _take(self) -> bytes:
        """What has arrived."""
        if self.lost is not None:
            return b""
        try:
            return self._serial.read(CHUNK)
        except (OSError, termios.error) as error:
            self._lose(str(error))
            return b""

    def _send(self, message: bytes) -> bool:
        if self.lost is not None:
            return False
        try:
            # pyserial's own would wait for room, and takes a process that was not scheduled for a port that is stuck.
            return os.write(self._serial.fileno(), message) == len(message)
        except BlockingIOError:
            return False
        except (OSError, termios.error) as error:
            self._lose(str(error))
            return False

    def _lose(self, why: str) -> None:
        if self.lost is None:
            self.lost = f"the port {self.port} is lost: {why}"
            self._serial.close()

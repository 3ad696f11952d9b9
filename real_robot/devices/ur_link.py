"""Connections to a Universal Robots controller: dashboard (words), scripts (programs), RTDE (state and commands)."""

import select
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from alula.core.errors import DeviceError
from alula.real_robot.codecs import rtde
from alula.real_robot.codecs.rtde import Kind, Package, Recipe, Value

PORTS = (29999, 30003, 30004)
"""Dashboard, scripts, RTDE."""
PATIENCE_S = 2.0
"""Time for an answer while nothing moves yet."""
CHUNK = 65536
"""Most bytes that are taken from a connection at a time."""


@dataclass(frozen=True)
class Address:
    """Where a controller is."""

    host: str
    ports: tuple[int, int, int] = PORTS

    @classmethod
    def parse(cls, text: str) -> "Address":
        """From "host", or "host:dashboard,script,rtde" where the ports are others.

        Raises:
            DeviceError: it is neither.
        """
        host, colon, ports = text.partition(":")
        numbers = [int(part) for part in ports.split(",") if part.isdecimal()] if colon else [*PORTS]
        if not host or len(numbers) != len(PORTS):
            raise DeviceError(
                f"device.address is '{text}'; it must be the robot's host name or IP address, such as 192.168.1.10, "
                "or host:dashboard,script,rtde with three ports"
            )
        return cls(host, (numbers[0], numbers[1], numbers[2]))

    def connect(self, port: int) -> socket.socket:
        """A connection to one of the ports, by its index.

        Raises:
            DeviceError: there is none to be had.
        """
        where = self.host, self.ports[port]
        try:
            connection = socket.create_connection(where, PATIENCE_S)
        except OSError as error:
            raise DeviceError(
                f"no robot answers at {where[0]}:{where[1]}: {error}. Check its power, the network, and that the "
                "service is enabled in the pendant's settings (Security, Services)"
            ) from error
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def ask(self, questions: Iterable[str]) -> list[str]:
        """The dashboard's answers.

        Raises:
            DeviceError: it gives none.
        """
        with self.connect(0) as connection:
            lines = connection.makefile("rw", encoding="utf-8", newline="\n")
            try:
                answers = [lines.readline()]
                for question in questions:
                    lines.write(f"{question}\n")
                    lines.flush()
                    answers.append(lines.readline())
            except (OSError, UnicodeDecodeError) as error:
                raise DeviceError(f"the dashboard at {self.host}:{self.ports[0]} does not answer: {error}") from error
        if not all(answers):
            raise DeviceError(f"the dashboard at {self.host}:{self.ports[0]} hangs up: {answers}")
        return [answer.strip() for answer in answers[1:]]

    @contextmanager
    def run(self, program: str) -> Iterator[None]:
        """Send a program, which replaces whichever runs; leave the context when it has started.

        The robot talks on this port, too: whoever hangs up without listening may lose what is still on its way.

        Raises:
            DeviceError: it cannot be sent.
        """
        with self.connect(1) as connection:
            try:
                connection.sendall(program.encode())
            except OSError as error:
                raise DeviceError(f"the program cannot be sent to {self.host}:{self.ports[1]}: {error}") from error
            yield


class RTDEClient:
    """A client of the real-time data exchange. A lost link raises nothing once it is open: `lost` says why.

    Args:
        address: Of the controller.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.lost: str | None = "not open"
        self.message = ""
        """What the robot last said in words."""
        self._stream = b""

    def open(self, outputs: Iterable[str], inputs: Iterable[str], rate: float) -> None:
        """Connect, agree on variables, and let them flow.

        Args:
            outputs: To be read.
            inputs: To be written.
            rate: At which the robot sends the outputs [Hz].

        Raises:
            DeviceError: the robot is not there or refuses.
        """
        outputs, inputs = tuple(outputs), tuple(inputs)
        self._socket = self.address.connect(2)
        self._stream, self.message, self.lost = b"", "", None
        try:
            if not rtde.accepted(self._ask(rtde.request_protocol())):
                raise DeviceError(f"the robot does not speak RTDE version {rtde.VERSION}; PolyScope 5 is needed")
            self._outputs = Recipe.read(outputs, self._ask(rtde.request_outputs(outputs, rate)))
            self._inputs = Recipe.read(inputs, self._ask(rtde.request_inputs(inputs)))
            if not rtde.accepted(self._ask(rtde.request_start())):
                raise DeviceError("the robot refuses to send its state")
        except BaseException:
            self.close()
            raise
        self._socket.setblocking(False)

    def _ask(self, request: bytes) -> bytes:
        """The payload of the answer to a request.

        Raises:
            DeviceError: there is none.
        """
        kind, where = request[2], f"{self.address.host}:{self.address.ports[2]}"
        deadline = time.monotonic() + PATIENCE_S
        try:
            self._socket.sendall(request)
            while time.monotonic() < deadline:
                for package in self._packages(deadline - time.monotonic()):
                    if package.kind == kind:
                        return package.payload
                    self._hear(package)
        except OSError as error:
            raise DeviceError(f"the robot at {where} does not answer a request '{chr(kind)}': {error}") from error
        raise DeviceError(f"the robot at {where} does not answer a request '{chr(kind)}' in {PATIENCE_S} s")

    def _packages(self, patience: float) -> list[Package]:
        """What has come, waiting so long for the first of it [s].

        Raises:
            OSError: the connection has ended.
            DeviceError: what came is not RTDE.
        """
        size = CHUNK
        while size == CHUNK and select.select([self._socket], [], [], max(patience, 0.0))[0]:
            data = self._socket.recv(CHUNK)
            if not data:
                raise ConnectionError("the robot has closed the connection")
            self._stream, size, patience = self._stream + data, len(data), 0.0
        packages, self._stream = rtde.parse(self._stream)
        return packages

    def newest(self, patience: float = 0.0) -> dict[str, Any] | None:
        """The last values that have come since it was asked last, if any.

        Args:
            patience: How long to wait for some [s].
        """
        if self.lost is not None:
            return None
        data = None
        try:
            for package in self._packages(patience):
                if package.kind == Kind.DATA:
                    data = package
                else:
                    self._hear(package)
            return None if data is None else self._outputs.unpack(data.payload)
        except (OSError, DeviceError) as error:
            self._lose(str(error))
            return None

    def _hear(self, package: Package) -> None:
        if package.kind == Kind.TEXT:
            self.message = rtde.text(package.payload).message

    def send(self, values: Mapping[str, Value]) -> bool:
        """Write the inputs; whether the link took them."""
        if self.lost is not None:
            return False
        data = self._inputs.pack(values)
        try:
            if self._socket.send(data) < len(data):
                self._lose("the robot takes no more data")
        except OSError as error:
            self._lose(str(error))
        return self.lost is None

    def _lose(self, why: str) -> None:
        self.lost = why
        self._socket.close()

    def close(self) -> None:
        """Hang up; doing it again changes nothing."""
        if self.lost is None:
            self._lose("closed")

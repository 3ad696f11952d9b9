"""The way to a vehicle: MAVLink over UDP."""

import re
import select
import socket
import time
from collections.abc import Iterator

from pymavlink.dialects.v20 import common

from alula.core.errors import DeviceError
from alula.real_robot.codecs import mavlink
from alula.real_robot.codecs.mavlink import Message

ADDRESS = re.compile(r"((?P<way>udpin|udpout):(//)?)?(?P<host>(?!udp(in|out):)[^:/]+):(?P<port>[0-9]{1,5})")
HIGHEST_PORT = 0xFFFF
BUFFER = 1 << 20
"""Of what has not been read yet [byte]: seconds of telemetry."""
DATAGRAM = 65536


class MavlinkLink:
    """A socket with a vehicle at its other end.

    Args:
        address: "udpin:HOST:PORT" waits there for the vehicle, as for PX4's own port 14540; "udpout:HOST:PORT", or
            without a word before it, calls it there.

    Raises:
        DeviceError: that is no address.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        parts = ADDRESS.fullmatch(address)
        if parts is None or int(parts["port"]) > HIGHEST_PORT:
            raise DeviceError(
                f"'{address}' is no address of a vehicle; allowed are udpin:HOST:PORT, such as udpin:0.0.0.0:14540 for "
                "PX4's own port, and udpout:HOST:PORT: set device.address"
            )
        self._place, self._waits = (parts["host"], int(parts["port"])), parts["way"] == "udpin"
        self._remote = None if self._waits else self._place
        self._socket: socket.socket | None = None
        self.lost = ""
        """Why the last message could not be sent; empty where it could."""

    def open(self) -> None:
        """Take the port.

        Raises:
            DeviceError: it is taken, not permitted, or nowhere.
        """
        self.close()
        self._packer = common.MAVLink(None, mavlink.OWN_SYSTEM, mavlink.OWN_COMPONENT)
        self._parser = common.MAVLink(None)
        self._parser.robust_parsing = True
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            opened.setblocking(False)
            if self._waits:
                opened.bind(self._place)
            else:
                opened.sendto(b"", self._place)
        except OSError as error:
            opened.close()
            raise DeviceError(
                f"{self.address} cannot be opened: {error.strerror}; check it, and that no other program uses the port"
            ) from error
        self._socket = opened

    def join(self, system: int) -> None:
        """Take part in the vehicle's system, as its companion computer: PX4 listens to its own's heartbeats only."""
        self._packer.srcSystem = system

    def close(self) -> None:
        """Let go of the port."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._remote = None if self._waits else self._place

    def send(self, message: Message) -> bool:
        """Send a message; whether that was possible."""
        if self._socket is None or self._remote is None:
            self.lost = f"{self.address} is not open" if self._socket is None else f"nobody has called {self.address}"
            return False
        try:
            self._socket.sendto(message.pack(self._packer), self._remote)
        except OSError as error:
            self.lost = f"{self.address}: {error.strerror}"
            return False
        self.lost = ""
        return True

    def receive(self, wait: float = 0.0) -> Iterator[tuple[Message, int]]:
        """Every message that has come, and when it was read [ns]; damaged ones are left out.

        Args:
            wait: How long for the first [s].
        """
        if self._socket is None:
            return
        if wait > 0:
            select.select([self._socket], [], [], wait)
        while True:
            try:
                data, sender = self._socket.recvfrom(DATAGRAM)
            except BlockingIOError:
                return
            except OSError as error:
                self.lost = f"{self.address}: {error.strerror}"
                return
            self._remote = self._remote or sender
            now = time.monotonic_ns()
            for message in self._parser.parse_buffer(data) or ():
                if message.get_msgId() >= 0:
                    yield message, now

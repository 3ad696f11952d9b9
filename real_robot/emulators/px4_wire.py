"""The way between an emulated PX4 and the ground: UDP, and what goes wrong on it."""

import heapq
import select
import socket
from collections.abc import Iterator
from typing import Any

from alula.real_robot.emulators.console import Console
from alula.real_robot.emulators.faults import FaultPlan

TO_HOST, TO_VEHICLE = 1, 2
"""Directions; a fault's target, 0 being both."""
FAULTS = {
    "silence": "nothing passes (target 1: to the computer, 2: to the vehicle)",
    "drop": "datagrams are lost, each with the probability",
    "burst": "`value` datagrams in a row are lost, with the probability at each",
    "duplicate": "datagrams come twice",
    "reorder": "datagrams come `value` ms later than those behind them, each with the probability",
    "delay": "all datagrams come `value` ms late",
    "jitter": "datagrams come up to `value` ms late, each by its own time",
    "corrupt": "a bit of a datagram is flipped",
}


class Wire:
    """A socket; its partner is whoever has sent last.

    Args:
        faults: What goes wrong.
    """

    def __init__(self, faults: FaultPlan) -> None:
        self._faults = faults
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self._partner: tuple[str, int] | None = None
        self._underway: dict[int, list[tuple[int, int, bytes]]] = {TO_HOST: [], TO_VEHICLE: []}
        self._count = 0
        self._burst = {TO_HOST: 0, TO_VEHICLE: 0}
        """Datagrams that are still to be lost."""

    @property
    def address(self) -> str:
        """What a driver is told."""
        return f"udpout:127.0.0.1:{self._socket.getsockname()[1]}"

    def wait(self, console: Console, seconds: float) -> bool:
        """Wait for something to read, not longer than so; whether the console has something."""
        watched: list[Any] = [self._socket, console]
        ready, _, _ = select.select(watched, [], [], seconds)
        return console in ready

    def arrivals(self) -> Iterator[bytes]:
        """What was sent to the vehicle, before anything can happen to it."""
        while True:
            try:
                data, self._partner = self._socket.recvfrom(65536)
            except (BlockingIOError, ConnectionError):
                return
            if data:
                yield data

    def put(self, direction: int, data: bytes, now_ns: int) -> None:
        """Send a datagram on its way."""
        faults = self._faults
        burst = faults.find("burst", direction)
        if burst is not None and self._burst[direction] == 0:
            self._burst[direction] = int(burst.value)
        if self._burst[direction] > 0:
            self._burst[direction] -= 1
            return
        if faults.strikes("silence", direction) or faults.strikes("drop", direction):
            return
        if faults.strikes("corrupt", direction):
            broken = bytearray(data)
            broken[faults.chance.randrange(len(broken))] ^= 1 << faults.chance.randrange(8)
            data = bytes(broken)
        late = sum(fault.value for kind in ("delay", "reorder") if (fault := faults.find(kind, direction)))
        if (jitter := faults.find("jitter", direction)) is not None:
            late += jitter.value * faults.chance.random()
        for _ in range(2 if faults.strikes("duplicate", direction) else 1):
            self._count += 1
            heapq.heappush(self._underway[direction], (now_ns + round(1e6 * late), self._count, data))

    def arrived(self, direction: int, now_ns: int) -> Iterator[bytes]:
        """What has come to the end of its way."""
        underway = self._underway[direction]
        while underway and underway[0][0] <= now_ns:
            yield heapq.heappop(underway)[2]

    def flush(self, now_ns: int) -> None:
        """Hand over to the partner what is due."""
        for data in self.arrived(TO_HOST, now_ns):
            if self._partner is not None:
                self._socket.sendto(data, self._partner)

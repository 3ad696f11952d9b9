"""A link to a Crazyflie: packets out, packets in as they come, and questions with deadlines.

A thread of its own takes every packet as it arrives, so that its time of arrival is true however late anybody looks,
and gives a sign of life ten times a second.
"""

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

from alula.core.errors import DeviceError
from alula.real_robot.codecs import crtp
from alula.real_robot.codecs.crtp import Packet, Port, Type
from alula.real_robot.priority import DRIVER, hurry

PULSE_NS = 100_000_000
"""Between signs of life [ns]: our choice."""
PATIENCE_S = 0.1
"""Time for an answer [s]: our choice, ten times what a good radio link needs."""
ATTEMPTS = 5
"""Times that something is asked: our choice."""
RECENT = 5
"""Echoes by which the link's delay is judged: our choice, half a second."""
STAMP_SLACK_MS = 1000
"""How much farther a stamp may have advanced than the host's clock [ms]; more is no stamp."""
BLOCK_EXISTS = 17
"""What the creation of a log block answers when the answer to a first attempt was lost (EEXIST)."""


@runtime_checkable
class Transport(Protocol):
    """What carries packets."""

    def send(self, data: bytes) -> bool:
        """Whether it went out."""
        ...

    def receive(self, seconds: float) -> bytes | None:
        """The next packet, if one comes within this time [s]."""
        ...

    def close(self) -> None:
        """Carry no more."""
        ...


class Udp:
    """One packet a datagram, as simulated Crazyflies and bridges have it.

    Args:
        host: Name or address.
        port: Bitcraze's own are 19850 to 19859.

    Raises:
        DeviceError: there is no such host.
    """

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.connect((host, port))
        except OSError as error:
            self._socket.close()
            raise DeviceError(f"there is no way to {host}:{port}: {error}; check the address") from None

    def send(self, data: bytes) -> bool:
        """See `Transport.send`."""
        try:
            return self._socket.send(data) == len(data)
        except OSError:
            return False

    def receive(self, seconds: float) -> bytes | None:
        """See `Transport.receive`; a host without anybody at this port counts as silence."""
        try:
            self._socket.settimeout(seconds)
            return self._socket.recv(64)
        except TimeoutError:
            return None
        except OSError:
            time.sleep(seconds)
            return None

    def close(self) -> None:
        """See `Transport.close`."""
        self._socket.close()


class Radio:
    """Bitcraze's Crazyradio through their own library, which is an extra.

    Never tried with a radio; the library's calls were, with its UDP driver in the radio's place.

    Args:
        uri: Such as radio://0/80/2M/E7E7E7E7E7.

    Raises:
        DeviceError: the library is missing, or there is no radio.
    """

    def __init__(self, uri: str) -> None:
        try:
            self._library: Any = import_module("cflib.crtp")
        except ImportError:
            raise DeviceError(
                f"{uri} needs Bitcraze's library (GPL): install it by pip install 'alula[crazyflie]'"
            ) from None
        try:
            self._library.init_drivers()
            self._driver: Any = self._library.get_link_driver(uri, None, lambda error: None)
        except Exception as error:  # theirs have no common base
            raise DeviceError(f"no radio link to {uri}: {error}; check the dongle and its permissions") from None
        if self._driver is None:
            raise DeviceError(f"no radio link to {uri}: unknown kind of address, such as radio://0/80/2M/E7E7E7E7E7")

    def send(self, data: bytes) -> bool:
        """See `Transport.send`."""
        packet = import_module("cflib.crtp.crtpstack").CRTPPacket(data[0], data[1:])
        self._driver.send_packet(packet)
        return True

    def receive(self, seconds: float) -> bytes | None:
        """See `Transport.receive`."""
        packet = self._driver.receive_packet(seconds)
        return None if packet is None else bytes((packet.header,)) + bytes(packet.data)

    def close(self) -> None:
        """See `Transport.close`."""
        self._driver.close()


def open_transport(address: str) -> Transport:
    """What leads to an address.

    Args:
        address: host:port, or radio://...

    Raises:
        DeviceError: it is none, or leads nowhere.
    """
    if address.startswith("radio://"):
        return Radio(address)
    host, _, port = address.removeprefix("udp://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise DeviceError(
            f"'{address}' is no address of a Crazyflie: give host:port, such as 127.0.0.1:19850, or "
            "radio://0/80/2M/E7E7E7E7E7"
        )
    return Udp(host, int(port))


class CrtpLink:
    """Packets to and from one Crazyflie.

    Args:
        transport: Open.
        receive: Called with every packet and its time of arrival [ns], in a thread of its own.
    """

    def __init__(self, transport: Transport, receive: Callable[[Packet, int], None]) -> None:
        self._transport, self._receive = transport, receive
        self.heard_ns = time.monotonic_ns()
        """When the last packet came, whatever it was."""
        self._delays = deque([0], maxlen=RECENT)
        """Times that the last echoes took, there and back [ns]."""
        self.pulse: tuple[Packet, ...] = ()
        """Signs of life beside echoes."""
        self._echoes = deque[bytes](maxlen=32)
        """What was sent to come back: the time."""
        self._answered = threading.Condition()
        self._question: Packet | None = None
        self._answer: bytes | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="crtp", daemon=True)
        self._thread.start()

    @property
    def delay_ns(self) -> int:
        """Time there and back [ns]: the least of late, as a moment's delay is not the link's."""
        return min(self._delays)

    def send(self, packet: Packet) -> bool:
        """Whether it went out; nothing says whether it arrived."""
        return self._transport.send(packet.encode())

    def ask(self, question: Packet, attempts: int = ATTEMPTS, patience: float = PATIENCE_S) -> bytes | None:
        """Data of the answer; None where none comes.

        Args:
            question: Sent again as long as there is no answer.
            attempts: How often.
            patience: Time for an answer to each [s].
        """
        with self._answered:
            self._question, self._answer = question, None
            for _ in range(attempts):
                self.send(question)
                if self._answered.wait_for(lambda: self._answer is not None, patience):
                    break
            self._question = None
            return self._answer

    def _serve(self) -> None:
        hurry(DRIVER)
        due = time.monotonic_ns()
        while not self._closing:
            data = self._transport.receive(0.02)
            now = time.monotonic_ns()
            packet = None if data is None else Packet.decode(data)
            if packet is not None:
                self.heard_ns = now
                self._match(packet)
                self._receive(packet, now)
            if now >= due:
                due = now + PULSE_NS
                self._echoes.append(now.to_bytes(8, "little"))
                for sign in (crtp.echo(self._echoes[-1]), *self.pulse):
                    self.send(sign)

    def _match(self, packet: Packet) -> None:
        """Keep it if it is the answer that somebody waits for."""
        if (packet.port, packet.channel) == (Port.LINK, 0) and packet.data in self._echoes:
            self._delays.append(self.heard_ns - int.from_bytes(packet.data, "little"))
        with self._answered:
            asked = self._question
            if (
                asked is not None
                and (packet.port, packet.channel) == (asked.port, asked.channel)
                and packet.data.startswith(crtp.answer_prefix(asked))
            ):
                self._answer = packet.data
                self._answered.notify_all()

    def close(self) -> None:
        """Send and hear no more; doing it again changes nothing."""
        if not self._closing:
            self._closing = True
            self._thread.join()
            self._transport.close()


class LogStream:
    """Log blocks that a Crazyflie sends all the time; one set of values is made of one packet of every block.

    Args:
        blocks: Variables of every block, and as which types they are sent.
    """

    def __init__(self, blocks: Sequence[Sequence[tuple[str, Type]]]) -> None:
        self.blocks = blocks
        self.sequence, self.received_ns = 0, 0
        """Number of the newest set of values, and when it was complete [ns]."""
        self._parts: dict[int, tuple[float, ...]] = {}
        """Values of blocks whose counterparts have not come yet."""
        self._stamps: dict[int, tuple[int, int]] = {}
        """Last stamp of every block [ms], and when it came [ns]."""

    def start(self, link: CrtpLink, period_ms: int) -> None:
        """Have all blocks sent once a period.

        Raises:
            DeviceError: it does not know a variable, or does not do it.
        """
        wanted = {name for block in self.blocks for name, _ in block}
        numbers = _find(link, wanted)
        if missing := wanted - numbers.keys():
            raise DeviceError(f"the Crazyflie does not know {', '.join(sorted(missing))}: update its firmware")
        requests = [crtp.reset_log()]
        for block, variables in enumerate(self.blocks):
            requests += [crtp.create_log(block, [(kind, numbers[name]) for name, kind in variables])]
        requests += [crtp.start_log(block, period_ms) for block in range(len(self.blocks))]
        for request in requests:
            answer = link.ask(request)
            if answer is None or answer[2] not in (0, BLOCK_EXISTS):
                raise DeviceError("the Crazyflie refuses to send its state: restart it")

    def take(self, packet: Packet, now: int) -> list[float] | None:
        """All values in the order of the blocks, if this packet makes them complete.

        Packets that are late, repeated, or stamped with what cannot be are left out.

        Args:
            packet: Of any kind.
            now: When it came [ns].
        """
        if (packet.port, packet.channel) != (Port.LOG, 2) or not packet.data or packet.data[0] >= len(self.blocks):
            return None
        block = packet.data[0]
        try:
            stamp, values = crtp.decode_log(packet, [kind for _, kind in self.blocks[block]])
        except ValueError:
            return None
        if not self._is_newer(block, stamp, now):
            return None
        self._stamps[block], self._parts[block] = (stamp, now), values
        if len(self._parts) < len(self.blocks):
            return None
        complete = [value for block in range(len(self.blocks)) for value in self._parts[block]]
        self._parts.clear()
        self.sequence, self.received_ns = self.sequence + 1, now
        return complete

    def _is_newer(self, block: int, stamp: int, now: int) -> bool:
        if block not in self._stamps:
            return True
        last, came = self._stamps[block]
        return 0 < (stamp - last) % crtp.STAMP_MODULUS <= (now - came) / 1e6 + STAMP_SLACK_MS


def _find(link: CrtpLink, wanted: set[str]) -> dict[str, int]:
    """Numbers of log variables by name; asks for one after the other until all were found."""
    size, found = link.ask(crtp.table_size()), dict[str, int]()
    for number in range(0 if size is None else crtp.decode_table_size(size)):
        answer = link.ask(crtp.table_entry(number))
        if answer is None:
            raise DeviceError("the Crazyflie has become silent: bring it nearer")
        variable = crtp.decode_table_entry(answer)
        if variable.name in wanted:
            found[variable.name] = number
        if len(found) == len(wanted):
            break
    return found

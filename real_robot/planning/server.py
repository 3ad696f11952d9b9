"""A policy that answers over TCP: several robots, one network, one question at a time."""

import contextlib
import hmac
import ipaddress
import socket
import threading
from collections.abc import Callable
from typing import Any

from alula.core.errors import DeviceError
from alula.real_robot.planning.answering import answer_questions
from alula.real_robot.planning.planner import Description, Think
from alula.real_robot.planning.wire import PROTOCOL, Link

GREETING_S = 5.0
"""Time that a new client has to say who it is [s]: our choice."""
GREETING_BYTES = 4096
"""Longest greeting: who has shown no token is given no memory."""
CLIENTS = 16
"""Most clients at a time: our choice."""


class PolicyServer:
    """Listens from the start; `start` lets clients in.

    Clients that send what makes no sense lose their own link, and nobody else notices.

    Args:
        session: Makes a policy that plans for one robot; all may share a network, since one thinks at a time.
        description: Of the policy.
        host: Address to listen at.
        port: 0: any that is free.
        token: What clients must know.

    Raises:
        DeviceError: it cannot listen there.
    """

    def __init__(
        self, session: Callable[[], Think], description: Description, host: str, port: int, token: str
    ) -> None:
        self._session, self._description, self._token = session, description, token
        self._turn = threading.Lock()
        self._places = threading.Semaphore(CLIENTS)
        self._links: set[Link] = set()
        try:
            self._socket = socket.create_server((host, port))
            self.loopback = ipaddress.ip_address(self._socket.getsockname()[0]).is_loopback
        except (OSError, OverflowError) as error:
            raise DeviceError(
                f"cannot listen at {host}:{port}: {error}. Choose another port, or 0 for any, and an address of this "
                "machine"
            ) from error
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="policy server", daemon=True)

    def start(self) -> None:
        """Let clients in, from now on and in threads of their own."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening and close all links."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for link in tuple(self._links):
            link.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed
            if self._places.acquire(blocking=False):
                threading.Thread(target=self._serve, args=(connection,), name="policy client", daemon=True).start()
            else:
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        link = Link(connection)
        self._links.add(link)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.settimeout(GREETING_S)
            if refusal := self._refusal(link.receive(GREETING_BYTES)):
                link.send({"failure": refusal})
                return
            link.send(self._description.to_dict())
            connection.settimeout(None)
            answer_questions(link, self._session(), self._description, self._turn)
        except ValueError as error:
            with contextlib.suppress(OSError):
                link.send({"failure": str(error)})
        except OSError:
            pass  # the client is gone
        finally:
            link.close()
            self._links.discard(link)
            self._places.release()

    def _refusal(self, greeting: dict[str, Any]) -> str:
        """Why a client may not stay; empty where it may."""
        token, protocol = greeting.get("token"), greeting.get("protocol")
        if not hmac.compare_digest(str(token).encode(), self._token.encode()):
            return "wrong token; the server printed the right one when it began"
        if protocol != PROTOCOL:
            return f"protocol {protocol} is spoken, here it is {PROTOCOL}; install the same version of alula"
        return ""

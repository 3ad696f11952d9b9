"""A policy on another machine, or in a server on this one: `alula serve`."""

import socket

from alula.core.errors import DeviceError
from alula.real_robot.planning.background import Background
from alula.real_robot.planning.planner import Description, Plan, Request
from alula.real_robot.planning.wire import PROTOCOL, Link, answered, question

CONNECT_S = 5.0
"""Longest time that connecting, or a word of the handshake, may take [s]: our choice."""


class RemotePlanner(Background):
    """Client of a policy server. A link that is lost is made again for the next question.

    Args:
        host: Name or address of the machine.
        port: Of the server.
        token: What the server printed when it began.
        deadline: Time after which an answer is of no use [s].

    Raises:
        DeviceError: no server is there, or it refuses.
    """

    def __init__(self, host: str, port: int, token: str, deadline: float) -> None:
        super().__init__(deadline)
        self.name = f"the policy server at {host}:{port}"
        self._address, self._token = (host, port), token
        self._link: Link | None = None
        self._link, self.description = self._connect()
        self._thread.start()

    def _connect(self) -> tuple[Link, Description]:
        """A new link, and what the server's policy is.

        Raises:
            DeviceError: there is none, or not for us.
        """
        try:
            connection = socket.create_connection(self._address, CONNECT_S)
        except OSError as error:
            raise DeviceError(f"{self.name} cannot be reached: {error}. Start it with alula serve") from error
        link = Link(connection)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.send({"protocol": PROTOCOL, "token": self._token})
            found = link.receive()
            if "failure" in found:
                raise DeviceError(f"{self.name} refuses: {found['failure']}")
            description = Description.from_dict(found)
            connection.settimeout(self.deadline)
            return link, description
        except DeviceError:
            link.close()
            raise
        except (OSError, ValueError) as error:
            link.close()
            raise DeviceError(f"{self.name} does not answer as one ({error}). Check host and port") from error

    def _exchange(self, request: Request) -> Plan:
        try:
            link = self._link or self._reconnect()
            link.send(question(request, self.deadline))
            return answered(request, link.receive())
        except DeviceError as error:
            return Plan(request, None, str(error))
        except (OSError, ValueError) as error:
            # What comes later would answer a question that nobody asks any more.
            self._let_go()
            return Plan(request, None, f"{self.name} is lost: {error}")

    def _reconnect(self) -> Link:
        """A new link to the same policy, kept unless somebody has closed this planner meanwhile."""
        link, description = self._connect()
        if description != self.description:
            link.close()
            raise DeviceError(f"{self.name} serves another policy than before. Start again")
        with self._changed:
            if self._closed:
                link.close()
            else:
                self._link = link
        return link

    def _let_go(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def close(self) -> None:
        """Close the link; doing it again changes nothing."""
        super().close()
        self._let_go()

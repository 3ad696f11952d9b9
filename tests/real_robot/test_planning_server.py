"""The policy server, byte by byte: clients take turns, and none can harm another."""

import socket
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy import ndarray

from alula.core.spaces import FieldSpec, SpaceSpec
from alula.real_robot.planning.planner import Description, Request, Think
from alula.real_robot.planning.server import CLIENTS, PolicyServer
from alula.real_robot.planning.wire import HEADER, PROTOCOL, Link, answered, pack, question

pytestmark = pytest.mark.real_time

DESCRIPTION = Description(
    SpaceSpec((FieldSpec("observation.state", (2,)),)), SpaceSpec((FieldSpec("action", (3,)),)), 20.0, 4, 2, {}
)
PATIENCE = 60.0
"""With slow machines [s]."""
Serve = Callable[[Think], PolicyServer]


def echo(question: Request) -> ndarray:
    """A chunk of the second number of the observation."""
    return np.full((4, 3), question.observation["observation.state"][1])


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(think)`: a server of a policy in this process."""
    servers = []

    def start(think: Think) -> PolicyServer:
        servers.append(PolicyServer(lambda: think, DESCRIPTION, "127.0.0.1", 0, "open sesame"))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.close()


class Client(Link):
    """A link that greets, if it has a token."""

    def __init__(self, server: PolicyServer, token: str | None = "open sesame") -> None:
        super().__init__(socket.create_connection(("127.0.0.1", server.port), PATIENCE))
        if token is not None:
            self.send({"protocol": PROTOCOL, "token": token})

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def put(self, value: float, deadline: float = PATIENCE) -> None:
        """A question whose answer is this value."""
        observation = {"observation.state": np.array([0.0, value], np.float32)}
        self.send(question(Request(0, observation), deadline))

    def answer(self) -> float | str:
        """The value, or why there is none."""
        plan = answered(Request(0, {}), self.receive())
        return plan.failure if plan.chunk is None else float(plan.chunk[0, 0])

    def ask(self, value: float) -> float | str:
        """Both."""
        self.put(value)
        return self.answer()


def test_who_knows_the_token_is_told_what_the_policy_is(serve: Serve) -> None:
    with Client(serve(echo)) as client:
        assert Description.from_dict(client.receive()) == DESCRIPTION


def test_clients_take_turns_and_what_waited_too_long_is_not_thought_of(serve: Serve) -> None:
    thinking, most, thoughts = 0, 0, list[float]()

    def think(question: Request) -> ndarray:
        nonlocal thinking, most
        thinking, most = thinking + 1, max(most, thinking + 1)
        time.sleep(0.1)
        thoughts.append(float(question.observation["observation.state"][1]))
        thinking -= 1
        return echo(question)

    server = serve(think)
    with Client(server) as first, Client(server) as second, Client(server) as third:
        for client in (first, second, third):
            client.receive()
        first.put(1.0)
        second.put(2.0, deadline=0.0)
        third.put(3.0)
        assert first.answer() == 1.0
        assert str(second.answer()).startswith("late: ")
        assert third.answer() == 3.0
    assert most == 1
    assert sorted(thoughts) == [1.0, 3.0]


@pytest.mark.parametrize(
    "noise", [b"\xff\xff\xff\xff", HEADER.pack(3) + b"abc", pack({"step": "one"}), pack({}), HEADER.pack(0)]
)
def test_noise_costs_its_sender_the_link_and_nobody_else_anything(serve: Serve, noise: bytes) -> None:
    """Before and after the greeting."""
    server = serve(echo)
    with Client(server) as other:
        other.receive()
        for token in (None, "open sesame"):
            with Client(server, token) as noisy:
                if token is not None:
                    noisy.receive()
                noisy.connection.sendall(noise)
                assert "failure" in noisy.receive()
                with pytest.raises(ConnectionError):
                    noisy.receive()
            assert other.ask(7.0) == 7.0


def test_who_shows_no_token_is_told_nothing_and_given_no_memory(serve: Serve) -> None:
    server = serve(echo)
    with Client(server, "guess") as client:
        assert client.receive() == {"failure": "wrong token; the server printed the right one when it began"}
        with pytest.raises(ConnectionError):
            client.receive()
    with Client(server, None) as client:
        client.connection.sendall(HEADER.pack(2**24))
        assert "allowed are 4096" in client.receive()["failure"]


def test_clients_that_say_nothing_keep_nobody_waiting(serve: Serve) -> None:
    """Until there are too many; then new ones are turned away, and let in again once there is room."""
    server = serve(echo)
    with Client(server) as client:
        client.receive()
        silent = [Client(server, None) for _ in range(CLIENTS - 1)]
        assert client.ask(1.0) == 1.0
        with Client(server, None) as turned_away, pytest.raises(ConnectionError):
            turned_away.receive()
        for each in silent:
            each.close()
        end = time.monotonic() + PATIENCE
        while not is_let_in(server):
            assert time.monotonic() < end
            time.sleep(0.01)
        assert client.ask(2.0) == 2.0


def is_let_in(server: PolicyServer) -> bool:
    """Whether a new client is greeted."""
    with Client(server, None) as client:
        try:
            client.send({"protocol": PROTOCOL, "token": "open sesame"})
            return "rate" in client.receive()
        except OSError:
            return False

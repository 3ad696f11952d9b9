"""Planners: questions and answers survive the way, and whatever happens to a policy comes back as words."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy import ndarray

from alula.core.errors import DeviceError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.real_robot.planning import server as server_module
from alula.real_robot.planning.inline import InlinePlanner
from alula.real_robot.planning.planner import Description, Plan, Planner, Request, Think
from alula.real_robot.planning.process import ProcessPlanner
from alula.real_robot.planning.remote import RemotePlanner
from alula.real_robot.planning.server import PolicyServer
from alula.real_robot.planning.wire import PROTOCOL

pytestmark = pytest.mark.real_time

OBSERVATION = SpaceSpec((FieldSpec("observation.state", (2,)),))
ACTION = SpaceSpec((FieldSpec("action", (3,), rate=20.0),))
DESCRIPTION = Description(OBSERVATION, ACTION, 20.0, 4, 2, {"name": "nothing", "config": {"size": 0.5}})
PATIENCE = 60.0
"""Of the tests with slow machines [s]."""

POLICY = f"""
import os, time
import numpy as np
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.real_robot.planning.planner import Description

DESCRIPTION = Description.from_dict({DESCRIPTION.to_dict()!r})

def think(request):
    what, value = request.observation["observation.state"].tolist()
    match what:
        case 1: raise ValueError("no idea")
        case 2: time.sleep(value)
        case 3: os._exit(7)
        case 4: value = float("nan")
    return np.full((4, 3), value, np.float32)

def build(words):
    if words != "please":
        raise ValueError(f"unkindly asked: {{words}}")
    return think, DESCRIPTION
"""
"""A policy that does what its observation says."""


def request(what: float = 0.0, value: float = 0.0, step: int = 0) -> Request:
    """A question that makes the policy do something."""
    return Request(step, {"observation.state": np.array([what, value], np.float32)})


def wait_for(planner: Planner) -> Plan:
    """Poll as a control loop does."""
    end = time.monotonic() + PATIENCE
    while (plan := planner.poll()) is None:
        assert time.monotonic() < end, "no answer and no failure"
        time.sleep(0.002)
    return plan


def ask(planner: Planner, *what: float) -> Plan:
    """Put a question and wait for what comes of it."""
    planner.request(request(*what))
    return wait_for(planner)


def value_of(plan: Plan) -> float:
    """What all elements of its chunk are."""
    assert plan.chunk is not None, plan.failure
    assert plan.chunk.shape == (4, 3)
    assert np.ptp(plan.chunk) == 0
    return float(plan.chunk[0, 0])


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The module of the policy above."""
    (tmp_path / "obedient_policy.py").write_text(POLICY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "obedient_policy:build"


@pytest.fixture
def process(policy: str) -> Iterator[ProcessPlanner]:
    """It, in a process of its own."""
    planner = ProcessPlanner(policy, {"words": "please"}, PATIENCE)
    yield planner
    planner.close()
    assert planner.process.poll() is not None


@pytest.fixture
def serve() -> Iterator[Callable[..., PolicyServer]]:
    """`serve(think, port=0, description=...)`: a server of a policy in this process."""
    servers = []

    def start(think: Think, port: int = 0, description: Description = DESCRIPTION) -> PolicyServer:
        servers.append(PolicyServer(lambda: think, description, "127.0.0.1", port, "open sesame"))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., RemotePlanner]]:
    """`connect(server, deadline, **others)`: a client."""
    planners = []

    def start(server: PolicyServer, deadline: float = PATIENCE, **others: object) -> RemotePlanner:
        settings = {"host": "127.0.0.1", "port": server.port, "token": "open sesame", "deadline": deadline}
        planners.append(RemotePlanner(**{**settings, **others}))  # type: ignore[arg-type]
        return planners[-1]

    yield start
    for planner in planners:
        planner.close()


def echo(question: Request) -> ndarray:
    """A chunk of the second number of the observation."""
    return np.full((4, 3), question.observation["observation.state"][1])


# --- planners ---


def test_all_are_planners(process: ProcessPlanner, serve: Callable[..., PolicyServer], connect: Callable) -> None:
    remote = connect(serve(echo))
    for planner in (process, remote, InlinePlanner(echo, DESCRIPTION)):
        assert isinstance(planner, Planner)
        assert planner.description.to_dict() == {**DESCRIPTION.to_dict(), **planner.description.to_dict()}
        assert planner.description.observation == OBSERVATION
        assert planner.description.task["config"] == {"size": 0.5}
        assert planner.poll() is None
        for value in (0.25, -3.0):
            assert value_of(ask(planner, 0.0, value)) == value
        assert planner.poll() is None
        planner.close()
        planner.close()


def test_a_policy_that_fails_says_why_and_goes_on(
    process: ProcessPlanner, serve: Callable[..., PolicyServer], connect: Callable
) -> None:
    namespace: dict[str, Think] = {}
    exec(POLICY, namespace)
    think = namespace["think"]
    for planner in (process, connect(serve(think)), InlinePlanner(think, DESCRIPTION)):
        plan = ask(planner, 1.0)
        assert plan.chunk is None
        assert plan.failure == "the policy failed: ValueError: no idea"
        assert np.isnan(ask(planner, 4.0).chunk).all()  # type: ignore[arg-type]
        assert value_of(ask(planner, 0.0, 2.0)) == 2.0


def test_asking_takes_no_time(process: ProcessPlanner) -> None:
    """While the policy thinks for long, with more to send than any buffer holds."""
    picture = {"observation.state": np.zeros(2, np.float32), "picture": np.zeros((2000, 2000, 3), np.uint8)}
    ask(process)
    process.request(request(2.0, 1000.0))
    longest = 0.0
    for _ in range(20):
        start = time.monotonic()
        process.request(Request(1, picture))
        process.poll()
        longest = max(longest, time.monotonic() - start)
    assert longest < 2.0


def test_only_the_last_question_is_answered(process: ProcessPlanner) -> None:
    process.request(request(2.0, 0.1))
    process.request(request(0.0, 5.0))
    process.request(request(0.0, 6.0))
    assert value_of(wait_for(process)) == 6.0
    time.sleep(0.05)
    assert process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_policy_process_that_is_killed_is_told_of(process: ProcessPlanner, number: signal.Signals) -> None:
    """While it thinks, and whenever it is asked after that."""
    process.request(request(2.0, 1000.0))
    time.sleep(0.2)
    os.kill(process.process.pid, number)
    for _ in range(2):
        plan = wait_for(process)
        assert plan.chunk is None
        assert f"ended by {number.name}" in plan.failure
        process.request(request())


def test_a_policy_process_that_ends_is_told_of(process: ProcessPlanner) -> None:
    assert "it ended with status 7" in ask(process, 3.0).failure


def test_a_policy_process_that_hangs_is_told_of_by_the_deadline_and_may_come_back(policy: str) -> None:
    planner = ProcessPlanner(policy, {"words": "please"}, 0.3)
    try:
        os.kill(planner.process.pid, signal.SIGSTOP)
        for value in range(2):
            plan = ask(planner, 0.0, value)
            assert plan.failure == "the policy gave no answer within 0.3 s"
        planner.deadline = PATIENCE
        os.kill(planner.process.pid, signal.SIGCONT)
        assert value_of(ask(planner, 0.0, 9.0)) == 9.0
    finally:
        planner.close()


def test_a_policy_that_cannot_be_built_is_one_error(policy: str) -> None:
    with pytest.raises(DeviceError, match="cannot be loaded: ValueError: unkindly asked: now"):
        ProcessPlanner(policy, {"words": "now"}, 1.0)
    with pytest.raises(DeviceError, match="No module named 'absent'"):
        ProcessPlanner("absent:build", {}, 1.0)


def is_alive(process: int) -> bool:
    """Whether it runs; one that nobody has asked for its status does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_policy_process_dies_with_its_parent(policy: str) -> None:
    """Killed without a chance to say good-bye, in the midst of a thought."""
    parent = f"""
import time, numpy as np
from alula.real_robot.planning.process import ProcessPlanner
from alula.real_robot.planning.planner import Request
if __name__ == "__main__":
    planner = ProcessPlanner({policy!r}, {{"words": "please"}}, 60.0)
    planner.request(Request(0, {{"observation.state": np.array([2, 1000], np.float32)}}))
    print(planner.process.pid, flush=True)
    time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-P", "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()
    end = time.monotonic() + PATIENCE
    while is_alive(child):
        assert time.monotonic() < end, "it lives on"
        time.sleep(0.01)


# --- server and client ---


def test_a_wrong_token_is_one_error(serve: Callable[..., PolicyServer], connect: Callable) -> None:
    with pytest.raises(DeviceError, match="refuses: wrong token"):
        connect(serve(echo), token="open barley")


def test_another_protocol_is_one_error(
    serve: Callable[..., PolicyServer], connect: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "PROTOCOL", PROTOCOL + 1)
    with pytest.raises(DeviceError, match=f"protocol {PROTOCOL} is spoken, here it is {PROTOCOL + 1}"):
        connect(serve(echo))


def test_nobody_there_is_one_error(serve: Callable[..., PolicyServer], connect: Callable) -> None:
    server = serve(echo)
    server.close()
    with pytest.raises(DeviceError, match=r"cannot be reached.*alula serve"):
        connect(server)


def test_somebody_else_there_is_one_error(connect: Callable) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            connection, _ = other.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        answering = threading.Thread(target=greet)
        answering.start()
        with pytest.raises(DeviceError, match="does not answer as one"):
            connect(SimpleNamespace(port=other.getsockname()[1]))
        answering.join()


def test_a_port_that_is_taken_is_one_error(serve: Callable[..., PolicyServer]) -> None:
    server = serve(echo)
    with pytest.raises(DeviceError, match=f"cannot listen at 127.0.0.1:{server.port}.*another port"):
        serve(echo, server.port)


def test_a_server_that_goes_is_told_of_and_found_again(serve: Callable[..., PolicyServer], connect: Callable) -> None:
    server = serve(echo)
    planner = connect(server)
    assert value_of(ask(planner, 0.0, 1.0)) == 1.0
    server.close()
    assert "lost" in ask(planner).failure
    assert "cannot be reached" in ask(planner).failure
    serve(echo, server.port)
    assert value_of(ask(planner, 0.0, 2.0)) == 2.0


def test_a_server_that_comes_back_with_another_policy_is_not_obeyed(
    serve: Callable[..., PolicyServer], connect: Callable
) -> None:
    server = serve(echo)
    planner = connect(server)
    server.close()
    other = Description(OBSERVATION, ACTION, 50.0, 4, 2, {})
    serve(echo, server.port, other)
    ask(planner)
    assert "another policy than before" in ask(planner).failure


def test_a_server_that_hangs_is_told_of_by_the_deadline_and_found_again(
    serve: Callable[..., PolicyServer], connect: Callable
) -> None:
    release = threading.Event()

    def think(question: Request) -> ndarray:
        if question.observation["observation.state"][0]:
            release.wait(PATIENCE)
        return echo(question)

    planner = connect(serve(think), deadline=0.5)
    try:
        start = time.monotonic()
        assert ask(planner, 1.0).chunk is None
        assert time.monotonic() - start < PATIENCE / 2
    finally:
        release.set()
    planner.deadline = PATIENCE
    end = time.monotonic() + PATIENCE
    while (plan := ask(planner, 0.0, 4.0)).chunk is None:
        assert time.monotonic() < end
    assert value_of(plan) == 4.0


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ({}, "'observation.state', which is missing"),
        ({"observation.state": np.zeros(3, np.float32)}, r"is float32 \(3,\), the policy sees float32 \(2,\)"),
        ({"observation.state": np.zeros(2)}, "is float64"),
    ],
)
def test_observations_of_another_robot_are_refused_in_words(
    serve: Callable[..., PolicyServer], connect: Callable, observation: dict[str, ndarray], message: str
) -> None:
    planner = connect(serve(echo))
    planner.request(Request(0, observation))
    with pytest.raises(AssertionError, match=message):
        value_of(wait_for(planner))
    assert value_of(ask(planner, 0.0, 1.0)) == 1.0

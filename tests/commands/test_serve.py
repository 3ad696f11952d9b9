"""A checkpoint behind a server or in a process of its own plans as it does here, and its death is noticed."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from alula.commands import serve as command
from alula.commands.inference import BUILD, Thinker, describe_policy, think
from alula.core.errors import CheckpointError
from alula.core.real_time import Committed, agreement
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.policies.config import ResidualHeadConfig
from alula.policies.policy import GenerativePolicy
from alula.policies.registry import make_residual_policy
from alula.real_robot.planning.planner import Plan, Planner, Request
from alula.real_robot.planning.process import ProcessPlanner
from alula.real_robot.planning.remote import RemotePlanner
from alula.training.checkpoint import Checkpoint, load_policy, save_policy

pytestmark = pytest.mark.real_time

PATIENCE = 120.0
"""With slow machines [s]."""
SERVE = (sys.executable, "-P", "-m", "alula.commands.main", "serve")


@contextmanager
def serving(checkpoint: Path) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """The command, and the port and token that it prints."""
    with subprocess.Popen([*SERVE, str(checkpoint)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            title, address, token = (process.stdout.readline().strip() for _ in range(3))
            assert title == f"serving {checkpoint}: 8 actions a plan, 20 a second"
            host, port = address.removeprefix("listening at ").split(":")
            assert host == "127.0.0.1"
            yield process, int(port), token.removeprefix("token ")
        finally:
            process.kill()


def wait_for(planner: Planner) -> Plan:
    """Poll as a control loop does."""
    end = time.monotonic() + PATIENCE
    while (plan := planner.poll()) is None:
        assert time.monotonic() < end
        time.sleep(0.002)
    return plan


def requests(planner: Planner) -> list[Request]:
    """A free question, and one with something committed."""
    rng = np.random.default_rng(0)
    fields = planner.description.observation
    seen = {name: rng.normal(0, 0.1, field.shape).astype(field.dtype) for name, field in fields.items()}
    size = planner.description.action["action"].size
    committed = Committed(rng.normal(0, 0.01, (5, size)).astype(np.float32), agreement(2, 5))
    return [Request(0, seen), Request(3, seen, committed)]


def test_wherever_it_runs_a_policy_plans_the_same_and_its_death_is_noticed(made: Path) -> None:
    """To the bit, freely and in agreement with what is committed; a server that is killed is told of in words."""
    here, description = think(str(made / "cloned"), 0)
    own = ProcessPlanner(BUILD, {"checkpoint": str(made / "cloned"), "seed": 0}, PATIENCE)
    with serving(made / "cloned") as (process, port, token):
        assert len(token) >= 16
        remote = RemotePlanner("127.0.0.1", port, token, PATIENCE)
        for request in requests(own):
            wanted = here(request)
            assert wanted.shape == (8, 4)
            for planner in (own, remote):
                planner.request(request)
                np.testing.assert_array_equal(wait_for(planner).chunk, wanted)  # type: ignore[arg-type]
        for planner in (own, remote):
            assert planner.description.to_dict() == {**description.to_dict(), **planner.description.to_dict()}
            assert planner.description.task["name"] == "peg_insertion"
        process.send_signal(signal.SIGKILL)
        process.wait()
        start = time.monotonic()
        for _ in range(3):
            remote.request(Request(4, request.observation))
            plan = wait_for(remote)
            assert plan.chunk is None
            assert f"the policy server at 127.0.0.1:{port}" in plan.failure
        assert time.monotonic() - start < 30.0
        own.close()
        remote.close()


def test_a_residual_policy_starts_over_with_every_run(made: Path, tmp_path: Path) -> None:
    """Between its plans it remembers its base's chunk; steps that start over make it forget."""
    base = load_policy(made / "cloned")
    assert isinstance(base.policy, GenerativePolicy)
    save_policy(tmp_path, make_residual_policy(ResidualHeadConfig(), base.policy), base.task, {})
    here, description = think(str(tmp_path), 0)
    assert (description.horizon, description.execute_steps) == (1, 1)
    rng = np.random.default_rng(0)
    fields = description.observation.items()
    seen = [{name: rng.normal(0, 0.1, field.shape).astype(field.dtype) for name, field in fields} for _ in range(3)]
    for step, observation in enumerate(seen):
        here(Request(step, observation))
    fresh, _ = think(str(tmp_path), 0)
    assert isinstance(here, Thinker)
    assert isinstance(fresh, Thinker)
    fresh.generator.set_state(here.generator.get_state())
    for step, observation in enumerate(seen):
        np.testing.assert_array_equal(here(Request(step, observation)), fresh(Request(step, observation)))


def test_a_policy_that_knows_no_rate_is_refused(made: Path) -> None:
    checkpoint = load_policy(made / "cloned")
    checkpoint.policy.action = SpaceSpec((FieldSpec("action", (4,)),))
    with pytest.raises(CheckpointError, match="how many actions a second"):
        describe_policy(Checkpoint(checkpoint.policy, {}, {}))


@pytest.mark.parametrize("loopback", [True, False])
def test_ctrl_c_is_the_way_to_end_it_and_other_machines_are_warned_of(
    workplace: Path, alula: Callable, monkeypatch: pytest.MonkeyPatch, loopback: bool
) -> None:
    closed = []

    class Interrupted:
        """A server that the user stops as soon as it runs."""

        port = 4711

        def __init__(self, session: object, description: object, host: str, port: int, token: str) -> None:
            self.loopback, self.host = loopback, host

        def start(self) -> None:
            raise KeyboardInterrupt

        def close(self) -> None:
            closed.append(self.host)

    monkeypatch.setattr(command, "PolicyServer", Interrupted)
    outcome = alula("serve", "cloned", "host=robot-brain")
    assert outcome.status == 0
    assert "listening at robot-brain:4711" in outcome.out
    assert outcome.out.splitlines()[-1] == "stopped"
    assert ("can be reached by other machines" in outcome.err) == (not loopback)
    assert closed == ["robot-brain"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "checkpoint is missing"),
        (["absent"], "no checkpoint at 'absent'"),
        (["cloned", "port=65536"], "port is 65536"),
        (["cloned", "token="], "token is empty"),
        (["cloned", "host=256.0.0.1"], "cannot listen at 256.0.0.1:0"),
    ],
)
def test_mistakes_are_one_line(workplace: Path, alula: Callable, words: list[str], message: str) -> None:
    assert message in alula("serve", *words).error

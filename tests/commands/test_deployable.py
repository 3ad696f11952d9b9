"""Every kind of policy runs on a robot by the same command; to switch, one names another checkpoint."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from alula.datasets.store import EpisodeStore
from alula.policies.config import FieldConfig, ResidualHeadConfig
from alula.policies.policy import GenerativePolicy, Policy
from alula.policies.registry import POLICIES, make_residual_policy
from alula.sims.registry import TASKS, make_task
from alula.training.checkpoint import save_policy
from alula.training.pipeline import describe_task, untrained

Run = Callable[..., "object"]
TASK = TASKS["peg_insertion"].config(robot="ur5e")
SMALL = FieldConfig(width=16, blocks=0)


def made(kind: str) -> Policy:
    """One of this kind, that has learned nothing."""
    name = kind.removeprefix("residual on ")
    base = untrained(make_task(TASK), replace(POLICIES[name](), field=SMALL), seed=0)
    if name == kind:
        return base
    assert isinstance(base, GenerativePolicy)
    return make_residual_policy(ResidualHeadConfig(), base)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*POLICIES, *(f"residual on {name}" for name in POLICIES)])
def test_every_kind_of_policy_deploys_by_the_same_command(alula: Run, tmp_path: Path, kind: str) -> None:
    (tmp_path / "policy").mkdir()
    save_policy(tmp_path / "policy", made(kind), describe_task(TASK), {})
    out = tmp_path / "run.zarr"
    words = ("device=ur5e", "emulate=true", "episodes=1", "seconds=1", f"out={out}")
    outcome = alula("deploy", f"checkpoint={tmp_path / 'policy'}", *words)
    assert outcome.status == 0, outcome.err
    steps = EpisodeStore.open(out).episode(0).length
    assert 15 <= steps <= 21, "at 20 Hz for a second, but for the time of the first plan"

"""A person who watches a policy takes over, and what they do is recorded as theirs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy import ndarray

from alula.commands.deployment.recording import STREAM
from alula.commands.record import spaces
from alula.core.spaces import SpaceSpec
from alula.datasets.store import EpisodeStore
from alula.real_robot.devices.config import SimulatedConfig
from alula.real_robot.devices.registry import make_device
from alula.real_robot.planning.inline import InlinePlanner
from alula.real_robot.planning.planner import Description, Request
from alula.real_robot.teleoperation.operator import Phase, Script
from alula.real_robot.teleoperation.operators import OPERATORS

pytestmark = pytest.mark.real_time

DEVICE = ("device=simulated", "device.joints=2", "device.rate=50")
SPEC = make_device(SimulatedConfig(joints=2, rate=50.0)).spec
PLACE = np.array([0.3, -0.2], np.float32)
"""Where the policy goes."""
WATCHES = Phase(1.0, (0.0, 0.0), held=False)
STEERS = Phase(1.0, (-1.0, 0.0))
LETS_GO = Phase(0.5, (0.0, 0.0), held=False)
HANDS_BACK = Phase(0.1, (0.0, 0.0), held=False, release=True)


def go(request: Request) -> ndarray:
    """A policy that has one wish."""
    return np.tile(PLACE, (4, 1))


def test_a_takeover_is_smooth_and_recorded_as_an_intervention(
    alula: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")
    script = (WATCHES, STEERS, LETS_GO, HANDS_BACK, Phase(9.0, (0.0, 0.0), held=False))
    monkeypatch.setitem(OPERATORS, "gamepad", lambda size: Script(script))
    policy = Description(*spaces(SPEC, 20.0, SpaceSpec(())), 20.0, 4, 2, {"device": "simulated"})
    monkeypatch.setattr("alula.commands.deploy.ProcessPlanner", lambda *_: InlinePlanner(go, policy))
    words = ("operator=gamepad", "seconds=4", "episodes=1", f"out={tmp_path / 'run.zarr'}")
    outcome = alula("deploy", "checkpoint=here", *DEVICE, *words)
    assert outcome.status == 0, outcome.err
    episode = EpisodeStore.open(tmp_path / "run.zarr").episode(0)
    assert "to the bit" in alula("replay", f"data={tmp_path / 'run.zarr'}", "check=true").out
    steps, stream = episode.steps, episode.streams[STREAM]
    theirs = steps["intervention"]
    changes = np.flatnonzero(np.diff(theirs.astype(int)))
    assert len(changes) == 2, "the policy, then the person, then the policy again"
    assert (np.diff(steps["timestamp"]) > 0).all()
    assert 20 <= theirs.sum() <= 32, "a second and a half at 20 Hz"
    np.testing.assert_array_equal(steps["action"][~theirs], np.tile(PLACE, (int((~theirs).sum()), 1)))
    assert steps["action"][theirs][-1, 0] < PLACE[0] - 0.1, "the person has moved the first joint away"
    np.testing.assert_allclose(steps["observation.state"][-1], PLACE, atol=0.02)
    assert stream["intervention"].mean() == pytest.approx(1.5 / 4, abs=0.1)
    assert "100.0 %" in outcome.out
    # Promise S10: velocity, acceleration and jerk keep their limits from the policy to the person and back.
    limits, rate, margin = SPEC.limits, SPEC.rate, 1 + 1e-9
    executed = stream["executed"]
    for order, most in ((1, limits.velocity), (2, limits.acceleration), (3, limits.jerk)):
        assert (np.abs(np.diff(executed, n=order, axis=0)) * rate**order <= np.array(most) * margin + 1e-6).all()

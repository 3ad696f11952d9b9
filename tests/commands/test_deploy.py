"""One command runs a policy on an emulated robot and records it; what does not fit is refused before anything moves."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alula.commands.emulate import read_fault
from alula.core.errors import ConfigError
from alula.datasets.store import EpisodeStore
from alula.policies.config import FieldConfig, GaussianPolicyConfig
from alula.sims.registry import TASKS, make_task
from alula.training.checkpoint import save_policy
from alula.training.pipeline import describe_task, untrained

pytestmark = pytest.mark.real_time

Run = Callable[..., "object"]
SMALL = GaussianPolicyConfig(field=FieldConfig(width=16, blocks=0))


def checkpoint(folder: Path, name: str, **settings: object) -> Path:
    """A policy that has learned nothing, as a run folder."""
    config = TASKS[name].config(**settings)
    policy = untrained(make_task(config), SMALL, seed=0)
    (folder / name).mkdir()
    save_policy(folder / name, policy, describe_task(config), {})
    return folder / name


def test_a_policy_flies_is_recorded_and_can_be_trained_on(alula: Run, tmp_path: Path) -> None:
    policy = checkpoint(tmp_path, "hover", action_mode="velocity")
    out = tmp_path / "flown.zarr"
    words = ("device=crazyflie", "emulate=true", "episodes=2", "seconds=1.0", f"out={out}")
    outcome = alula("deploy", f"checkpoint={policy}", *words, "--json")
    assert outcome.status == 0, outcome.err
    assert {result["name"] for result in outcome.report["results"]} >= {"success", "missed_percent"}
    store = EpisodeStore.open(out)
    task = make_task(TASKS["hover"].config(action_mode="velocity"))
    assert (store.observation, store.action) == (task.observation, task.action)
    assert store.num_episodes == 2
    assert store.metadata["device"] == "crazyflie"
    episode = store.episode(1)
    assert episode.metadata["seed"] == 1_000_001
    assert 20 <= episode.length <= 101
    stream = episode.streams["device"]
    assert np.isfinite(stream["executed"]).all()
    assert (stream["source"] > 0).any()
    steps = ("cloning.steps=20", "cloning.batch_size=16", "policy=gaussian", f"run={tmp_path / 'again'}")
    assert alula("train", f"data={out}", *steps).status == 0


@pytest.mark.slow
def test_a_dry_run_moves_nothing(alula: Run, tmp_path: Path) -> None:
    policy = checkpoint(tmp_path, "reach", robot="so101")
    words = (
        "device=so101",
        "emulate=true",
        "dry_run=true",
        "episodes=1",
        "seconds=0.5",
        f"out={tmp_path / 'dry.zarr'}",
    )
    outcome = alula("deploy", f"checkpoint={policy}", *words)
    assert outcome.status == 0, outcome.err
    stream = EpisodeStore.open(tmp_path / "dry.zarr").episode(0).streams["device"]
    assert not stream["delivered"].any()


@pytest.mark.parametrize(
    ("name", "settings", "words", "message"),
    [
        ("hover", {}, ("device=crazyflie", "emulate=true"), "task.action_mode=velocity"),
        ("lift", {"robot": "panda"}, ("device=so101", "emulate=true"), "task.robot=so101"),
        ("lift", {"robot": "so101"}, ("device=crazyflie", "emulate=true"), "choose another device"),
        ("hover", {"action_mode": "velocity"}, ("device=simulated", "emulate=true"), "needs no emulator"),
        ("lift", {"robot": "so101"}, ("device=so101", "device.address=/dev/nothing"), "calibration"),
        ("lift", {"robot": "so101"}, (), "device is missing"),
        ("lift", {"robot": "so101"}, ("device=so100",), "so101"),
        ("lift", {"robot": "so101"}, ("device=so101", "mode=fast"), "synchronous"),
        ("lift", {"robot": "so101"}, ("device=so101", "poses=nowhere.json"), "cannot read the poses"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(
    alula: Run, tmp_path: Path, name: str, settings: dict[str, object], words: tuple[str, ...], message: str
) -> None:
    policy = checkpoint(tmp_path, name, **settings)
    out = tmp_path / "never.zarr"
    assert message in alula("deploy", f"checkpoint={policy}", f"out={out}", *words).error
    assert not out.exists()


def test_a_policy_must_be_named(alula: Run) -> None:
    assert "checkpoint is missing" in alula("deploy", "device=crazyflie").error
    assert "server" in alula("deploy", "device=crazyflie", "server=nowhere").error


@pytest.mark.slow
def test_a_terminated_run_brakes_and_keeps_what_it_has(tmp_path: Path) -> None:
    policy = checkpoint(tmp_path, "peg_insertion", robot="ur5e")
    out = tmp_path / "cut.zarr"
    words = ["device=ur5e", "emulate=true", "episodes=5", "seconds=30", f"out={out}"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "alula.commands.main", "deploy", f"checkpoint={policy}", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    end = time.monotonic() + 60
    while not out.exists() and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(6.0)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "interrupted; the robot has been stopped" in said
    assert EpisodeStore.open(out).num_episodes == 1


def test_an_emulator_runs_until_it_is_interrupted(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-P",
        "-m",
        "alula.commands.main",
        "emulate",
        "device=so101",
        f"log={tmp_path}",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("emulating so101")
        hint = process.stdout.readline()
        assert "alula deploy" in hint
        address = next(word for word in hint.split() if word.startswith("device.address="))
        assert os.path.exists(address.partition("=")[2])
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read().splitlines()
    assert process.returncode == 0
    assert json.loads(rest[-1])["area"] == "emulate"


def test_faults_are_read_from_words() -> None:
    assert read_fault("drop") == {"kind": "drop"}
    assert read_fault("silent:3:100::0.5") == {"kind": "silent", "target": 3, "start": 100, "probability": 0.5}
    for wrong in ("drop:x", "drop:1:2:3:4:5:6"):
        with pytest.raises(ConfigError, match="is no fault"):
            read_fault(wrong)

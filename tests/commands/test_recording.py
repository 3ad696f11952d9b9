"""Promise S14: every run is an episode, and a governor that is told the same says the same, to the bit."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jaxtyping import Float64
from numpy import ndarray

from alula.commands.deployment.recording import (
    REASONS,
    STREAM,
    RunRecorder,
    describe_device,
    described_device,
    stream_fields,
)
from alula.commands.deployment.replaying import reproduce, run_of
from alula.core.errors import DatasetError, DeviceError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.store import EpisodeStore
from alula.real_robot.contract import DeviceSpec, Grip, Intent, Limits, Receipt, State, Stop, Workspace
from alula.real_robot.devices.simulated import Simulated
from alula.real_robot.governor import Governor, Reason
from alula.real_robot.loop import ControlLoop, Tick

pytestmark = pytest.mark.real_time

LIMITS = Limits((-1.0, -1.0), (1.0, 1.0), (2.0, 2.0), (8.0, 8.0), (100.0, 100.0), 0.01, (0.5, np.inf))
OBSERVATION = SpaceSpec((FieldSpec("observation.state", (3,), units=("m",)),))
ACTION = SpaceSpec((FieldSpec("action", (2,), units=("rad",), low=(-1.0,), high=(1.0,), rate=10.0),))
SPEC = DeviceSpec(
    "simulated",
    "simulated",
    SpaceSpec((FieldSpec("observation.state", (2,), units=("rad",)),)),
    SpaceSpec((FieldSpec("action", (2,), units=("rad",)),)),
    LIMITS,
    50.0,
    (Stop.HOLD, Stop.LIMP),
    None,
    Stop.LAND,
    Grip(1, -0.5, 0.5),
)
PERIOD_NS = SPEC.period_ns


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def recorder(folder: Path, workspace: Workspace | None = None) -> RunRecorder:
    return RunRecorder(folder / "run.zarr", SPEC, OBSERVATION, ACTION, {"task": "none"}, workspace=workspace)


class Run:
    """A loop without a clock of its own, so that a run takes no longer than its arithmetic."""

    def __init__(self, record: RunRecorder) -> None:
        self.record, self.now, self.sequence = record, 1_000_000_000, 0
        self.device = Simulated(SPEC, clock=lambda: self.now)
        self.governor = Governor(SPEC, record.workspace)
        self.restart()

    def restart(self) -> None:
        """A start, refused where the device is not ready."""
        state = self.device.activate()
        try:
            command = self.governor.start(state, self.now)
        except DeviceError:
            return
        self.record(Tick(state, None, command, self.device.write(command), start=True))

    def step(self, event: Any, action: Any) -> None:
        self.now += PERIOD_NS + (len(event) % 3 - 1) * 300_000
        state = self.device.read()
        match event:
            case "silent device":
                state = replace(state, sequence=0)
            case "fault":
                state = replace(state, faults=("joint 2 is hot", "bus"))
            case "half a state":
                state = replace(state, valid=np.array([True, False]))
            case "lost position":
                state = replace(state, position=np.full(2, np.nan))
            case "emergency stop":
                self.governor.emergency_stop("red button")
            case "start":
                self.restart()
                return
        created = self.now - (10 * PERIOD_NS if event == "old action" else -5 * PERIOD_NS if event == "future" else 0)
        intent = None if event == "silent source" else Intent(np.asarray(action), created, "policy")
        command = self.governor(intent, state, self.now)
        self.record(Tick(state, intent, command, self.device.write(command)))


EVENTS = (
    *("nothing", "silent device", "fault", "half a state", "lost position", "emergency stop", "start"),
    *("silent source", "old action", "future"),
)
WISHES = st.one_of(
    st.lists(st.floats(-1.5, 1.5), min_size=2, max_size=2),
    st.lists(st.floats(width=32), min_size=2, max_size=2),
    st.sampled_from([[0.0], ["left", "right"], None, [[1.0, 1.0]]]),
)


class Fence:
    """Together the elements stay below one and a half."""

    def inside(self, positions: Float64[ndarray, "points action"]) -> ndarray:
        return np.asarray(positions.sum(axis=1) < 0.5)

    def free(self, way: Float64[ndarray, "places action"]) -> bool:
        return bool(self.inside(way).all())


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from(EVENTS), WISHES, st.integers(1, 12)), max_size=25),
    st.sampled_from([None, Fence()]),
)
def test_any_run_is_reproduced_to_the_bit(
    tmp_path: Path, events: Sequence[tuple[str, Any, int]], workspace: Workspace | None
) -> None:
    """Through the disk, with every fault, emergency stop and start."""
    record = RunRecorder(tmp_path / "run.zarr", SPEC, OBSERVATION, ACTION, {}, workspace=workspace, overwrite=True)
    run, periods = Run(record), 1
    for event, wish, repeats in events:
        for _ in range(repeats):
            run.step(event, wish)
    record.end(False, {})
    episode, spec = run_of(EpisodeStore.open(tmp_path / "run.zarr"), 0)
    periods = len(episode.streams[STREAM]["timestamp"])
    found = reproduce(episode, spec)
    assert (found.difference, found.periods) == (None, periods)


def recorded(folder: Path) -> Episode:
    record = recorder(folder)
    run = Run(record)
    for period in range(60):
        run.step("nothing", [0.5, -0.5])
        if period % 5 == 0:
            record.step({"observation.state": np.ones(3)}, np.array([0.5, -0.5]), run.now)
    run.step("fault", [0.5, np.nan])
    for _ in range(20):
        run.step("emergency stop", [0.5, 0.5])
    record.end(True, {"seed": 3})
    return EpisodeStore.open(folder / "run.zarr").episode(0)


@pytest.mark.parametrize(
    ("name", "period", "value", "said"),
    [
        ("executed", 30, [0.1, 0.1], "period 30 of 82: command was"),
        ("requested", 20, [0.4, -0.4], "period 20 of 82: "),
        ("emergency", 62, 0, None),
        ("faults", 61, 0, "period 61 of 82: reasons were bad_action, device_fault"),
        ("start", 0, False, "does not begin with the start"),
    ],
)
def test_what_was_changed_since_is_noticed(
    tmp_path: Path, name: str, period: int, value: Any, said: str | None
) -> None:
    """One value of one sample. A second reason to stop, where there is a first, rightly changes nothing."""
    episode = recorded(tmp_path)
    episode.streams[STREAM][name][period] = value
    found = reproduce(episode, SPEC)
    assert found.difference is None if said is None else said in str(found.difference)


def test_an_episode_says_what_was_asked_and_what_was_done(tmp_path: Path) -> None:
    episode = recorded(tmp_path)
    samples, run = episode.streams[STREAM], episode.metadata["run"]
    assert samples["start"].tolist() == [True] + [False] * 81
    assert samples["requested"][5].tolist() == [0.5, -0.5]
    np.testing.assert_array_equal(samples["requested"][61], [0.5, np.nan])
    assert np.isnan(samples["requested"][0]).all()
    assert run["faults"][samples["faults"][61]] == ["joint 2 is hot", "bus"]
    assert run["sources"][samples["source"][5]] == "policy"
    assert run["emergencies"][samples["emergency"][62]] == "red button"
    bits = {name: 1 << number for number, name in enumerate(run["reasons"])}
    assert samples["reasons"][61] & bits["device_fault"]
    assert samples["reasons"][61] & bits["bad_action"]
    assert samples["reasons"][1] == bits["limited"]
    assert (np.diff(samples["timestamp"]) > 0).all()
    assert samples["delivered"].all()
    assert (episode.metadata["success"], episode.metadata["seed"], episode.metadata["source"]) == (True, 3, "policy")


def test_steps_are_like_those_of_any_other_dataset(tmp_path: Path) -> None:
    """What the policy saw and requested, at its own rate, with the task's fields."""
    steps = recorded(tmp_path).steps
    store = EpisodeStore.open(tmp_path / "run.zarr")
    store.observation.require(OBSERVATION, "the record", "the task", "")
    store.action.require(ACTION, "the record", "the task", "")
    assert steps["action"].tolist() == [[0.5, -0.5]] * 12
    assert steps["next.success"].tolist() == steps["next.terminated"].tolist() == [False] * 11 + [True]
    assert steps["next.reward"].tolist() == [0.0] * 11 + [1.0]
    assert not steps["next.truncated"].any()
    assert (np.diff(steps["timestamp"]) == 5 * PERIOD_NS).mean() > 0.5


@pytest.mark.parametrize(
    ("observation", "action"),
    [([1.0, np.nan, 1.0], [0.0, 0.0]), ([1.0] * 3, [np.inf, 0.0]), ([1.0] * 3, [0.0]), ([1.0] * 3, [0.0, 1e39])],
)
def test_a_step_that_teaches_nothing_is_left_out_and_counted(
    tmp_path: Path, observation: list[float], action: list[float]
) -> None:
    record = recorder(tmp_path)
    Run(record)
    for seen, done in (([0.0] * 3, [0.0, 0.0]), (observation, action), ([2.0] * 3, [0.1, 0.1])):
        record.step({"observation.state": np.array(seen)}, np.array(done), 1)
    record.end(False, {})
    episode = record.store.episode(0)
    assert episode.steps["observation.state"][:, 0].tolist() == [0.0, 2.0]
    assert episode.steps["next.truncated"].tolist() == [False, True]
    assert episode.metadata["steps_left_out"] == 1


def test_a_person_who_acts_instead_of_the_policy_intervenes(tmp_path: Path) -> None:
    record = recorder(tmp_path)
    run = Run(record)
    for source in ("policy", "teleoperation", "hold"):
        run.now += PERIOD_NS
        state, intent = run.device.read(), Intent(np.zeros(2), run.now, source)
        record(Tick(state, intent, run.governor(intent, state, run.now), Receipt(0, True)))
        record.step({"observation.state": np.zeros(3)}, np.zeros(2), run.now, source)
    record.end(True, {})
    episode = record.store.episode(0)
    assert episode.streams[STREAM]["intervention"].tolist() == [False, False, True, False]
    assert episode.steps["intervention"].tolist() == [False, True, False]


def test_a_full_disk_is_said_once_the_robot_rests_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it moves nothing is written; then one message, and the same episode again when there is space."""
    record = recorder(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("alula.datasets.arrays.replace_file", full)
        patch.setattr("alula.datasets.commits.replace_file", full)
        run = Run(record)
        for _ in range(100):
            run.step("nothing", [0.5, 0.5])
        assert run.governor.stopped is None
        with pytest.raises(DatasetError, match="No space left on device; its 0 committed episodes are unharmed"):
            record.end(True, {})
    record.end(True, {})
    assert len(record.store.episode(0).streams[STREAM]["timestamp"]) == 101


def test_a_recorder_costs_microseconds(tmp_path: Path) -> None:
    """The loop's period is 2 ms at its shortest."""
    record = recorder(tmp_path)
    run = Run(record)
    state, intent = run.device.read(), Intent(np.zeros(2), run.now, "policy")
    tick = Tick(state, intent, run.governor(intent, state, run.now), Receipt(0, True))
    begun = time.thread_time()
    for _ in range(2000):
        record(tick)
    assert (time.thread_time() - begun) / 2000 < 500e-6


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_recording import Run, recorder
record = recorder(Path({folder!r}))
run = Run(record)
for episode in range(2):
    for _ in range(10):
        run.step("nothing", [0.5, 0.5])
    print(episode, flush=True)
    if episode == 0:
        record.end(True, {{}})
time.sleep(60)
"""


def test_a_recorder_that_is_killed_loses_the_open_episode_only(tmp_path: Path) -> None:
    script = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["0\n", "1\n"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    store = EpisodeStore.open(tmp_path / "run.zarr", append=True)
    assert store.num_episodes == 1
    assert store.damaged_episodes() == []


def test_a_real_loop_is_recorded_from_its_start_to_its_rest(tmp_path: Path) -> None:
    """And reproduced, jitter of the clock and all."""
    record = recorder(tmp_path)

    class There:
        def at(self, now_ns: int, state: State) -> Intent:
            return Intent(np.array([0.3, -0.3]), now_ns, "policy")

    ControlLoop(Simulated(SPEC), There(), record).run(0.4)
    record.end(True, {})
    episode, spec = run_of(EpisodeStore.open(tmp_path / "run.zarr"), 0)
    found = reproduce(episode, spec)
    assert found.difference is None
    assert found.periods > 20
    stopped = 1 << REASONS.index(Reason.EMERGENCY_STOP)
    assert episode.streams[STREAM]["reasons"][-1] & stopped
    assert "the run is over" in episode.metadata["run"]["emergencies"]


def test_a_device_that_refuses_is_recorded_too(tmp_path: Path) -> None:
    """Otherwise the governor would remember a period that the record does not have."""

    class Broken(Simulated):
        def write(self, command: Any) -> Receipt:
            if command.reasons == () and command.requested is not None:
                raise DeviceError("unplugged")
            return super().write(command)

    class Still:
        def at(self, now_ns: int, state: State) -> Intent:
            return Intent(np.zeros(2), now_ns, "policy")

    record = recorder(tmp_path)
    with pytest.raises(DeviceError, match="unplugged"):
        ControlLoop(Broken(SPEC), Still(), record).run(0.4)
    record.end(False, {})
    episode = record.store.episode(0)
    assert episode.streams[STREAM]["delivered"].tolist()[:2] == [True, False]
    assert reproduce(episode, SPEC).difference is None


def test_a_device_is_described_completely() -> None:
    assert described_device(describe_device(SPEC)) == SPEC
    assert set(stream_fields(SPEC)) >= {"timestamp", "position", "executed", "requested", "reasons"}


def test_another_dataset_holds_no_run(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "plain.zarr", OBSERVATION, ACTION)
    with pytest.raises(DatasetError, match="has no stream 'device', so it was not recorded on a device"):
        run_of(store, 0)

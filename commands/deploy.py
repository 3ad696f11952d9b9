"""`alula deploy`: run a policy on a robot, or on its emulator."""

import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from rich.table import Table

from alula.commands.console import ERR, OUT, Result, print_results
from alula.commands.deployment.emulating import scene_of, start_emulation
from alula.commands.deployment.preflight import Check, compare, fit_task, require, require_robot
from alula.commands.deployment.recording import RunRecorder
from alula.commands.deployment.scenes import AttendedScene, EmulatedScene, Scene
from alula.commands.deployment.session import EpisodeResult, Session
from alula.commands.deployment.twin import Twin, make_twin
from alula.commands.inference import BUILD
from alula.configs.robots import DeployConfig
from alula.core.errors import ConfigError
from alula.core.real_time import Execution, Mode
from alula.core.spaces import SpaceSpec
from alula.real_robot.contract import Device, State
from alula.real_robot.devices.dry_run import DryRun
from alula.real_robot.devices.registry import DEVICES, find_entry, make_device
from alula.real_robot.planning.planner import Planner
from alula.real_robot.planning.process import ProcessPlanner
from alula.real_robot.planning.remote import RemotePlanner
from alula.real_robot.sources.policy import PolicySource
from alula.real_robot.tracking import Pose, Tracker, read_poses
from alula.sims.registry import TASKS, make_task, task_name
from alula.sims.task import Task
from alula.training.checkpoint import typed
from alula.training.evaluation import wilson_interval
from alula.training.pipeline import describe_task


def run(config: DeployConfig, as_json: bool) -> None:
    """Check, run the episodes, keep them, and say how they went."""
    if config.device is None:
        raise ConfigError(f"device is missing; choose device=NAME with one of {', '.join(DEVICES)}")
    with ExitStack() as stack:
        planner = stack.enter_context(_planner(config))
        name, entry = find_entry(config.device)
        task, task_config = fit_task(*_task(config, planner), entry)
        require_robot(task_config, name, entry)
        tracker = stack.enter_context(_tracker(config, task))
        scene: Scene = AttendedScene(OUT, config.start)
        device_config = config.device
        if config.emulate:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="alula-")))
            around = {**scene_of(task_config), "tracker": tracker.address, "view": config.view}
            emulation, device_config = start_emulation(config.device, folder, around)
            stack.callback(emulation.end)
            scene = EmulatedScene(emulation, approach=not config.dry_run)
        device: Device = make_device(device_config)
        found = tracker.names if config.emulate else tracker.known()
        _show(checks := compare(task, task_config, device.spec, entry, found))
        require(checks, name)
        if config.dry_run:
            device = DryRun(device)
        twin = make_twin(task, device.spec)
        workspace = None if config.box is None else twin.workspace(config.box)
        stack.callback(device.close)
        device.configure()
        path = _record_path(config, name, task_name(task_config))
        about = {
            "task": describe_task(task_config),
            "checkpoint": config.checkpoint or config.server,
            "mode": config.mode,
        }
        recorder = RunRecorder(path, device.spec, task.observation, task.action, about, workspace=workspace)
        driving = _Driving(planner, twin, tracker, config)
        session = Session(device, twin, driving.start, scene, _seconds(config, task), recorder.workspace, recorder)
        results = _episodes(config, session, driving, recorder)
    _summarise(results, driving, device, path, as_json)


@dataclass
class _Driving:
    """Makes the policy the source of every new episode."""

    planner: Planner
    twin: Twin
    tracker: Tracker
    config: DeployConfig
    source: PolicySource | None = None

    def start(self) -> PolicySource:
        """A fresh source."""
        about, config = self.planner.description, self.config
        (action,) = about.action.values()
        execution = Execution(
            Mode(config.mode),
            about.horizon,
            config.execute_steps or about.execute_steps,
            action.size,
            config.threshold,
            config.ensemble,
        )
        self.twin.restart()
        period = self.twin.spec.period_ns
        self.source = PolicySource(
            self.planner, execution, about.rate, period, self._observe, self.twin.wish, self.config.blend
        )
        return self.source

    def _observe(self, state: State) -> dict[str, np.ndarray] | None:
        poses = self.tracker.latest(state.received_ns)
        return None if poses is None else self.twin.observe(state, poses)


@contextmanager
def _planner(config: DeployConfig) -> Iterator[Planner]:
    """The policy: in a process of its own, or on a server."""
    planner: Planner
    if config.server:
        host, _, port = config.server.rpartition(":")
        if not (host and port.isdigit()):
            raise ConfigError(f"server is '{config.server}'; give host:port as alula serve prints it")
        planner = RemotePlanner(host, int(port), config.token or "", config.deadline)
    elif config.checkpoint:
        arguments = {"checkpoint": config.checkpoint, "seed": config.policy_seed}
        planner = ProcessPlanner(BUILD, arguments, config.deadline)
    else:
        raise ConfigError("checkpoint is missing; give checkpoint=RUN_FOLDER, or server=HOST:PORT and token=...")
    try:
        yield planner
    finally:
        planner.close()


def _task(config: DeployConfig, planner: Planner) -> tuple[Task, Any]:
    """What the policy was trained on, or the one that was named, if it sees and commands the same."""
    about = planner.description
    task_config = config.task
    if task_config is None:
        known = about.task.get("name")
        if known not in TASKS:
            raise ConfigError("the policy was trained on no known task; choose one with task=NAME")
        task_config = typed(TASKS[known].config, about.task["config"])
    task: Task = make_task(task_config)
    remedy = "Use a policy that was trained on this task, or its own task"
    pairs: list[tuple[SpaceSpec, SpaceSpec]] = [(about.observation, task.observation), (about.action, task.action)]
    for mine, theirs in pairs:
        mine.require(theirs, "the policy", f"task {task_name(task_config)}", remedy)
    return task, task_config


@contextmanager
def _tracker(config: DeployConfig, task: Task) -> Iterator[Tracker]:
    fixed: dict[str, Pose] = read_poses(Path(config.poses).expanduser()) if config.poses else {}
    engine = task.make_engine(1, 1)
    names = list(task.tracked(engine.state))
    engine.close()
    tracker = Tracker(names, fixed, config.tracker)
    try:
        yield tracker
    finally:
        tracker.close()


def _seconds(config: DeployConfig, task: Task) -> float:
    return config.seconds or task.max_episode_steps / task.control_rate


def _record_path(config: DeployConfig, device: str, task: str) -> Path:
    """Where the dataset goes; by default the first free number."""
    if config.out:
        return Path(config.out).expanduser()
    number = 0
    while (path := Path(f"runs/deploy-{device}-{task}-{number}.zarr")).exists():
        number += 1
    return path


def _show(checks: list[Check]) -> None:
    table = Table("", "policy", "device", "", box=None, header_style="bold")
    for check in checks:
        table.add_row(check.what, check.policy, check.device, "ok" if check.problem is None else check.problem)
    OUT.print(table)


def _episodes(config: DeployConfig, session: Session, driving: _Driving, recorder: RunRecorder) -> list[EpisodeResult]:
    """All episodes; Ctrl-C and SIGTERM end the run after braking, with what is recorded."""
    results: list[EpisodeResult] = []
    usual = signal.signal(signal.SIGTERM, _interrupt)
    try:
        for seed in range(config.first_seed, config.first_seed + config.episodes):
            recorder.begin({"seed": seed})
            driving.source = None
            result = session.episode(seed)
            _keep_steps(driving, recorder)
            recorder.end(result.success, {"stopped": result.stopped})
            results.append(result)
            successes = sum(each.success for each in results)
            why = f"  {result.stopped}" if result.stopped else ""
            ERR.print(f"episode {len(results)}/{config.episodes}: {successes} successes{why}")
    except KeyboardInterrupt:
        _keep_steps(driving, recorder)
        recorder.end(False, {"stopped": "interrupted"})
        ERR.print(f"interrupted; the robot has been stopped, and {recorder.store.num_episodes} episodes are kept")
    finally:
        signal.signal(signal.SIGTERM, usual)
    return results


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _keep_steps(driving: _Driving, recorder: RunRecorder) -> None:
    for step in driving.source.records if driving.source else []:
        if step.action is not None and step.observation is not None:
            recorder.step(step.observation, step.action, step.created_ns)


def _summarise(results: list[EpisodeResult], driving: _Driving, device: Device, path: Path, as_json: bool) -> None:
    successes, count = sum(result.success for result in results), len(results)
    OUT.print(f"recorded   {path}")
    if not count:
        return
    low, high = wilson_interval(successes, count)
    reasons = sum((result.reasons for result in results), Counter[str]())
    lateness = [result.timing.lateness_p99_ms for result in results if result.timing]
    missed = [result.timing.missed_percent for result in results if result.timing]
    OUT.print(f"success    {100 * successes / count:.1f} %  [{100 * low:.1f}, {100 * high:.1f}]  n={count}")
    OUT.print(f"changed    {dict(reasons) or 'nothing'}", markup=False)
    OUT.print(
        f"timing     {device.spec.rate:g} Hz, p99 of lateness {np.median(lateness):.2f} ms, "
        f"{np.mean(missed):.2f} % of periods missed"
    )
    if as_json:
        print_results(
            "deploy",
            [
                Result("success", successes / count, "share", low, high, runs=count),
                Result("lateness_p99_ms", float(np.median(lateness)), "ms", runs=count),
                Result("missed_percent", float(np.mean(missed)), "%", runs=count),
            ],
        )

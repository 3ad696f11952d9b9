"""`alula deploy`: run a policy on a robot, or on its emulator."""

import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray
from rich.markup import escape
from rich.table import Table

from alula.commands.console import ERR, OUT, Result, print_results
from alula.commands.deployment.demonstration import Demonstration
from alula.commands.deployment.embodiment import Embodiment
from alula.commands.deployment.emulating import start_emulation
from alula.commands.deployment.origin import Origin, find_origin
from alula.commands.deployment.preflight import Check, compare_pictures, require
from alula.commands.deployment.recording import RunRecorder
from alula.commands.deployment.scenes import AttendedScene, EmulatedScene, Scene
from alula.commands.deployment.session import EpisodeResult, Session
from alula.commands.inference import BUILD
from alula.configs.robots import DeployConfig
from alula.core.errors import ConfigError, DeviceError, unknown_name
from alula.core.real_time import Execution, Mode
from alula.core.spaces import SpaceSpec
from alula.policies.conditioners import IMAGES
from alula.real_robot.cameras.group import Cameras
from alula.real_robot.cameras.process import CameraProcess
from alula.real_robot.cameras.words import CameraWords
from alula.real_robot.contract import Device, State
from alula.real_robot.devices.dry_run import DryRun
from alula.real_robot.devices.registry import DEVICES, find_entry, make_device
from alula.real_robot.loop import Tick
from alula.real_robot.planning.planner import Description, Planner
from alula.real_robot.planning.process import ProcessPlanner
from alula.real_robot.planning.remote import RemotePlanner
from alula.real_robot.sources.policy import PolicySource
from alula.real_robot.teleoperation.operator import Operator
from alula.real_robot.teleoperation.operators import OPERATORS
from alula.real_robot.tracking import Tracker, read_poses
from alula.training.evaluation import wilson_interval


def run(config: DeployConfig, as_json: bool) -> None:
    """Check, run the episodes, keep them, and say how they went."""
    if config.device is None:
        raise ConfigError(f"device is missing; choose device=NAME with one of {', '.join(DEVICES)}")
    with ExitStack() as stack:
        planner = stack.enter_context(_planner(config))
        policy = planner.description
        name, entry = find_entry(config.device)
        origin = find_origin(policy, config.task, entry)
        origin.require_device(name)
        seconds = _seconds(config, origin)
        given = _cameras(config, policy.observation)
        require(seen := compare_pictures(policy.observation, given), name)
        fixed = read_poses(Path(config.poses).expanduser()) if config.poses else {}
        tracker = Tracker(origin.tracked, fixed, config.tracker)
        stack.callback(tracker.close)
        scene, device_config = stack.enter_context(_scene(config, origin, tracker))
        device: Device = make_device(device_config)
        found = tracker.names if config.emulate else tracker.known()
        _show(checks := [*origin.checks(device.spec, found), *seen])
        require(checks, name)
        if config.dry_run:
            device = DryRun(device)
        embodiment = origin.embody(device.spec)
        if config.start is not None:
            embodiment.start(config.start)  # What is wrong with it is to be said before anything moves.
        workspace = None if config.box is None else embodiment.workspace(config.box)
        cameras = Cameras([camera for camera in given if set(camera.spec) <= set(policy.observation)], config.max_age)
        cameras.open()
        stack.callback(cameras.close)
        stack.callback(device.close)
        device.configure()
        path = _record_path(config, name, origin.name)
        about = {
            "task": origin.task,
            "checkpoint": config.checkpoint or config.server,
            "mode": str(_mode(config, policy)),
            "success_recorded": scene.unjudged is None,
        }
        recorder = RunRecorder(path, device.spec, policy.observation, policy.action, about, workspace=workspace)
        driving = _Driving(planner, embodiment, tracker, cameras, config)
        operator = stack.enter_context(_operator(config, device))

        def keep(tick: Tick) -> None:
            recorder(tick)
            _keep_steps(driving, recorder, but=1)  # The newest may still get its action.
            if embodiment.direct:
                interventions(tick)

        session = Session(device, embodiment, driving.start, scene, seconds, recorder.workspace, keep, operator)
        interventions = Demonstration(recorder, policy.rate, driving.observe, lambda: session.intervening)
        results = _episodes(config, session, driving, recorder)
    _summarise(results, scene.unjudged, device, path, as_json)


@dataclass
class _Driving:
    """Makes the policy the source of every new episode."""

    planner: Planner
    embodiment: Embodiment
    tracker: Tracker
    cameras: Cameras
    config: DeployConfig
    source: PolicySource | None = None

    def start(self) -> PolicySource:
        """A fresh source.

        Raises:
            DeviceError: a camera delivers no pictures any more.
        """
        about, config = self.planner.description, self.config
        (action,) = about.action.values()
        execution = Execution(
            _mode(config, about),
            about.horizon,
            config.execute_steps or about.execute_steps,
            action.size,
            config.threshold,
            config.ensemble,
        )
        now = time.monotonic_ns()
        if self.cameras.observe(now) is None:
            raise DeviceError("; ".join(self.cameras.problems(now)))
        self.embodiment.restart()
        blend = self.embodiment.blend if config.blend is None else config.blend
        period = self.embodiment.spec.period_ns
        self.source = PolicySource(
            self.planner,
            execution,
            about.rate,
            period,
            self.observe,
            self.embodiment.wish,
            blend,
            self.embodiment.resume,
        )
        return self.source

    def observe(self, state: State) -> dict[str, Shaped[ndarray, "*field"]] | None:
        """What the policy sees; None where a pose or a picture is missing or too old."""
        poses, pictures = self.tracker.latest(state.received_ns), self.cameras.observe(time.monotonic_ns())
        if poses is None or pictures is None:
            return None
        return {**self.embodiment.observe(state, poses), **pictures}


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


@contextmanager
def _operator(config: DeployConfig, device: Device) -> Iterator[Operator | None]:
    """Who may take over."""
    if config.operator is None:
        yield None
        return
    if config.operator not in OPERATORS:
        raise ConfigError(unknown_name("operator", config.operator, OPERATORS))
    operator = OPERATORS[config.operator](len(device.spec.limits.low))
    operator.open()
    try:
        yield operator
    finally:
        operator.close()


@contextmanager
def _scene(config: DeployConfig, origin: Origin, tracker: Tracker) -> Iterator[tuple[Scene, Any]]:
    """What is around the robot, and the settings with which its driver finds it; an emulator runs until the end."""
    unjudged = "nothing has moved" if config.dry_run else None
    if not config.emulate:
        yield AttendedScene(OUT, None if config.dry_run else config.start, unjudged), config.device
        return
    if origin.scene is None:
        unjudged = unjudged or "the policy names no task; choose the emulator's scene with task=NAME"
    around = {**(origin.scene or {}), "tracker": tracker.address, "view": config.view}
    with tempfile.TemporaryDirectory(prefix="alula-") as folder:
        emulation, device_config = start_emulation(config.device, Path(folder), around)
        with emulation:
            yield EmulatedScene(emulation, not config.dry_run, unjudged), device_config


def _mode(config: DeployConfig, policy: Description) -> Mode:
    if config.mode is not None:
        return Mode(config.mode)
    return Mode.REAL_TIME if policy.horizon > 1 else Mode.SYNCHRONOUS


def _seconds(config: DeployConfig, origin: Origin) -> float:
    seconds = config.seconds or origin.seconds
    if seconds is None:
        raise ConfigError(
            "seconds is missing; give the time limit of an episode, like seconds=30: the policy has learnt from "
            "recordings, which have none"
        )
    return seconds


def _cameras(config: DeployConfig, observation: SpaceSpec) -> list[CameraProcess]:
    """Those that were named, not opened yet; of the size that the policy saw where nothing else is said."""
    cameras = []
    for words in map(CameraWords.read, config.cameras):
        known = observation.get(f"{IMAGES}{words.name}")
        height, width = (None, None) if known is None else known.shape[:2]
        cameras.append(words.make(config.width or width, config.height or height))
    return cameras


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
        table.add_row(*map(escape, (check.what, check.policy, check.device, check.problem or "ok")))
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
            successes = f": {sum(each.success for each in results)} successes" if session.scene.unjudged is None else ""
            why = f"  {result.stopped}" if result.stopped else ""
            ERR.print(f"episode {len(results)}/{config.episodes}{successes}{why}")
            for problem in driving.cameras.problems(time.monotonic_ns()):
                ERR.print(problem, markup=False)
    except KeyboardInterrupt:
        _keep_steps(driving, recorder)
        recorder.end(False, {"stopped": "interrupted"})
        ERR.print(f"interrupted; the robot has been stopped, and {recorder.store.num_episodes} episodes are kept")
    finally:
        signal.signal(signal.SIGTERM, usual)
    return results


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _keep_steps(driving: _Driving, recorder: RunRecorder, but: int = 0) -> None:
    """Pictures are large: a step is with the recorder as soon as it is over, all `but` the newest ones."""
    records = driving.source.records if driving.source else []
    while len(records) > but:
        step = records.pop(0)
        if step.action is not None and step.observation is not None:
            recorder.step(step.observation, step.action, step.created_ns)


def _summarise(results: list[EpisodeResult], unjudged: str | None, device: Device, path: Path, as_json: bool) -> None:
    OUT.print(f"recorded   {path}")
    if not results:
        return
    success = _success(results) if unjudged is None else None
    reasons = sum((result.reasons for result in results), Counter[str]())
    lateness = [result.timing.lateness_p99_ms for result in results if result.timing]
    missed = [result.timing.missed_percent for result in results if result.timing]
    if success is None:
        OUT.print(f"success    nobody has judged: {unjudged}")
    else:
        low, high = 100 * (success.low or 0.0), 100 * (success.high or 0.0)
        OUT.print(f"success    {100 * success.value:.1f} %  [{low:.1f}, {high:.1f}]  n={success.runs}")
    OUT.print(f"changed    {dict(reasons) or 'nothing'}", markup=False)
    OUT.print(
        f"timing     {device.spec.rate:g} Hz, p99 of lateness {np.median(lateness):.2f} ms, "
        f"{np.mean(missed):.2f} % of periods missed"
    )
    if as_json:
        numbers = [
            Result("lateness_p99_ms", float(np.median(lateness)), "ms", runs=len(results)),
            Result("missed_percent", float(np.mean(missed)), "%", runs=len(results)),
        ]
        print_results("deploy", numbers if success is None else [success, *numbers])


def _success(results: list[EpisodeResult]) -> Result:
    successes, count = sum(result.success for result in results), len(results)
    return Result("success", successes / count, "share", *wilson_interval(successes, count), runs=count)

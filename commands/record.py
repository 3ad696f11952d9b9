"""`alula record`: a person shows how it is done, and every demonstration becomes an episode."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from jaxtyping import Shaped
from numpy import ndarray

from alula.commands.calibrate import Person
from alula.commands.console import ERR, OUT, Result, print_results
from alula.commands.deployment.connection import connected
from alula.commands.deployment.demonstration import Demonstration
from alula.commands.deployment.guides import GUIDES, Guide
from alula.commands.deployment.recording import RunRecorder
from alula.commands.inputs import required
from alula.configs.robots import RecordConfig
from alula.core.errors import ConfigError, DeviceError, unknown_name
from alula.core.spaces import SpaceSpec
from alula.real_robot.cameras.group import Cameras
from alula.real_robot.cameras.words import CameraWords
from alula.real_robot.contract import Device, DeviceSpec, State
from alula.real_robot.loop import OVER, ControlLoop, Source, Tick
from alula.real_robot.sources.hold import Hold
from alula.real_robot.teleoperation.operator import Operation, Operator
from alula.real_robot.teleoperation.operators import OPERATORS
from alula.real_robot.teleoperation.teleoperation import Teleoperation

HOLD = "hold"
"""The source that stays where it is: for trying things out."""


class Ending:
    """An operator whose handing back ends the episode.

    Args:
        operator: Who steers.
        finish: Called then.
    """

    def __init__(self, operator: Operator, finish: Callable[[], None]) -> None:
        self.operator, self.finish = operator, finish

    def open(self) -> None:
        """See `Operator.open`."""
        self.operator.open()

    def read(self, now_ns: int) -> Operation | None:
        """See `Operator.read`."""
        operation = self.operator.read(now_ns)
        if operation is not None and operation.release:
            self.finish()
        return operation

    def close(self) -> None:
        """See `Operator.close`."""
        self.operator.close()


def run(config: RecordConfig, as_json: bool) -> None:
    """Record until there are enough episodes."""
    path = required(config.out, "out", "demonstrations.zarr")
    if config.source not in (*OPERATORS, *GUIDES, HOLD):
        raise ConfigError(unknown_name("source", config.source, (*OPERATORS, *GUIDES, HOLD)))
    named = [CameraWords.read(words).make(config.width, config.height) for words in config.cameras]
    cameras = Cameras(named, config.max_age)
    with ExitStack() as stack:
        device = stack.enter_context(connected(config.device, config.emulate))
        cameras.open()
        stack.callback(cameras.close)
        guide = None
        if config.source in GUIDES:
            guide = stack.enter_context(GUIDES[config.source](config, device, Person()))
            device = guide.device
        elif config.source != HOLD:
            operator = OPERATORS[config.source](len(device.spec.limits.low))
            operator.open()  # What is missing is to be said before anything is written.
            operator.close()
        observation, action = spaces(device.spec, config.rate, cameras.spec)
        about = {"source": config.source, "instruction": config.instruction}
        recorder = RunRecorder(
            path, device.spec, observation, action, about, "teleoperation", overwrite=config.overwrite
        )
        for number in range(config.episodes):
            _demonstrate(config, device, recorder, cameras, number, guide)
    store = recorder.store
    OUT.print(f"{store.num_episodes} episodes with {store.num_steps} steps in {path}")
    if as_json:
        print_results("record", [Result("episodes", store.num_episodes, "1"), Result("steps", store.num_steps, "1")])


def spaces(spec: DeviceSpec, rate: float, pictures: SpaceSpec) -> tuple[SpaceSpec, SpaceSpec]:
    """Fields of what is recorded: the device's own and pictures; and its action, this often [Hz]."""
    (action,) = spec.action.values()
    return SpaceSpec((*spec.observation.fields, *pictures.fields)), SpaceSpec((replace(action, rate=rate),))


def keeping(recorder: RunRecorder, rate: float, cameras: Cameras) -> Callable[[Tick], None]:
    """Keeps every period of a run, and steps with what the device measures and the cameras see.

    Args:
        recorder: Of the run.
        rate: Steps per second [Hz].
        cameras: Open; a step without a picture of each is left out.
    """

    def observe(state: State) -> dict[str, Shaped[ndarray, "*field"]] | None:
        pictures = cameras.observe(time.monotonic_ns())
        return None if pictures is None else {**state.observation, **pictures}

    demonstration = Demonstration(recorder, rate, observe)

    def keep(tick: Tick) -> None:
        recorder(tick)
        demonstration(tick)

    return keep


def _demonstrate(
    config: RecordConfig,
    device: Device,
    recorder: RunRecorder,
    cameras: Cameras,
    number: int,
    guide: Guide | None = None,
) -> None:
    """One episode.

    Raises:
        DeviceError: the device failed; the episode is kept as a failure.
    """
    OUT.print(f"episode {number + 1} of {config.episodes}: {_manual(config.source)}", markup=False)
    recorder.begin({"number": number})
    keep = keeping(recorder, config.rate, cameras)

    def finish() -> None:
        loop.finish()

    def stop(why: str) -> None:
        loop.governor.emergency_stop(why)

    with ExitStack() as stack:
        source: Source = Hold()
        if guide is not None:
            source, keep = guide.episode(finish, stop, keep)
        elif config.source != HOLD:
            operator = Ending(OPERATORS[config.source](len(device.spec.limits.low)), finish)
            operator.open()
            stack.callback(operator.close)
            source = Teleoperation(operator, device.spec, stop)
        loop = ControlLoop(device, source, keep)
        loop.run(config.seconds)
    why = loop.governor.stopped
    recorder.end(why == OVER, {"stopped": why})
    for problem in cameras.problems(time.monotonic_ns()):
        ERR.print(problem, markup=False)
    if loop.governor.faulty:
        raise DeviceError(f"{why}. What was recorded until then is kept as a failure")


def _manual(source: str) -> str:
    steering = {
        "keyboard": "q/a, w/s, e/d, ... move; enter ends the episode, space stops",
        "gamepad": "sticks move while the switch is held",
        "leader": "the arm follows the leader; enter ends the episode, Ctrl-C stops",
        "hand": "move the arm by hand; enter ends the episode",
    }
    return steering.get(source, "nothing moves by itself")

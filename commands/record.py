"""`alula record`: a person shows how it is done, and every demonstration becomes an episode."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

from jaxtyping import Shaped
from numpy import ndarray

from alula.commands.console import OUT, Result, print_results
from alula.commands.deployment.connection import connected
from alula.commands.deployment.recording import RunRecorder
from alula.commands.inputs import required
from alula.configs.robots import RecordConfig
from alula.core.errors import ConfigError, DeviceError, unknown_name
from alula.core.spaces import SpaceSpec
from alula.real_robot.cameras.process import CameraProcess
from alula.real_robot.cameras.registry import CAMERAS
from alula.real_robot.contract import Device, DeviceSpec
from alula.real_robot.loop import ControlLoop, Source, Tick
from alula.real_robot.sources.hold import Hold
from alula.real_robot.teleoperation.gamepad import Gamepad
from alula.real_robot.teleoperation.keyboard import Keyboard
from alula.real_robot.teleoperation.operator import Operation, Operator
from alula.real_robot.teleoperation.teleoperation import Teleoperation

OPERATORS: dict[str, Callable[[int], Operator]] = {"keyboard": Keyboard, "gamepad": Gamepad}
"""Who can steer, by the setting `source`; made for so many elements."""
HOLD = "hold"
"""The source that stays where it is: for devices that are led by hand, and for trying things out."""


class Demonstration:
    """Keeps a run, and a step of it as often as is asked for.

    Args:
        recorder: Of the run.
        rate: Steps per second [Hz].
        cameras: Open.
        max_age: Of a picture [s]; a step without a younger one is left out.
    """

    def __init__(self, recorder: RunRecorder, rate: float, cameras: Sequence[CameraProcess], max_age: float) -> None:
        self.recorder, self.cameras, self.max_age = recorder, cameras, max_age
        self._period_ns = round(1e9 / rate)
        self._due_ns = 0
        self._seen: tuple[int, dict[str, Shaped[ndarray, "*field"]]] | None = None

    def __call__(self, tick: Tick) -> None:
        """Keep a period; the action of a step is where the device was sent by its end."""
        self.recorder(tick)
        now = tick.command.time_ns
        if tick.start:
            self._due_ns = now
        if now < self._due_ns:
            return
        self._due_ns += ((now - self._due_ns) // self._period_ns + 1) * self._period_ns
        if self._seen is not None:
            self.recorder.step(self._seen[1], tick.command.position, self._seen[0], "teleoperation")
        pictures = self._pictures(now)
        self._seen = None if pictures is None else (now, {**tick.state.observation, **pictures})

    def _pictures(self, now_ns: int) -> dict[str, Shaped[ndarray, "*field"]] | None:
        found = {}
        for camera in self.cameras:
            frame = camera.latest(now_ns, self.max_age)
            if frame is None:
                return None
            found[f"observation.images.{camera.name}"] = frame.image
        return found


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
    if config.source not in (*OPERATORS, HOLD):
        raise ConfigError(unknown_name("source", config.source, (*OPERATORS, HOLD)))
    cameras = [_camera(word, config) for word in config.cameras]
    with ExitStack() as stack:
        device = stack.enter_context(connected(config.device, config.emulate))
        for camera in cameras:
            camera.open()
            stack.callback(camera.close)
        if config.source != HOLD:
            operator = OPERATORS[config.source](len(device.spec.limits.low))
            operator.open()  # What is missing is to be said before anything is written.
            operator.close()
        observation, action = spaces(device.spec, config.rate, cameras)
        about = {"source": config.source, "instruction": config.instruction}
        recorder = RunRecorder(
            path, device.spec, observation, action, about, "teleoperation", overwrite=config.overwrite
        )
        for number in range(config.episodes):
            _demonstrate(config, device, recorder, cameras, number)
    store = recorder.store
    OUT.print(f"{store.num_episodes} episodes with {store.num_steps} steps in {path}")
    if as_json:
        print_results("record", [Result("episodes", store.num_episodes, "1"), Result("steps", store.num_steps, "1")])


def spaces(spec: DeviceSpec, rate: float, cameras: Sequence[CameraProcess]) -> tuple[SpaceSpec, SpaceSpec]:
    """Fields of what is recorded: the device's own and pictures; and its action, this often [Hz]."""
    (action,) = spec.action.values()
    seen = [field for space in (spec.observation, *(camera.spec for camera in cameras)) for field in space.fields]
    return SpaceSpec(tuple(seen)), SpaceSpec((replace(action, rate=rate),))


def _camera(word: str, config: RecordConfig) -> CameraProcess:
    """The camera that NAME:KIND or NAME:KIND:SOURCE says."""
    name, _, rest = word.partition(":")
    kind, _, source = rest.partition(":")
    if not name or kind not in CAMERAS:
        raise ConfigError(
            f"cameras has '{word}', needed is NAME:KIND or NAME:KIND:SOURCE, like front:opencv:/dev/video0; "
            + unknown_name("kind of camera", kind, CAMERAS)
        )
    settings = {"width": config.width, "height": config.height}
    where = {"opencv": "source", "realsense": "serial"}.get(kind)
    if source and where is not None:
        settings[where] = source  # type: ignore[assignment]
    return CameraProcess(name, CAMERAS[kind].config(**settings))


def _demonstrate(
    config: RecordConfig, device: Device, recorder: RunRecorder, cameras: Sequence[CameraProcess], number: int
) -> None:
    """One episode.

    Raises:
        DeviceError: the device failed; the episode is kept as a failure.
    """
    OUT.print(f"episode {number + 1} of {config.episodes}: {_manual(config.source)}", markup=False)
    recorder.begin({"number": number})
    keep = Demonstration(recorder, config.rate, cameras, config.max_age)
    with ExitStack() as stack:
        source: Source = Hold()
        if config.source != HOLD:
            operator = Ending(OPERATORS[config.source](len(device.spec.limits.low)), lambda: loop.finish())
            operator.open()
            stack.callback(operator.close)
            source = Teleoperation(operator, device.spec, lambda why: loop.governor.emergency_stop(why))
        loop = ControlLoop(device, source, keep)
        loop.run(config.seconds)
    why = loop.governor.stopped
    recorder.end(why == "the run is over", {"stopped": why})
    if loop.governor.faulty:
        raise DeviceError(f"{why}. What was recorded until then is kept as a failure")


def _manual(source: str) -> str:
    steering = {
        "keyboard": "q/a, w/s, e/d, ... move; enter ends the episode, space stops",
        "gamepad": "sticks move while the switch is held",
    }
    return steering.get(source, "nothing moves by itself")

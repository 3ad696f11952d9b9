"""`alula replay`: play a recorded run once more, on a device or only to the governor."""

from pathlib import Path

from alula.commands.console import OUT, Result, print_results
from alula.commands.deployment.connection import connected
from alula.commands.deployment.recording import RunRecorder
from alula.commands.deployment.replaying import reproduce, require_replayable, run_of
from alula.commands.inputs import required
from alula.configs.robots import ReplayConfig
from alula.core.errors import DatasetError, DeviceError
from alula.core.transitions import Episode
from alula.datasets.store import EpisodeStore
from alula.real_robot.contract import Device, DeviceSpec
from alula.real_robot.loop import ControlLoop, Tick
from alula.real_robot.sources.replay import ReplaySource


def run(config: ReplayConfig, as_json: bool) -> None:
    """Check that the record is exact, or move."""
    path = required(config.data, "data", "run.zarr")
    episode, recorded = run_of(EpisodeStore.open(path), config.episode)
    if config.check:
        results = _check(episode, recorded, config.episode)
    else:
        with connected(config.device, config.emulate) as device:
            results = _replay(config, episode, recorded, device)
    if as_json:
        print_results("replay", results)


def _check(episode: Episode, recorded: DeviceSpec, number: int) -> list[Result]:
    """Ask a new governor.

    Raises:
        DatasetError: it says something else.
    """
    found = reproduce(episode, recorded)
    if found.difference is not None:
        raise DatasetError(
            f"episode {number} is not what the governor of this version would have done; {found.difference}. The "
            "record was changed, or made by another version of alula"
        )
    OUT.print(f"episode {number}: {found.periods} commands reproduced to the bit")
    return [Result("periods", found.periods, "1"), Result("identical", 1.0, "1")]


def _replay(config: ReplayConfig, episode: Episode, recorded: DeviceSpec, device: Device) -> list[Result]:
    """Move as was recorded.

    Raises:
        SpecError: the device cannot.
        DeviceError: it was stopped on the way.
    """
    recording = require_replayable(episode, recorded, device.spec, config.speed)
    source = ReplaySource(device.spec, recording, config.speed, lambda: loop.finish())
    seconds = recording.seconds / config.speed
    OUT.print(f"{device.spec.name}: slowly to the start, then {seconds:.1f} s as recorded")
    recorder = None
    if config.out is not None:
        spaces = device.spec.observation, device.spec.action
        about = {"replay_of": f"{config.data}, episode {config.episode}", "speed": config.speed}
        recorder = RunRecorder(Path(config.out), device.spec, *spaces, about, "replay", overwrite=config.overwrite)
    changed = []

    def keep(tick: Tick) -> None:
        changed.append(source.replaying and bool(tick.command.reasons))
        if recorder is not None:
            recorder(tick)

    loop = ControlLoop(device, source, keep)
    loop.run(source.seconds_at_most + seconds)
    stopped = loop.governor.stopped
    if recorder is not None:
        recorder.end(source.finished, {})
    if not source.finished:
        raise DeviceError(f"the replay was stopped on the way: {stopped}")
    OUT.print(f"done; {sum(changed)} of {len(changed)} commands were not as recorded")
    timing = loop.timing
    return [
        Result("changed", sum(changed), "1"),
        Result("lateness_p99", timing.lateness_p99_ms, "ms"),
        Result("missed", timing.missed_percent, "%"),
    ]

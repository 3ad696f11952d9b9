"""What was recorded of a run, played once more: to the governor alone, or on a device."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from alula.commands.deployment.recording import ANSWERS, NO_INTENT, NUMBERS, REASONS, STREAM, described_device
from alula.core.errors import AlulaError, DatasetError, SpecError
from alula.core.transitions import Episode
from alula.datasets.store import EpisodeStore
from alula.real_robot.contract import DeviceSpec, Intent, State
from alula.real_robot.governor import Governor, SafeCommand
from alula.real_robot.sources.replay import Recording

REMEDY = "Replay it on the device that it was recorded on, or one that can do the same"


@dataclass(frozen=True)
class Reproduction:
    """Whether a governor, told the same, says the same."""

    periods: int
    """That were compared."""
    difference: str | None
    """Where the first command is another, and how; None where all are the same to the bit."""


class _RecordedWorkspace:
    """Answers as it was answered then."""

    def __init__(self, answers: Bool[ndarray, " answers"]) -> None:
        self._answers, self._next = answers, 0

    def inside(self, positions: Float64[ndarray, "points action"]) -> Bool[ndarray, " points"]:
        """See `Workspace.inside`; whoever asks more than was asked then is told that nothing is permitted."""
        start, self._next = self._next, self._next + len(positions)
        answers = self._answers[start : self._next]
        return np.concatenate((answers, np.zeros(len(positions) - len(answers), dtype=bool)))

    def free(self, way: Float64[ndarray, "places action"]) -> bool:
        """See `Workspace.free`."""
        return bool(self.inside(way[:1])[0])


def run_of(store: EpisodeStore, number: int) -> tuple[Episode, DeviceSpec]:
    """An episode that was recorded on a device, and which device that was.

    Raises:
        DatasetError: there is no such episode, or it is no run on a device.
    """
    if STREAM not in store.streams:
        raise DatasetError(
            f"dataset '{store.path}' has no stream '{STREAM}', so it was not recorded on a device; "
            "those that `alula deploy` and `alula record` write were"
        )
    episode = store.episode(number)
    if "run" not in episode.metadata or not len(episode.streams[STREAM]["timestamp"]):
        raise DatasetError(f"episode {number} of '{store.path}' holds no run on a device; choose another")
    try:
        return episode, described_device(episode.metadata["run"]["device"])
    except (KeyError, TypeError, ValueError, AlulaError) as error:
        raise DatasetError(
            f"the device of episode {number} of '{store.path}' cannot be read ({type(error).__name__}: {error}); "
            "it was written by another version of alula"
        ) from error


def reproduce(episode: Episode, spec: DeviceSpec) -> Reproduction:
    """Ask a new governor what the recorded one was asked, and compare the commands.

    Args:
        episode: Of `run_of`.
        spec: Of the recorded device.
    """
    told = _Told(episode)
    answers = episode.streams.get(ANSWERS)
    governor = Governor(spec, None if answers is None else _RecordedWorkspace(answers["permitted"]))
    if not told.samples["start"][0]:
        return Reproduction(0, "the recording does not begin with the start of the run")
    for period in range(told.length):
        command = told.put(governor, period)
        difference = told.difference(command, period)
        if difference is not None:
            return Reproduction(period, f"period {period} of {told.length}: {difference}")
    return Reproduction(told.length, None)


class _Told:
    """What a governor was told and said, period by period."""

    def __init__(self, episode: Episode) -> None:
        self.samples, self.run = episode.streams[STREAM], episode.metadata["run"]
        self.length = len(self.samples["timestamp"])
        self._bits = [self.run["reasons"].index(str(reason)) for reason in REASONS]

    def put(self, governor: Governor, period: int) -> SafeCommand:
        """What the governor says in this period."""
        samples, run = self.samples, self.run
        now = int(samples["timestamp"][period])
        position, velocity, valid = (samples[name][period] for name in ("position", "velocity", "valid"))
        sequence, received = int(samples["sequence"][period]), int(samples["received_ns"][period])
        faults = tuple(run["faults"][samples["faults"][period]])
        state = State({}, position, velocity, valid, sequence, received, faults)
        if samples["start"][period]:
            return governor.start(state, now)
        emergency = run["emergencies"][samples["emergency"][period]]
        if emergency is not None:
            governor.emergency_stop(emergency)
        return governor(self._intent(period), state, now)

    def _intent(self, period: int) -> Intent | None:
        samples = self.samples
        kind = samples["intent"][period]
        if kind == NO_INTENT:
            return None
        action = samples["requested"][period] if kind == NUMBERS else np.empty(0)
        return Intent(action, int(samples["created_ns"][period]), self.run["sources"][samples["source"][period]])

    def difference(self, command: SafeCommand, period: int) -> str | None:
        """How the command differs from the one that was sent; None where it is the same to the bit."""
        executed, mask = self.samples["executed"][period], int(self.samples["reasons"][period])
        then = {reason for reason, bit in zip(REASONS, self._bits, strict=True) if mask >> bit & 1}
        if then != set(command.reasons):
            return f"reasons were {_names(then)}, now are {_names(set(command.reasons))}"
        if executed.tobytes() != command.position.tobytes():
            return f"command was {executed.tolist()}, now is {command.position.tolist()}"
        return None


def _names(reasons: set[Any]) -> str:
    return ", ".join(str(reason) for reason in REASONS if reason in reasons) or "none"


def require_replayable(episode: Episode, recorded: DeviceSpec, device: DeviceSpec, speed: float) -> Recording:
    """The motion of an episode, where a device can do it.

    Raises:
        SpecError: names everything in which the device differs and that keeps it from doing the same.
    """
    samples = episode.streams[STREAM]
    differences = []
    if recorded.name != device.name:
        differences.append(f"device is {recorded.name} in the recording, {device.name} here")
    differences += list(_element_differences(recorded, device))
    if not differences:
        differences += _beyond(samples["executed"], recorded, device, speed)
    if differences:
        raise SpecError("; ".join(differences) + f". {REMEDY}")
    return Recording(samples["timestamp"] - samples["timestamp"][0], samples["executed"], recorded.period_ns)


def _element_differences(recorded: DeviceSpec, device: DeviceSpec) -> list[str]:
    (then,), (now,) = recorded.action.values(), device.action.values()
    return [
        f"{name.replace('_', ' ')} of the action is {getattr(then, name)} in the recording, {getattr(now, name)} here"
        for name in ("shape", "units", "element_names", "control_mode")
        if getattr(then, name) != getattr(now, name)
    ]


def _beyond(
    positions: Float64[ndarray, "periods action"], recorded: DeviceSpec, device: DeviceSpec, speed: float
) -> list[str]:
    """What of the motion is beyond the device's limits."""
    limits, found = device.limits, []
    for element, (low, high) in enumerate(zip(positions.min(axis=0), positions.max(axis=0), strict=True)):
        least, most = limits.low[element] + limits.margin, limits.high[element] - limits.margin
        if low < least or high > most:
            found.append(f"element {element} goes from {low:g} to {high:g}, here it may from {least:g} to {most:g}")
    for power, name in enumerate(("velocity", "acceleration", "jerk"), start=1):
        then, now = np.array(getattr(recorded.limits, name)) * speed**power, np.array(getattr(limits, name))
        if (then > now * (1 + 1e-9)).any():
            slower = float(((now / then) ** (1 / power)).min() * speed)
            found.append(
                f"limits of {name} are {getattr(recorded.limits, name)} in the recording, {tuple(now.tolist())} here: "
                f"speed={0.99 * slower:.2g} fits"
            )
    return found

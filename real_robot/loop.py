"""The control loop: one for arms, quadcopters and simulation, on the monotonic clock alone."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy import ndarray

from alula.real_robot.contract import Device, Intent, Receipt, State, Stop, Workspace
from alula.real_robot.governor import AT_REST, Governor, SafeCommand
from alula.real_robot.priority import LOOP, hurrying, without_pauses

SPIN_NS = 300_000
"""The last part of a wait is spent awake: sleeping ends up to this much late."""
OVER = "the run is over"
"""What the governor says after a run that ended as planned."""
BRAKING_S = 5.0
"""Longest time that coming to rest is waited for at the end."""


@runtime_checkable
class Source(Protocol):
    """Whoever says what to do: a policy, a person, a recording."""

    def at(self, now_ns: int, state: State) -> Intent | None:
        """What is wished now; None where there is nothing new. Must not wait."""
        ...


@dataclass(frozen=True)
class Tick:
    """What happened in one control period; what a recorder keeps."""

    state: State
    intent: Intent | None
    command: SafeCommand
    receipt: Receipt
    start: bool = False
    """Whether the governor started here: the command is where the device was."""


@dataclass
class Timing:
    """How punctual the loop was."""

    period_ns: int
    lateness_ns: list[int] = field(default_factory=list)
    """Of every period: from when it was due to when it began."""
    overruns: int = 0
    """Periods that were left out because an earlier one took too long; none is ever made up for."""
    bursts: int = 0
    """Periods that began less than half a period after the one before: attempts to catch up."""

    @property
    def lateness_p99_ms(self) -> float:
        """99th percentile of the lateness [ms]."""
        return float(np.percentile(self._lateness(), 99)) / 1e6

    @property
    def missed_percent(self) -> float:
        """Share of periods that began more than a tenth of a period late, or not at all [%]."""
        late = int((self._lateness() > self.period_ns / 10).sum())
        return 100.0 * (late + self.overruns) / max(len(self.lateness_ns) + self.overruns, 1)

    def _lateness(self) -> ndarray:
        return np.array(self.lateness_ns or [0])


class ControlLoop:
    """Reads, decides and writes once a period, until it is told to stop or the governor stops it.

    Args:
        device: Configured; the loop activates it.
        source: Who says what to do.
        record: Told of every period.
        workspace: Where the device may be, beyond the limits of its elements.
    """

    def __init__(
        self,
        device: Device,
        source: Source,
        record: Callable[[Tick], None] = lambda tick: None,
        workspace: Workspace | None = None,
    ) -> None:
        self.device, self.source, self.record = device, source, record
        self.governor = Governor(device.spec, workspace)
        self.timing = Timing(device.spec.period_ns)
        self._begun = 0
        self._finished = False

    def finish(self) -> None:
        """End the run after this period, as if its time were up; anybody may say so, from any thread."""
        self._finished = True

    def run(self, seconds: float) -> None:
        """Go on for so long, then brake; whatever happens, the device is left at rest.

        It holds; where it was at fault, it ends as its specification says (`after_fault`).

        Raises:
            DeviceError: the device is not ready to start.
        """
        device, governor = self.device, self.governor
        self._finished = False
        with hurrying(LOOP):
            state = device.activate()
        try:
            # Anew, as a driver may have chosen another priority for what it has begun.
            with hurrying(LOOP), without_pauses():
                due = time.monotonic_ns()
                self._send(state, None, governor.start(state, due), start=True)
                self._follow(due, due + round(seconds * 1e9))
        finally:
            device.stop(device.spec.after_fault if governor.faulty else Stop.HOLD)

    def _follow(self, due: int, end: int) -> None:
        """Follow the source until then, and brake whatever happens."""
        governor = self.governor
        try:
            while due < end and governor.stopped is None and not self._finished:
                due = self._wait(due)
                self._tick(self.source)
            governor.emergency_stop(OVER)
            self._brake(due)
        except BaseException as error:
            governor.emergency_stop(type(error).__name__)
            self._brake(time.monotonic_ns())
            raise

    def _tick(self, source: Source | None) -> None:
        state = self.device.read()
        now = time.monotonic_ns()
        intent = source.at(now, state) if source is not None else None
        self._send(state, intent, self.governor(intent, state, now))

    def _send(self, state: State, intent: Intent | None, command: SafeCommand, start: bool = False) -> None:
        receipt = Receipt(0, False)
        try:
            receipt = self.device.write(command)
        finally:
            self.record(Tick(state, intent, command, receipt, start))

    def _brake(self, due: int) -> None:
        """Follow the governor to rest."""
        end = due + round(BRAKING_S * 1e9)
        speed = AT_REST * np.array(self.device.spec.limits.velocity)
        while due < end and (np.abs(self.governor.speed) > speed).any():
            due = self._wait(due)
            self._tick(None)

    def _wait(self, due: int) -> int:
        """Sleep until the next period is due; returns when that was. Periods that have passed are left out."""
        period = self.timing.period_ns
        # No period begins sooner than half a period after the last one did, nor later than that after it was due.
        earliest = max(time.monotonic_ns() - period // 2, self._begun + period // 2)
        missed = max(0, -(-(earliest - due - period) // period))
        self.timing.overruns += missed
        due += (missed + 1) * period
        ahead = due - time.monotonic_ns()
        if ahead > SPIN_NS:
            time.sleep((ahead - SPIN_NS) / 1e9)
        while time.monotonic_ns() < due:
            pass
        begun = time.monotonic_ns()
        self.timing.bursts += begun - self._begun < period // 2
        self._begun = begun
        self.timing.lateness_ns.append(begun - due)
        return due

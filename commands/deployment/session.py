"""Episodes of a policy on a device: go to the start, hand over to the policy, brake, keep the record."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alula.commands.deployment.embodiment import Embodiment
from alula.commands.deployment.scenes import Scene
from alula.core.errors import DeviceError
from alula.real_robot.contract import Device, DeviceSpec, Intent, State, Workspace
from alula.real_robot.loop import OVER, ControlLoop, Source, Tick, Timing
from alula.real_robot.sources.arbitration import Arbitration
from alula.real_robot.sources.goto import GoTo
from alula.real_robot.teleoperation.operator import Operator
from alula.real_robot.teleoperation.teleoperation import takeover

APPROACH_S = 30.0
"""Longest way to the start [s]."""


class EpisodeSource:
    """First to the start, then whoever drives the episode; without a jump between the two.

    Args:
        spec: Of the device.
        start: Goes where the episode begins; None: it begins where the device is.
        begin: Makes everything ready and says who drives; called once the device is there, in a thread of its own, as
            it may take a while.
        seconds: Time limit of the episode [s].
        finish: Called when that is over.
    """

    def __init__(
        self,
        spec: DeviceSpec,
        start: GoTo | None,
        begin: Callable[[], Source],
        seconds: float,
        finish: Callable[[], None],
    ) -> None:
        self._spec, self._start, self._begin = spec, start, begin
        self._seconds, self.finish = seconds, finish
        self._preparation = threading.Thread(target=self._prepare, daemon=True)
        self._driver: Source | None = None
        self._failure: Exception | None = None
        self._end_ns: int | None = None

    @property
    def driving(self) -> bool:
        """Whether the episode has begun."""
        return self._end_ns is not None

    def _prepare(self) -> None:
        try:
            self._driver = self._begin()
        except Exception as error:
            self._failure = error

    def at(self, now_ns: int, state: State) -> Intent | None:
        """See `Source.at`."""
        if self._failure is not None:
            raise self._failure
        if self._driver is None:
            return self._approach(now_ns, state)
        if self._end_ns is None:
            self._end_ns = now_ns + round(1e9 * self._seconds)
        if now_ns >= self._end_ns:
            self.finish()
        return self._driver.at(now_ns, state)

    def _approach(self, now_ns: int, state: State) -> Intent:
        if self._start is None:
            limits = self._spec.limits
            low, high = np.array(limits.low) + limits.margin, np.array(limits.high) - limits.margin
            self._start = GoTo(self._spec, np.clip(state.position, low, high))
        if self._start.arrived(state) and self._preparation.ident is None:
            self._preparation.start()
        return self._start.at(now_ns, state)


@dataclass
class EpisodeResult:
    """How an episode went."""

    seed: int
    success: bool
    """Meaningless where nobody has judged."""
    stopped: str | None
    """Why the governor ended it; None where the time was up or the scene decided."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Periods in which a command was not what was wished, by reason."""
    timing: Timing | None = None


class Session:
    """A device that is driven episode after episode.

    Args:
        device: Configured.
        embodiment: Knows what an episode's start means for the device.
        make_driver: Who drives the next episode; called when it begins.
        scene: What is around the robot.
        seconds: Time limit of an episode [s].
        workspace: Where the device may be.
        record: Told of every period.
        operator: Opened; may take over from whoever drives, also on the way to the start.
    """

    def __init__(
        self,
        device: Device,
        embodiment: Embodiment,
        make_driver: Callable[[], Source],
        scene: Scene,
        seconds: float,
        workspace: Workspace | None = None,
        record: Callable[[Tick], Any] = lambda tick: None,
        operator: Operator | None = None,
    ) -> None:
        self.device, self.embodiment, self.make_driver, self.scene = device, embodiment, make_driver, scene
        self.seconds = seconds
        self.workspace, self.record, self.operator = workspace, record, operator
        self._arbitration: Arbitration | None = None
        """Between the operator and whoever else drives."""

    @property
    def intervening(self) -> bool:
        """Whether the operator is in charge."""
        return self._arbitration is not None and self._arbitration.intervening

    def episode(self, seed: int) -> EpisodeResult:
        """One episode.

        Raises:
            DeviceError: the robot does not come to its start, or is not ready.
        """
        start = self.scene.reset(seed)
        reasons: Counter[str] = Counter()

        def keep(tick: Tick) -> None:
            if self._arbitration is not None:
                self._arbitration.note(tick)
            self.record(tick)
            if source.driving:
                reasons.update(str(reason) for reason in tick.command.reasons)

        def finish() -> None:
            loop.finish()

        def stop(why: str) -> None:
            loop.governor.emergency_stop(why)

        def begin() -> Source:
            self.scene.begin(finish)
            return self.make_driver()

        place = None if start is None else GoTo(self.device.spec, self.embodiment.start(start))
        source = EpisodeSource(self.device.spec, place, begin, self.seconds, finish)
        if self.operator is not None:
            self._arbitration = takeover(self.operator, source, self.device.spec, stop)
        loop = ControlLoop(self.device, self._arbitration or source, keep, self.workspace)
        loop.run(self.seconds + APPROACH_S)
        stopped = None if loop.governor.stopped == OVER else loop.governor.stopped
        if not source.driving:
            name, where = self.device.spec.name, self.device.read().position.tolist()
            if stopped is not None:
                raise DeviceError(f"{name} has stopped on its way to the start of the episode, at {where}: {stopped}")
            raise DeviceError(
                f"{name} has not come to the start of the episode, {start}, within {APPROACH_S:g} s: it is at {where}. "
                "See that nothing is in its way"
            )
        success = self.scene.outcome()
        return EpisodeResult(seed, success, stopped, reasons, loop.timing)

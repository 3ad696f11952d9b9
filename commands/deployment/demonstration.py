"""What a person shows, as steps that a policy can learn from."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from alula.commands.deployment.recording import RunRecorder
from alula.real_robot.contract import State
from alula.real_robot.loop import Tick

Seen = Mapping[str, Shaped[ndarray, "*field"]]


class Demonstration:
    """Keeps a step as often as is asked for: what was seen when it began, and where the device was sent by its end.

    Args:
        recorder: Of the run.
        rate: Steps per second [Hz].
        observe: What is seen; None where something of it is missing, and the step is left out.
        shown: Whether a person shows something now; asked in every period.
    """

    def __init__(
        self,
        recorder: RunRecorder,
        rate: float,
        observe: Callable[[State], Seen | None],
        shown: Callable[[], bool] = lambda: True,
    ) -> None:
        self.recorder, self._observe, self._shown = recorder, observe, shown
        self._period_ns = round(1e9 / rate)
        self._due_ns = 0
        self._seen: tuple[int, Seen] | None = None

    def __call__(self, tick: Tick) -> None:
        """To be told of every period."""
        now = tick.command.time_ns
        if tick.start:
            self._due_ns, self._seen = now, None
        if not self._shown():
            self._seen = None
            return
        if now < self._due_ns:
            return
        self._due_ns += ((now - self._due_ns) // self._period_ns + 1) * self._period_ns
        if self._seen is not None:
            self.recorder.step(self._seen[1], np.array(tick.command.position), self._seen[0], "teleoperation")
        seen = self._observe(tick.state)
        self._seen = None if seen is None else (now, seen)

"""A recorded run as a source of wishes: slowly to where it began, then what was executed, period by period."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from alula.core.errors import ConfigError
from alula.real_robot.contract import DeviceSpec, Intent, State
from alula.real_robot.sources.arbitration import PEAKS, minimum_jerk

APPROACH = 0.25
"""Share of the device's limits with which it goes to where the recording begins: our choice."""
SHORTEST_S = 0.5
"""Least time for that [s]: our choice."""
PAUSE_S = 0.5
"""Time at the beginning of the recording, to come to rest there [s]: our choice."""


@dataclass(frozen=True)
class Recording:
    """Commands of a run."""

    times_ns: Int64[ndarray, " periods"]
    """When each was sent, from 0 on [ns]."""
    positions: Float64[ndarray, "periods action"]
    period_ns: int
    """Of the device that it was recorded on [ns]."""

    def on_grid(self) -> Float64[ndarray, "grid action"]:
        """A command for every period; those that were left out then are put in between."""
        number = np.rint(self.times_ns / self.period_ns).astype(np.int64)
        # Periods that came late may share a number with the next one; then the later counts.
        number, index = np.unique(number[::-1], return_index=True)
        positions = self.positions[::-1][index]
        grid = np.arange(number[-1] + 1)
        filled = np.stack([np.interp(grid, number, column) for column in positions.T], axis=1)
        filled[number] = positions
        return filled

    @property
    def seconds(self) -> float:
        """How long it is [s]."""
        return float(self.times_ns[-1]) / 1e9


class ReplaySource:
    """Wishes what was executed, on the grid of the device's periods.

    At its own speed and on a device of the same rate these are the recorded commands to the bit. Otherwise they are
    read between the periods, smoothly.

    Args:
        spec: Of the device.
        recording: What to do.
        speed: Recorded time per time: 0.5 is half as fast.
        finish: Called when all is done.

    Raises:
        ConfigError: the speed is none.
    """

    def __init__(
        self,
        spec: DeviceSpec,
        recording: Recording,
        speed: float = 1.0,
        finish: Callable[[], None] = lambda: None,
    ) -> None:
        if not 0 < speed <= 1:
            raise ConfigError(f"speed is {speed}; allowed is more than 0 and at most 1, as it was recorded")
        self.spec, self.finish = spec, finish
        self._positions = recording.on_grid()
        self._stride = speed * spec.period_ns / recording.period_ns
        """Recorded periods per period."""
        self._approach: tuple[Float64[ndarray, " action"], int, float] | None = None
        self._begun_ns: int | None = None
        self.finished = False
        """Whether all of it has been done."""
        limits = spec.limits
        self.seconds_at_most = self._approach_s(np.array(limits.high) - np.array(limits.low)) + PAUSE_S + 1.0
        """Longest time until the recording begins [s]."""

    @property
    def replaying(self) -> bool:
        """Whether the recording has begun."""
        return self._begun_ns is not None

    def at(self, now_ns: int, state: State) -> Intent:
        """See `Source.at`."""
        if self._begun_ns is None:
            return Intent(self._approached(now_ns, state), now_ns, "replay")
        # Rounded to periods, so that the jitter of the loop's clock does not get into the motion.
        period = round((now_ns - self._begun_ns) / self.spec.period_ns)
        place = period * self._stride
        if place >= len(self._positions) - 1:
            self.finished = True
            self.finish()
            place = len(self._positions) - 1
        return Intent(self._between(place), now_ns, "replay")

    def _approached(self, now_ns: int, state: State) -> Float64[ndarray, " action"]:
        """On the way from where it is to where the recording begins."""
        goal = self._positions[0]
        if self._approach is None:
            self._approach = state.position.copy(), now_ns, self._approach_s(goal - state.position)
        start, since_ns, seconds = self._approach
        elapsed = (now_ns - since_ns) / 1e9
        if elapsed >= seconds + PAUSE_S:
            self._begun_ns = now_ns
        share = minimum_jerk(min(elapsed / seconds, 1.0))
        return goal if share == 1.0 else start + share * (goal - start)

    def _approach_s(self, gap: Float64[ndarray, " action"]) -> float:
        """Time in which so long a way keeps the share of the limits [s]."""
        limits = self.spec.limits
        times = [
            (peak * np.abs(gap) / (APPROACH * np.array(limit))) ** (1 / power)
            for power, (peak, limit) in enumerate(
                zip(PEAKS, (limits.velocity, limits.acceleration, limits.jerk), strict=True), start=1
            )
        ]
        return max(SHORTEST_S, float(np.max(times)))

    def _between(self, place: float) -> Float64[ndarray, " action"]:
        """The command at a number of periods, by the cubic curve through its neighbours (Catmull and Rom)."""
        number = int(place)
        share, last = place - number, len(self._positions) - 1
        if share == 0.0:
            return self._positions[number]
        before, start, end, after = (self._positions[min(max(number + offset, 0), last)] for offset in (-1, 0, 1, 2))
        first, second = (end - before) / 2, (after - start) / 2
        bend = 2 * (start - end) + first + second
        return start + share * (first + share * (end - start - first - bend + share * bend))

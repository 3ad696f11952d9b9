"""Who is in charge: of several sources the first that wishes anything is followed, without a bump between them."""

from collections.abc import Sequence

import numpy as np

from alula.core.errors import DeviceError
from alula.real_robot.braking import Braking
from alula.real_robot.contract import DeviceSpec, Intent, State
from alula.real_robot.governor import SILENT_PERIODS, SafeCommand
from alula.real_robot.loop import Source, Tick

SHARE = 0.5
"""Of the device's limits, for a handover: our choice; the rest is for what the sources themselves do."""
SHORTEST_S = 0.3
"""Time of a handover, longer where the way is longer [s]: our choice."""
PEAKS = (1.875, 5.774, 60.0)
"""Greatest first, second and third derivative of the minimum-jerk step from 0 to 1 in a second (Flash & Hogan 1985)."""


class Arbitration:
    """Follows the first source that wishes something; where none does, it comes to rest and holds.

    When another source comes to be followed, wishes pass from where the last command leads, braked, to where the new
    source wants to be. A source that is silent for less than the governor's patience keeps its place.

    Args:
        spec: Of the device.
        sources: The most important first: a person, then a policy.
    """

    def __init__(self, spec: DeviceSpec, sources: Sequence[Source]) -> None:
        self.spec, self.sources = spec, tuple(sources)
        names = ("velocity", "acceleration", "jerk")
        self._velocity, self._acceleration, self._jerk = (np.array(getattr(spec.limits, name)) for name in names)
        self._followed: int | None = None
        """Number of the source that is followed; None: nobody."""
        self._heard_ns: int | None = None
        """When anybody has last wished anything."""
        self._command: SafeCommand | None = None
        """Of the last period."""
        self._rest: Braking | None = None
        self.intervening = False
        """Whether a person is in charge."""

    def note(self, tick: Tick) -> None:
        """To be told of every period, as the loop's `record`: what was really commanded is where a handover begins."""
        self._command = tick.command
        if tick.start:
            self._rest = self._heard_ns = None

    def at(self, now_ns: int, state: State) -> Intent | None:
        """What whoever is in charge wishes, or the way from one to the other."""
        if self._command is None:
            raise DeviceError("arbitration is not told what is commanded: pass its `note` to the loop as `record`")
        command, self._command = self._command, None
        number, intent = self._ask(now_ns, state)
        if intent is not None:
            self._heard_ns = now_ns
            if not self._is_action(intent):
                self._rest = None  # the governor brakes, and whatever comes next is a handover
                return intent
        elif self._heard_ns is not None and now_ns - self._heard_ns < SILENT_PERIODS * self.spec.period_ns:
            return None
        if self._rest is None or number != self._followed:
            self._rest, self._followed = self._begin(now_ns, command, intent), number
        self.intervening = intent is not None and intent.source == "teleoperation"
        return self._blend(self._rest, intent, now_ns)

    def _ask(self, now_ns: int, state: State) -> tuple[int | None, Intent | None]:
        """The first who wishes anything; those behind are not asked."""
        for number, source in enumerate(self.sources):
            intent = source.at(now_ns, state)
            if intent is not None:
                return number, intent
        return None, None

    def _is_action(self, intent: Intent) -> bool:
        action = np.asarray(intent.action)
        fits = action.shape == self._jerk.shape and action.dtype.kind in "fiu"
        return fits and bool(np.isfinite(action).all())

    def _begin(self, now_ns: int, last: SafeCommand, intent: Intent | None) -> Braking:
        """The way from the last command to rest; also plans how long it takes to leave it for the new wishes."""
        position, speed, push, dt = last.position, last.velocity, last.acceleration, 1.0 / self.spec.rate
        most = np.maximum(SHARE * self._acceleration, np.abs(push))
        # As in the governor, half a period ahead, since these are differences.
        rest = Braking.start(position, speed + 0.5 * dt * push, push, most, SHARE * self._jerk)
        # A wish beyond the limits will not be followed so far.
        wish = position if intent is None else np.clip(intent.action, self.spec.limits.low, self.spec.limits.high)
        gap, speed = np.abs(wish - rest.at(rest.duration)), np.abs(speed)
        # Derivatives of the step times the gap, and of its products with the velocity that is being left.
        times = (
            PEAKS[0] * gap / (SHARE * self._velocity),
            np.sqrt(PEAKS[1] * gap / (SHARE * self._acceleration)),
            np.cbrt(PEAKS[2] * gap / (SHARE * self._jerk)),
            2 * PEAKS[0] * speed / (SHARE * self._acceleration),
            np.sqrt(3 * PEAKS[1] * speed / (SHARE * self._jerk)),
        )
        self._seconds = max(SHORTEST_S, float(np.max(times)))
        # The last command was a period ago.
        self._begun_ns = now_ns - self.spec.period_ns
        return rest

    def _blend(self, rest: Braking, intent: Intent | None, now_ns: int) -> Intent:
        elapsed = (now_ns - self._begun_ns) / 1e9
        old = rest.at(np.full(len(self._jerk), elapsed))
        if intent is None:
            return Intent(old, now_ns, "hold")
        if elapsed >= self._seconds:
            return intent
        share = minimum_jerk(elapsed / self._seconds)
        # Two products, since a difference of huge wishes would be infinite.
        return Intent((1 - share) * old + share * np.asarray(intent.action), intent.created_ns, intent.source)


def minimum_jerk(share: float) -> float:
    """The smoothest step from 0 to 1: velocity and acceleration are 0 at both ends (Flash & Hogan 1985)."""
    return share**3 * (10 - 15 * share + 6 * share**2)

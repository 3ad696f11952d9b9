"""The only place where commands are made: whatever is asked for, what comes out is safe.

A command is the next position of every element. Its differences over one, two and three periods are its velocity,
acceleration and jerk, and after every command there must be a way to come to rest within all limits. The governor
keeps that way (`braking.py`). A wish that would leave no such way is not followed, but what comes nearest is, and the
way itself is always possible. So no input, however wrong, can make it break a limit.

Proof sketch: the braking curve starts half a period ahead of the last difference, so that its samples' differences are
averages of its own velocity, acceleration and jerk, which keep their limits.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from alula.core.errors import DeviceError
from alula.real_robot.braking import Braking
from alula.real_robot.contract import DeviceSpec, Intent, State

BISECTIONS = 10
"""Halvings of the way between what is wished and what is certainly possible."""
BAD_ACTIONS = 3
"""Actions in a row that are no actions, after which it stops for good."""
SILENT_PERIODS = 3
"""Control periods without a fresh action, after which it brakes."""
STALE_S, FAULT_S = 0.02, 0.1
"""Age of the device's last answer from which nothing moves on [s], and from which the run is over."""
AT_REST = 1e-3
"""Share of the velocity limit that counts as standing still."""
ROUNDING = 1e-9
"""Relative excess that floating-point numbers may bring about."""

Elements = Float64[ndarray, " action"]


class Reason(StrEnum):
    """Why a command is not what was wished."""

    LIMITED = "limited"
    """A limit of position, velocity, acceleration or jerk."""
    BAD_ACTION = "bad_action"
    """Not finite, of the wrong shape, or no numbers."""
    NO_ACTION = "no_action"
    """Nothing fresh came from the source."""
    STALE_STATE = "stale_state"
    """The device has been silent."""
    DEVICE_FAULT = "device_fault"
    """The device complains."""
    EMERGENCY_STOP = "emergency_stop"
    """Somebody, or the governor itself, has stopped the run."""


_KEY = object()


@dataclass(frozen=True)
class SafeCommand:
    """A command that keeps all limits; only the governor makes one.

    Raises:
        TypeError: somebody else tried.
    """

    position: Elements
    requested: Elements | None
    """What was wished, for the record; None where nothing was, or no numbers of the right shape."""
    reasons: tuple[Reason, ...]
    """Why the two differ; empty where they do not."""
    time_ns: int
    key: object = None

    def __post_init__(self) -> None:
        """Check who is asking."""
        if self.key is not _KEY:
            raise TypeError("only the governor makes a SafeCommand; give it an Intent")


class Governor:
    """Turns wishes into commands that keep the device's limits, and stops where it must.

    Args:
        spec: Of the device.
    """

    def __init__(self, spec: DeviceSpec) -> None:
        self.spec = spec
        limits = spec.limits
        self._low = np.array(limits.low) + limits.margin
        self._high = np.array(limits.high) - limits.margin
        self._velocity, self._acceleration, self._jerk = (
            np.array(getattr(limits, name)) for name in ("velocity", "acceleration", "jerk")
        )
        self._dt = 1.0 / spec.rate
        self.stopped: str | None = "not started"
        """Why nothing is followed any more; None while it runs."""

    def start(self, state: State, now_ns: int) -> SafeCommand:
        """Begin where the device is; the first command equals the measured position.

        Raises:
            DeviceError: it moves, is silent, complains, or is outside its limits.
        """
        self._require_ready(state, now_ns)
        self._position = np.array(state.position, dtype=np.float64)
        self._speed, self._push, self._elapsed = (np.zeros_like(self._position) for _ in range(3))
        """Velocity and acceleration of the last commands, and the time since each element went on its way to rest."""
        self._way = self._rest_from(self._position)
        self._wished, self._on = self._position, np.zeros(len(self._position), dtype=bool)
        """The last wish, and the elements that were exactly there."""
        self._fresh_ns, self._sequence, self._heard_ns = now_ns, state.sequence, state.received_ns
        self._bad = 0
        self.stopped = None
        return self._command(None, (), now_ns)

    def _require_ready(self, state: State, now_ns: int) -> None:
        position, velocity = state.position, state.velocity
        problems = []
        if not (state.valid.all() and np.isfinite(position).all() and np.isfinite(velocity).all()):
            problems.append("not every element has been measured")
        elif (np.abs(velocity) > AT_REST * self._velocity).any():
            problems.append(f"it moves: {velocity.tolist()}")
        elif ((position < self._low) | (position > self._high)).any():
            bounds = f"{self._low.tolist()} to {self._high.tolist()}"
            problems.append(f"it is at {position.tolist()}, outside {bounds}: move it inside by hand")
        if now_ns - state.received_ns > FAULT_S * 1e9:
            problems.append(f"its last answer is {(now_ns - state.received_ns) / 1e6:.0f} ms old")
        problems += state.faults
        if problems:
            raise DeviceError(f"{self.spec.name} cannot start: {'; '.join(problems)}")

    @property
    def speed(self) -> Elements:
        """Velocity of the last commands."""
        return self._speed

    def emergency_stop(self, why: str) -> None:
        """From the next command on, brake; stays so until `start`."""
        self.stopped = self.stopped or why

    def __call__(self, intent: Intent | None, state: State, now_ns: int) -> SafeCommand:
        """The command for this period.

        Args:
            intent: What is wished, or None.
            state: The newest that is known.
            now_ns: Monotonic time [ns].
        """
        reasons = self._watch(state, now_ns)
        wish = self._wish(intent, now_ns, reasons)
        if self.stopped is not None:
            reasons.append(Reason.EMERGENCY_STOP)
        if wish is None or reasons:
            self._brake()
        elif self._follow(wish):
            reasons.append(Reason.LIMITED)
        return self._command(intent, tuple(reasons), now_ns)

    def _watch(self, state: State, now_ns: int) -> list[Reason]:
        """What speaks against moving on, judged by the device's answers."""
        reasons = []
        if state.sequence != self._sequence:
            self._sequence, self._heard_ns = state.sequence, state.received_ns
        silence = (now_ns - self._heard_ns) / 1e9
        if silence > max(STALE_S, 2 * self._dt) or not state.valid.all():
            reasons.append(Reason.STALE_STATE)
        if silence > FAULT_S:
            self.emergency_stop(f"{self.spec.name} has been silent for {1e3 * silence:.0f} ms")
        if state.faults:
            reasons.append(Reason.DEVICE_FAULT)
            self.emergency_stop(f"{self.spec.name} reports: {'; '.join(state.faults)}")
        return reasons

    def _wish(self, intent: Intent | None, now_ns: int, reasons: list[Reason]) -> Elements | None:
        """The intent's action if it is one and is fresh."""
        if intent is not None:
            action = self._numbers(intent)
            if action is None or not np.isfinite(action).all():
                self._bad += 1
                if self._bad >= BAD_ACTIONS:
                    self.emergency_stop(
                        f"{self._bad} actions in a row from {intent.source} were not finite or misshaped"
                    )
                reasons.append(Reason.BAD_ACTION)
                return None
            self._bad = 0
            self._fresh_ns = max(self._fresh_ns, intent.created_ns)
        if now_ns - self._fresh_ns >= SILENT_PERIODS * self.spec.period_ns:
            reasons.append(Reason.NO_ACTION)
            return None
        return None if intent is None else action

    def _numbers(self, intent: Intent) -> Elements | None:
        """The action in double precision; None where it is none."""
        action = np.asarray(intent.action)
        if action.shape != self._position.shape or action.dtype.kind not in "fiu":
            return None
        with np.errstate(over="ignore"):
            return action.astype(np.float64)

    def _follow(self, wish: Elements) -> bool:
        """Move as far towards the wish as is safe; whether that is less than all the way."""
        exactly = self._safe(wish, self._rest_from(wish)) & (self._on | self._joins(wish))
        self._wished, self._on = wish, exactly
        certain = self._way.at(self._elapsed + self._dt)
        # A wish that is out of reach is approached so that the way to rest does not lead past it.
        target = np.clip(wish, self._low, self._high)
        far = np.clip(target, *self._reach())
        share, step = np.zeros_like(wish), 1.0
        for _ in range(0 if exactly.all() else BISECTIONS):
            trial = np.minimum(share + step, 1.0)
            candidate = certain + trial * (far - certain)
            share = np.where(self._safe(candidate, self._rest_from(candidate), target), trial, share)
            step /= 2
        position = np.where(exactly, wish, certain + share * (far - certain))
        self._go(position, certain=~exactly & (share == 0.0))
        return not exactly.all()

    def _joins(self, wish: Elements) -> Bool[ndarray, " action"]:
        """Elements that can go on with the wish once they are there, should it keep its present velocity.

        Otherwise a standing wish would be met at speed, and overshot again and again.
        """
        dt = self._dt
        velocity = (wish - self._position) / dt
        push, needed = (velocity - self._speed) / dt, ((wish - self._wished) / dt - velocity) / dt
        jolt = self._jerk * dt
        return (np.abs(needed) <= np.minimum(self._acceleration, jolt)) & (np.abs(needed - push) <= jolt)

    def _ahead(self, position: Elements) -> tuple[Elements, Elements]:
        """Velocity and acceleration with which the way to rest begins if `position` comes next."""
        velocity = (position - self._position) / self._dt
        acceleration = (velocity - self._speed) / self._dt
        return velocity + 0.5 * self._dt * acceleration, acceleration

    def _rest_from(self, position: Elements) -> Braking:
        return Braking.start(position, *self._ahead(position), self._acceleration, self._jerk)

    def _reach(self) -> tuple[Elements, Elements]:
        """Next positions that the limits of velocity, acceleration and jerk leave."""
        dt = self._dt
        least = np.maximum(self._push - self._jerk * dt, -self._acceleration)
        most = np.minimum(self._push + self._jerk * dt, self._acceleration)
        slow = np.maximum(self._speed + least * dt, -self._velocity)
        fast = np.minimum(self._speed + most * dt, self._velocity)
        return self._position + slow * dt, self._position + fast * dt

    def _safe(self, position: Elements, way: Braking, target: Elements | None = None) -> Bool[ndarray, " action"]:
        """Elements that may go to `position` next, and rest from there within limits (and not past `target`)."""
        nearest, farthest = self._reach()
        room = ROUNDING * (np.abs(position) + 1.0)
        low, high = way.extremes()
        safe = (position >= nearest - ROUNDING * (farthest - nearest)) & (
            position <= farthest + ROUNDING * (farthest - nearest)
        )
        safe &= (low >= self._low) & (high <= self._high) & (way.top_speed() <= self._velocity)
        if target is not None:
            ahead = target >= self._position
            safe &= np.where(ahead, high <= np.maximum(target, self._position) + room, low >= target - room)
        return safe

    def _go(self, position: Elements, certain: Bool[ndarray, " action"]) -> None:
        """Make `position` the last command; elements that are on their `certain` way to rest stay on it."""
        way = self._rest_from(position)
        velocity = (position - self._position) / self._dt
        self._push, self._speed = (velocity - self._speed) / self._dt, velocity
        self._way = way.replaced(certain, self._way)
        self._elapsed = np.where(certain, self._elapsed + self._dt, 0.0)
        self._position = position

    def _brake(self) -> None:
        """Follow the certain way to rest."""
        everything = np.ones(len(self._position), dtype=bool)
        self._on = ~everything
        self._go(self._way.at(self._elapsed + self._dt), everything)

    def _command(self, intent: Intent | None, reasons: tuple[Reason, ...], now_ns: int) -> SafeCommand:
        requested = None if intent is None else self._numbers(intent)
        return SafeCommand(self._position.copy(), requested, reasons, now_ns, _KEY)

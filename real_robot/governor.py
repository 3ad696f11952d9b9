"""The only place where commands are made: whatever is asked for, what comes out is safe.

The governor judges wishes and the device's answers, and decides whether to follow or to brake; how far it can follow
within all limits is found by `motion.py`.
"""

from dataclasses import InitVar, dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.core.errors import DeviceError
from alula.real_robot.contract import DeviceSpec, Intent, State, Workspace
from alula.real_robot.motion import Motion

BAD_ACTIONS = 3
"""Actions in a row that are no actions, after which it stops for good."""
SILENT_PERIODS = 3
"""Control periods without a fresh action, after which it brakes."""
STALE_S, FAULT_S = 0.02, 0.1
"""Age of the device's last answer from which nothing moves on [s], and from which the run is over."""
BLIND_S = 0.4
"""How long an element may not be measured before the run is over [s]: our choice, so that drivers, which know why,
say so first."""
LAG_S = 0.1
"""How late a device may be where it was sent [s]: our choice; servos take 0.06 s. That is no distance from its way."""
LOST_S = 0.1
"""How long the device may be farther from the commands than its limits of following say [s]."""
ONE_COUNT = 5e-4
"""Share of a range by which a start may be beyond its end: about a count of a servo, and no motion (our choice)."""
AT_REST = 1e-3
"""Share of the device's own velocity limit that counts as standing still."""

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
    NOT_FOLLOWING = "not_following"
    """The device is not where it was sent: stuck, overloaded, or blown away."""
    WORKSPACE = "workspace"
    """It would not come to rest inside the workspace."""
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
    velocity: Elements
    """Of the command itself, over the last period; for devices that take it as feed-forward."""
    acceleration: Elements
    requested: Elements | None
    """What was wished, for the record; None where nothing was, or no numbers of the right shape."""
    reasons: tuple[Reason, ...]
    """Why the two differ; empty where they do not."""
    time_ns: int
    emergency: str | None = None
    """Why somebody outside had stopped the run by then, for the record; None where nobody had."""
    key: InitVar[object] = None

    def __post_init__(self, key: object) -> None:
        """Check who is asking, and let nobody write into it any more."""
        if key is not _KEY:
            raise TypeError("only the governor makes a SafeCommand; give it an Intent")
        for array in (self.position, self.velocity, self.acceleration):
            array.setflags(write=False)


class Governor:
    """Turns wishes into commands that keep the device's limits, and stops where it must.

    Args:
        spec: Of the device.
        workspace: Where it may be, beyond the limits of its elements; None: anywhere.
    """

    def __init__(self, spec: DeviceSpec, workspace: Workspace | None = None) -> None:
        self.spec, self.workspace = spec, workspace
        self._following = np.array(spec.limits.following or np.full(len(spec.limits.low), np.inf))
        (action,) = spec.action.values()
        count = len(spec.limits.low)
        self._names = action.element_names or tuple(f"element {index}" for index in range(count))
        self._units = action.units if len(action.units) == count else action.units * count
        self.faulty = False
        """Whether it was the device's fault that nothing is followed any more."""
        self._stopped: str | None = "not started"
        self._emergency: str | None = None

    @property
    def stopped(self) -> str | None:
        """Why nothing is followed any more; None while it runs."""
        return self._stopped or self._emergency

    def start(self, state: State, now_ns: int) -> SafeCommand:
        """Begin where the device is; the first command equals the measured position.

        Raises:
            DeviceError: it moves, is silent, complains, or is outside its limits.
        """
        self._require_ready(state, now_ns)
        limits = self.spec.limits
        # Where it rests at a limit, rounding may show it on the other side.
        begin = np.clip(state.position, np.array(limits.low) + limits.margin, np.array(limits.high) - limits.margin)
        self._motion = Motion(limits, self.spec.rate, self.workspace, begin)
        self._sent, self._commands = np.tile(begin, (1 + round(LAG_S * self.spec.rate), 1)), 0
        self._fresh_ns, self._sequence, self._heard_ns = now_ns, state.sequence, state.received_ns
        self._bad, self._followed_ns, self._measured_ns = 0, now_ns, np.full(len(begin), now_ns)
        self._stopped, self._emergency, self.faulty = None, None, False
        return self._command(None, (), now_ns)

    def _require_ready(self, state: State, now_ns: int) -> None:
        position, velocity, limits = state.position, state.velocity, self.spec.limits
        low, high = np.array(limits.low) + limits.margin, np.array(limits.high) - limits.margin
        problems = []
        if not (state.valid.all() and np.isfinite(position).all() and np.isfinite(velocity).all()):
            problems.append("not every element has been measured")
        elif (np.abs(velocity) > AT_REST * self.spec.own_velocity).any():
            problems.append(f"it moves: {velocity.tolist()}")
        elif ((position < low - ONE_COUNT * (high - low)) | (position > high + ONE_COUNT * (high - low))).any():
            bounds = f"{low.tolist()} to {high.tolist()}"
            problems.append(f"it is at {position.tolist()}, outside {bounds}: move it inside by hand")
        elif self.workspace is not None and not self.workspace.inside(position[None])[0]:
            problems.append(f"it is at {position.tolist()}, outside its workspace: move it inside by hand")
        if now_ns - state.received_ns > FAULT_S * 1e9:
            problems.append(f"its last answer is {(now_ns - state.received_ns) / 1e6:.0f} ms old")
        problems += state.faults
        if problems:
            raise DeviceError(f"{self.spec.name} cannot start: {'; '.join(problems)}")

    @property
    def speed(self) -> Elements:
        """Velocity of the last commands."""
        return self._motion.speed

    def emergency_stop(self, why: str) -> None:
        """From the next command on, brake; stays so until `start`. Anybody may say so, from any thread."""
        self._emergency = self._emergency or why

    def _end(self, why: str) -> None:
        self._stopped = self._stopped or why

    def _fault(self, why: str) -> None:
        self.faulty = True
        self._end(f"{self.spec.name} {why}")

    def __call__(self, intent: Intent | None, state: State, now_ns: int) -> SafeCommand:
        """The command for this period.

        Args:
            intent: What is wished, or None.
            state: The newest that is known.
            now_ns: Monotonic time [ns].
        """
        emergency = self._emergency  # Asked once, as it may come at any moment.
        if emergency is not None:
            self._end(emergency)
        reasons = self._watch(state, now_ns)
        wish = self._wish(intent, now_ns, reasons)
        if self._stopped is not None:
            reasons.append(Reason.EMERGENCY_STOP)
        if wish is None or reasons:
            self._motion.brake()
        else:
            exactly, hindered = self._motion.follow(wish)
            reasons += [Reason.WORKSPACE] if hindered else [] if exactly else [Reason.LIMITED]
        return self._command(intent, tuple(reasons), now_ns, emergency)

    def _watch(self, state: State, now_ns: int) -> list[Reason]:
        """What speaks against moving on, judged by the device's answers."""
        reasons = []
        if state.sequence > self._sequence:
            self._sequence, self._heard_ns = state.sequence, state.received_ns
        silence = (now_ns - self._heard_ns) / 1e9
        if silence > max(STALE_S, 2 / self.spec.rate) or not state.valid.all():
            reasons.append(Reason.STALE_STATE)
        if silence > FAULT_S:
            self._fault(f"has been silent for {1e3 * silence:.0f} ms")
        self._measured_ns[state.valid] = now_ns
        blind = np.flatnonzero(now_ns - self._measured_ns > BLIND_S * 1e9)
        if len(blind):
            unseen = ", ".join(self._names[index] for index in blind)
            self._fault(f"has not measured {unseen} for {(now_ns - self._measured_ns[blind].min()) / 1e6:.0f} ms")
        if state.faults:
            reasons.append(Reason.DEVICE_FAULT)
            self._fault(f"reports: {'; '.join(state.faults)}")
        sent, position = self._sent, state.position
        apart = np.maximum(np.maximum(sent.min(axis=0) - position, position - sent.max(axis=0)), 0.0)
        error = np.where(state.valid, apart, 0.0)
        if (error <= self._following).all():
            self._followed_ns = now_ns
        elif now_ns - self._followed_ns > LOST_S * 1e9:
            reasons.append(Reason.NOT_FOLLOWING)
            self._fault(f"does not follow: {self._behind(error)}")
        return reasons

    def _behind(self, error: Elements) -> str:
        """Every element that is too far from where it was sent, in words."""
        names, units = self._names, self._units
        return ", ".join(
            f"{names[index]} is {error[index]:.3g} {units[index]} from where it was sent, "
            f"allowed are {self._following[index]:.3g} {units[index]}"
            for index in np.flatnonzero(error > self._following)
        )

    def _wish(self, intent: Intent | None, now_ns: int, reasons: list[Reason]) -> Elements | None:
        """The intent's action if it is one and is fresh."""
        if intent is not None:
            action = self._numbers(intent)
            if action is None or not np.isfinite(action).all():
                self._bad += 1
                if self._bad >= BAD_ACTIONS:
                    self._end(f"{self._bad} actions in a row from {intent.source} were not finite or misshaped")
                reasons.append(Reason.BAD_ACTION)
                return None
            self._bad = 0
            self._fresh_ns = max(self._fresh_ns, min(intent.created_ns, now_ns))
        if now_ns - self._fresh_ns >= SILENT_PERIODS * self.spec.period_ns:
            reasons.append(Reason.NO_ACTION)
            return None
        return None if intent is None else action

    def _numbers(self, intent: Intent) -> Elements | None:
        """The action in double precision; None where it is none."""
        action = np.asarray(intent.action)
        if action.shape != (len(self.spec.limits.low),) or action.dtype.kind not in "fiu":
            return None
        with np.errstate(over="ignore"):
            return action.astype(np.float64)

    def _command(
        self, intent: Intent | None, reasons: tuple[Reason, ...], now_ns: int, emergency: str | None = None
    ) -> SafeCommand:
        requested, motion = None if intent is None else self._numbers(intent), self._motion
        self._sent[self._commands % len(self._sent)] = motion.position
        self._commands += 1
        arrays = motion.position.copy(), motion.speed.copy(), motion.push.copy(), requested
        return SafeCommand(*arrays, reasons, now_ns, emergency, _KEY)

"""What an operator does, made into positions that a device can be sent to."""

from collections.abc import Callable

import numpy as np

from alula.real_robot.contract import DeviceSpec, Intent, State
from alula.real_robot.loop import Source
from alula.real_robot.sources.arbitration import Arbitration
from alula.real_robot.teleoperation.operator import Operator

SPEED = 0.25
"""Share of the device's velocity limits that full deflection means: our choice."""
GENTLE = 0.5
"""Share of the limits of acceleration and jerk that starting and stopping may take: our choice."""
QUICKEST_S = 0.05
"""Shortest time constant of starting and stopping [s]: our choice, below what a person notices."""
LEASH_S = 0.25
"""How far wishes run ahead of the device, in seconds at full speed: our choice. A blocked arm pushes no harder."""
HEARTBEAT_S = 0.3
"""Silence of the operator's side after which everything is stopped [s]: our choice."""


class Teleoperation:
    """Integrates an operator's velocities into positions; without the dead man's switch it comes to rest and holds.

    Velocities pass two equal low-pass filters, which bounds their first two derivatives by v / (e tau) and v / tau^2.
    A lost operator, and one who says so, stops everything.

    Args:
        operator: Opened.
        spec: Of the device.
        emergency_stop: Called with the reason; the loop's governor has one.
        takes_over: Whether the operator is in charge only after holding the switch, and until handing back.
        speed: Share of the device's velocity limits that full deflection means.
    """

    def __init__(
        self,
        operator: Operator,
        spec: DeviceSpec,
        emergency_stop: Callable[[str], None],
        takes_over: bool = False,
        speed: float = SPEED,
    ) -> None:
        self.operator, self.spec, self.emergency_stop = operator, spec, emergency_stop
        self.takes_over, self.engaged, self._handed_back = takes_over, not takes_over, False
        limits = spec.limits
        self._low, self._high = np.array(limits.low) + limits.margin, np.array(limits.high) - limits.margin
        self._fastest = speed * np.array(limits.velocity)
        change = 2 * self._fastest / GENTLE  # from full speed one way to the other
        quickest = np.maximum(change / (np.e * np.array(limits.acceleration)), np.sqrt(change / np.array(limits.jerk)))
        self._constant = np.maximum(quickest, QUICKEST_S)
        self._target: np.ndarray | None = None
        self._heard_ns: int | None = None

    def at(self, now_ns: int, state: State) -> Intent | None:
        """Where the operator wants the device to be next; None while somebody else is in charge."""
        operation = self.operator.read(now_ns)
        self._heard_ns = now_ns if self._heard_ns is None else self._heard_ns
        if operation is None:
            self.emergency_stop("the operator's device is lost")
            return None
        self._heard_ns = max(self._heard_ns, operation.heard_ns)
        silence = (now_ns - self._heard_ns) / 1e9
        if silence > HEARTBEAT_S:
            self.emergency_stop(f"the operator has not been heard of for {1e3 * silence:.0f} ms")
            return None
        if operation.stop:
            self.emergency_stop("the operator has pressed stop")
        if self.takes_over:
            # Who hands back must let go of the switch before taking over again.
            self._handed_back = operation.release or (self._handed_back and operation.held)
            self.engaged = (self.engaged or operation.held) and not self._handed_back
        if not self.engaged:
            self._target = None
            return None
        motion = operation.motion if operation.held else np.zeros_like(self._fastest)
        return Intent(self._integrate(motion, now_ns, state), now_ns, "teleoperation")

    def _integrate(self, motion: np.ndarray, now_ns: int, state: State) -> np.ndarray:
        if self._target is None:
            self._target, self._last_ns = np.clip(state.position, self._low, self._high), now_ns
            self._filtered = self._velocity = np.zeros_like(self._target)
        # A loop that was late does not make up for it by a leap.
        elapsed, self._last_ns = min(now_ns - self._last_ns, 2 * self.spec.period_ns) / 1e9, now_ns
        share = 1 - np.exp(-elapsed / self._constant)
        self._filtered = self._filtered + share * (np.clip(motion, -1, 1) * self._fastest - self._filtered)
        self._velocity = self._velocity + share * (self._filtered - self._velocity)
        leash = LEASH_S * self._fastest
        ahead = np.clip(self._target + elapsed * self._velocity, state.position - leash, state.position + leash)
        self._target = np.clip(ahead, self._low, self._high)
        return self._target.copy()


def takeover(
    operator: Operator, policy: Source, spec: DeviceSpec, emergency_stop: Callable[[str], None]
) -> Arbitration:
    """A person who watches a policy: in charge from holding the dead man's switch until handing back.

    The loop must tell it of its commands: `record=arbitration.note`.
    """
    return Arbitration(spec, (Teleoperation(operator, spec, emergency_stop, takes_over=True), policy))

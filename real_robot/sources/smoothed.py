"""Making anybody's wishes smooth, by Ruckig's time-optimal trajectories under limits of jerk.

Source:
    Berscheid & Kröger, "Jerk-limited Real-time Trajectory Generation with Arbitrary Target States", RSS 2021.
"""

from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.core.errors import DeviceError
from alula.real_robot.braking import Braking
from alula.real_robot.contract import DeviceSpec, Intent, State
from alula.real_robot.governor import SILENT_PERIODS
from alula.real_robot.loop import Source

SHARE = 0.95
"""Of the device's limits: our choice. The governor, whose steps are finite, needs a little more room than a curve."""


class Smoothed:
    """Follows another source's wishes within the device's limits of velocity, acceleration and jerk.

    Every period it sets out for the place where the wish would come to rest if it braked now. A wish that stands still
    is thus reached in the shortest time, and one that moves is kept up with, as following it is the way to that place.
    Wishes that are none pass unchanged, so that the governor sees and counts them.

    Args:
        source: Whose wishes these are.
        spec: Of the device; `spec.slower` makes a gentler one.

    Raises:
        DeviceError: Ruckig is not installed.
    """

    def __init__(self, source: Source, spec: DeviceSpec) -> None:
        try:
            ruckig: Any = import_module("ruckig")
        except ImportError as error:
            raise DeviceError("smooth motion needs Ruckig: install it by pip install 'alula[arms]'") from error
        self.source, self.spec = source, spec
        limits, size = spec.limits, len(spec.limits.low)
        self._low, self._high = np.array(limits.low) + limits.margin, np.array(limits.high) - limits.margin
        top, push, jerk = (np.array(getattr(limits, name)) for name in ("velocity", "acceleration", "jerk"))
        # The governor sees accelerations a period late, and requires that they can still be taken back in time.
        top = np.maximum(top - np.minimum(push, np.sqrt(jerk * top)) / spec.rate, top / 2)
        self._velocity, self._acceleration, self._jerk = SHARE * top, SHARE * push, SHARE * jerk
        self._generator = ruckig.Ruckig(size, 1.0 / spec.rate)
        self._input, self._output = ruckig.InputParameter(size), ruckig.OutputParameter(size)
        self._input.synchronization = ruckig.Synchronization.No
        for name in ("velocity", "acceleration", "jerk"):
            setattr(self._input, f"max_{name}", getattr(self, f"_{name}").tolist())
        self._asked_ns: int | None = None

    def at(self, now_ns: int, state: State) -> Intent | None:
        """The other's wish, as far as one can be by now."""
        intent = self.source.at(now_ns, state)
        if self._asked_ns is None or now_ns - self._asked_ns > SILENT_PERIODS * self.spec.period_ns:
            self._begin(now_ns, state)
        self._asked_ns = now_ns
        if intent is not None:
            action = np.asarray(intent.action)
            if action.shape != self._low.shape or action.dtype.kind not in "fiu" or not np.isfinite(action).all():
                return intent
            self._notice(np.clip(action.astype(np.float64), self._low, self._high), now_ns)
        self._input.target_position = self._aim().tolist()
        self._generator.update(self._input, self._output)
        self._output.pass_to_input(self._input)
        return None if intent is None else Intent(np.array(self._output.new_position), intent.created_ns, intent.source)

    def _begin(self, now_ns: int, state: State) -> None:
        """Where the device is, at rest."""
        self._wish, rest = state.position, np.zeros(len(state.position))
        self._speed, self._push = rest, rest
        """Velocity and acceleration of the wishes."""
        self._input.current_position = self._wish.tolist()
        self._input.current_velocity = self._input.current_acceleration = rest.tolist()
        self._changed_ns, self._between_ns = now_ns, self.spec.period_ns

    def _notice(self, wish: Float64[ndarray, " action"], now_ns: int) -> None:
        """See where wishes go, from one change to the next, which may be several periods later."""
        elapsed = now_ns - self._changed_ns
        if (wish != self._wish).any():
            speed = (wish - self._wish) * (1e9 / max(elapsed, 1))
            push = (speed - self._speed) * (1e9 / max(elapsed, 1))
            jump = np.abs(speed) > self._velocity
            self._speed = np.where(jump, 0.0, speed)
            self._push = np.where(jump | (np.abs(push) > self._acceleration), 0.0, push)
            self._wish, self._changed_ns, self._between_ns = wish, now_ns, elapsed
        elif elapsed > 1.5 * self._between_ns:
            self._speed = self._push = np.zeros_like(wish)

    def _aim(self) -> Float64[ndarray, " action"]:
        """Where the wish would come to rest."""
        # Velocities are means between two wishes; the last wish is half that time later.
        speed = self._speed + 0.5e-9 * self._between_ns * self._push
        way = Braking.start(self._wish, speed, self._push, self._acceleration, self._jerk)
        return np.clip(way.at(way.duration), self._low, self._high)

"""Going to one place."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from alula.core.errors import DeviceError
from alula.real_robot.contract import DeviceSpec, Intent, State

TOLERANCE = 0.01
"""Distance that counts as being there, as a share of each element's range: our choice."""
STILL = 0.01
"""Speed that counts as having come to rest, as a share of the device's own velocity limit: our choice."""


class GoTo:
    """Wishes to be at one place; how fast is up to the governor, or to a `Smoothed` around it.

    Args:
        spec: Of the device.
        target: The place, one position per element of the action.

    Raises:
        DeviceError: the device cannot be there.
    """

    def __init__(self, spec: DeviceSpec, target: Float[ndarray, " action"]) -> None:
        limits = spec.limits
        low, high = np.array(limits.low) + limits.margin, np.array(limits.high) - limits.margin
        if target.shape != low.shape or not ((target >= low) & (target <= high)).all():
            raise DeviceError(
                f"{spec.name} cannot go to {target.tolist()}; allowed are {low.tolist()} to {high.tolist()}"
            )
        self._target = target.astype(np.float64)
        self._near, self._slow = TOLERANCE * (high - low), STILL * spec.own_velocity

    def at(self, now_ns: int, state: State) -> Intent:
        """The place."""
        return Intent(self._target, now_ns, "goto")

    def arrived(self, state: State) -> bool:
        """Whether the device is there and at rest."""
        near = np.abs(state.position - self._target) <= self._near
        return bool((near & (np.abs(state.velocity) <= self._slow)).all())

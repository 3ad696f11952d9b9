"""A policy's body: what a device measures becomes what the policy sees, and its actions where the device should be.

There are two kinds. A policy of a simulated task sees through the task's own scene (`twin.py`). One that has learnt
from recordings of a device sees what that device measures, and commands its positions (`direct.py`). Pictures come
from cameras, and pass by both.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Float64, Shaped
from numpy import ndarray

from alula.core.errors import ConfigError
from alula.real_robot.contract import DeviceSpec, State, Workspace

Poses = Mapping[str, Float64[ndarray, "7"]]
"""Position [m] and quaternion wxyz in the world, by the thing's name."""


class Embodiment(ABC):
    """A policy's body.

    Args:
        spec: Of the device.
    """

    blend: ClassVar[float]
    """Share of a control step that the way from one wish to the next took where the policy has learnt."""
    direct: ClassVar[bool]
    """Whether an action is a position of the device, so that what a person commands is one as well."""

    def __init__(self, spec: DeviceSpec) -> None:
        self.spec = spec

    @abstractmethod
    def restart(self) -> None:
        """Forget the last episode."""

    @abstractmethod
    def resume(self) -> None:
        """Somebody else has moved the device meanwhile: what the policy commanded before is void."""

    @abstractmethod
    def observe(self, state: State, poses: Poses) -> dict[str, Shaped[ndarray, "*field"]]:
        """What the policy sees beside pictures; to be called once per control step of the policy.

        Args:
            state: What the device measures.
            poses: Of the things around, where they are tracked.
        """

    @abstractmethod
    def wish(self, action: Float[ndarray, " action"], state: State) -> Float64[ndarray, " position"]:
        """Where the device should be at the end of the control step that this action begins."""

    def start(self, place: list[float]) -> Float64[ndarray, " position"]:
        """Where the device should be at the start of an episode.

        Args:
            place: Every element of the device's position; without the gripper's, that begins open.

        Raises:
            ConfigError: there are too many or too few.
        """
        position, grip = np.array(place, dtype=np.float64), self.spec.grip
        size = len(self.spec.limits.low)
        if len(position) == size:
            return position
        if grip is not None and len(position) == size - 1:
            return np.insert(position, grip.element, grip.opened)
        (action,) = self.spec.action.values()
        names = f" ({', '.join(action.element_names)})" if action.element_names else ""
        without = f", or {size - 1} without the gripper, which then begins open" if grip is not None else ""
        raise ConfigError(f"start has {len(position)} numbers; {self.spec.name} has {size}{names}{without}")

    def workspace(self, box: list[float]) -> Workspace:
        """Where the device may be so that its tool stays in a box.

        Args:
            box: x, y, z of its lowest, then of its highest corner [m].

        Raises:
            ConfigError: the device has no tool that is known here, or the box is none.
        """
        raise ConfigError(
            f"box needs the model of an arm, and there is none of {self.spec.name}; a quadcopter keeps inside its own "
            "fence: set device.fence and ceiling"
        )

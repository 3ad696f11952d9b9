"""What a person at a device says, whatever the device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64
from numpy import ndarray


@dataclass(frozen=True)
class Operation:
    """What the operator does at the moment."""

    motion: Float64[ndarray, " action"]
    """Wished velocity of every element, as a share of the fastest that is permitted: -1 to 1."""
    held: bool
    """Whether the dead man's switch is held; otherwise nothing is to move."""
    heard_ns: int
    """When the operator's side was last heard of, monotonic [ns]."""
    release: bool = False
    """Whether control is handed back to the policy."""
    stop: bool = False
    """Whether everything must stop."""


@runtime_checkable
class Operator(Protocol):
    """A keyboard, a gamepad, or whatever else a person holds."""

    def open(self) -> None:
        """Begin to listen.

        Raises:
            DeviceError: it is not there.
        """
        ...

    def read(self, now_ns: int) -> Operation | None:
        """What the person does now; None once the device is lost. Never waits."""
        ...

    def close(self) -> None:
        """Let go of it; doing it again changes nothing."""
        ...


@dataclass(frozen=True)
class Phase:
    """A part of a `Script`."""

    seconds: float
    motion: tuple[float, ...]
    held: bool = True
    release: bool = False
    stop: bool = False
    heard: bool = True
    """Whether there are signs of life."""


class Script:
    """An operator made of software, for tests and demonstrations: does one thing after the other, then is lost.

    Args:
        phases: What it does.
    """

    def __init__(self, phases: Sequence[Phase]) -> None:
        self.phases = tuple(phases)

    def open(self) -> None:
        """The script begins when it is first read."""
        self._begun_ns: int | None = None
        self._heard_ns = 0

    def read(self, now_ns: int) -> Operation | None:
        """The phase that is due."""
        self._begun_ns = now_ns if self._begun_ns is None else self._begun_ns
        left = (now_ns - self._begun_ns) / 1e9
        for phase in self.phases:
            if left < phase.seconds:
                self._heard_ns = now_ns if phase.heard else self._heard_ns
                return Operation(np.array(phase.motion), phase.held, self._heard_ns, phase.release, phase.stop)
            left -= phase.seconds
        return None

    def close(self) -> None:
        """There is nothing to let go of."""

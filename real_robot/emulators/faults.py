"""What goes wrong, when, and how often: a plan with a seed, so that every failure can be had again."""

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from alula.core.errors import ConfigError, unknown_name


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong."""

    kind: str
    """One of those that the emulator names."""
    target: int = 0
    """Servo or joint, from 1 on; 0: all, or none in particular."""
    start: int = 0
    """When: after so many motion commands since power first came on, so that it does not depend on the machine."""
    duration: float = math.inf
    """In motion commands."""
    probability: float = 1.0
    """For every chance that it has."""
    value: float = 0.0
    """How much, in a unit of the kind's own: milliseconds of a delay, radians of a jump."""


class FaultPlan:
    """Faults of one run, and the clock by which they come and go.

    Args:
        faults: `Fault`s, as mappings.
        kinds: Those that the emulator can do.
        seed: Of their chances.

    Raises:
        ConfigError: a kind is unknown.
    """

    def __init__(self, faults: Iterable[Mapping[str, Any]], kinds: Iterable[str], seed: int = 0) -> None:
        self._kinds = tuple(kinds)
        self._faults: list[Fault] = []
        for fault in faults:
            self.add(fault)
        self.chance = random.Random(seed)
        self._commands = math.nan
        """Motion commands since power first came on; not a number before."""

    def add(self, fault: Mapping[str, Any]) -> None:
        """One more, while the emulator runs."""
        added = Fault(**fault)
        if added.kind not in self._kinds:
            raise ConfigError(unknown_name("fault", added.kind, self._kinds))
        self._faults.append(added)

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self._faults.clear()

    def power(self) -> None:
        """Power has come on."""
        if math.isnan(self._commands):
            self._commands = 0

    def command(self) -> None:
        """A motion command has come."""
        self._commands += 1

    def find(self, kind: str, target: int = 0) -> Fault | None:
        """The fault of this kind that strikes now, if one does; asking again is another chance."""
        for fault in self._faults:
            if (
                fault.kind == kind
                and (fault.target in (0, target))
                and (fault.start == 0 or fault.start <= self._commands)
                and not fault.start + fault.duration <= self._commands
                and self.chance.random() < fault.probability
            ):
                return fault
        return None

    def strikes(self, kind: str, target: int = 0) -> bool:
        """Whether this goes wrong now."""
        return self.find(kind, target) is not None

"""The witness on the wire: writes down every decoded motion command, and what it breaks.

Judges know nothing of drivers and governors. An emulator decodes a command by its own reading of the protocol and
tells the judge where the device is sent, in the action's units; the judge takes differences of one command after
the other.
"""

import json
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

ROUNDING = (0.5, 1.0, 2.0, 4.0)
"""Counts by which rounding can change a position and its first, second and third difference."""
RELATIVE = 1e-6
"""Relative excess that numbers in single precision may bring about."""
HISTORY = 4


class Judge:
    """Judges motion commands by limits, and keeps a log.

    Args:
        log: File that gets a JSON line for every event.
        limits: `low`, `high`, `velocity`, `acceleration`, `jerk`, one number per element of the action, and `rate`
            [Hz]; None: nothing is judged.
        quantum: Size of one count of the device, per element of the action, in its unit.
        relative: Excess that the wire's numbers may bring about, as a share of the position.
    """

    def __init__(
        self,
        log: Path,
        limits: Mapping[str, Any] | None,
        quantum: Sequence[float],
        relative: float = RELATIVE,
    ) -> None:
        self._log = log.open("a", buffering=1, encoding="utf-8")
        self._limits, self._quantum, self._relative = limits, quantum, relative
        self._past: dict[int, deque[float]] = {}
        self.commands = self.violations = 0

    def start(self, measured: Mapping[int, float]) -> None:
        """Elements have got power where they are: their first command must be there."""
        for element, position in measured.items():
            self._past[element] = deque([position] * HISTORY, maxlen=HISTORY)
        self.note("start", positions=dict(measured))

    def release(self, elements: Sequence[int]) -> None:
        """Elements have lost power."""
        for element in elements:
            self._past.pop(element, None)
        self.note("release", elements=list(elements))

    def command(self, goals: Mapping[int, float], **details: Any) -> None:
        """Elements have been sent somewhere.

        Args:
            goals: Positions in the action's unit, by the element's index.
            details: Further values to write down.
        """
        self.commands += 1
        found = [line for element, goal in goals.items() for line in self._violations(element, goal)]
        self.note("command", goals=dict(goals), violations=found, **details)

    def note(self, event: str, violations: Sequence[str] = (), **details: Any) -> None:
        """Write something down."""
        self.violations += len(violations)
        line = {"time_ns": time.monotonic_ns(), "event": event, **details, "violations": list(violations)}
        self._log.write(json.dumps(line) + "\n")

    def _violations(self, element: int, goal: float) -> Iterator[str]:
        past, limits = self._past.get(element), self._limits
        if not abs(goal) < float("inf"):
            yield f"element {element} is sent to {goal}"
        if past is None or limits is None:
            return
        past.appendleft(goal)
        quantum, rate = self._quantum[element], limits["rate"]
        low, high = limits["low"][element], limits["high"][element]
        room = ROUNDING[0] * quantum + self._relative * max(abs(low), abs(high))
        if not low - room <= goal <= high + room:
            yield f"element {element} is sent to {goal}; allowed are {low} to {high}"
        differences = list(past)
        for order, name in enumerate(("velocity", "acceleration", "jerk"), start=1):
            differences = [new - old for new, old in pairwise(differences)]
            room = ROUNDING[order] * quantum + self._relative * 2**order * max(abs(low), abs(high))
            if abs(differences[0]) > limits[name][element] / rate**order + room:
                value = differences[0] * rate**order
                yield f"element {element} has a {name} of {value}; allowed is {limits[name][element]}"

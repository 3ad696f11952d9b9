"""Interleaved timing: every contender once per round, so that a slow minute hits all alike."""

import statistics
import time
from collections.abc import Callable, Mapping

from alula.commands.console import Result


def interleaved(contenders: Mapping[str, Callable[[], int]], repeats: int) -> dict[str, list[float]]:
    """Work per second of each contender in each round, after one unmeasured round.

    Args:
        contenders: Does some work and returns how much.
        repeats: Rounds.
    """
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name, work in contenders.items():
            start = time.perf_counter()
            amount = work()
            if repeat:
                rates[name].append(amount / (time.perf_counter() - start))
    return rates


def median(name: str, values: list[float], unit: str, bar: float | None = None, peer: str | None = None) -> Result:
    """Median with the smallest and largest value; `bar` is to be reached from below."""
    middle = statistics.median(values)
    ok = None if bar is None else middle >= bar
    return Result(name, middle, unit, min(values), max(values), len(values), peer, bar, ok)


def ratio(name: str, ours: list[float], theirs: list[float], peer: str, bar: float) -> Result:
    """Median of the ratios within each round."""
    return median(name, [a / b for a, b in zip(ours, theirs, strict=True)], "ratio", bar, peer)

"""Interleaved timing: contenders take turns every few milliseconds, so that a slow moment hits all alike."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping

from alula.commands.console import Result


def interleaved(contenders: Mapping[str, Callable[[], Iterator[int]]], repeats: int) -> dict[str, list[float]]:
    """Work per second of each contender in each round, after one unmeasured round.

    Args:
        contenders: Starts a round, which yields after every slice of work how much that was.
        repeats: Rounds.
    """
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        amounts, seconds = dict.fromkeys(contenders, 0), dict.fromkeys(contenders, 0.0)
        running = {name: begin() for name, begin in contenders.items()}
        while running:
            for name, work in list(running.items()):
                start = time.perf_counter()
                amount = next(work, None)
                seconds[name] += time.perf_counter() - start
                if amount is None:
                    del running[name]
                else:
                    amounts[name] += amount
        if repeat:
            for name, values in rates.items():
                values.append(amounts[name] / seconds[name])
    return rates


def median(name: str, values: list[float], unit: str, bar: float | None = None, peer: str | None = None) -> Result:
    """Median with the smallest and largest value; `bar` is to be reached from below."""
    middle = statistics.median(values)
    ok = None if bar is None else middle >= bar
    return Result(name, middle, unit, min(values), max(values), len(values), peer, bar, ok)


def ratio(name: str, ours: list[float], theirs: list[float], peer: str, bar: float) -> Result:
    """Median of the ratios within each round."""
    return median(name, [a / b for a, b in zip(ours, theirs, strict=True)], "ratio", bar, peer)

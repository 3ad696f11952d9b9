"""Numbers that say how a behaviour moves, and finding better ones by trying (Rubinstein's cross-entropy method)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.core.errors import ConfigError

SPREAD = 0.3
"""Standard deviation at first, as a share of each range: our choice."""
LEAST_SPREAD = 0.02
"""Standard deviation that is always left, so that it does not settle too early: our choice."""
ELITE = 0.25
"""Share of a generation from which the next is drawn: our choice."""


@dataclass(frozen=True)
class Parameter:
    """One number."""

    name: str
    low: float
    high: float
    default: float
    unit: str

    def __post_init__(self) -> None:
        """Check that the default is possible."""
        if not self.low <= self.default <= self.high or self.low >= self.high:
            raise ConfigError(
                f"parameter {self.name} is {self.default} {self.unit}; allowed are {self.low} to {self.high}"
            )


@dataclass(frozen=True)
class Parameters:
    """Several, seen as a point of the unit cube by whoever tunes them."""

    parameters: tuple[Parameter, ...]

    def default(self) -> Float64[ndarray, " parameters"]:
        """The point of the defaults."""
        return np.array([(each.default - each.low) / (each.high - each.low) for each in self.parameters])

    def values(self, point: Float64[ndarray, " parameters"]) -> Mapping[str, float]:
        """What a point stands for; outside the cube its nearest.

        Raises:
            ConfigError: it has another number of coordinates.
        """
        if point.shape != (len(self.parameters),):
            raise ConfigError(f"a point of shape {point.shape} is given for {len(self.parameters)} parameters")
        inside = np.clip(point, 0.0, 1.0)
        return {
            each.name: float(each.low + share * (each.high - each.low))
            for each, share in zip(self.parameters, inside, strict=True)
        }


Score = Callable[[Sequence[Mapping[str, float]]], Float64[ndarray, " population"]]
"""How good each of several sets of values is; the higher, the better."""


def tune(
    space: Parameters, score: Score, generations: int, population: int, seed: int
) -> tuple[Float64[ndarray, " parameters"], Float64[ndarray, " generations"]]:
    """Draw points from a Gaussian that is fitted to the best of the last generation; the default is always tried first.

    Args:
        space: What is tuned.
        score: Tries them; may be random.
        generations: Number of them.
        population: Points of each.
        seed: Of the draws.

    Returns:
        The mean of the last Gaussian, and the mean score of every generation's best.
    """
    generator = np.random.default_rng(seed)
    mean = space.default()
    spread, progress = np.full(len(mean), SPREAD), list[float]()
    kept = max(2, round(ELITE * population))
    for generation in range(generations):
        points = np.clip(mean + spread * generator.standard_normal((population, len(mean))), 0.0, 1.0)
        if generation == 0:
            points[0] = mean
        scores = score([space.values(point) for point in points])
        best = points[np.argsort(-scores, kind="stable")[:kept]]
        progress.append(float(np.sort(scores)[-kept:].mean()))
        mean, spread = best.mean(axis=0), np.maximum(best.std(axis=0), LEAST_SPREAD)
    return mean, np.array(progress)

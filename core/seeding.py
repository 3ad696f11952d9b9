"""Random streams, one per environment, drawn for a whole batch at once.

A stream is a pair (key, counter); draw number c of a stream is `mix(key + c * GOLDEN)`, the SplitMix64
generator (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators"). What one environment
draws therefore depends on its seed alone, never on how many environments run beside it, and the whole
generator state is two integer arrays that can be saved and restored exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, UInt64
from numpy import ndarray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""Odd increment of SplitMix64: 2^64 divided by the golden ratio."""


def mix(words: UInt64[ndarray, "*shape"]) -> UInt64[ndarray, "*shape"]:
    """Finalizer of SplitMix64: a bijection of 64-bit words that passes BigCrush when fed a counter."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


@dataclass
class BatchRng:
    """Independent random streams of `num_envs` environments."""

    keys: UInt64[ndarray, " num_envs"]
    """Stream identity, a hash of the seed."""
    counters: UInt64[ndarray, " num_envs"]
    """Number of words drawn so far."""

    @classmethod
    def from_seeds(cls, seeds: Sequence[int] | Int64[ndarray, " num_envs"]) -> "BatchRng":
        """One stream per seed; equal seeds give equal streams."""
        words = np.asarray(seeds, dtype=np.int64).astype(np.uint64)
        return cls(keys=mix(words + GOLDEN), counters=np.zeros(len(words), dtype=np.uint64))

    def reseed(self, env_ids: Int64[ndarray, " selected"], seeds: Sequence[int]) -> None:
        """Restart the streams of `env_ids` from `seeds`."""
        fresh = BatchRng.from_seeds(seeds)
        self.keys[env_ids] = fresh.keys
        self.counters[env_ids] = 0

    def uniform(
        self, env_ids: Int64[ndarray, " selected"], low: float, high: float, size: int
    ) -> Float64[ndarray, "selected size"]:
        """`size` numbers in [low, high) from the stream of each environment in `env_ids`."""
        index = np.arange(1, size + 1, dtype=np.uint64)
        words = mix(self.keys[env_ids, None] + (self.counters[env_ids, None] + index) * GOLDEN)
        self.counters[env_ids] += np.uint64(size)
        unit = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return low + (high - low) * unit

    def normal(self, env_ids: Int64[ndarray, " selected"], std: float, size: int) -> Float64[ndarray, "selected size"]:
        """`size` numbers from N(0, std^2) per environment, by the Box-Muller transform (1958)."""
        return box_muller(self.uniform(env_ids, 0.0, 1.0, 2 * size), std)


def box_muller(unit: Float64[ndarray, "batch twice_size"], std: float) -> Float64[ndarray, "batch size"]:
    """Numbers from N(0, std^2), made of twice as many uniform ones in [0, 1): first all radii, then all angles."""
    size = unit.shape[1] // 2
    radius = np.sqrt(-2.0 * np.log1p(-unit[:, :size]))
    return std * radius * np.cos(2.0 * np.pi * unit[:, size:])

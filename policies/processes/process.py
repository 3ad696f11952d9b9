"""What a generative process is: the way from noise to an action chunk, one step at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

Chunk = Float[Tensor, "batch horizon action"]
Prediction = Float[Tensor, "batch horizon prediction"]
"""What a field says of a noisy chunk."""
Predict = Callable[[Chunk], Prediction]
"""A field at one step of the chain, for the observation at hand."""


@dataclass
class Guide:
    """Actions that a chunk should agree with, since some are executed already while it is made."""

    chunk: Chunk
    """In normalised action units."""
    weights: Float[Tensor, "batch horizon 1"]
    """How far: 1 exactly, 0 not at all."""

    def blend(self, chunk: Chunk) -> Chunk:
        """Between a chunk and the guide, by weight."""
        return torch.lerp(chunk, self.chunk, self.weights)


@dataclass
class Step:
    """One step of a generative chain: Normal(mean, std) over a chunk, deterministic where std is 0."""

    mean: Chunk
    std: Float[Tensor, "#batch #horizon #action"]

    def sample(self, generator: Generator) -> Chunk:
        """Draw the next chunk."""
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype)
        return self.mean + self.std * noise

    def log_prob(self, value: Chunk) -> Chunk:
        """Log-density of every element of `value`."""
        return -0.5 * ((value - self.mean) / self.std) ** 2 - self.std.log() - 0.9189385332046727


@runtime_checkable
class Process(Protocol):
    """The mathematics of one generative family; knows no observation and no environment.

    Steps count from 0, the noisiest, to `num_steps` - 1, whose outcome is the chunk.
    """

    num_steps: int
    """Steps of a chain when acting."""
    prediction_size: int
    """Elements that the field predicts per chunk step."""

    def prior(self, shape: tuple[int, int, int], generator: Generator) -> Chunk:
        """Where chains begin."""
        ...

    def training_pair(self, chunk: Chunk, generator: Generator) -> tuple[Chunk, Float[Tensor, " batch"], Chunk]:
        """Noisy chunk, the field's time input, and the target of its prediction."""
        ...

    def error(self, prediction: Prediction, target: Chunk) -> Chunk:
        """What behaviour cloning minimises, element by element."""
        ...

    def time(self, step: Int64[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """The field's time input at a step of the chain."""
        ...

    def kernel(self, step: Int64[Tensor, " batch"], noisy: Chunk, prediction: Prediction, stochastic: bool) -> Step:
        """Distribution of the next chunk; acting and scoring both ask here."""
        ...

    def guided(self, step: Int64[Tensor, " batch"], noisy: Chunk, predict: Predict, guide: Guide) -> Prediction:
        """The field's prediction, changed so that `kernel` leads towards the guide."""
        ...

    def is_stochastic(self, step: int) -> bool:
        """Whether the stochastic kernel has a density at this step."""
        ...

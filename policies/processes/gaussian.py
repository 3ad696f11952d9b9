"""A Normal distribution as a generative process of one step."""

import math

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from alula.policies.processes.process import Chunk, Step


class GaussianProcess(nn.Module):
    """The prediction is the mean; the standard deviation is one learned number per action element.

    Args:
        initial_std: Standard deviation at first, in normalised action units.
        action_size: Elements of an action.
    """

    num_steps = 1

    def __init__(self, initial_std: float, action_size: int) -> None:
        super().__init__()
        self.log_std = nn.Parameter(torch.full((action_size,), math.log(initial_std)))

    def prior(self, shape: tuple[int, int, int], generator: Generator) -> Chunk:
        """Nothing: the single step starts from zero."""
        del generator
        return torch.zeros(shape, dtype=self.log_std.dtype)

    def training_pair(self, chunk: Chunk, generator: Generator) -> tuple[Chunk, Float[Tensor, " batch"], Chunk]:
        """Regression of the chunk itself."""
        del generator
        return torch.zeros_like(chunk), chunk.new_zeros(len(chunk)), chunk

    def time(self, step: Int64[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Zero: there is only one step."""
        return step.to(self.log_std.dtype)

    def kernel(self, step: Int64[Tensor, " batch"], noisy: Chunk, prediction: Chunk, stochastic: bool) -> Step:
        """Normal(prediction, learned std), or the prediction itself."""
        del step, noisy
        std = self.log_std.exp() if stochastic else torch.zeros_like(self.log_std)
        return Step(prediction, std[None, None])

    def is_stochastic(self, step: int) -> bool:
        """Always."""
        del step
        return True

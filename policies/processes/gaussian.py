"""A Normal distribution as a generative process of one step."""

import math

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from alula.policies.processes.process import Chunk, Guide, Predict, Prediction, Step

LOG_STD_RANGE = (-4.0, 0.5)
"""Bounds of the logarithm of the standard deviation, in normalised action units."""


class GaussianProcess(nn.Module):
    """The prediction is the mean; the standard deviation is learned, per action element or as a second prediction.

    Args:
        initial_std: Standard deviation at first, in normalised action units.
        action_size: Elements of an action.
        predicts_std: The field's prediction has twice the action's elements: the mean, and how far the logarithm of
            the standard deviation is from its learned level. Without memory, being random just where the observation
            does not tell what to do is the best a policy can do (Singh, Jaakkola & Jordan 1994).
    """

    num_steps = 1

    def __init__(self, initial_std: float, action_size: int, predicts_std: bool) -> None:
        super().__init__()
        self.predicts_std = predicts_std
        self.prediction_size = action_size * (2 if predicts_std else 1)
        self.log_std = nn.Parameter(torch.full((action_size,), math.log(initial_std)))

    def prior(self, shape: tuple[int, int, int], generator: Generator) -> Chunk:
        """Nothing: the single step starts from zero."""
        del generator
        return torch.zeros(shape, dtype=self.log_std.dtype)

    def training_pair(self, chunk: Chunk, generator: Generator) -> tuple[Chunk, Float[Tensor, " batch"], Chunk]:
        """Nothing, the only step, and the chunk itself."""
        del generator
        return torch.zeros_like(chunk), chunk.new_zeros(len(chunk)), chunk

    def error(self, prediction: Prediction, target: Chunk) -> Chunk:
        """Squared error of the mean, or the negative log-likelihood where the spread is predicted too."""
        step = self._step(prediction)
        return -step.log_prob(target) if self.predicts_std else (step.mean - target) ** 2

    def time(self, step: Int64[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Zero: there is only one step."""
        return step.to(self.log_std.dtype)

    def kernel(self, step: Int64[Tensor, " batch"], noisy: Chunk, prediction: Prediction, stochastic: bool) -> Step:
        """Normal(mean, std), or the mean itself."""
        del step, noisy
        normal = self._step(prediction)
        return normal if stochastic else Step(normal.mean, torch.zeros_like(normal.std))

    def guided(self, step: Int64[Tensor, " batch"], noisy: Chunk, predict: Predict, guide: Guide) -> Prediction:
        """The mean blended with the guide; the spread as it is."""
        del step
        mean, *deviation = predict(noisy).split(noisy.shape[-1], dim=-1)
        return torch.cat([guide.blend(mean), *deviation], dim=-1)

    def _step(self, prediction: Prediction) -> Step:
        """Mean and standard deviation that a prediction stands for."""
        if not self.predicts_std:
            return Step(prediction, self.log_std.exp()[None, None])
        mean, deviation = prediction.chunk(2, dim=-1)
        return Step(mean, (self.log_std + deviation).clamp(*LOG_STD_RANGE).exp())

    def is_stochastic(self, step: int) -> bool:
        """Always."""
        del step
        return True

"""Residual perceptron over the flattened chunk."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from alula.policies.config import FieldConfig
from alula.policies.fields.chunk import ChunkShape
from alula.policies.fields.embedding import StepEmbedding

TIME_SIZE = 16


class ResidualBlock(nn.Module):
    """x + W2 relu(W1 relu(x)): pre-activation, two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        """One refinement of `x`."""
        return x + self.second(F.relu(self.first(F.relu(x))))


class MLPField(nn.Module):
    """Flat noisy chunk, step embedding and features in; flat prediction out."""

    def __init__(self, config: FieldConfig, chunk: ChunkShape, features: int, timed: bool) -> None:
        super().__init__()
        self.embedding = StepEmbedding(TIME_SIZE) if timed else None
        self.horizon = chunk.horizon
        noisy = chunk.horizon * chunk.action_size if timed else 0
        time = TIME_SIZE if timed else 0
        self.input = nn.Linear(noisy + time + features, config.width)
        self.blocks = nn.Sequential(*(ResidualBlock(config.width) for _ in range(config.blocks)))
        self.output = nn.Linear(config.width, chunk.horizon * chunk.prediction_size)

    def forward(
        self,
        noisy: Float[Tensor, "batch horizon action"],
        step: Float[Tensor, " batch"],
        features: Float[Tensor, "batch features"],
    ) -> Float[Tensor, "batch horizon prediction"]:
        """Prediction for each noisy chunk; a one-step process starts from nothing, so its chunk is not read."""
        x = features
        if self.embedding is not None:
            x = torch.cat([noisy.flatten(1), self.embedding(step), features], dim=1)
        return self.output(F.relu(self.blocks(self.input(x)))).unflatten(1, (self.horizon, -1))

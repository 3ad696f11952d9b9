"""State values."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from alula.policies.conditioners import Observation, StateConditioner


class ValueModel(nn.Module):
    """V(observation) by a perceptron on its own copy of the policy's features.

    Args:
        conditioner: Observation → features; its scaling is fixed.
        width: Units of each of the two hidden layers.
    """

    def __init__(self, conditioner: StateConditioner, width: int) -> None:
        super().__init__()
        self.conditioner = conditioner
        self.layers = nn.Sequential(
            nn.Linear(conditioner.size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def forward(self, observation: Observation) -> Float[Tensor, " batch"]:
        """Expected discounted return."""
        return self.layers(self.conditioner(observation))[:, 0]

    @torch.no_grad()
    def predict(self, observation: Observation, batch: int = 16384) -> Float[Tensor, " batch"]:
        """As `forward`, without gradients and in parts that fit the cache."""
        features = self.conditioner(observation)
        return torch.cat([self.layers(part)[:, 0] for part in features.split(batch)])

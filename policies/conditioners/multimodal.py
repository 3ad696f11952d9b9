"""State beside pictures and instructions."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from alula.core.spaces import SpaceSpec
from alula.policies.conditioners.conditioner import Conditioner, Observation
from alula.policies.conditioners.state import StateConditioner


class MultimodalConditioner(StateConditioner):
    """Features of the state, then those of every other kind.

    Args:
        state: Fields of the state; may be none.
        others: Conditioners of the other fields by kind; at least one.
    """

    def __init__(self, state: SpaceSpec, others: Mapping[str, Conditioner]) -> None:
        super().__init__(state)
        self.others = nn.ModuleDict(others)
        self.size += sum(other.size for other in others.values())

    def forward(self, observation: Observation) -> Float[Tensor, "batch features"]:
        """Features of a batch of observations."""
        state = [super().forward(observation)] if self.names else []
        return torch.cat([*state, *(other(observation) for other in self.others.values())], dim=1)

    def augment(self, observation: Observation, generator: Generator) -> Observation:
        """What each kind does to its fields."""
        for other in self.others.values():
            assert isinstance(other, Conditioner)
            observation = other.augment(observation, generator)
        return observation

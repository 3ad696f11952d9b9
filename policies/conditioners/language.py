"""Instructions that a language model outside has turned into numbers."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from alula.core.spaces import SpaceSpec
from alula.policies.conditioners.conditioner import Conditioner, Observation


class LanguageConditioner(Conditioner):
    """Sentence embeddings through a linear bottleneck.

    An embedding is standardised by its own mean and spread: a dataset knows few sentences, and their range element by
    element would blow up what hardly differs between them.

    Args:
        observation: Embedding fields.
        features: Size of the bottleneck.
    """

    def __init__(self, observation: SpaceSpec, features: int) -> None:
        super().__init__()
        self.names = tuple(observation)
        self.embedding_size = sum(field.size for field in observation.values())
        self.size = features
        self.bottleneck = nn.Linear(self.embedding_size, features)

    def forward(self, observation: Observation) -> Float[Tensor, "batch features"]:
        """Features of a batch of instructions."""
        embedding = torch.cat([observation[name].float().flatten(1) for name in self.names], dim=1)
        return self.bottleneck(F.layer_norm(embedding, (self.embedding_size,)))

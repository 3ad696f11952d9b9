"""What turns an observation into the features that networks are conditioned on."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Generator, Tensor, nn

Observation = dict[str, Tensor]
"""One tensor per observation field, first axis the batch."""


class Conditioner(nn.Module, ABC):
    """Observation → features.

    Calling it is a pure function of observation and weights, so that features may be computed once and kept;
    whatever training varies at random is in `augment`.
    """

    size: int
    """Number of features."""

    @abstractmethod
    def forward(self, observation: Observation) -> Float[Tensor, "batch features"]:
        """Features of a batch of observations."""

    def augment(self, observation: Observation, generator: Generator) -> Observation:
        """The observation as training sees it this time; by default as it is."""
        del generator
        return observation

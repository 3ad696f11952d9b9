"""How a network is told which denoising step it works on."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class StepEmbedding(nn.Module):
    """Sines and cosines of the step at geometric frequencies (Vaswani et al. 2017, arXiv:1706.03762, section 3.5)."""

    def __init__(self, size: int, longest: float = 1000.0) -> None:
        super().__init__()
        frequencies = torch.exp(-math.log(longest) * torch.arange(size // 2) / (size // 2 - 1))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, step: Float[Tensor, " batch"]) -> Float[Tensor, "batch size"]:
        """Embedding of each step."""
        angles = step[:, None] * self.get_buffer("frequencies")
        return torch.cat([angles.sin(), angles.cos()], dim=1)

"""Convolutional U-Net along the horizon, conditioned by FiLM (Chi et al. 2023, arXiv:2303.04137, appendix)."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from alula.core.errors import ConfigError
from alula.policies.config import FieldConfig
from alula.policies.fields.chunk import ChunkShape
from alula.policies.fields.embedding import StepEmbedding

KERNEL = 5
GROUPS = 8
TIME_SIZE = 64


class FilmBlock(nn.Module):
    """Two convolutions; the conditioning scales and shifts the channels between them (Perez et al. 2018)."""

    def __init__(self, channels_in: int, channels_out: int, condition: int) -> None:
        super().__init__()
        self.first = _convolution(channels_in, channels_out)
        self.second = _convolution(channels_out, channels_out)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(condition, 2 * channels_out))
        self.skip = nn.Conv1d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(
        self, x: Float[Tensor, "batch channels horizon"], condition: Float[Tensor, "batch condition"]
    ) -> Float[Tensor, "batch out horizon"]:
        """Features of the same length."""
        scale, shift = self.film(condition)[:, :, None].chunk(2, dim=1)
        return self.second(self.first(x) * (1 + scale) + shift) + self.skip(x)


class UNet1DField(nn.Module):
    """`blocks` levels of resolution, channels doubling from `width`; the horizon must divide by 2^(blocks - 1)."""

    def __init__(self, config: FieldConfig, chunk: ChunkShape, features: int, timed: bool) -> None:
        super().__init__()
        levels = max(config.blocks, 1)
        if chunk.horizon % 2 ** (levels - 1):
            raise ConfigError(
                f"field.kind=unet1d with {levels} levels needs a horizon divisible by {2 ** (levels - 1)}, "
                f"got {chunk.horizon}"
            )
        if config.width % GROUPS:
            raise ConfigError(f"field.kind=unet1d needs a width divisible by {GROUPS}, got {config.width}")
        del timed
        self.embedding = nn.Sequential(StepEmbedding(TIME_SIZE), nn.Linear(TIME_SIZE, TIME_SIZE), nn.Mish())
        condition = TIME_SIZE + features
        channels = [config.width * 2**level for level in range(levels)]
        self.down = nn.ModuleList(
            FilmBlock(before, after, condition)
            for before, after in zip([chunk.action_size, *channels[:-1]], channels, strict=True)
        )
        self.shrink = nn.ModuleList(nn.Conv1d(size, size, 3, stride=2, padding=1) for size in channels[:-1])
        self.middle = FilmBlock(channels[-1], channels[-1], condition)
        self.grow = nn.ModuleList(
            nn.ConvTranspose1d(after, before, 4, stride=2, padding=1) for before, after in pairwise(channels)
        )
        self.up = nn.ModuleList(FilmBlock(2 * size, size, condition) for size in channels[:-1])
        self.output = nn.Conv1d(channels[0], chunk.prediction_size, 1)

    def forward(
        self,
        noisy: Float[Tensor, "batch horizon action"],
        step: Float[Tensor, " batch"],
        features: Float[Tensor, "batch features"],
    ) -> Float[Tensor, "batch horizon prediction"]:
        """Prediction for each noisy chunk."""
        condition = torch.cat([self.embedding(step), features], dim=1)
        x = noisy.transpose(1, 2)
        kept = []
        for level, block in enumerate(self.down):
            x = block(x, condition)
            if level < len(self.shrink):
                kept.append(x)
                x = self.shrink[level](x)
        x = self.middle(x, condition)
        for grow, block in zip(reversed(self.grow), reversed(self.up), strict=True):
            x = block(torch.cat([grow(x), kept.pop()], dim=1), condition)
        # Contiguous, so that sums over a chunk add in the same order when it is drawn and when it is scored.
        return self.output(x).transpose(1, 2).contiguous()


def _convolution(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(channels_in, channels_out, KERNEL, padding=KERNEL // 2),
        nn.GroupNorm(GROUPS, channels_out),
        nn.Mish(),
    )

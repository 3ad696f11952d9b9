"""Pictures: a small convolutional network per camera, and where in the picture its features are."""

import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from alula.core.spaces import SpaceSpec
from alula.policies.conditioners.conditioner import Conditioner, Observation

CHANNELS = (16, 32, 64, 64)
STRIDES = (2, 2, 1, 1)
GROUPS = 8
"""Of channels that are normalised together (Wu and He 2018); batches may be as small as one robot."""
SHIFT_SHARE = 16
"""Training shifts pictures by up to one of this many parts of their longer side: DrQ's 4 of 64 pixels and more."""

Pictures = UInt8[Tensor, "batch height width 3"]


class ImageConditioner(Conditioner):
    """Cameras, each with an encoder of its own; pictures stay bytes until they reach it.

    In training every picture is shifted at random and its edge repeated (DrQ; Kostrikov et al. 2020,
    arXiv:2004.13649).

    Args:
        observation: Camera fields, uint8 (height, width, 3).
        image_size: Pixels of the longer side to which larger pictures are shrunk.
        features: Per camera.
    """

    def __init__(self, observation: SpaceSpec, image_size: int, features: int) -> None:
        super().__init__()
        self.names = tuple(observation)
        self.size = features * len(self.names)
        self.encoders = nn.ModuleList(
            ImageEncoder((field.shape[0], field.shape[1]), image_size, features) for field in observation.values()
        )

    def forward(self, observation: Observation) -> Float[Tensor, "batch features"]:
        """Features of all cameras."""
        pairs = zip(self.names, self.encoders, strict=True)
        return torch.cat([encoder(observation[name]) for name, encoder in pairs], dim=1)

    def augment(self, observation: Observation, generator: Generator) -> Observation:
        """Shift every picture, each camera by itself."""
        return observation | {name: shifted(observation[name], generator) for name in self.names}


class ImageEncoder(nn.Module):
    """Convolutions, then the mean position of every channel's activity (Levine et al. 2016, arXiv:1504.00702, 5.1)."""

    def __init__(self, shape: tuple[int, int], image_size: int, features: int) -> None:
        super().__init__()
        shrink = min(1.0, image_size / max(shape))
        self.shape = tuple(max(1, round(shrink * side)) for side in shape)
        self.shrinks = shrink < 1.0
        before = (3, *CHANNELS[:-1])
        # Pictures are channels_last; weights are not: a restored optimiser's moments would lie otherwise in memory.
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(size, after, 3, stride, padding=1), nn.GroupNorm(GROUPS, after), nn.ReLU())
                for size, after, stride in zip(before, CHANNELS, STRIDES, strict=True)
            )
        )
        self.log_sharpness = nn.Parameter(torch.zeros(()))
        self.output = nn.Linear(2 * CHANNELS[-1], features)

    def forward(self, pictures: Pictures) -> Float[Tensor, "batch features"]:
        """Features of a batch of pictures."""
        # Height, width, channel in memory and seen as channel, height, width: what torch calls channels_last.
        x = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
        if self.shrinks:
            x = F.interpolate(x, self.shape, mode="area")
        maps = self.layers(x)
        return F.relu(self.output(mean_positions(maps * self.log_sharpness.exp())))


def mean_positions(maps: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch positions"]:
    """Where each map is active: mean row, then mean column, under the softmax over its pixels, from -1 to 1."""
    height, width = maps.shape[2:]
    weights = maps.flatten(2).softmax(2).unflatten(2, (height, width))
    rows, columns = (torch.linspace(-1, 1, side) if side > 1 else torch.zeros(1) for side in (height, width))
    return torch.cat([weights.sum(3) @ rows, weights.sum(2) @ columns], dim=1)


def shifted(pictures: Pictures, generator: Generator) -> Pictures:
    """Every picture moved by its own whole numbers of pixels; what comes in at an edge repeats the edge."""
    batch, height, width, _ = pictures.shape
    most = max(height, width) // SHIFT_SHARE
    rows, columns = (
        (torch.arange(side) + torch.randint(-most, most + 1, (batch, 1), generator=generator)).clamp(0, side - 1)
        for side in (height, width)
    )
    return pictures[torch.arange(batch)[:, None, None], rows[:, :, None], columns[:, None, :]]

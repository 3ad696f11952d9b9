"""Networks over a noisy action chunk, and the table that builds them."""

from torch import nn

from alula.policies.config import FieldConfig
from alula.policies.fields.chunk import ChunkShape
from alula.policies.fields.mlp import MLPField
from alula.policies.fields.unet1d import UNet1DField


def make_field(config: FieldConfig, chunk: ChunkShape, features: int, timed: bool) -> nn.Module:
    """Build the network of a configuration.

    Args:
        config: Kind and size.
        chunk: What it takes in and gives out.
        features: Elements of the conditioning.
        timed: Whether it is told the noisy chunk and the step; a one-step process needs neither.
    """
    match config.kind:
        case "unet1d":
            return UNet1DField(config, chunk, features, timed)
        case _:
            return MLPField(config, chunk, features, timed)


def zero_output(field: nn.Module) -> None:
    """Make every prediction of a field zero, by its last layer alone."""
    for parameter in field.get_submodule("output").parameters():
        nn.init.zeros_(parameter)

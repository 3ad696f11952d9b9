"""Networks over a noisy action chunk, and the table that builds them."""

from torch import nn

from alula.policies.config import FieldConfig
from alula.policies.fields.mlp import MLPField
from alula.policies.fields.unet1d import UNet1DField


def make_field(config: FieldConfig, horizon: int, action_size: int, features: int, num_steps: int) -> nn.Module:
    """Build the network of a configuration.

    Args:
        config: Kind and size.
        horizon: Steps of a chunk.
        action_size: Elements of an action.
        features: Elements of the conditioning.
        num_steps: Denoising steps it will be asked about; a one-step process needs no time input.
    """
    match config.kind:
        case "unet1d":
            return UNet1DField(config, horizon, action_size, features, num_steps)
        case _:
            return MLPField(config, horizon, action_size, features, num_steps)

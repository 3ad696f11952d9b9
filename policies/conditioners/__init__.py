"""Observation → features: what each kind of field passes through, and the table that chooses."""

from alula.core.errors import ConfigError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.policies.conditioners.conditioner import Conditioner, Observation
from alula.policies.conditioners.images import ImageConditioner
from alula.policies.conditioners.language import LanguageConditioner
from alula.policies.conditioners.multimodal import MultimodalConditioner
from alula.policies.conditioners.state import FINE_CLAMP, StateConditioner
from alula.policies.config import PolicyConfig

__all__ = [
    "FINE_CLAMP",
    "Conditioner",
    "ImageConditioner",
    "LanguageConditioner",
    "MultimodalConditioner",
    "Observation",
    "StateConditioner",
    "kind_of",
    "make_conditioner",
]

IMAGES = "observation.images."
"""Cameras, in LeRobot's vocabulary."""
EMBEDDING = "observation.language_embedding"
"""An instruction as numbers, from a language model outside."""


def kind_of(field: FieldSpec) -> str:
    """Which line of the table a field belongs to: `image`, `language` or `state`.

    Raises:
        ConfigError: it bears a camera's name but holds no colour pictures.
    """
    if field.name.startswith(IMAGES):
        if field.dtype != "uint8" or len(field.shape) != 3 or field.shape[-1] != 3:
            raise ConfigError(
                f"field '{field.name}' is {field.dtype} of shape {field.shape}; pictures are uint8 (height, width, 3). "
                f"Leave it out with fields=[...]"
            )
        return "image"
    return "language" if field.name == EMBEDDING else "state"


def make_conditioner(observation: SpaceSpec, config: PolicyConfig) -> StateConditioner:
    """What turns an observation into features: one conditioner for each kind of field that it has."""
    spaces = {
        kind: SpaceSpec(tuple(field for field in observation.values() if kind_of(field) == kind))
        for kind in ("state", "image", "language")
    }
    others: dict[str, Conditioner] = {}
    if spaces["image"]:
        others["image"] = ImageConditioner(spaces["image"], config.image_size, config.image_features)
    if spaces["language"]:
        others["language"] = LanguageConditioner(spaces["language"], config.language_features)
    return MultimodalConditioner(spaces["state"], others) if others else StateConditioner(spaces["state"])

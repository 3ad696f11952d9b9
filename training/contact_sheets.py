"""What the cameras saw: a few moments of a few episodes, small enough for one page."""

import base64
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from alula.core.spaces import FieldSpec
from alula.datasets.store import EpisodeStore

MOMENTS = 8
"""Frames of one episode, from its first step to its last."""
WIDTH = 160
"""Most pixels that a frame keeps in either direction."""
QUALITY = 85
"""Of the JPEGs."""
PICTURE_AXES = 3


@dataclass(frozen=True)
class Frame:
    """One moment."""

    step: int
    """Within its episode."""
    source: str
    """The picture itself, as a data URI."""


def pictures(store: EpisodeStore) -> list[FieldSpec]:
    """Observation fields that hold images: bytes of rows, columns, channels."""
    return [field for field in store.observation.values() if len(field.shape) == PICTURE_AXES and _is_image(field)]


def _is_image(field: FieldSpec) -> bool:
    return field.dtype == "uint8" and field.shape[-1] in (1, 3, 4)


def film_strip(store: EpisodeStore, name: str, episode: int) -> list[Frame]:
    """An episode's moments, as one camera saw them; fewer where it has fewer steps."""
    length = int(store.lengths[episode])
    start = int(store.episode_ends[episode]) - length
    steps = np.unique(np.linspace(0, length - 1, MOMENTS).round().astype(int)).tolist() if length else []
    return [Frame(step, _jpeg(store.read(name, start + step, start + step + 1)[0])) for step in steps]


def _jpeg(pixels: UInt8[ndarray, "height width channels"]) -> str:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
    image.thumbnail((WIDTH, WIDTH))
    buffer = BytesIO()
    image.save(buffer, "jpeg", quality=QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"

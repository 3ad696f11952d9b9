"""Single pictures as PNG, exact to the pixel, and back from whatever a file holds."""

from io import BytesIO

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, UnidentifiedImageError

from alula.core.errors import DatasetError


def encode_png(image: UInt8[ndarray, "height width 3"]) -> bytes:
    """The picture as the bytes of a PNG file; quick rather than small."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def decode_image(content: bytes, source: str) -> UInt8[ndarray, "height width 3"]:
    """A picture from the bytes of a file (PNG, JPEG, ...), as red, green and blue.

    Args:
        content: The file.
        source: Where it is from, for the message.

    Raises:
        DatasetError: it is no picture, or damaged.
    """
    try:
        return np.asarray(Image.open(BytesIO(content)).convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise DatasetError(f"a picture of {source} is damaged ({error}); restore it from a copy") from error

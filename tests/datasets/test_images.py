"""Single pictures: PNG to the pixel, others' files as red, green and blue, damaged ones by name."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from alula.core.errors import DatasetError
from alula.datasets.images import decode_image, encode_png


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (64, 48)])
def test_png_is_exact(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    content = encode_png(image)
    assert content.startswith(b"\x89PNG")
    assert np.array_equal(decode_image(content, "here"), image)


@pytest.mark.parametrize(("mode", "kind"), [("RGB", "jpeg"), ("L", "png"), ("RGBA", "png"), ("P", "gif")])
def test_others_files_become_three_colours(mode: str, kind: str) -> None:
    buffer = BytesIO()
    Image.new("RGB", (8, 4), (204, 204, 204)).convert(mode).save(buffer, kind)
    decoded = decode_image(buffer.getvalue(), "here")
    assert decoded.shape == (4, 8, 3)
    assert np.abs(decoded.astype(int) - 204).max() <= 2


def test_damaged_pictures_name_their_source() -> None:
    content = encode_png(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    for damaged in (b"", b"no picture", content[:20], content[: len(content) // 2]):
        with pytest.raises(DatasetError, match="column 'top'"):
            decode_image(damaged, "column 'top'")

"""A camera made of software: stripes that wander, and in a corner the time at which they were drawn."""

import time

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from alula.real_robot.cameras.camera import Picture
from alula.real_robot.cameras.config import SyntheticConfig

BITS = 8
"""The time is a square of 8 x 8 patches, white for 1, most significant bit first."""
STRIPES = 3
SPEED = 4
"""How far the stripes wander with every picture [pixel]."""

Image = UInt8[ndarray, "height width 3"]


class Pattern:
    """Draws pictures that differ from one another.

    Args:
        width: Of a picture [pixel].
        height: Of a picture [pixel].
        seed: Of its colours.
    """

    def __init__(self, width: int, height: int, seed: int) -> None:
        phase = np.random.default_rng(seed).uniform(0, 2 * np.pi, (1, 1, 3))
        across = np.arange(2 * width)[None, :, None] / width
        down = np.arange(height)[:, None, None] / height
        wave = np.sin(2 * np.pi * (STRIPES * across + down) + phase)
        self._texture, self._width = (128 + 100 * wave).astype(np.uint8), width

    def draw(self, number: int, time_ns: int) -> Image:
        """The picture of this number, with a time in its upper left corner [ns]."""
        start = SPEED * number % self._width
        picture: Image = self._texture[:, start : start + self._width].copy()
        bits = np.unpackbits(np.array([time_ns], ">i8").view("u1")).reshape(BITS, BITS)
        patch = _patch(picture)
        picture[: BITS * patch, : BITS * patch] = 255 * np.kron(bits, np.ones((patch, patch), np.uint8))[..., None]
        return picture


def read_time(picture: Image) -> int:
    """The time that a picture of a `Pattern` shows [ns]; it survives strong compression.

    Before a camera that films a screen, the difference to the frame's stamp is the camera's latency.
    """
    patch = _patch(picture)
    middles = patch * np.arange(BITS) + patch // 2
    bits = picture[np.ix_(middles, middles)].mean(axis=2) > 128
    return int(np.packbits(bits).view(">i8")[0])


def _patch(picture: Image) -> int:
    """Side of a patch [pixel]: all of them fill half of the shorter side."""
    return min(picture.shape[:2]) // (2 * BITS)


class SyntheticDriver:
    """Delivers a `Pattern` at a fixed rate.

    Args:
        config: Settings.
    """

    def __init__(self, config: SyntheticConfig) -> None:
        self._pattern = Pattern(config.width, config.height, config.seed)
        self._period_ns = round(1e9 / config.rate)

    def open(self) -> None:
        """Begin with picture 1."""
        self._number, self._due = 0, time.monotonic_ns()

    def grab(self) -> Picture:
        """The next one, when it is due."""
        self._number += 1
        self._due = max(self._due + self._period_ns, time.monotonic_ns())
        time.sleep((self._due - time.monotonic_ns()) / 1e9 if self._due > time.monotonic_ns() else 0.0)
        now = time.monotonic_ns()
        return Picture(self._pattern.draw(self._number, now), now)

    def close(self) -> None:
        """There is nothing to let go of."""

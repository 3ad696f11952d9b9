"""The T of PushT in the plane: its outline, and how much of one T another one covers."""

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

UNIT = 0.03
"""Width of bar and stem [m]; the bar is four of them long, the stem three, as in the original."""
BAR = ((0.0, 6 / 7 * UNIT), (2.0 * UNIT, 0.5 * UNIT))
STEM = ((0.0, -8 / 7 * UNIT), (0.5 * UNIT, 1.5 * UNIT))
"""Centre and half-sizes [m] in the T's frame, whose origin is its centre of mass and whose stem points along -y."""
AREA = 7.0 * UNIT**2
"""[m^2]"""


def _outline() -> Float64[ndarray, "8 2"]:
    (_, bar), (bar_x, bar_y) = BAR
    (_, stem), (stem_x, stem_y) = STEM
    top, middle, foot = bar + bar_y, bar - bar_y, stem - stem_y
    right = [(stem_x, foot), (stem_x, middle), (bar_x, middle), (bar_x, top)]
    return np.array(right + [(-x, y) for x, y in reversed(right)])


OUTLINE = _outline()
"""Vertices counterclockwise [m]."""
SIGNS = np.array([-1.0, 1.0] * 4)
"""A polygon of right angles is the signed sum of the quadrants below and left of its vertices."""


def coverage(position: Float64[ndarray, "batch 2"], yaw: Float64[ndarray, " batch"]) -> Float64[ndarray, " batch"]:
    """Share of a T at the origin that a T at `position` [m], turned by `yaw` [rad], covers.

    Exact: the area within a quadrant is half the sum of a x b over the parts (a, b) of the outline in it, seen from
    its corner, for on the quadrant's own two edges a x b is zero; T and target are eight edges and eight quadrants.
    """
    cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    x, y = OUTLINE.T
    outline = np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1) + position[:, None]
    start = outline[:, :, None] - OUTLINE
    way = (np.roll(outline, -1, axis=1) - outline)[:, :, None]
    way = np.where(np.abs(way) < 1e-15, 1e-15, way)
    crossing = -start / way
    enter = np.where(way < 0.0, crossing, 0.0).max(axis=-1, initial=0.0)
    leave = np.where(way < 0.0, 1.0, crossing).min(axis=-1, initial=1.0)
    turn = start[..., 0] * way[..., 1] - start[..., 1] * way[..., 0]
    area = 0.5 * np.einsum("bec,c->b", np.maximum(leave - enter, 0.0) * turn, SIGNS)
    return area / AREA

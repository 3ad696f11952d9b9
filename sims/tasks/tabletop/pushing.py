"""Which push brings a T nearer to its target: a model of slow pushing, and a search over places and directions.

The model is the quasi-static one of Lynch, Maekawa & Tanie 1992, "Manipulation and active sensing by pushing using
tactile feedback": the friction forces that a sliding thing can feel lie on an ellipsoid, the pusher sticks.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.sims.tasks.tabletop.t_shape import BAR, OUTLINE, STEM

STICK_RADIUS = 0.01
"""Of the pushing stick [m]."""
FRICTION_RADIUS = 0.045
"""Ratio of the largest friction torque to the largest friction force of the T on the table [m]: somewhat above the
mean distance of its area from its centre of mass, 40 mm, for MuJoCo's contacts are at its corners."""
GYRATION = 0.044
"""Root mean square distance of the T's area from its centre of mass [m]: turns count as its points' motion."""
GAP = 0.012
"""Distance of the stick from the T before a push [m]."""
MARGIN = 0.004
"""Least distance of the stick from the T on its way down [m]."""
SPACING = 0.01
"""Between places to push at [m]."""
SLANTS = (-0.35, 0.0, 0.35)
"""Directions of pushes against the normal [rad]; with rubber on plastic none of them slips."""
NUM_STEPS, STEP = 12, 0.004
"""Pushes are so many of these steps long at most [m]."""


@dataclass
class Push:
    """A straight motion of the stick in the plane."""

    start: Float64[ndarray, "batch 2"]
    """[m]"""
    end: Float64[ndarray, "batch 2"]
    """[m]"""


def _distance(points: Float64[ndarray, "points 2"]) -> Float64[ndarray, " points"]:
    """From the T, zero within [m]."""
    away = [np.linalg.norm(np.maximum(np.abs(points - np.array(c)) - np.array(h), 0.0), axis=1) for c, h in (BAR, STEM)]
    return np.minimum(*away)


def _candidates() -> tuple[Float64[ndarray, "candidates 2"], Float64[ndarray, "candidates 2"]]:
    """Where the stick's centre is when it touches, and its direction, in the T's frame."""
    touches, directions = [], []
    for begin, end in zip(OUTLINE, np.roll(OUTLINE, -1, axis=0), strict=True):
        length = float(np.linalg.norm(end - begin))
        along = (end - begin) / length
        inward = np.array([-along[1], along[0]])
        count = round(length / SPACING)
        for place in (np.arange(count) + 0.5) * length / count:
            for slant in SLANTS:
                touches.append(begin + place * along - STICK_RADIUS * inward)
                directions.append(np.cos(slant) * inward + np.sin(slant) * along)
    touch, direction = np.array(touches), np.array(directions)
    free = _distance(touch - GAP * direction) > STICK_RADIUS + MARGIN
    return touch[free], direction[free]


TOUCH, DIRECTION = _candidates()


def best_push(
    position: Float64[ndarray, "batch 2"],
    yaw: Float64[ndarray, " batch"],
    stick: Float64[ndarray, "batch 2"] | None = None,
) -> Push:
    """The push after which the T's points are nearest to where they shall be.

    Args:
        position: Of the T in the frame of its target [m].
        yaw: Of the T in that frame [rad].
        stick: Where the stick stands already [m]; default anywhere.
    """
    at, turn, costs = np.tile(position[:, None], (1, len(TOUCH), 1)), np.tile(yaw[:, None], (1, len(TOUCH))), []
    touch, direction = _turned(TOUCH, yaw), _turned(DIRECTION, yaw)
    contact = touch + STICK_RADIUS * direction
    for _ in range(NUM_STEPS):
        step, angle = slide(contact, STEP * direction)
        at, turn = at + step, turn + angle
        contact = contact + STEP * direction - step
        costs.append(np.einsum("bki,bki->bk", at, at) + 2.0 * GYRATION**2 * (1.0 - np.cos(turn)))
    cost = np.stack(costs, axis=2)
    start = position[:, None] + touch - GAP * direction
    if stick is not None:
        away = np.linalg.norm(start - stick[:, None], axis=2)
        cost = cost + np.where(away > away.min(axis=1, keepdims=True) + 0.002, 1.0, 0.0)[:, :, None]
    rows = np.arange(len(yaw))
    which, steps = np.divmod(cost.reshape(len(yaw), -1).argmin(axis=1), NUM_STEPS)
    begin = start[rows, which]
    return Push(begin, begin + (GAP + STEP * (1.0 + steps))[:, None] * direction[rows, which])


def _turned(vectors: Float64[ndarray, "k 2"], yaw: Float64[ndarray, " batch"]) -> Float64[ndarray, "batch k 2"]:
    cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    x, y = vectors.T
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


def slide(
    contact: Float64[ndarray, "batch k 2"], step: Float64[ndarray, "batch k 2"]
) -> tuple[Float64[ndarray, "batch k 2"], Float64[ndarray, "batch k"]]:
    """How the T moves [m, rad] when a point of it, seen from its centre of mass, is moved by `step`."""
    (x, y), (step_x, step_y), c = np.moveaxis(contact, -1, 0), np.moveaxis(step, -1, 0), FRICTION_RADIUS**2
    scale = 1.0 / (c + x * x + y * y)
    move_x = scale * ((c + x * x) * step_x + x * y * step_y)
    move_y = scale * (x * y * step_x + (c + y * y) * step_y)
    return np.stack([move_x, move_y], axis=-1), (x * move_y - y * move_x) / c

"""Motion generators: small motions with a few numbers that say how, from which behaviours are made."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.real_robot.recovery.behaviors import Motion, Scene

Test = Callable[[Scene], bool]


def never(scene: Scene) -> bool:
    """Nothing ends the motion early."""
    return False


def line(scene: Scene, way: Float64[ndarray, "3"], speed: float, until: Test = never) -> Motion:
    """Straight on from the last wish; works when it has gone the whole way, or `until` is so.

    Args:
        scene: Its wish is where it begins.
        way: How far [m].
        speed: How fast [m/s].
        until: Asked before every step.
    """
    start, length = scene.wish.copy(), float(np.linalg.norm(way))
    gone = 0.0
    while gone < length and not until(scene):
        gone = min(gone + speed * scene.period, length)
        wish = start.copy()
        wish[:3] += way * (gone / length)
        yield wish
    return True


def go(scene: Scene, place: Float64[ndarray, "3"], speed: float, until: Test = never) -> Motion:
    """Straight to a place; otherwise as `line`."""
    return line(scene, place - scene.wish[:3], speed, until)


def spiral(scene: Scene, pitch: float, radius: float, speed: float, press: float, until: Test) -> Motion:
    """An Archimedean spiral around the last wish, pressed down; works when `until` is so, before the radius is.

    Args:
        scene: Its wish is the middle.
        pitch: Distance between two turns [m].
        radius: Where it ends [m].
        speed: Along the spiral [m/s].
        press: How far below the tool its wish is [m]; a compliant robot presses in proportion.
        until: Asked before every step.
    """
    middle, angle = scene.wish.copy(), 0.0
    while not until(scene):
        distance = pitch * angle / (2 * np.pi)
        if distance > radius:
            return False
        wish = middle.copy()
        wish[:2] += distance * np.array([np.cos(angle), np.sin(angle)])
        wish[2] = scene.pose[2] - press
        yield wish
        # The arc of a step is sqrt(r^2 + r'^2) times the angle of the step.
        angle += speed * scene.period / float(np.hypot(distance, pitch / (2 * np.pi)))
    return True


def wait(scene: Scene, seconds: float) -> Motion:
    """Stay where the last wish is."""
    for _ in range(round(seconds / scene.period)):
        yield scene.wish
    return True

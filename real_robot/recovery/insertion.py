"""Putting a jammed insertion right: lift, go back, press, and search the hole on a spiral."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.real_robot.recovery.behaviors import Action, Motion, Node, Retry, Scene, Sequence
from alula.real_robot.recovery.motions import Test, go, line, spiral
from alula.real_robot.recovery.parameters import Parameter, Parameters

SPACE = Parameters(
    (
        Parameter("lift", 0.001, 0.02, 0.01, "m"),
        Parameter("travel_speed", 0.02, 0.2, 0.05, "m/s"),
        Parameter("touch_speed", 0.005, 0.1, 0.02, "m/s"),
        Parameter("pitch", 0.0003, 0.003, 0.001, "m"),
        Parameter("radius", 0.002, 0.008, 0.006, "m"),
        Parameter("search_speed", 0.005, 0.06, 0.02, "m/s"),
        Parameter("press", 0.0005, 0.005, 0.002, "m"),
    )
)
"""Ranges and defaults are our choice: what somebody would try first, for a peg whose clearance is not well known."""
FOUND = 0.0015
"""The tool has found the hole when it is this far below where it first touched [m]."""
ATTEMPTS = 3
"""Searches, each from the middle again."""
STILL = 0.01
"""Speed below which the tool stands [m/s]: our choice."""
REACH = 0.05
"""How far it goes down at most, until something is there [m]."""
PATIENCE_S = 1.0
"""Pushing without getting any deeper for so long has failed [s]: our choice."""
DEEPER = 0.0002
"""What counts as deeper [m]."""


def search_and_insert(place: Float64[ndarray, "3"], depth: float, values: Mapping[str, float]) -> Node:
    """A tree that begins with a peg pressed on something beside its hole, and ends with the peg in it.

    Args:
        place: Where the hole's edge is believed to be [m]; the search is around it.
        depth: How far below the edge the tool must come [m].
        values: Of `SPACE`.
    """
    press, travel = values["press"], values["travel_speed"]
    touch = Touch(press)

    def found(scene: Scene) -> bool:
        # Where it touched deeper than the edge, it was in the hole already.
        return bool(scene.pose[2] < max(touch.height, place[2]) - FOUND)

    def inserted(scene: Scene) -> bool:
        return bool(scene.pose[2] < place[2] - depth)

    above = np.array([place[0], place[1], place[2] + values["lift"]])
    search = Sequence(
        Action(lambda scene: go(scene, np.array([*scene.pose[:2], above[2]]), travel)),
        Action(lambda scene: go(scene, above, travel)),
        Action(lambda scene: line(scene, np.array([0.0, 0.0, -REACH]), values["touch_speed"], touch)),
        Action(lambda s: spiral(s, values["pitch"], values["radius"], values["search_speed"], press, found)),
        Action(lambda scene: push(scene, press, inserted)),
    )
    return Retry(search, ATTEMPTS)


class Touch:
    """Whether the tool stands on something: its wish is farther down than it is, and it does not follow.

    Args:
        press: How far below the tool its wish must be [m].
    """

    def __init__(self, press: float) -> None:
        self.press, self.height = press, np.inf
        """The height is where the tool was when last asked [m]."""

    def __call__(self, scene: Scene) -> bool:
        """To be asked every period on the way down."""
        stands = bool(abs(scene.pose[2] - self.height) < STILL * scene.period)
        self.height = float(scene.pose[2])
        return stands and bool(scene.wish[2] <= self.height - self.press)


def push(scene: Scene, press: float, inserted: Test) -> Motion:
    """Press down and give way sideways; works when it is in, and not when it gets no deeper any more."""
    deepest, still = float(scene.pose[2]), 0
    while not inserted(scene):
        if scene.pose[2] < deepest - DEEPER:
            deepest, still = float(scene.pose[2]), 0
        still += 1
        if still * scene.period > PATIENCE_S:
            return False
        wish = scene.wish.copy()
        wish[:2], wish[2] = scene.pose[:2], scene.pose[2] - press
        yield wish
    return True

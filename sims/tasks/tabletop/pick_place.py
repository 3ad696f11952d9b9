"""Carry a cube to a marked place on the table."""

import mujoco
import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from alula.sims.engine import BatchState
from alula.sims.tasks.tabletop.lift import HALF, MASS
from alula.sims.tasks.tabletop.placing import RADIUS, PlacingTask
from alula.sims.tasks.tabletop.scene import add_block, add_mark, apart

DISTANCE = 0.08
"""Least distance between start and goal [m]."""
TRIES = 8


class PickPlace(PlacingTask):
    """40 mm cube to a mark; reward 1 and the end once it rests there, within 2 cm, and is let go."""

    num_draws = 4 * TRIES + 1
    thing_names = ("cube",)
    fixture_names = ("goal",)
    moved = "cube"

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """One cube and a mark."""
        add_block(spec, "cube", (HALF, HALF, HALF), MASS, (0.90, 0.45, 0.13, 1.0))
        add_mark(spec, "goal", HALF + RADIUS, (0.15, 0.60, 0.25, 1.0))

    def lay_out(
        self, state: BatchState, env_ids: Int64[ndarray, " selected"], unit: Float64[ndarray, "selected n"]
    ) -> None:
        """The cube turned any way, both anywhere, but not in the same place."""
        places = apart(unit[:, 1:].reshape(-1, TRIES, 2, 2), self.center, self.half, DISTANCE)
        self.things["cube"].place(state, env_ids, np.insert(places[:, 0], 2, HALF, axis=1), 2.0 * np.pi * unit[:, 0])
        self.fixtures["goal"].place(state, env_ids, np.insert(places[:, 1], 2, 0.0, axis=1), np.zeros(len(unit)))

    def goal(self, state: BatchState) -> Float64[ndarray, "num_envs 3"]:
        """On the mark."""
        return self.fixtures["goal"].position(state) + np.array([0.0, 0.0, HALF])

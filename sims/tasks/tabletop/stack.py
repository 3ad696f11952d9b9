"""Put one cube on another."""

import mujoco
import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from alula.sims.engine import BatchState
from alula.sims.tasks.tabletop.lift import HALF, MASS
from alula.sims.tasks.tabletop.placing import PlacingTask
from alula.sims.tasks.tabletop.scene import add_block, apart

DISTANCE = 0.085
"""Least distance between the cubes, so that the open gripper fits between them [m]."""
TRIES = 8


class Stack(PlacingTask):
    """A red 40 mm cube onto a green one; reward 1 and the end once it rests there, within 2 cm, and is let go."""

    num_draws = 4 * TRIES + 2
    thing_names = ("red", "green")
    moved = "red"

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """Two cubes."""
        add_block(spec, "red", (HALF, HALF, HALF), MASS, (0.80, 0.16, 0.14, 1.0))
        add_block(spec, "green", (HALF, HALF, HALF), MASS, (0.15, 0.60, 0.25, 1.0))

    def lay_out(
        self, state: BatchState, env_ids: Int64[ndarray, " selected"], unit: Float64[ndarray, "selected n"]
    ) -> None:
        """Anywhere, turned any way, with room for the gripper between them."""
        places = apart(unit[:, 2:].reshape(-1, TRIES, 2, 2), self.center, self.half, DISTANCE)
        for index, cube in enumerate(self.things.values()):
            position = np.insert(places[:, index], 2, HALF, axis=1)
            cube.place(state, env_ids, position, 2.0 * np.pi * unit[:, index])

    def goal(self, state: BatchState) -> Float64[ndarray, "num_envs 3"]:
        """On the green cube."""
        return self.things["green"].position(state) + np.array([0.0, 0.0, 2 * HALF])

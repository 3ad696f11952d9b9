"""What tasks share in which a block shall lie somewhere."""

from abc import abstractmethod

from jaxtyping import Bool, Float64
from numpy import ndarray

from alula.sims.engine import BatchState
from alula.sims.tasks.tabletop.base import TabletopTask
from alula.sims.tasks.tabletop.expert import Waypoint
from alula.sims.tasks.tabletop.grasping import facing, grasp, place
from alula.sims.tasks.tabletop.lift import HALF
from alula.sims.tasks.tabletop.predicates import LYING, near, released, still

RADIUS = 0.02
"""How near to its goal the block must come horizontally [m]."""


class PlacingTask(TabletopTask):
    """The 40 mm block `moved` shall rest at a goal and be let go."""

    moved: str

    @abstractmethod
    def goal(self, state: BatchState) -> Float64[ndarray, "num_envs 3"]:
        """Where the block's centre shall be [m]."""

    def success(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """At the goal, at rest and let go."""
        block = self.things[self.moved]
        position = block.position(state)
        there = near(position, self.goal(state), RADIUS, LYING)
        return there & still(block.velocity(state)) & released(state, self.arms[0], position, 2 * HALF)

    def plan(self, state: BatchState) -> list[Waypoint]:
        """Grasp, carry, set down; again where it failed."""
        block = self.things[self.moved]
        position, yaw = block.position(state), facing(block.yaw(state), self.home_yaw[0])
        return [
            *grasp(position, yaw),
            *place(state, self.arms[0], position, self.goal(state), self.success(state)),
        ]

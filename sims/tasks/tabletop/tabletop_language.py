"""Do with coloured blocks what a sentence says."""

import mujoco
import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from alula.core.errors import ConfigError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Observation
from alula.sims.engine import BatchState
from alula.sims.tasks.tabletop.base import TabletopTask
from alula.sims.tasks.tabletop.config import TabletopLanguageConfig
from alula.sims.tasks.tabletop.expert import Waypoint
from alula.sims.tasks.tabletop.grasping import RELEASE, facing, grasp, place
from alula.sims.tasks.tabletop.instructions import (
    BLOCKS,
    HALF,
    LENGTH,
    PADS,
    TEMPLATES,
    Anchor,
    Instruction,
    all_instructions,
    encode,
)
from alula.sims.tasks.tabletop.predicates import LYING, near, released, still
from alula.sims.tasks.tabletop.scene import add_block, add_mark, apart

COLORS = {
    "red": (0.80, 0.16, 0.14, 1.0),
    "green": (0.15, 0.60, 0.25, 1.0),
    "blue": (0.15, 0.30, 0.75, 1.0),
    "yellow": (0.93, 0.78, 0.15, 1.0),
}
MASS = 0.03
"""Of a block [kg]."""
PAD = 0.03
"""Half a pad's edge [m]."""
SPACING = 0.065
"""Wanted distance between things, and between them and the goal: so the gripper fits between them [m]."""
GAP = 0.06
"""Distance of two blocks from the middle between them, if something is to be put there [m]."""
HEIGHT = 0.03
"""How far from right a height in the air may be [m]."""
TRIES = 32
ROOM = 0.1
"""Smallest half-width of a workspace in which all this fits [m]."""
THINGS = BLOCKS + PADS
START, CENTER = len(THINGS), len(THINGS) + 1
"""Numbers of anchors that are not things: where the moved block began, and the middle of the workspace."""
NOTHING = len(THINGS)
"""Number for no thing."""
INSTRUCTION = FieldSpec(name="observation.instruction", shape=(LENGTH,), dtype="uint8")


class TabletopLanguage(TabletopTask):
    """Four blocks, two pads and an instruction in words; reward 1 and the end once it is fulfilled.

    The goal is in the words alone, `observation.instruction`, which `instructions.decode` makes readable.
    """

    num_draws = 5 + len(BLOCKS) + 2 * TRIES * len(THINGS)
    thing_names = tuple(block.replace(" ", "_") for block in BLOCKS)
    fixture_names = tuple(pad.replace(" ", "_") for pad in PADS)

    def __init__(self, config: TabletopLanguageConfig) -> None:
        super().__init__(config)
        if self.half < ROOM:
            raise ConfigError(
                f"the workspace of robot={config.robot} is {2 * self.half} m wide; "
                f"tabletop_language needs {2 * ROOM} m: use another robot"
            )
        self.observation = SpaceSpec((*self.observation.fields, INSTRUCTION))
        self.instructions = all_instructions(config.paraphrases, config.template)
        self.texts = np.stack([encode(instruction.text) for instruction in self.instructions])
        self._tabulate(self.instructions)

    def _tabulate(self, instructions: list[Instruction]) -> None:
        """What instructions ask for, as arrays: one row each."""
        templates = [instruction.template for instruction in instructions]
        _, self.first, self.count = np.unique(
            [TEMPLATES.index(template) for template in templates], return_index=True, return_counts=True
        )
        self.moved = np.array([THINGS.index(instruction.things[0]) for instruction in instructions])
        self.anchors = np.array([_anchors(instruction) for instruction in instructions])
        self.fixed = np.array([_fixed(instruction) for instruction in instructions])
        in_workspace = np.array([template.anchor == Anchor.WORKSPACE for template in templates])
        offset = np.array([template.offset for template in templates])
        self.offset = np.where(in_workspace[:, None], self.half * offset, offset)
        self.radius = np.array([template.radius for template in templates])
        self.in_the_air = np.array([template.in_the_air for template in templates])
        self.height = np.where(self.in_the_air, HEIGHT, LYING)

    def memory(self) -> dict[str, tuple[int, ...]]:
        """Which instruction, and where its block began."""
        return {"instruction": (1,), "start": (3,)}

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """Blocks and pads."""
        for name in self.thing_names:
            add_block(spec, name, (HALF, HALF, HALF), MASS, COLORS[name.split("_")[0]])
        for name in self.fixture_names:
            add_mark(spec, name, PAD, COLORS[name.split("_")[0]])

    def lay_out(
        self, state: BatchState, env_ids: Int64[ndarray, " selected"], unit: Float64[ndarray, "selected n"]
    ) -> None:
        """An instruction, and things such that there is something to do for it and room to do it."""
        kind = (len(self.first) * unit[:, 0]).astype(np.int64)
        chosen = self.first[kind] + (self.count[kind] * unit[:, 1]).astype(np.int64)
        spots = self._spots(chosen, unit[:, 2:5])
        blocks, rows = len(BLOCKS), np.arange(len(unit))
        tries = np.zeros((len(unit), TRIES, len(THINGS) + 1, 2))
        tries[:, :, : len(THINGS)] = unit[:, 5 + blocks :].reshape(-1, TRIES, len(THINGS), 2)
        for column, spot in enumerate(spots[:, 1:].transpose(1, 0, 2)):
            tries[rows, :, self.fixed[chosen, column]] = (0.5 + 0.5 * (spot - self.center) / self.half)[:, None]
        places = np.zeros((len(unit), len(THINGS) + 1, 3))
        places[:, :, :2] = apart(tries, self.center, self.half, SPACING, spots)
        places[:, :blocks, 2] = HALF
        for index, block in enumerate(self.things.values()):
            block.place(state, env_ids, places[:, index], 2.0 * np.pi * unit[:, 5 + index])
        for index, pad in enumerate(self.fixtures.values()):
            pad.place(state, env_ids, places[:, blocks + index], np.zeros(len(unit)))
        state.extras["instruction"][env_ids, 0] = chosen
        state.extras["start"][env_ids] = places[rows, self.moved[chosen]]

    def _spots(
        self, chosen: Int64[ndarray, " selected"], unit: Float64[ndarray, "selected 3"]
    ) -> Float64[ndarray, "selected 3 2"]:
        """The goal, and the things whose places it fixes, all in the workspace."""
        angle = 2.0 * np.pi * unit[:, 2]
        across = GAP * np.column_stack([np.cos(angle), np.sin(angle)])
        between = (self.fixed[chosen, 1] != NOTHING)[:, None]
        ahead = np.zeros((len(chosen), 3, 2))  # of the goal itself, and of these things: the way to the goal
        ahead[:, 1] = np.where(between, across, self.offset[chosen, :2])
        ahead[:, 2] = np.where(between, -across, 0.0)
        low, high = ahead.max(axis=1) - self.half, ahead.min(axis=1) + self.half
        anywhere = low + (high - low) * unit[:, :2]
        in_workspace = (self.anchors[chosen, 0] == CENTER)[:, None]
        goal = np.where(in_workspace, self.offset[chosen, :2], anywhere)
        return self.center + goal[:, None] - ahead

    def observe(self, state: BatchState) -> Observation:
        """As in all tabletop tasks, and the words."""
        return super().observe(state) | {"observation.instruction": self.texts[self._chosen(state)]}

    def _chosen(self, state: BatchState) -> Int64[ndarray, " num_envs"]:
        return state.extras["instruction"][:, 0].astype(np.int64)

    def _moved(self, state: BatchState, values: list[ndarray]) -> ndarray:
        """Of one array per block the rows of the block to be moved."""
        return np.stack(values)[self.moved[self._chosen(state)], np.arange(len(state.time))]

    def goal(self, state: BatchState) -> Float64[ndarray, "num_envs 3"]:
        """Where the block's centre shall be [m]."""
        lying = np.array([0.0, 0.0, HALF])
        anchors = [block.position(state) for block in self.things.values()]
        anchors += [pad.position(state) + lying for pad in self.fixtures.values()]
        anchors += [state.extras["start"], np.tile([*self.center, HALF], (len(state.time), 1))]
        chosen, rows, positions = self._chosen(state), np.arange(len(state.time)), np.stack(anchors)
        first, second = (positions[self.anchors[chosen, column], rows] for column in range(2))
        return (first + second) / 2 + self.offset[chosen]

    def position(self, state: BatchState) -> Float64[ndarray, "num_envs 3"]:
        """Of the block to be moved [m]."""
        return self._moved(state, [block.position(state) for block in self.things.values()])

    def success(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """The block is where it should be, held up or left there, as the instruction says."""
        chosen, position = self._chosen(state), self.position(state)
        there = near(position, self.goal(state), self.radius[chosen], self.height[chosen])
        velocity = self._moved(state, [block.velocity(state) for block in self.things.values()])
        left = still(velocity) & released(state, self.arms[0], position, 2 * HALF)
        return there & (self.in_the_air[chosen] | left)

    def plan(self, state: BatchState) -> list[Waypoint]:
        """Grasp, carry, set down; again where it failed. What is to be held up is held up on the way."""
        position = self.position(state)
        yaw = facing(self._moved(state, [block.yaw(state) for block in self.things.values()]), self.home_yaw[0])
        there = place(state, self.arms[0], position, self.goal(state), self.success(state))
        return [*grasp(position, yaw, RELEASE), *there]


def _anchors(instruction: Instruction) -> tuple[int, int]:
    """The two anchors in whose middle the goal is measured, which may be the same."""
    match instruction.template.anchor:
        case Anchor.START:
            return START, START
        case Anchor.WORKSPACE:
            return CENTER, CENTER
        case Anchor.OTHERS:
            others = [THINGS.index(thing) for thing in instruction.things[1:]]
            return others[0], others[-1]


def _fixed(instruction: Instruction) -> tuple[int, int]:
    """The things whose places follow from the goal's."""
    first, second = _anchors(instruction)
    if first == START:
        return THINGS.index(instruction.things[0]), NOTHING
    return (NOTHING if first == CENTER else first), (NOTHING if first == second else second)

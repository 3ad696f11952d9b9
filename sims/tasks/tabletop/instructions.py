"""What one can be told to do with coloured blocks: templates, their wordings, and what each of them asks for.

Left and right, near and far are the robot's own: it looks along +x, +y is to its left.
"""

from dataclasses import dataclass
from enum import StrEnum
from itertools import product

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

BLOCKS = tuple(f"{color} block" for color in ("red", "green", "blue", "yellow"))
PADS = tuple(f"{color} pad" for color in ("red", "blue"))
KINDS = {"block": BLOCKS, "pad": PADS, "thing": BLOCKS + PADS}
"""What may take a template's place of that kind."""
HALF = 0.015
"""Half a block's edge [m]."""
BESIDE = 0.07
"""Distance of neighbours' centres [m]."""
AWAY = 0.08
"""How far to push or pull something [m]."""
HIGH = 0.09
"""How far to lift something [m]."""
PARAPHRASES = ("train", "held_out")
LENGTH = 96
"""Bytes of an observed instruction."""


class Anchor(StrEnum):
    """From where a goal is measured."""

    START = "start"
    """Where the moved block began."""
    OTHERS = "others"
    """The other things of the instruction; the middle of them if there are two."""
    WORKSPACE = "workspace"
    """The middle of the workspace; offsets are in half-widths of it."""


@dataclass(frozen=True)
class Template:
    """A kind of instruction: the first thing that it names is to be moved to a goal."""

    name: str
    kinds: tuple[str, ...]
    """What may be named, in order: keys of `KINDS`."""
    anchor: Anchor
    offset: tuple[float, float, float]
    """From the anchor to the goal [m]; from where the block's centre would be if it lay there."""
    radius: float
    """How near to the goal the block must come horizontally [m]."""
    train: tuple[str, ...]
    """Wordings, with {0}, {1}, ... for the things named."""
    held_out: tuple[str, ...]
    """Wordings to be tested on."""
    in_the_air: bool = False
    """Whether the block is to be held up; otherwise it must rest and be let go."""

    def wordings(self, paraphrases: str) -> tuple[str, ...]:
        """Those of "train" or of "held_out"."""
        return self.train if paraphrases == "train" else self.held_out

    def choices(self) -> list[tuple[str, ...]]:
        """All that can be named, each thing once."""
        named = product(*(KINDS[kind] for kind in self.kinds))
        return [things for things in named if len(set(things)) == len(things)]


def _beside(
    name: str, offset: tuple[float, float, float], train: tuple[str, ...], held_out: tuple[str, ...]
) -> Template:
    return Template(name, ("block", "thing"), Anchor.OTHERS, offset, 0.03, train, held_out)


def _to_place(
    name: str, offset: tuple[float, float, float], train: tuple[str, ...], held_out: tuple[str, ...]
) -> Template:
    return Template(name, ("block",), Anchor.WORKSPACE, offset, 0.04, train, held_out)


def _shift(
    name: str, offset: tuple[float, float, float], train: tuple[str, ...], held_out: tuple[str, ...]
) -> Template:
    return Template(name, ("block",), Anchor.START, offset, 0.04, train, held_out)


TEMPLATES = (
    Template(
        name="lift",
        kinds=("block",),
        anchor=Anchor.START,
        offset=(0.0, 0.0, HIGH),
        radius=0.08,
        train=("lift the {0}", "pick up the {0}", "raise the {0} off the table", "take the {0}"),
        held_out=("grab the {0} and hold it up", "get the {0} off the table"),
        in_the_air=True,
    ),
    Template(
        name="hold_over",
        kinds=("block", "pad"),
        anchor=Anchor.OTHERS,
        offset=(0.0, 0.0, HIGH),
        radius=0.03,
        train=("hold the {0} over the {1}", "hold the {0} above the {1}", "lift the {0} above the {1}"),
        held_out=("keep the {0} in the air over the {1}", "let the {0} hover above the {1}"),
        in_the_air=True,
    ),
    Template(
        name="put_on",
        kinds=("block", "pad"),
        anchor=Anchor.OTHERS,
        offset=(0.0, 0.0, 0.0),
        radius=0.03,
        train=("put the {0} on the {1}", "place the {0} on the {1}", "move the {0} onto the {1}"),
        held_out=("set the {0} down on the {1}", "the {1} is where the {0} belongs"),
    ),
    Template(
        name="stack",
        kinds=("block", "block"),
        anchor=Anchor.OTHERS,
        offset=(0.0, 0.0, 2 * HALF),
        radius=0.015,
        train=("stack the {0} on the {1}", "put the {0} on top of the {1}", "build a tower: the {0} on the {1}"),
        held_out=("pile the {0} onto the {1}", "use the {1} as the base for the {0}"),
    ),
    _beside(
        "left_of",
        (0.0, BESIDE, 0.0),
        (
            "put the {0} to the left of the {1}",
            "place the {0} left of the {1}",
            "move the {0} to the left side of the {1}",
        ),
        ("the {0} goes on the left of the {1}", "set the {0} down on the left of the {1}"),
    ),
    _beside(
        "right_of",
        (0.0, -BESIDE, 0.0),
        (
            "put the {0} to the right of the {1}",
            "place the {0} right of the {1}",
            "move the {0} to the right side of the {1}",
        ),
        ("the {0} goes on the right of the {1}", "set the {0} down on the right of the {1}"),
    ),
    _beside(
        "in_front_of",
        (-BESIDE, 0.0, 0.0),
        ("put the {0} in front of the {1}", "place the {0} before the {1}", "move the {0} to the near side of the {1}"),
        ("the {0} goes on your side of the {1}", "set the {0} down in front of the {1}"),
    ),
    _beside(
        "behind",
        (BESIDE, 0.0, 0.0),
        ("put the {0} behind the {1}", "place the {0} beyond the {1}", "move the {0} to the far side of the {1}"),
        ("the {0} goes to the back of the {1}", "set the {0} down behind the {1}"),
    ),
    Template(
        name="between",
        kinds=("block", "block", "block"),
        anchor=Anchor.OTHERS,
        offset=(0.0, 0.0, 0.0),
        radius=0.025,
        train=("put the {0} between the {1} and the {2}", "place the {0} in the middle of the {1} and the {2}"),
        held_out=("the {0} goes between the {1} and the {2}", "fill the gap of the {1} and the {2} with the {0}"),
    ),
    _to_place(
        "to_center",
        (0.0, 0.0, 0.0),
        ("move the {0} to the center", "put the {0} in the middle of the table", "center the {0}"),
        ("bring the {0} to the middle", "the {0} belongs in the center"),
    ),
    _to_place(
        "to_far_left",
        (0.8, 0.8, 0.0),
        ("move the {0} to the far left corner", "put the {0} in the back left corner"),
        ("the {0} belongs at the back on the left", "bring the {0} to the corner far to the left"),
    ),
    _to_place(
        "to_far_right",
        (0.8, -0.8, 0.0),
        ("move the {0} to the far right corner", "put the {0} in the back right corner"),
        ("the {0} belongs at the back on the right", "bring the {0} to the corner far to the right"),
    ),
    _to_place(
        "to_near_left",
        (-0.8, 0.8, 0.0),
        ("move the {0} to the near left corner", "put the {0} in the front left corner"),
        ("the {0} belongs at the front on the left", "bring the {0} to the corner close to you on the left"),
    ),
    _to_place(
        "to_near_right",
        (-0.8, -0.8, 0.0),
        ("move the {0} to the near right corner", "put the {0} in the front right corner"),
        ("the {0} belongs at the front on the right", "bring the {0} to the corner close to you on the right"),
    ),
    _shift(
        "push_left",
        (0.0, AWAY, 0.0),
        ("push the {0} to the left", "move the {0} left", "shift the {0} to the left"),
        ("nudge the {0} leftwards", "the {0} should be further left"),
    ),
    _shift(
        "push_right",
        (0.0, -AWAY, 0.0),
        ("push the {0} to the right", "move the {0} right", "shift the {0} to the right"),
        ("nudge the {0} rightwards", "the {0} should be further right"),
    ),
    _shift(
        "push_away",
        (AWAY, 0.0, 0.0),
        ("push the {0} away", "move the {0} forward", "shift the {0} away from you"),
        ("nudge the {0} forwards", "the {0} should be further away"),
    ),
    _shift(
        "pull_near",
        (-AWAY, 0.0, 0.0),
        ("pull the {0} towards you", "move the {0} back", "shift the {0} closer to you"),
        ("nudge the {0} backwards", "the {0} should be closer to you"),
    ),
)  # fmt: skip
TEMPLATE_NAMES = tuple(template.name for template in TEMPLATES)


@dataclass(frozen=True)
class Instruction:
    """One sentence about certain things."""

    template: Template
    things: tuple[str, ...]
    """What it names: the block to be moved first."""
    text: str


def all_instructions(paraphrases: str, template: str = "") -> list[Instruction]:
    """Every sentence of every template, or of one, in order of the templates.

    Args:
        paraphrases: "train" or "held_out".
        template: Name of the only one; empty for all.
    """
    return [
        Instruction(kind, things, wording.format(*things))
        for kind in TEMPLATES
        if template in ("", kind.name)
        for wording in kind.wordings(paraphrases)
        for things in kind.choices()
    ]


def encode(text: str) -> UInt8[ndarray, " length"]:
    """The text as it is observed: bytes of UTF-8, filled up with zeros."""
    return np.frombuffer(text.encode().ljust(LENGTH, b"\0"), dtype=np.uint8)


def decode(observed: UInt8[ndarray, " length"]) -> str:
    """Inverse of `encode`."""
    return observed.tobytes().rstrip(b"\0").decode()

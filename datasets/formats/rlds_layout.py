"""Which feature of an RLDS dataset is which field: by our own rule where we wrote it, by convention where others did.

A step of RLDS (Ramos et al. 2021, arXiv:2111.02767) has `observation`, `action`, `reward`, `discount`, `is_first`,
`is_last` and `is_terminal`; Open X-Embodiment adds `language_instruction` and `language_embedding`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.datasets.formats.format import Contents, Mapping, Plan
from alula.datasets.formats.rlds_features import Feature, Unsupported
from alula.datasets.formats.short_names import short_names
from alula.datasets.schema import OUTCOME, TIMESTAMP

OUTCOMES = {name: f"steps/{name.removeprefix('next.')}" for name in OUTCOME}
FLAGS = ("is_first", "is_last", "is_terminal", "discount")
"""Scalars of every RLDS step that follow from the outcome, unless the dataset has them as extra fields."""
EMBEDDING = "observation.language_embedding"
INSTRUCTION = Feature("steps/language_instruction", "text")
METADATA = Feature("episode_metadata/alula", "text")
"""Where we keep an episode's metadata, as JSON."""
INSTRUCTION_NAMES = ("language_instruction", "natural_language_instruction", "instruction")
IMAGE_PREFIX = "observation.images."


@dataclass(frozen=True)
class Layout:
    """A dataset's contents, and the features that each part comes from."""

    contents: Contents
    arrays: dict[str, tuple[Feature, ...]]
    """Of each field of a step; several are put side by side."""
    streams: dict[str, dict[str, Feature]] = field(default_factory=dict)
    instruction: Feature | None = None
    texts: tuple[Feature, ...] = ()
    """Further texts of steps; they become metadata of the episode."""
    episode: tuple[Feature, ...] = ()
    """Features of whole episodes; they become metadata, too."""
    own: bool = False
    """Whether alula wrote it."""
    losses: tuple[str, ...] = ()

    @property
    def plan(self) -> Plan:
        """From features to fields."""
        arrays = [
            Mapping(feature.path, name, f"one of {len(parts)} parts, side by side" if len(parts) > 1 else "")
            for name, parts in self.arrays.items()
            for feature in parts
        ]
        streams = [
            Mapping(feature.path, f"streams/{stream}/{name}")
            for stream, features in self.streams.items()
            for name, feature in features.items()
        ]
        if self.own:
            return Plan((*arrays, *streams, Mapping(METADATA.path, "metadata of the episode")), self.losses)
        others = (*self.texts, *self.episode)
        metadata = [Mapping(feature.path, f"metadata {metadata_key(feature)}") for feature in others]
        outcome = [] if "is_terminal" not in self.arrays else [Mapping("steps/is_terminal", "next.terminated")]
        instruction = [Mapping(self.instruction.path, "metadata instruction")] if self.instruction else []
        return Plan((*arrays, *outcome, *instruction, *metadata), self.losses)


def metadata_key(feature: Feature) -> str:
    """The name of a text or an episode's feature among the metadata."""
    return ".".join(feature.path.split("/")[1:]) or feature.path


def own_layout(contents: Contents) -> Layout:
    """Where we write each field."""
    observation = short_names(contents.observation)
    paths = {name: f"steps/observation/{short}" for name, short in observation.items()}
    paths |= {name: "steps/language_embedding" for name in paths if name == EMBEDDING}
    paths |= {name: "steps/action" for name in contents.action}
    taken = {PurePosixPath(path).parts[1] for path in (*paths.values(), *OUTCOMES.values(), INSTRUCTION.path)}
    paths |= {name: f"steps/{short}" for name, short in short_names(contents.extra, {*taken, "observation"}).items()}
    spaces = (contents.observation, contents.action, contents.extra)
    arrays: dict[str, tuple[Feature, ...]] = {
        name: (Feature.of_field(paths[name], spec),) for space in spaces for name, spec in space.items()
    }
    arrays |= {name: (Feature.of_field(OUTCOMES[name], spec),) for name, spec in OUTCOME.items()}
    streams = {
        stream: {name: Feature.of_field(f"streams/{stream}/{name}", spec) for name, spec in space.items()}
        for stream, space in contents.streams.items()
    }
    return Layout(contents, arrays, streams, own=True)


def foreign_layout(features: Sequence[Feature | Unsupported], metadata: dict[str, Any], changing: bool) -> Layout:
    """What others' features mean.

    Args:
        features: All that `features.json` describes.
        metadata: About the whole dataset.
        changing: Whether the instruction changes within an episode.

    Raises:
        DatasetError: two features would get the same name.
    """
    known = [feature for feature in features if isinstance(feature, Feature)]
    losses = [f"'{item.path}' is left out: {item.reason}" for item in features if isinstance(item, Unsupported)]
    texts = [feature for feature in known if feature.kind == "text" and feature.path.startswith("steps/")]
    instruction = find_instruction(features)
    arrays: dict[str, tuple[Feature, ...]] = {}
    for feature in known:
        if feature.kind == "text" or not feature.path.startswith("steps/"):
            continue
        name = _field_name(feature)
        if name in arrays and name != "action":
            raise DatasetError(f"features '{arrays[name][0].path}' and '{feature.path}' would both become '{name}'")
        arrays[name] = (*arrays.get(name, ()), feature)
    specs = {name: _spec(name, parts) for name, parts in arrays.items() if name != "next.reward"}
    extra = [spec for name, spec in specs.items() if not name.startswith("observation.") and name != "action"]
    if changing:
        extra.append(FieldSpec("instruction_index", (), "int64"))
    contents = Contents(
        SpaceSpec(tuple(spec for name, spec in specs.items() if name.startswith("observation."))),
        SpaceSpec(tuple(spec for name, spec in specs.items() if name == "action")),
        SpaceSpec(tuple(extra)),
        metadata=metadata,
    )
    return Layout(
        contents,
        arrays,
        instruction=instruction,
        texts=tuple(text for text in texts if text is not instruction),
        episode=tuple(
            feature for feature in known if not feature.path.startswith("steps/") and feature.kind != "image"
        ),
        losses=tuple(losses),
    )


def find_instruction(features: Sequence[Feature | Unsupported]) -> Feature | None:
    """The text that says what to do, if there is one."""
    texts = (item for item in features if isinstance(item, Feature) and item.kind == "text")
    return next((text for text in texts if text.path.split("/")[-1] in INSTRUCTION_NAMES), None)


def _field_name(feature: Feature) -> str:
    """LeRobot's name for a feature of a step."""
    _, *parts = feature.path.split("/")
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", ".".join(parts))
    if parts[0] == "action":
        return "action"
    if name == "reward":
        return "next.reward"
    if name == "language_embedding":
        return EMBEDDING
    if name == TIMESTAMP.name and (feature.shape, feature.dtype) != (TIMESTAMP.shape, TIMESTAMP.dtype):
        return "source_timestamp"  # Of a unit that nobody says; ours has nanoseconds.
    return name.replace("observation.", IMAGE_PREFIX, 1) if feature.kind == "image" else name


def _spec(name: str, parts: tuple[Feature, ...]) -> FieldSpec:
    first = parts[0]
    if name != "action":
        return FieldSpec(name, first.shape, first.dtype)
    if len(parts) == 1:
        return FieldSpec(name, (int(np.prod(first.shape)),), first.dtype)
    names = [part.path.removeprefix("steps/action/") for part in parts]
    sizes = [int(np.prod(part.shape)) for part in parts]
    elements = [
        name if size == 1 else f"{name}.{index}"
        for name, size in zip(names, sizes, strict=True)
        for index in range(size)
    ]
    dtype = str(np.result_type(*(part.dtype for part in parts)))
    return FieldSpec(name, (sum(sizes),), dtype, element_names=tuple(elements))

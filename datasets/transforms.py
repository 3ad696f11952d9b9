"""Explicit changes of a dataset on its way from one format to another, such as of how rotations are written."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alula.core.errors import DatasetError, unknown_name
from alula.core.geometry import REPRESENTATIONS, convert_rotation
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.formats.format import Contents


class Transform(ABC):
    """A change of every episode, and of what the dataset says of them."""

    @abstractmethod
    def contents(self, contents: Contents) -> Contents:
        """The contents afterwards.

        Raises:
            DatasetError: the change does not fit them.
        """

    @abstractmethod
    def episode(self, episode: Episode) -> Episode:
        """The episode afterwards; its arrays are new where they differ."""


@dataclass(frozen=True)
class Chain(Transform):
    """One change after the other."""

    transforms: tuple[Transform, ...]

    def contents(self, contents: Contents) -> Contents:
        """After all of them."""
        for transform in self.transforms:
            contents = transform.contents(contents)
        return contents

    def episode(self, episode: Episode) -> Episode:
        """After all of them."""
        for transform in self.transforms:
            episode = transform.episode(episode)
        return episode


@dataclass(frozen=True)
class Rotation(Transform):
    """Write the rotation inside a field in another representation.

    `Rotation("action", 3, "axis_angle", "rot6d")` makes of robomimic's 7 elements (position, axis-angle, gripper) the
    10 that diffusion_policy learns. Elements behind the rotation move; for a second arm, count from where they are
    after the first change.
    """

    field: str
    """Its one axis holds the rotation."""
    start: int
    """Index of the rotation's first element."""
    source: str
    """Representation in the source, a name in `core.geometry.REPRESENTATIONS`."""
    target: str
    """Representation afterwards."""

    def __post_init__(self) -> None:
        """Check the names."""
        for name in (self.source, self.target):
            if name not in REPRESENTATIONS:
                raise DatasetError(unknown_name("representation of rotations", name, REPRESENTATIONS))

    def contents(self, contents: Contents) -> Contents:
        """With the field's new size, units, names and limits."""
        spaces = {name: getattr(contents, name) for name in ("observation", "action", "extra")}
        if not any(self.field in space for space in spaces.values()):
            names = [name for space in spaces.values() for name in space]
            raise DatasetError(unknown_name("field", self.field, names))
        changed: dict[str, Any] = {
            name: SpaceSpec(tuple(self._spec(spec) if spec.name == self.field else spec for spec in space.values()))
            for name, space in spaces.items()
        }
        return replace(contents, **changed)

    def episode(self, episode: Episode) -> Episode:
        """With the field's new values, computed in float64 and rounded to its type."""
        values = episode.steps[self.field]
        before, rotation, after = np.split(values, [self.start, self._stop], axis=1)
        turned = convert_rotation(rotation.astype(np.float64), self.source, self.target).astype(values.dtype)
        return replace(episode, steps={**episode.steps, self.field: np.concatenate([before, turned, after], axis=1)})

    @property
    def _stop(self) -> int:
        """Index behind the rotation's last element in the source."""
        return self.start + REPRESENTATIONS[self.source][0]

    def _spec(self, spec: FieldSpec) -> FieldSpec:
        if len(spec.shape) != 1 or not 0 <= self.start <= self._stop <= spec.shape[0] or not spec.dtype.startswith("f"):
            raise DatasetError(
                f"field '{spec.name}' is {spec.dtype} of shape {spec.shape} and has no {self.source} at elements "
                f"{self.start} to {self._stop - 1}; give the index where its rotation starts"
            )
        angles = self.target == "axis_angle" or self.target.startswith("euler")
        bound = np.pi if angles else 1.0
        names = self._element_names()
        new: dict[str, Any] = {
            "units": self._spliced(spec, spec.units, "rad" if angles else "1"),
            "low": self._spliced(spec, spec.low, -bound),
            "high": self._spliced(spec, spec.high, bound),
            "resolution": self._spliced(spec, spec.resolution, 0.0),
        }
        if spec.element_names:
            new["element_names"] = (*spec.element_names[: self.start], *names, *spec.element_names[self._stop :])
        return replace(spec, shape=(spec.shape[0] - self._stop + self.start + len(names),), **new)

    def _element_names(self) -> tuple[str, ...]:
        return tuple(f"{self.target}_{index}" for index in range(REPRESENTATIONS[self.target][0]))

    def _spliced(self, spec: FieldSpec, entries: tuple[Any, ...] | None, new: Any) -> tuple[Any, ...] | None:
        """A property per element, with `new` for the rotation's."""
        if entries is None:
            return None
        entries = entries * spec.shape[0] if len(entries) == 1 else entries
        return (*entries[: self.start], *[new] * REPRESENTATIONS[self.target][0], *entries[self._stop :])

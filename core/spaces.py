"""What an environment, a dataset, a policy or a device expects and gives: named fields with units."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

import numpy as np
from numpy import ndarray

from alula.core.errors import SpecError, unknown_name


class ControlMode(StrEnum):
    """What an action commands."""

    JOINT_POSITION_ABSOLUTE = "joint_position_absolute"
    JOINT_POSITION_DELTA = "joint_position_delta"
    JOINT_VELOCITY = "joint_velocity"
    TORQUE = "torque"
    END_EFFECTOR_POSE_ABSOLUTE = "end_effector_pose_absolute"
    END_EFFECTOR_POSE_DELTA = "end_effector_pose_delta"
    ROTOR_SPEED = "rotor_speed"
    THRUST_BODY_RATE = "thrust_body_rate"
    ATTITUDE_THRUST = "attitude_thrust"
    VELOCITY = "velocity"
    POSITION = "position"


@dataclass(frozen=True)
class FieldSpec:
    """One named array: its shape, what each element means, and the values it may take.

    Per-element properties have either one entry (for all elements) or one per element of the last axis.
    """

    name: str
    """Key, in LeRobot's vocabulary: `observation.state`, `observation.environment_state`, `action`, ..."""
    shape: tuple[int, ...]
    """Shape of one time step."""
    dtype: str = "float32"
    """NumPy name of the element type."""
    units: tuple[str, ...] = ("1",)
    """SI unit of each element, "1" for a pure number."""
    element_names: tuple[str, ...] = ()
    """Name of each element; empty where the index says enough."""
    low: tuple[float, ...] | None = None
    """Smallest permitted value, in `units`; None where unbounded."""
    high: tuple[float, ...] | None = None
    """Largest permitted value, in `units`; None where unbounded."""
    resolution: tuple[float, ...] | None = None
    """Distance from zero that already matters to the task, in `units`; 0 where there is none.

    A millimetre decides an insertion, but is invisible once half a metre is scaled to [-1, 1]; networks get
    these elements a second time as tanh(value / resolution).
    """
    control_mode: ControlMode | None = None
    """For actions: what they command."""
    rate: float | None = None
    """Values per second [Hz]; for actions the commands."""
    allow_nan: bool = False
    """Whether a recording may hold NaN here: sensors that were silent, estimates that did not exist."""

    def __post_init__(self) -> None:
        """Check that per-element properties fit the shape."""
        size = self.shape[-1] if self.shape else 1
        for attribute in ("units", "low", "high", "resolution"):
            entries = getattr(self, attribute)
            if entries is not None and len(entries) not in (1, size):
                raise SpecError(f"field '{self.name}': {attribute} has {len(entries)} entries, allowed are 1 or {size}")
        if self.element_names and len(self.element_names) != size:
            raise SpecError(f"field '{self.name}': {len(self.element_names)} element names for {size} elements")

    @property
    def size(self) -> int:
        """Number of elements in one time step."""
        return int(np.prod(self.shape))

    def bounds(self) -> tuple[ndarray, ndarray]:
        """Lowest and highest value of every element; where unbounded, the extremes of the element type."""
        lowest, highest = _extremes(np.dtype(self.dtype))
        return self._per_element(self.low, lowest), self._per_element(self.high, highest)

    def _per_element(self, entries: tuple[float, ...] | None, default: float) -> ndarray:
        values = np.asarray((default,) if entries is None else entries).astype(self.dtype)
        return np.broadcast_to(values if self.shape else values[0], self.shape).copy()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FieldSpec":
        """Inverse of `to_dict`, also after a trip through JSON.

        Raises:
            SpecError: a key is not a property of a field, or the control mode is unknown.
        """
        known = {field.name for field in fields(cls)}
        for key in values:
            if key not in known:
                raise SpecError(unknown_name("property of a field", key, known))
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        mode = plain.get("control_mode")
        if mode is not None:
            if mode not in list(ControlMode):
                raise SpecError(unknown_name("control mode", str(mode), ControlMode))
            plain["control_mode"] = ControlMode(mode)
        return cls(**plain)


def _extremes(dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    return (0, 1) if dtype.kind == "b" else (-np.inf, np.inf)


@dataclass(frozen=True)
class SpaceSpec(Mapping[str, FieldSpec]):
    """An ordered set of fields, addressed by name."""

    fields: tuple[FieldSpec, ...]

    def __post_init__(self) -> None:
        """Check that names are unique."""
        if len({field.name for field in self.fields}) != len(self.fields):
            raise SpecError(f"field names repeat: {[field.name for field in self.fields]}")

    def __getitem__(self, name: str) -> FieldSpec:
        """Field of that name.

        Raises:
            KeyError: there is none; the message lists the valid names.
        """
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(unknown_name("field", name, [field.name for field in self.fields]))

    def __iter__(self) -> Iterator[str]:
        """Names in order."""
        return (field.name for field in self.fields)

    def __len__(self) -> int:
        """Number of fields."""
        return len(self.fields)

    def require(self, other: "SpaceSpec", mine: str, theirs: str, remedy: str) -> None:
        """Require that both sides describe the same space.

        Args:
            other: The space to compare with.
            mine: Whose space this is, for the message ("the checkpoint").
            theirs: Whose space the other is ("the environment").
            remedy: What the user can do about a mismatch.

        Raises:
            SpecError: names every field and property that differs, with both values.
        """
        differences = []
        for name in dict.fromkeys((*self, *other)):
            if name not in self or name not in other:
                owner = theirs if name not in self else mine
                differences.append(f"field '{name}' exists only in {owner}")
                continue
            differences += [
                f"field '{name}': {what} is {left} in {mine}, {right} in {theirs}"
                for what, left, right in _differences(self[name], other[name])
            ]
        if differences:
            raise SpecError("; ".join(differences) + f". {remedy}")

    def to_list(self) -> list[dict[str, Any]]:
        """Plain values for JSON."""
        return [field.to_dict() for field in self.fields]

    @classmethod
    def from_list(cls, values: list[dict[str, Any]]) -> "SpaceSpec":
        """Inverse of `to_list`."""
        return cls(tuple(FieldSpec.from_dict(entry) for entry in values))


def _differences(mine: FieldSpec, theirs: FieldSpec) -> Iterator[tuple[str, Any, Any]]:
    """What differs, and both values; of properties per element only the first that differs."""
    if mine.shape != theirs.shape:
        yield "shape", mine.shape, theirs.shape
        return  # the other properties follow the shape
    for key, left in mine.to_dict().items():
        right = theirs.to_dict()[key]
        if isinstance(left, tuple) and isinstance(right, tuple) and len(left) == len(right) > 1:
            pairs = enumerate(zip(left, right, strict=True))
            yield from itertools.islice(((f"{key}[{index}]", a, b) for index, (a, b) in pairs if a != b), 1)
        elif left != right:
            yield key, left, right

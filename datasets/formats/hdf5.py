"""What the formats made of HDF5 share: opening, the fields of an episode, our sidecar, one group per episode."""

import json
import re
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from alula.core.errors import DatasetError, SpecError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.commits import encode_json
from alula.datasets.formats.format import Contents, Plan, Reader
from alula.datasets.schema import DTYPES, OUTCOME, RESERVED, TIMESTAMP, fitted, require_storable, step_fields

SIDECAR = "alula"
"""Attribute with what only we need (JSON), and group with the arrays that have no place in a format."""
IMAGES = "observation.images."
NEXT = "next."
NEXT_OBSERVATION = "next.observation."
Steps = dict[str, Shaped[ndarray, "_ ..."]]
"""Arrays by the names of their fields, first axis the step."""


@dataclass(frozen=True)
class Layout:
    """A dataset's contents, and where a file keeps them."""

    contents: Contents
    places: dict[str, str]
    """Path of each field's array, below the group of its episode. Outcomes without one are unknown."""
    plan: Plan


def open_hdf5(path: Path) -> h5py.File:
    """The file, for reading.

    Raises:
        DatasetError: there is none, or it is not HDF5 or truncated.
    """
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if not path.exists():
            raise DatasetError(f"there is no file '{path}'; check the path") from error
        raise DatasetError(
            f"'{path}' is not a readable HDF5 file ({error}); it may be truncated or of another kind: fetch it again"
        ) from error


def looks_like(path: Path, test: Callable[[h5py.File], bool]) -> bool:
    """Whether `path` is an HDF5 file that passes `test`; never raises."""
    try:
        if not path.is_file() or not h5py.is_hdf5(path):
            return False
        with h5py.File(path, "r", locking=False) as file:
            return test(file)
    except (OSError, RuntimeError, KeyError):
        return False


@contextmanager
def explaining(path: Path, place: str) -> Iterator[None]:
    """Turn whatever HDF5 raises on damaged content into one error that says where."""
    try:
        yield
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, SpecError) as error:
        raise DatasetError(f"'{place}' of '{path}' is damaged ({type(error).__name__}: {error}); fetch it again") from (
            error
        )
    except DatasetError as error:
        raise DatasetError(f"'{place}' of '{path}': {error}") from error


def plain(value: Any) -> Any:
    """The value of an HDF5 attribute or scalar as JSON would give it back."""
    if isinstance(value, ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return None if isinstance(value, h5py.Empty) else value


def datasets_below(group: h5py.Group) -> dict[str, h5py.Dataset]:
    """All arrays in a group and its subgroups by path, without our sidecar's."""
    found: dict[str, h5py.Dataset] = {}

    def visit(path: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and path.split("/")[0] != SIDECAR:
            found[path] = item

    group.visititems(visit)
    return found


def is_field(dataset: h5py.Dataset, *lengths: int) -> bool:
    """Whether it has numbers, the same at least one in each row, and one of these `lengths`."""
    known = dataset.dtype.name in DTYPES and dataset.ndim > 0 and len(dataset) in lengths
    return known and int(np.prod(dataset.shape[1:])) > 0


def is_image(dataset: h5py.Dataset) -> bool:
    """Whether it is a film of RGB pictures: steps, height, width, 3 channels of 8 bit."""
    return dataset.dtype == np.uint8 and dataset.ndim == 4 and dataset.shape[3] == 3


def spec_of(name: str, dataset: h5py.Dataset, **properties: Any) -> FieldSpec:
    """The field that an array of a foreign file becomes; actions have one axis, even of a single number."""
    shape = dataset.shape[1:]
    shape = (1,) if name == "action" and not shape else shape
    return FieldSpec(_storable(name), shape, dataset.dtype.name, **properties)


def _storable(name: str) -> str:
    """A name that any dataset can have; `timestamp` is kept for capture times in nanoseconds."""
    clean = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    clean = clean if re.match(r"(?!__)\w", clean) else f"x{clean}"
    return f"{clean}_" if clean in (*RESERVED, TIMESTAMP.name) else clean


def contents_of(fields: Collection[FieldSpec], metadata: dict[str, Any]) -> Contents:
    """The contents of a foreign file: its fields, shared out by their names."""
    observation = tuple(field for field in fields if field.name.startswith("observation."))
    action = tuple(field for field in fields if field.name == "action")
    extra = tuple(field for field in fields if field not in (*observation, *action))
    return Contents(SpaceSpec(observation), SpaceSpec(action), SpaceSpec(extra), metadata=metadata)


# --- Fields of an episode ---------------------------------------------------------------------------------------------


def read_field(
    group: h5py.Group, path: str, field: FieldSpec, start: int, stop: int
) -> Shaped[ndarray, "length *field"]:
    """Rows `start` to `stop` (exclusive) of the array at `path`, as values of `field`.

    Raises:
        DatasetError: it is missing, or has the wrong shape or type.
    """
    if not isinstance(group.get(path), h5py.Dataset):
        raise DatasetError(f"the array '{path}' is missing; it has {sorted(group)}")
    dataset, length = group[path], stop - start
    values = dataset[start:stop]
    if values.shape != (length, *field.shape) and (field.size != 1 or values.size != length):
        raise DatasetError(
            f"the array '{path}' has shape {dataset.shape}, needed are {length} steps of shape {field.shape}"
        )
    flag = field.dtype == "bool" and values.dtype.kind in "iuf"
    if not flag and not np.can_cast(values.dtype, field.dtype, "same_kind"):
        raise DatasetError(f"the array '{path}' has type {values.dtype}, elsewhere in the file it is {field.dtype}")
    return values.astype(field.dtype, copy=False).reshape(length, *field.shape)


def read_fields(group: h5py.Group, layout: Layout, start: int, stop: int) -> Steps:
    """Rows `start` to `stop` of every field of a step; what is unknown of the outcome is filled in.

    Raises:
        DatasetError: as `read_field`.
    """
    steps: Steps = {}
    for name, field in step_fields(layout.contents).items():
        path = layout.places.get(name)
        if path is not None and (name not in OUTCOME or path in group):
            steps[name] = read_field(group, path, field, start, stop)
    return with_outcome(steps, stop - start)


def with_outcome(steps: Steps, length: int) -> Steps:
    """Complete what every episode says of its outcome.

    Without their own arrays, the reward is 0, nothing terminates, nothing succeeds, and an episode that does not
    terminate is cut off at its last step.
    """
    terminated = steps.get("next.terminated", np.zeros(length, bool))
    truncated = np.zeros(length, bool)
    truncated[-1:] = ~terminated[-1:]
    unknown = {
        "next.reward": np.zeros(length),
        "next.terminated": terminated,
        "next.truncated": truncated,
        "next.success": np.zeros(length, bool),
    }
    return {**unknown, **steps}


# --- Our sidecar ------------------------------------------------------------------------------------------------------


def write_sidecar(owner: h5py.Group, contents: Contents, places: Mapping[str, str]) -> None:
    """Keep contents and places where other readers do not look."""
    owner.attrs[SIDECAR] = json.dumps({"contents": contents.to_dict(), "places": dict(places)})


def read_sidecar(owner: h5py.Group) -> tuple[Contents, dict[str, str]] | None:
    """Inverse of `write_sidecar`; None where alula did not write the file."""
    if SIDECAR not in owner.attrs:
        return None
    values = json.loads(owner.attrs[SIDECAR])
    return Contents.from_dict(values["contents"]), dict(values["places"])


def write_beside(group: h5py.Group, episode: Episode, owner: str) -> None:
    """Keep an episode's metadata and streams in its group."""
    group.attrs[SIDECAR] = encode_json(episode.metadata, owner)
    for stream, arrays in episode.streams.items():
        for name, values in arrays.items():
            group.create_dataset(f"{SIDECAR}/streams/{stream}/{name}", data=values)


def read_beside(group: h5py.Group, contents: Contents) -> tuple[dict[str, Any], dict[str, Steps]]:
    """Metadata and streams of an episode that `write_beside` wrote.

    Raises:
        DatasetError: a stream is missing or damaged.
    """
    metadata = json.loads(group.attrs[SIDECAR]) if SIDECAR in group.attrs else {}
    streams = {}
    for stream, fields in contents.streams.items():
        place = f"{SIDECAR}/streams/{stream}"
        if f"{place}/timestamp" not in group:
            raise DatasetError(f"the stream '{stream}' is missing")
        samples = len(group[f"{place}/timestamp"])
        streams[stream] = {
            name: read_field(group, f"{place}/{name}", field, 0, samples) for name, field in fields.items()
        }
    return metadata, streams


def require_writable(contents: Contents, format_name: str) -> None:
    """Refuse what no HDF5 format here can hold.

    Raises:
        DatasetError: there is no action, or a field cannot be stored.
    """
    if "action" not in contents.action:
        raise DatasetError(
            f"{format_name} needs actions, this dataset has none; choose zarr, which also holds recordings"
        )
    require_storable(contents)


def distinct(wanted: Mapping[str, str], reserved: Collection[str] = ()) -> dict[str, str]:
    """The wanted paths, with `_` behind those that are taken or mean something else."""
    places: dict[str, str] = {}
    for name, path in wanted.items():
        while path in places.values() or path in reserved:
            path += "_"
        places[name] = path
    return places


class EpisodeGroupReader(Reader):
    """Reader of a file with one group per episode; what differs between formats are lengths and metadata."""

    def __init__(self, path: Path, file: h5py.File, layout: Layout, groups: list[str]) -> None:
        """Take over the open file; `groups` are the paths of the episodes in order."""
        self.path = path
        self.contents, self.plan = layout.contents, layout.plan
        self.num_episodes = len(groups)
        self._file, self._layout, self._groups = file, layout, groups

    def episodes(self, start: int = 0) -> Iterator[Episode]:
        """One group after the other."""
        for name in self._groups[start:]:
            with explaining(self.path, name):
                episode = fitted(self.contents, self.episode(self._file[name]), "the episode")
            yield episode

    @abstractmethod
    def episode(self, group: h5py.Group) -> Episode:
        """The episode in a group; may raise whatever reading damaged HDF5 raises."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

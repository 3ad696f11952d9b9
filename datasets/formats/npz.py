"""Recordings that come as one NumPy archive (`.npz`), all episodes behind each other; read only.

The archive holds `observation` (N, D), `action` (N, A), `reward` (N,) and `episode_ends` (E,), the cumulative ends;
and may hold `success` (N,) and arrays `init_*` (E, ...), which become metadata of each episode. Every episode ends
truncated, since the archive does not say otherwise. Without `success` the outcome is unknown: it is stored as False,
and the dataset's metadata say `success_recorded: false`.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, is_zipfile

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray
from numpy.lib.npyio import NpzFile

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.formats.format import Contents, Format, Mapping, Plan, Reader

REQUIRED = ("observation", "action", "reward", "episode_ends")
Archive = dict[str, Shaped[ndarray, "..."]]


@dataclass(frozen=True)
class Npz(Format):
    """One `.npz` file of arrays without names for their columns."""

    name = "npz"
    suffix = ".npz"

    spaces: tuple[SpaceSpec, SpaceSpec] | None = None
    """Observation fields that share out the columns of `observation` in order, and the action field; None: one field
    `observation.state` of all columns, without units."""

    def detect(self, path: Path) -> bool:
        """Whether it is a zip file with the required arrays."""
        if not (path.is_file() and is_zipfile(path)):
            return False
        try:
            with np.load(path, allow_pickle=False) as archive:
                return set(REQUIRED) <= set(archive.files)
        except (OSError, ValueError, BadZipFile):
            return False

    def open(self, path: Path) -> "NpzReader":
        """A reader; the archive's arrays are in memory while it is open."""
        return NpzReader(path, self.spaces)


class NpzReader(Reader):
    """Episodes of an archive."""

    def __init__(self, path: Path, spaces: tuple[SpaceSpec, SpaceSpec] | None) -> None:
        self._archive = archive = _read(path)
        self._lengths = _lengths(archive, path)
        observation, action = spaces or _plain_spaces(archive)
        self._steps = _steps(archive, observation, action, path)
        self.num_episodes = len(self._lengths)
        metadata = {"provenance": f"imported from {path.name}", "success_recorded": "success" in archive}
        self.contents = Contents(observation, action, metadata=metadata)
        self.plan = _plan(archive, observation, action)

    def episodes(self, start: int = 0) -> Iterator[Episode]:
        """See `Reader.episodes`."""
        ends = np.cumsum(self._lengths)
        for index in range(start, self.num_episodes):
            part = slice(ends[index] - self._lengths[index], ends[index])
            initial = {name: self._archive[name][index].tolist() for name in _initial(self._archive)}
            steps = {name: values[part] for name, values in self._steps.items()}
            yield Episode(steps, {"source": "import", **initial})


def _read(source: Path) -> Archive:
    try:
        # Opened here because numpy leaves the file open when the archive turns out to be damaged.
        with source.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if not isinstance(loaded, NpzFile):
                raise ValueError("it holds a single array")
            archive: Archive = {name: loaded[name] for name in loaded.files}
    except FileNotFoundError as error:
        raise DatasetError(f"there is no file '{source}' to import; check the path") from error
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise DatasetError(
            f"'{source}' is not a readable .npz archive ({error}); it may be truncated: fetch it again. "
            f"Archives with pickled objects are refused"
        ) from error
    missing = [name for name in REQUIRED if name not in archive or archive[name].ndim == 0]
    if missing:
        raise DatasetError(f"'{source}' lacks the arrays {missing}; it has {sorted(archive)}. Add or rename them")
    return archive


def _lengths(archive: Archive, source: Path) -> Shaped[ndarray, " episodes"]:
    ends, num_steps = archive["episode_ends"], len(archive["observation"])
    lengths = np.diff(ends, prepend=0)
    if ends.ndim != 1 or ends.dtype.kind not in "iu" or not len(ends) or lengths.min() < 1 or ends[-1] != num_steps:
        raise DatasetError(
            f"episode_ends of '{source}' must be integers that rise to the number of steps, {num_steps}; "
            f"got {ends.dtype} {ends.tolist()[:5]}"
        )
    for name in _initial(archive):
        if archive[name].shape[:1] != ends.shape:
            raise DatasetError(
                f"array '{name}' of '{source}' has shape {archive[name].shape}, needed is one entry for each of the "
                f"{len(ends)} episodes"
            )
    return lengths


def _plain_spaces(archive: Archive) -> tuple[SpaceSpec, SpaceSpec]:
    """What the arrays say of themselves."""
    fields = (("observation.state", archive["observation"]), ("action", archive["action"]))
    return tuple(SpaceSpec((FieldSpec(name, values.shape[1:], values.dtype.name),)) for name, values in fields)  # type: ignore[return-value]


def _steps(archive: Archive, observation: SpaceSpec, action: SpaceSpec, source: Path) -> Archive:
    """The archive's arrays under the names of the dataset's fields."""
    num_steps = len(archive["observation"])
    for name, space in (("observation", observation), ("action", action)):
        sizes = {field.name: field.size for field in space.values()}
        if archive[name].shape != (num_steps, sum(sizes.values())):
            raise DatasetError(
                f"array '{name}' of '{source}' has shape {archive[name].shape}, but the specification needs "
                f"{(num_steps, sum(sizes.values()))}: {sizes}. Change the sizes of the fields"
            )
    success = archive.get("success", np.zeros(num_steps, dtype=bool))
    for name, values in (("reward", archive["reward"]), ("success", success)):
        if values.shape != (num_steps,):
            raise DatasetError(f"array '{name}' of '{source}' has shape {values.shape}, needed is {(num_steps,)}")
    cuts = np.cumsum([field.size for field in observation.values()])[:-1]
    parts = zip(observation.values(), np.split(archive["observation"], cuts, axis=1), strict=True)
    truncated = np.zeros(num_steps, dtype=bool)
    truncated[archive["episode_ends"] - 1] = True
    return {
        **{field.name: part.reshape(num_steps, *field.shape) for field, part in parts},
        "action": archive["action"],
        "next.reward": archive["reward"],
        "next.terminated": np.zeros(num_steps, dtype=bool),
        "next.truncated": truncated,
        "next.success": success.astype(bool),
    }


def _initial(archive: Archive) -> list[str]:
    return [name for name in archive if name.startswith("init_")]


def _plan(archive: Archive, observation: SpaceSpec, action: SpaceSpec) -> Plan:
    known = {*REQUIRED, "success", *_initial(archive)}
    losses = [f"array '{name}' is not read" for name in archive if name not in known]
    mappings = []
    for name, space in (("observation", observation), ("action", action)):
        start = 0
        for field in space.values():
            change = "" if archive[name].dtype == field.dtype else f"{archive[name].dtype} becomes {field.dtype}"
            if not np.can_cast(archive[name].dtype, field.dtype, "safe"):
                losses.append(f"field '{field.name}': {change}")
            mappings.append(Mapping(f"{name}[:, {start}:{start + field.size}]", field.name, change))
            start += field.size
    mappings += [Mapping("reward", "next.reward"), Mapping("episode_ends", "next.truncated")]
    mappings += [Mapping("success", "next.success")] if "success" in archive else []
    mappings += [Mapping(name, f"episode metadata '{name}'") for name in _initial(archive)]
    return Plan(tuple(mappings), tuple(losses))

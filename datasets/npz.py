"""Import of recordings that come as one NumPy archive (`.npz`), all episodes behind each other."""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray
from numpy.lib.npyio import NpzFile

from alula.core.errors import DatasetError
from alula.core.spaces import SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.store import EpisodeStore, building

REQUIRED = ("observation", "action", "reward", "episode_ends")
Archive = dict[str, Shaped[ndarray, "..."]]


def import_npz(
    source: Path,
    target: Path,
    observation: SpaceSpec,
    action: SpaceSpec,
    *,
    provenance: str,
    licence: str,
    metadata: Mapping[str, Any] | None = None,
) -> EpisodeStore:
    """A new dataset from an archive of arrays.

    The archive holds `observation` (N, D), `action` (N, A), `reward` (N,) and `episode_ends` (E,), the cumulative
    ends; and may hold `success` (N,) and arrays `init_*` (E, ...), which become metadata of each episode. Every
    episode ends truncated, since the archive does not say otherwise. Without `success` the outcome is unknown: it is
    stored as False, and the dataset's metadata say `success_recorded: false`. What the dataset does not keep (arrays
    of other names, precision beyond the specification) is listed in its metadata under `lost`.

    Args:
        source: The archive.
        target: Folder of the new dataset; nothing is ever overwritten.
        observation: Its fields share out the columns of `observation` in order.
        action: The field `action` with A elements.
        provenance: Where the recording comes from.
        licence: Under which licence it may be used.
        metadata: Further plain values about the dataset.

    Raises:
        DatasetError: the archive is missing, damaged or does not fit the specifications, or the target exists or
            cannot be written. Then nothing is left behind.
    """
    archive = _read_archive(Path(source))
    lengths = _episode_lengths(archive, Path(source))
    steps = _steps(archive, observation, action, Path(source))
    about = {
        **(metadata or {}),
        "provenance": provenance,
        "licence": licence,
        "source_file": Path(source).name,
        "success_recorded": "success" in archive,
        "lost": _losses(archive, observation, action),
    }
    with building(target) as draft:
        store = EpisodeStore.create(draft, observation, action, about)
        store.extend(_episodes(archive, steps, lengths))
    return EpisodeStore.open(target, append=True)


def _read_archive(source: Path) -> Archive:
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


def _episode_lengths(archive: Archive, source: Path) -> Shaped[ndarray, " episodes"]:
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


def _steps(archive: Archive, observation: SpaceSpec, action: SpaceSpec, source: Path) -> Archive:
    """The archive's arrays under the names of the dataset's fields."""
    num_steps = len(archive["observation"])
    columns = {"observation": sum(field.size for field in observation.values())}
    columns |= {"action": sum(field.size for field in action.values())}
    for name, size in columns.items():
        if archive[name].shape != (num_steps, size):
            sizes = {field.name: field.size for field in (observation if name == "observation" else action).values()}
            raise DatasetError(
                f"array '{name}' of '{source}' has shape {archive[name].shape}, but the specification needs "
                f"{(num_steps, size)}: {sizes}. Change the sizes of the fields"
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


def _episodes(archive: Archive, steps: Archive, lengths: Shaped[ndarray, " episodes"]) -> list[Episode]:
    cuts = np.cumsum(lengths)[:-1]
    parts = {name: np.split(values, cuts) for name, values in steps.items()}
    return [
        Episode(
            {name: part[index] for name, part in parts.items()},
            {"source": "import", **{name: archive[name][index].tolist() for name in _initial(archive)}},
        )
        for index in range(len(lengths))
    ]


def _initial(archive: Archive) -> list[str]:
    return [name for name in archive if name.startswith("init_")]


def _losses(archive: Archive, observation: SpaceSpec, action: SpaceSpec) -> list[str]:
    """What the dataset does not keep, in words."""
    known = {*REQUIRED, "success", *_initial(archive)}
    losses = [f"array '{name}' was not imported" for name in archive if name not in known]
    for name, space in (("observation", observation), ("action", action)):
        losses += [
            f"field '{field.name}' was {archive[name].dtype}, stored as {field.dtype}"
            for field in space.values()
            if not np.can_cast(archive[name].dtype, field.dtype, "safe")
        ]
    return losses

"""D4RL-style HDF5 (github.com/Farama-Foundation/D4RL): all episodes behind each other in flat arrays.

    observations, actions, rewards      one row a step
    terminals, timeouts                 True at the last step of an episode: it ended, or was cut off
    next_observations                   optional: what each step led to
    infos/<name>                        further arrays with one row a step: qpos, qvel, goal, ...
    metadata/<name>                     about the whole: algorithm, policy weights, ...

Where several observation fields share `observations`, `infos` holds each of them exactly, as it holds all that D4RL
has no name for. Episodes' metadata and streams lie in `metadata/alula`, whose name D4RL's loaders skip.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Int64, Shaped
from numpy import ndarray

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec
from alula.core.transitions import Episode
from alula.datasets.formats.drafts import DraftWriter
from alula.datasets.formats.format import Contents, Mapping, Plan, Reader, WritableFormat
from alula.datasets.formats.hdf5 import (
    IMAGES,
    NEXT,
    SIDECAR,
    Layout,
    contents_of,
    datasets_below,
    distinct,
    explaining,
    is_field,
    is_image,
    looks_like,
    open_hdf5,
    plain,
    read_beside,
    read_fields,
    read_sidecar,
    require_writable,
    spec_of,
    write_beside,
    write_sidecar,
)
from alula.datasets.schema import OUTCOME, fitted, step_fields

REQUIRED = ("observations", "actions", "rewards", "terminals")
SUCCESS_NAMES = ("infos/success", "infos/is_success", "infos/goal_achieved")
"""Where environments say that the task is solved."""
EPISODES = f"metadata/{SIDECAR}"
FLAGS = ("terminals", "timeouts")
LARGEST_VALUE = 1000
"""Elements of an array below `metadata` that is worth keeping as text."""


class D4rlReader(Reader):
    """An open D4RL file."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        """Find where episodes end."""
        missing = [name for name in REQUIRED if not isinstance(file.get(name), h5py.Dataset)]
        if missing:
            raise DatasetError(f"it is HDF5, but not D4RL's: it lacks {missing} and has {sorted(file)}")
        own = read_sidecar(file)
        self._own = own is not None
        self.path = path
        self._file = file
        self._layout = _own_layout(*own) if own else _foreign_layout(file)
        self._bounds = _own_bounds(file) if own else _foreign_bounds(file)
        self.contents, self.plan = self._layout.contents, self._layout.plan
        self.num_episodes = len(self._bounds) - 1

    def episodes(self, start: int = 0) -> Iterator[Episode]:
        """The rows between one end and the next."""
        for index, (first, stop) in list(enumerate(pairwise(self._bounds.tolist())))[start:]:
            with explaining(self.path, f"episode {index} (rows {first} to {stop})"):
                episode = fitted(self.contents, self._episode(index, first, stop), "the episode")
            yield episode

    def _episode(self, index: int, start: int, stop: int) -> Episode:
        steps = read_fields(self._file, self._layout, start, stop)
        if self._own:
            return Episode(steps, *read_beside(self._file[f"{EPISODES}/episode_{index}"], self.contents))
        complete = bool(steps["next.terminated"][-1] or steps["next.truncated"][-1])
        steps["next.truncated"][-1] |= not complete
        return Episode(steps, {"source": "d4rl"} if complete else {"source": "d4rl", "incomplete": True})

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class D4rlWriter(DraftWriter):
    """A D4RL file under construction."""

    def build(self, whole: Path) -> None:
        """Write the file, its arrays in one pass over the episodes."""
        places = own_places(self.contents)
        num_steps = sum(self.lengths())
        with h5py.File(whole, "w") as file:
            write_sidecar(file, self.contents, places)
            file.create_group(EPISODES)
            for name, field in step_fields(self.contents).items():
                file.create_dataset(places[name], (num_steps, *field.shape), field.dtype)
            for name, (shape, dtype) in _derived(self.contents).items():
                if name not in file:
                    file.create_dataset(name, (num_steps, *shape), dtype)
            start = 0
            for index, episode in enumerate(self.episodes()):
                rows = slice(start, start + episode.length)
                arrays = {place: episode.steps[name] for name, place in places.items()}
                for place, values in {**_derive(self.contents, episode), **arrays}.items():
                    file[place][rows] = values
                group = file.create_group(f"{EPISODES}/episode_{index}")
                group.attrs["length"] = episode.length
                write_beside(group, episode, f"episode {index}")
                start += episode.length


class D4rl(WritableFormat):
    """D4RL-style HDF5."""

    name = "d4rl"
    suffix = ".hdf5"

    def detect(self, path: Path) -> bool:
        """An HDF5 file with D4RL's four arrays at its root."""
        return looks_like(path, lambda file: all(isinstance(file.get(name), h5py.Dataset) for name in REQUIRED))

    def open(self, path: Path) -> D4rlReader:
        """A reader of the file."""
        file = open_hdf5(path)
        try:
            with explaining(path, "/"):
                return D4rlReader(path, file)
        except DatasetError:
            file.close()
            raise

    def plan(self, contents: Contents) -> Plan:
        """Everything finds a place."""
        require_writable(contents, "D4RL")
        places = own_places(contents)
        mappings = [Mapping(name, place) for name, place in places.items()]
        if "observations" not in places.values():
            names = ", ".join(field.name for field in _joined(contents))
            _, dtype = _derived(contents)["observations"]
            mappings.append(Mapping(names or "(nothing)", "observations", f"side by side as {dtype}"))
        ends = "True at an episode's last step where it terminated"
        mappings += [
            Mapping("next.terminated", "terminals", ends),
            Mapping("next.truncated", "timeouts", "True at an episode's last step where it did not terminate"),
            Mapping("metadata", EPISODES, "as JSON"),
        ]
        mappings += [
            Mapping(f"stream {stream}", f"{EPISODES}/*/{SIDECAR}/streams/{stream}") for stream in contents.streams
        ]
        return Plan(tuple(mappings))

    def create(self, path: Path, contents: Contents) -> D4rlWriter:
        """A writer of a new file."""
        require_writable(contents, "D4RL")
        return D4rlWriter(path, contents)


# --- Ours -------------------------------------------------------------------------------------------------------------


def own_places(contents: Contents) -> dict[str, str]:
    """Where we write each field."""
    places = {"action": "actions", "next.reward": "rewards"}
    joined = _joined(contents)
    if len(joined) == 1 and len(joined[0].shape) == 1:
        places[joined[0].name] = "observations"
        successor = contents.extra.get(f"{NEXT}{joined[0].name}")
        if successor is not None and (successor.shape, successor.dtype) == (joined[0].shape, joined[0].dtype):
            places[successor.name] = "next_observations"
    rest = [name for name in step_fields(contents) if name not in places]
    return {**places, **distinct({name: f"infos/{_info_name(name)}" for name in rest})}


def _info_name(name: str) -> str:
    short = name.removeprefix("infos.")
    return short if short.strip(".") else name


def _joined(contents: Contents) -> list[FieldSpec]:
    """The observation fields that make up `observations`: numbers and vectors."""
    return [field for field in contents.observation.values() if len(field.shape) <= 1]


def _derived(contents: Contents) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of the arrays that D4RL's loaders need and that follow from others."""
    joined = _joined(contents)
    size = sum(field.size for field in joined)
    return {
        "observations": ((size,), np.result_type(np.bool_, *(field.dtype for field in joined))),
        **{flag: ((), np.dtype(bool)) for flag in FLAGS},
    }


def _derive(contents: Contents, episode: Episode) -> dict[str, Shaped[ndarray, "length ..."]]:
    """The arrays of `_derived`; of the flags, at which loaders cut, exactly one is True, at the end."""
    columns = [episode.steps[field.name].reshape(episode.length, field.size) for field in _joined(contents)]
    last = np.arange(episode.length) == episode.length - 1
    terminated = last & episode.steps["next.terminated"]
    return {
        "observations": np.concatenate([np.zeros((episode.length, 0), bool), *columns], axis=1),
        "terminals": terminated,
        "timeouts": last & ~terminated,
    }


def _own_layout(contents: Contents, places: dict[str, str]) -> Layout:
    mappings = [Mapping(place, name) for name, place in places.items()]
    return Layout(contents, places, Plan((*mappings, Mapping(EPISODES, "metadata"))))


def _own_bounds(file: h5py.File) -> Int64[ndarray, " bounds"]:
    groups = file[EPISODES]
    lengths = [int(groups[f"episode_{index}"].attrs["length"]) for index in range(len(groups))]
    bounds = np.cumsum([0, *lengths], dtype=np.int64)
    if bounds[-1] != len(file["actions"]):
        raise DatasetError(
            f"'{EPISODES}' counts {bounds[-1]} steps, but there are {len(file['actions'])} actions; another program "
            f"has changed the file: delete its attribute '{SIDECAR}' to read it by D4RL's rules"
        )
    return bounds


# --- Others' ----------------------------------------------------------------------------------------------------------


def _foreign_bounds(file: h5py.File) -> Int64[ndarray, " bounds"]:
    """Row of the first step of each episode, and behind the last."""
    num_steps = len(file["actions"])
    ends = np.zeros(num_steps, bool)
    for name in (name for name in FLAGS if name in file):
        flags = file[name][:]
        if flags.size != num_steps:
            raise DatasetError(f"'{name}' has shape {flags.shape}, but there are {num_steps} actions")
        ends |= flags.reshape(num_steps) != 0
    ends[-1:] = True
    return np.concatenate([[0], np.flatnonzero(ends) + 1]).astype(np.int64)


def _foreign_layout(file: h5py.File) -> Layout:
    fields, places, losses = [], {}, []
    num_steps = len(file["actions"])
    arrays = {path: dataset for path, dataset in datasets_below(file).items() if not path.startswith("metadata/")}
    success = next((name for name in SUCCESS_NAMES if name in arrays), None)
    outcome = {"rewards": "next.reward", "terminals": "next.terminated", "timeouts": "next.truncated"}
    outcome |= {success: "next.success"} if success else {}
    for path, dataset in arrays.items():
        if path in outcome:
            places[outcome[path]] = path
        elif path in REQUIRED or is_field(dataset, num_steps):
            fields.append(spec_of(_foreign_name(path, dataset), dataset))
            places[fields[-1].name] = path
        else:
            losses.append(f"'{path}' {dataset.shape} is not one row of numbers a step")
    metadata, lost = _foreign_metadata(file)
    contents = contents_of(fields, {**metadata, "success_recorded": success is not None})
    return Layout(contents, places, Plan(tuple(_foreign_mappings(places)), (*losses, *lost)))


def _foreign_name(path: str, dataset: h5py.Dataset) -> str:
    names = {"observations": "observation.state", "actions": "action", "next_observations": "next.observation.state"}
    name = names.get(path, path.replace("/", "."))
    return name.replace("observation.state", f"{IMAGES}camera") if is_image(dataset) else name


def _foreign_metadata(file: h5py.File) -> tuple[dict[str, Any], list[str]]:
    """What the file says of the whole, and what of that is too large to keep."""
    metadata: dict[str, Any] = {"provenance": "D4RL HDF5", **{name: plain(value) for name, value in file.attrs.items()}}
    kept: dict[str, Any] = {}
    losses = []
    group = file.get("metadata")
    for path, dataset in datasets_below(group).items() if isinstance(group, h5py.Group) else ():
        if dataset.size is not None and dataset.size <= LARGEST_VALUE:
            kept[path] = plain(dataset[()])
        else:
            losses.append(f"'metadata/{path}' {dataset.shape} is too large to be metadata")
    return {**metadata, **({"metadata": kept} if kept else {})}, losses


def _foreign_mappings(places: dict[str, str]) -> Iterator[Mapping]:
    for name, place in places.items():
        yield Mapping(place, name, "other than 0 is True" if name in OUTCOME and name != "next.reward" else "")
    if "next.truncated" not in places:
        yield Mapping("(no timeouts)", "next.truncated", "episodes end at terminals only; the last may be incomplete")
    if "next.success" not in places:
        yield Mapping("(nothing)", "next.success", "unknown, stored as False")
    yield Mapping("(rows behind the last end)", "last episode", "kept, truncated, its metadata say incomplete")
    yield Mapping("metadata/*", "metadata")

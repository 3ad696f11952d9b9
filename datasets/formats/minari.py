"""Minari's dataset folders (minari.farama.org, versions 0.4 to 0.5), those that it keeps in HDF5.

    data/metadata.json              spaces, numbers of episodes and steps, environment, authors
    data/main_data.hdf5
        episode_<i>                 attributes: id, seed, total_steps, options, ...
            observations            one more than steps: the last one is what the last step led to; a group of arrays
                                    where the space is a Dict. Pictures are JPEGs unless jpeg_encoding is false
            actions, rewards, terminations, truncations
            infos/<name>            one a step, or one more: the first comes from the reset

The observation that a step led to is our field `next.observation.*`. Nothing of it is stored twice: where it only
repeats the following observation, as in Minari it does, it is read from there.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Shaped
from numpy import ndarray
from PIL import Image, UnidentifiedImageError

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec
from alula.core.transitions import Episode
from alula.datasets.formats.drafts import DraftWriter
from alula.datasets.formats.format import Contents, Mapping, Plan, WritableFormat
from alula.datasets.formats.hdf5 import (
    IMAGES,
    NEXT,
    NEXT_OBSERVATION,
    SIDECAR,
    EpisodeGroupReader,
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
    read_field,
    read_sidecar,
    require_writable,
    spec_of,
    with_outcome,
    write_beside,
    write_sidecar,
)
from alula.datasets.schema import step_fields

MAIN_FILE, METADATA_FILE = "main_data.hdf5", "metadata.json"
OLDEST_VERSION = "0.5.0"
RAW_IMAGES_VERSION = "0.5.4"
"""The first that can leave images as they are."""
OUTCOME_PLACES = {"next.reward": "rewards", "next.terminated": "terminations", "next.truncated": "truncations"}
SUCCESS_NAMES = ("infos/success", "infos/is_success")
JPEG_START = b"\xff\xd8\xff"


class MinariReader(EpisodeGroupReader):
    """An open Minari dataset."""

    def __init__(self, path: Path, file: h5py.File, metadata: dict[str, Any]) -> None:
        """Find the episodes and what they hold."""
        names = sorted((name for name in file if name[:8] == "episode_"), key=lambda name: int(name[8:]))
        own = read_sidecar(file)
        self._own = own is not None
        if own:
            self._ahead = {name for name in own[1] if _paired(name, own[0])}
            layout = _own_layout(*own)
        elif names:
            layout, self._ahead = _foreign_layout(file[names[0]], metadata)
        else:
            raise DatasetError("it holds no episodes (groups episode_<i>); there is nothing to read")
        super().__init__(path, file, layout, names)

    def episode(self, group: h5py.Group) -> Episode:
        """An episode."""
        length = len(group["rewards"])
        fields = [field for name, field in step_fields(self.contents).items() if name in self._layout.places]
        steps = with_outcome({field.name: self._field(group, field, length) for field in fields}, length)
        if self._own:
            return Episode(steps, *read_beside(group, self.contents))
        attributes = {name: plain(value) for name, value in group.attrs.items() if name != "total_steps"}
        return Episode(steps, {"source": "minari", **attributes})

    def _field(self, group: h5py.Group, field: FieldSpec, length: int) -> Shaped[ndarray, "length *field"]:
        place, first = self._layout.places[field.name], int(field.name in self._ahead)
        exact = f"{SIDECAR}/{field.name}"
        if self._own and exact in group:
            return read_field(group, exact, field, 0, length)
        if isinstance(group.get(place), h5py.Group):
            parts = [part[:].reshape(len(part), -1) for part in datasets_below(group[place]).values()]
            return _checked(np.concatenate(parts, axis=1), field, place, length)
        if place.split("/")[0] == "observations" and len(group[place]) != length + 1:
            raise DatasetError(f"'{place}' has {len(group[place])} rows, needed is one more than the {length} steps")
        if not self._own and _is_jpeg(group[place]):
            return _checked(_decode(group[place], first, first + length), field, place, length)
        return read_field(group, place, field, first, first + length)


class MinariWriter(DraftWriter):
    """A Minari dataset under construction."""

    def build(self, whole: Path) -> None:
        """Write the folder."""
        places = own_places(self.contents)
        (whole / "data").mkdir(parents=True)
        total_steps = 0
        with h5py.File(whole / "data" / MAIN_FILE, "w") as file:
            write_sidecar(file, self.contents, places)
            for index, episode in enumerate(self.episodes()):
                group = file.create_group(f"episode_{index}")
                group.attrs["id"] = index
                group.attrs["total_steps"] = episode.length
                if type(episode.metadata.get("seed")) is int:
                    group.attrs["seed"] = episode.metadata["seed"]
                if not _is_flat(self.contents):
                    group.create_group("observations")
                for name, place in places.items():
                    self._write_field(group, name, place, episode)
                write_beside(group, episode, f"episode {index}")
                total_steps += episode.length
        size_mb = round((whole / "data" / MAIN_FILE).stat().st_size / 1e6, 1)
        about = _metadata(self.contents, self.num_episodes, total_steps) | {"dataset_size": size_mb}
        (whole / "data" / METADATA_FILE).write_text(json.dumps(about))

    def _write_field(self, group: h5py.Group, name: str, place: str, episode: Episode) -> None:
        values = episode.steps[name]
        if name in self.contents.observation:
            led_to = episode.steps[f"{NEXT}{name}"] if _paired(f"{NEXT}{name}", self.contents) else values
            last = led_to[-1:] if episode.length else np.zeros((1, *values.shape[1:]), values.dtype)
            group.create_dataset(place, data=np.concatenate([values, last]))
        elif not _paired(name, self.contents):
            group.create_dataset(place, data=values)
        elif values[:-1].tobytes() != episode.steps[name.removeprefix(NEXT)][1:].tobytes():
            group.create_dataset(f"{SIDECAR}/{name}", data=values)


class Minari(WritableFormat):
    """Minari's dataset folders."""

    name = "minari"
    suffix = ""

    def detect(self, path: Path) -> bool:
        """A folder with Minari's HDF5 file, or its metadata."""
        try:
            folder = _data_folder(path)
            main = folder / MAIN_FILE
            if main.exists():
                return looks_like(main, lambda file: "episode_0" in file or SIDECAR in file.attrs)
            return "minari_version" in json.loads((folder / METADATA_FILE).read_text())
        except (OSError, ValueError):
            return False

    def open(self, path: Path) -> MinariReader:
        """A reader of the folder that holds `data`, or of `data` itself."""
        folder = _data_folder(path)
        metadata = _read_metadata(folder)
        if metadata.get("data_format", "hdf5") != "hdf5":
            raise DatasetError(
                f"'{path}' is kept as {metadata['data_format']}; alula reads Minari's HDF5: create it again in Minari "
                f"with data_format='hdf5'"
            )
        file = open_hdf5(folder / MAIN_FILE)
        try:
            with explaining(folder / MAIN_FILE, "/"):
                # Before version 0.5 the file's attributes were its metadata.
                about = metadata or {name: plain(value) for name, value in file.attrs.items()}
                return MinariReader(folder / MAIN_FILE, file, about)
        except DatasetError:
            file.close()
            raise

    def plan(self, contents: Contents) -> Plan:
        """Everything finds a place."""
        require_writable(contents, "Minari")
        mappings = []
        for name, place in own_places(contents).items():
            change = ""
            if name in contents.observation:
                known = f"'s last {NEXT}{name}" if _paired(f"{NEXT}{name}", contents) else " last one again"
                change = f"at an episode's end follows{known}"
                change += f"; pictures as they are, for Minari {RAW_IMAGES_VERSION}" if _is_film(contents, name) else ""
            elif _paired(name, contents):
                change = f"where it only repeats what follows, else also in {SIDECAR}/{name}"
            mappings.append(Mapping(name, f"episode_*/{place}", change))
        mappings.append(Mapping("metadata", f"attribute '{SIDECAR}'", "as JSON"))
        mappings += [
            Mapping(f"stream {stream}", f"episode_*/{SIDECAR}/streams/{stream}") for stream in contents.streams
        ]
        return Plan(tuple(mappings))

    def create(self, path: Path, contents: Contents) -> MinariWriter:
        """A writer of a new folder."""
        require_writable(contents, "Minari")
        return MinariWriter(path, contents)


def _data_folder(path: Path) -> Path:
    return path / "data" if (path / "data").is_dir() else path


def _read_metadata(folder: Path) -> dict[str, Any]:
    path = folder / METADATA_FILE
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DatasetError(f"'{path}' is damaged ({error}); fetch the dataset again") from error


# --- Ours -------------------------------------------------------------------------------------------------------------


def own_places(contents: Contents) -> dict[str, str]:
    """Where we write each field, below its episode."""
    if _is_flat(contents):
        observed = dict.fromkeys(contents.observation, "observations")
    else:
        observed = distinct({name: f"observations/{_short(name)}" for name in contents.observation})
    pairs = {name: observed[name.removeprefix(NEXT)] for name in contents.extra if _paired(name, contents)}
    rest = {name: f"infos/{_short(name)}" for name in contents.extra if name not in pairs}
    infos = distinct({"next.success": "infos/success", **rest})
    return {**observed, **pairs, "action": "actions", **OUTCOME_PLACES, **infos}


def _short(name: str) -> str:
    for prefix in ("observation.", "infos."):
        rest = name.removeprefix(prefix)
        if rest != name and rest.strip("."):
            return rest
    return name


def _is_flat(contents: Contents) -> bool:
    """Whether Minari's observations are one array."""
    return len(contents.observation) == 1


def _paired(name: str, contents: Contents) -> bool:
    """Whether `name` is what a step led to, of an observation of the same shape and type."""
    seen = contents.observation.get(name.removeprefix(NEXT)) if name.startswith(NEXT_OBSERVATION) else None
    field = contents.extra.get(name)
    return seen is not None and field is not None and (seen.shape, seen.dtype) == (field.shape, field.dtype)


def _own_layout(contents: Contents, places: dict[str, str]) -> Layout:
    mappings = [Mapping(f"episode_*/{place}", name) for name, place in places.items()]
    return Layout(contents, places, Plan((*mappings, Mapping(f"attribute '{SIDECAR}'", "metadata"))))


def _is_film(contents: Contents, name: str) -> bool:
    field = contents.observation[name]
    return len(field.shape) >= 2 and field.dtype == "uint8"


def _metadata(contents: Contents, num_episodes: int, num_steps: int) -> dict[str, Any]:
    """What Minari asks of a dataset."""
    known = contents.metadata.get("minari")
    films = any(_is_film(contents, name) for name in contents.observation)
    observed = {
        own_places(contents)[name].removeprefix("observations/"): _box(field)
        for name, field in contents.observation.items()
    }
    space = next(iter(observed.values())) if _is_flat(contents) else {"type": "Dict", "subspaces": observed}
    return {
        "dataset_id": "alula/dataset-v0",
        **(known if isinstance(known, dict) else {}),
        "total_episodes": num_episodes,
        "total_steps": num_steps,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": json.dumps(space),
        "action_space": json.dumps(_box(contents.action["action"])),
        "minari_version": RAW_IMAGES_VERSION if films else OLDEST_VERSION,
    }


def _box(field: FieldSpec) -> dict[str, Any]:
    low, high = field.bounds()
    return {
        **{"type": "Box", "dtype": field.dtype, "shape": list(field.shape)},
        **{"low": low.tolist(), "high": high.tolist()},
    }


# --- Others' ----------------------------------------------------------------------------------------------------------


def _foreign_layout(group: h5py.Group, metadata: dict[str, Any]) -> tuple[Layout, set[str]]:
    """Map a dataset by its first episode; also which fields are read one row ahead."""
    missing = [name for name in ("observations", "actions", "rewards") if name not in group]
    if missing:
        raise DatasetError(f"{group.name} lacks {missing} and has {sorted(group)}")
    length = len(group["rewards"])
    fields = [_action_spec(group["actions"], metadata.get("action_space"))]
    places = {"action": "actions", **{name: path for name, path in OUTCOME_PLACES.items() if path in group}}
    losses, ahead = [], set[str]()
    space = _parsed(metadata.get("observation_space"))
    for path, dataset in datasets_below(group).items():
        if path.split("/")[0] == "actions" or path in OUTCOME_PLACES.values():
            continue
        if not _is_jpeg(dataset) and not is_field(dataset, length, length + 1):
            losses.append(f"'{path}' is not one row of numbers a step")
        elif path in SUCCESS_NAMES and "next.success" not in places:
            places["next.success"] = path
            ahead |= {"next.success"} if len(dataset) == length + 1 else set()
        else:
            field = _foreign_spec(path, dataset, space)
            fields.append(field)
            places[field.name] = path
            if len(dataset) == length + 1:
                later = FieldSpec.from_dict({**field.to_dict(), "name": f"{NEXT}{field.name}"})
                fields.append(later)
                places[later.name] = path
                ahead.add(later.name)
    about = {"provenance": f"Minari {metadata.get('dataset_id', '')}".strip(), "minari": metadata}
    contents = contents_of(fields, {**about, "success_recorded": "next.success" in places})
    joined = isinstance(group["actions"], h5py.Group)
    return Layout(contents, places, Plan(tuple(_foreign_mappings(places, ahead, joined)), tuple(losses))), ahead


def _foreign_spec(path: str, dataset: h5py.Dataset, space: dict[str, Any]) -> FieldSpec:
    head, *keys = path.split("/")
    name = f"observation.{'.'.join(keys) or 'state'}" if head == "observations" else ".".join((head, *keys))
    film = f"{IMAGES}{'.'.join(keys) or 'camera'}" if head == "observations" else name
    if _is_jpeg(dataset):
        frame = _decode(dataset, 0, 1)[0]
        return FieldSpec(film if frame.ndim == 3 else name, frame.shape, "uint8")
    for key in keys if head == "observations" else ():
        space = space.get("subspaces", {}).get(key, {}) if isinstance(space.get("subspaces"), dict) else {}
    return spec_of(film if is_image(dataset) else name, dataset, **(_bounds(space) if head == "observations" else {}))


def _action_spec(actions: h5py.Dataset | h5py.Group, space: Any) -> FieldSpec:
    if isinstance(actions, h5py.Dataset):
        return spec_of("action", actions, **_bounds(_parsed(space)))
    parts = datasets_below(actions)
    sizes = {path: int(np.prod(part.shape[1:])) for path, part in parts.items()}
    names = tuple(f"{path.replace('/', '.')}.{index}" for path, size in sizes.items() for index in range(size))
    dtype = np.result_type(*(part.dtype for part in parts.values())).name
    return FieldSpec("action", (len(names),), dtype, element_names=names)


def _parsed(space: Any) -> dict[str, Any]:
    """A space as Minari serialises it; nothing where only the environment knows it."""
    return dict(json.loads(space)) if isinstance(space, str) else {}


def _bounds(space: dict[str, Any]) -> dict[str, tuple[float, ...]]:
    """Finite bounds of a vector of numbers."""
    if space.get("type") != "Box" or len(space["shape"]) != 1 or not space["shape"][0]:
        return {}
    return {side: tuple(space[side]) for side in ("low", "high") if np.isfinite(space[side]).all()}


def _foreign_mappings(places: dict[str, str], ahead: set[str], joined: bool) -> Iterator[Mapping]:
    changes = dict.fromkeys(ahead, "one row ahead: what each step led to")
    changes |= {"action": "its parts side by side, in the order of their names"} if joined else {}
    for name, path in places.items():
        yield Mapping(f"episode_*/{path}", name, changes.get(name, ""))
    if "next.success" not in places:
        yield Mapping("(nothing)", "next.success", "unknown, stored as False")
    yield Mapping(METADATA_FILE, "metadata minari")
    yield Mapping("attributes of episode_*", "metadata of each episode")


def _is_jpeg(dataset: h5py.Dataset) -> bool:
    """Whether each row is one encoded picture."""
    ragged = h5py.check_vlen_dtype(dataset.dtype) == np.uint8
    if not len(dataset.shape) or not len(dataset) or not (ragged or (dataset.dtype == np.uint8 and dataset.ndim == 2)):
        return False
    return dataset[0].tobytes()[:3] == JPEG_START


def _decode(dataset: h5py.Dataset, start: int, stop: int) -> Shaped[ndarray, "steps *picture"]:
    try:
        frames = [np.asarray(Image.open(io.BytesIO(row.tobytes()))) for row in dataset[start:stop]]
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DatasetError(f"'{dataset.name}' holds a picture that cannot be decoded: {error}") from error
    return np.stack(frames)


def _checked(
    values: Shaped[ndarray, "rows ..."], field: FieldSpec, place: str, length: int
) -> Shaped[ndarray, "length *field"]:
    if values.shape != (length, *field.shape):
        raise DatasetError(f"'{place}' has shape {values.shape}, needed are {length} steps of shape {field.shape}")
    return values.astype(field.dtype)

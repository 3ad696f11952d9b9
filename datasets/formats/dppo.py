"""The datasets of DPPO (Ren et al. 2024, arXiv:2409.00588; github.com/irom-princeton/dppo): NumPy archives.

    train.npz               all episodes behind each other; val.npz beside it may hold more
        states (N, D), actions (N, A)       scaled to [-1, 1], element by element
        rewards (N,), terminals (N,)        optional
        images (N, 3 * cameras, H, W)       optional, uint8
        traj_lengths (E,)
    normalization.npz       obs_min, obs_max, action_min, action_max: what -1 and 1 stand for
    alula.hdf5              ours: every field exactly but the images, metadata, streams; others ignore it

Scaled is 2 (x - min) / (max - min + 1e-6) - 1, as in DPPO's `script/dataset`.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import h5py
import numpy as np
from jaxtyping import Float, Int64, Shaped
from numpy import ndarray

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.formats.drafts import DraftWriter, read_exact, write_exact
from alula.datasets.formats.format import Contents, Mapping, Plan, Reader, WritableFormat
from alula.datasets.formats.hdf5 import (
    IMAGES,
    contents_of,
    explaining,
    open_hdf5,
    read_sidecar,
    require_writable,
    with_outcome,
    write_sidecar,
)
from alula.datasets.formats.npz_rows import Rows, has_array, reading, write_rows
from alula.datasets.schema import fitted, step_fields

TRAIN_FILE, VALID_FILE, NORMALIZATION_FILE, SIDECAR_FILE = "train.npz", "val.npz", "normalization.npz", "alula.hdf5"
REQUIRED = ("states", "actions", "traj_lengths")
EPSILON = 1e-6
Bounds = tuple[Float[ndarray, " elements"], Float[ndarray, " elements"]]


class DppoReader(Reader):
    """DPPO's archives, read one episode at a time."""

    def __init__(self, files: list[Path]) -> None:
        """Find out what the archives hold."""
        self._files = files
        self._lengths: dict[Path, Int64[ndarray, " episodes"]] = {}
        for file in files:
            with reading(file) as archive:
                self._lengths[file] = _lengths(archive)
        self.num_episodes = sum(len(lengths) for lengths in self._lengths.values())
        self._images: list[str] = []
        self._bounds: dict[str, Bounds] = {}
        self._sidecar: h5py.File | None = None
        sidecar = files[0].with_name(SIDECAR_FILE)
        if sidecar.exists():
            self._open_own(sidecar)
        else:
            self._open_foreign(files[0])

    def episodes(self, start: int = 0) -> Iterator[Episode]:
        """Those of the training set, then those held out."""
        number = 0
        for file, lengths in self._lengths.items():
            with reading(file) as archive:
                names = ["images"] if self._sidecar else self._names
                rows = {name: Rows(archive, name) for name in names if self._images or name != "images"}
                for length in lengths.tolist():
                    arrays = {name: row.take(length) for name, row in rows.items()}
                    if number >= start:
                        episode = self._own(number, arrays) if self._sidecar else self._foreign(file, length, arrays)
                        yield fitted(self.contents, episode, f"episode {number}")
                    number += 1

    def close(self) -> None:
        """Close our sidecar."""
        if self._sidecar:
            self._sidecar.close()

    def _open_own(self, path: Path) -> None:
        with ExitStack() as stack:
            file = stack.enter_context(open_hdf5(path))
            with explaining(path, "/"):
                found = read_sidecar(file)
                if found is None:
                    raise DatasetError("it does not say what the dataset holds; delete it to read by DPPO's rules")
                self.contents, places = found
                known = [int(file[f"episodes/{number}"].attrs["length"]) for number in range(len(file["episodes"]))]
                if known != [length for lengths in self._lengths.values() for length in lengths.tolist()]:
                    raise DatasetError("it belongs to other archives than those beside it; delete it")
            stack.pop_all()
        self._sidecar = file
        self._images = [name for name, place in places.items() if place == "images"]
        names = step_fields(self.contents)
        mappings = [Mapping("images" if name in self._images else SIDECAR_FILE, name) for name in names]
        self.plan = Plan((*mappings, Mapping(SIDECAR_FILE, "metadata")))

    def _own(self, number: int, arrays: dict[str, Shaped[ndarray, "..."]]) -> Episode:
        assert self._sidecar is not None
        fields = step_fields(self.contents)
        rest = SpaceSpec(tuple(field for name, field in fields.items() if name not in self._images))
        with explaining(self._files[0].with_name(SIDECAR_FILE), f"episode {number}"):
            episode = read_exact(self._sidecar[f"episodes/{number}"], self.contents, rest)
        steps = {**episode.steps, **_pictures(self._images, arrays)}
        return Episode(steps, episode.metadata, episode.streams)

    def _open_foreign(self, path: Path) -> None:
        with reading(path) as archive:
            self._names = [
                name for name in ("states", "actions", "rewards", "terminals", "images") if has_array(archive, name)
            ]
            rows = {name: Rows(archive, name) for name in self._names}
            lost = [name.removesuffix(".npy") for name in archive.namelist()]
        lost = [name for name in lost if name not in (*self._names, "traj_lengths")]
        self._bounds = _read_bounds(path.with_name(NORMALIZATION_FILE))
        fields = []
        for name, field_name in (("states", "observation.state"), ("actions", "action")):
            fields.append(FieldSpec(field_name, rows[name].shape[1:], rows[name].dtype.name))
            if name in self._bounds and self._bounds[name][0].shape != rows[name].shape[1:]:
                raise DatasetError(
                    f"'{path.with_name(NORMALIZATION_FILE)}' has bounds of shape {self._bounds[name][0].shape}, but a "
                    f"row of '{name}' has shape {rows[name].shape[1:]}; they belong to different datasets"
                )
        if "images" in rows:
            fields += self._image_fields(rows["images"], path)
        about = {"provenance": "DPPO archive", "success_recorded": False}
        self.contents = contents_of(fields, about)
        self.plan = Plan(tuple(self._mappings()), tuple(f"the array '{name}'" for name in lost))

    def _image_fields(self, images: Rows, path: Path) -> list[FieldSpec]:
        if len(images.shape) != 4 or images.dtype != np.uint8 or images.shape[1] % 3:
            raise DatasetError(
                f"'{path}' has images of {images.dtype} {images.shape}; needed are uint8 (steps, 3 * cameras, height, "
                f"width)"
            )
        _, channels, height, width = images.shape
        self._images = [f"{IMAGES}camera_{index}" for index in range(channels // 3)]
        return [FieldSpec(name, (height, width, 3), "uint8") for name in self._images]

    def _mappings(self) -> Iterator[Mapping]:
        for name, field_name in (("states", "observation.state"), ("actions", "action")):
            scaled = f"from [-1, 1] back to the range in {NORMALIZATION_FILE}"
            unknown = f"left in [-1, 1]: there is no {NORMALIZATION_FILE}"
            yield Mapping(name, field_name, scaled if name in self._bounds else unknown)
        for name in self._images:
            yield Mapping("images", name, "channels last")
        outcome = {"rewards": "next.reward", "terminals": "next.terminated"}
        for name, field_name in outcome.items():
            yield Mapping(name if name in self._names else "(nothing)", field_name)
        yield Mapping("traj_lengths", "next.truncated", "True at an episode's last step unless it terminates there")
        yield Mapping("(nothing)", "next.success", "unknown, stored as False")

    def _foreign(self, file: Path, length: int, arrays: dict[str, Shaped[ndarray, "..."]]) -> Episode:
        steps = _pictures(self._images, arrays)
        for name, field in (
            ("states", self.contents.observation["observation.state"]),
            ("actions", self.contents.action["action"]),
        ):
            bounds = self._bounds.get(name)
            steps[field.name] = _unscaled(arrays[name], *bounds) if bounds else arrays[name]
        if "rewards" in arrays:
            steps["next.reward"] = arrays["rewards"].reshape(length).astype(np.float64)
        if "terminals" in arrays:
            steps["next.terminated"] = arrays["terminals"].reshape(length) != 0
        return Episode(with_outcome(steps, length), {"source": "dppo", "split": _split(file)})


class DppoWriter(DraftWriter):
    """DPPO's archives under construction."""

    def build(self, whole: Path) -> None:
        """Write the folder; every array takes a pass of its own over the episodes."""
        whole.mkdir()
        lengths = np.array(list(self.lengths()), np.int64)
        num_steps = int(lengths.sum())
        bounds = {"states": self._bounds(_state(self.contents)), "actions": self._bounds(["action"])}
        images = _stackable(self.contents)
        with ZipFile(whole / TRAIN_FILE, "w") as archive:
            for name, (low, high) in bounds.items():
                fields = _state(self.contents) if name == "states" else ["action"]
                blocks = (_scaled(_flat(episode, fields), low, high) for episode in self.episodes(fields))
                write_rows(archive, name, (num_steps, len(low)), np.float32, blocks)
            for name, field in (("rewards", "next.reward"), ("terminals", "next.terminated")):
                column = (episode.steps[field] for episode in self.episodes([field]))
                write_rows(archive, name, (num_steps,), np.float64 if name == "rewards" else np.bool_, column)
            if images:
                height, width, _ = self.contents.observation[images[0]].shape
                films = (_channels_first(images, episode) for episode in self.episodes(images))
                write_rows(archive, "images", (num_steps, 3 * len(images), height, width), np.uint8, films)
            write_rows(archive, "traj_lengths", lengths.shape, np.int64, iter([lengths]))
        names = {"states": "obs", "actions": "action"}
        sides = {
            f"{names[name]}_{side}": value
            for name, pair in bounds.items()
            for side, value in zip(("min", "max"), pair, strict=True)
        }
        np.savez(whole / NORMALIZATION_FILE, allow_pickle=False, **sides)
        with h5py.File(whole / SIDECAR_FILE, "w") as file:
            write_sidecar(file, self.contents, dict.fromkeys(images, "images"))
            file.create_group("episodes")
            rest = [name for name in step_fields(self.contents) if name not in images]
            for number, episode in enumerate(self.episodes(rest)):
                write_exact(file.create_group(f"episodes/{number}"), episode, f"episode {number}")

    def _bounds(self, names: list[str]) -> Bounds:
        """Lowest and highest value of each element."""
        size = sum(step_fields(self.contents)[name].size for name in names)
        low, high = np.full(size, np.inf), np.full(size, -np.inf)
        for episode in self.episodes(names):
            values = _flat(episode, names)
            low = np.fmin(low, np.fmin.reduce(values, axis=0, initial=np.inf))
            high = np.fmax(high, np.fmax.reduce(values, axis=0, initial=-np.inf))
        seen = low <= high
        return np.where(seen, low, 0), np.where(seen, high, 0)


class Dppo(WritableFormat):
    """DPPO's archives."""

    name = "dppo"
    suffix = ""

    def detect(self, path: Path) -> bool:
        """An archive with DPPO's arrays, or a folder with such a train.npz."""
        try:
            with ZipFile(path / TRAIN_FILE if path.is_dir() else path) as archive:
                return all(has_array(archive, name) for name in REQUIRED)
        except (OSError, BadZipFile, ValueError):
            return False

    def open(self, path: Path) -> DppoReader:
        """A reader of a folder with train.npz (and val.npz), or of one such archive."""
        if not path.is_dir():
            return DppoReader([path])
        return DppoReader([path / TRAIN_FILE, *(file for file in [path / VALID_FILE] if file.exists())])

    def plan(self, contents: Contents) -> Plan:
        """Everything finds a place."""
        require_writable(contents, "DPPO")
        state, images = _state(contents), _stackable(contents)
        scaled = f"scaled to [-1, 1] as float32; exactly in {SIDECAR_FILE}"
        mappings = [
            *(Mapping(name, "train.npz states", f"side by side, {scaled}") for name in state),
            Mapping("action", "train.npz actions", scaled),
            Mapping("next.reward", "train.npz rewards"),
            Mapping("next.terminated", "train.npz terminals"),
            *(Mapping(name, "train.npz images", "channels first, cameras behind each other") for name in images),
        ]
        shown = {*state, *images, "action", "next.reward", "next.terminated"}
        mappings += [Mapping(name, SIDECAR_FILE) for name in step_fields(contents) if name not in shown]
        mappings += [
            Mapping(name, SIDECAR_FILE) for name in ("metadata", *(f"stream {name}" for name in contents.streams))
        ]
        return Plan(tuple(mappings))

    def create(self, path: Path, contents: Contents) -> DppoWriter:
        """A writer of a new folder."""
        require_writable(contents, "DPPO")
        return DppoWriter(path, contents)


# --- Archives ---------------------------------------------------------------------------------------------------------


def _lengths(archive: ZipFile) -> Int64[ndarray, " episodes"]:
    missing = [name for name in REQUIRED if not has_array(archive, name)]
    if missing:
        raise DatasetError(f"it is no archive of DPPO's: it lacks {missing} and has {archive.namelist()}")
    for name in ("states", "actions"):
        if len(shape := Rows(archive, name).shape) != 2:
            raise DatasetError(f"the array '{name}' has shape {shape}, needed are two axes: steps and elements")
    rows = Rows(archive, "traj_lengths")
    lengths = rows.take(rows.shape[0]) if len(rows.shape) == 1 else np.array([-1])
    num_steps = Rows(archive, "states").shape[0]
    if lengths.dtype.kind not in "iu" or lengths.min(initial=0) < 0 or lengths.sum() > num_steps:
        raise DatasetError(
            f"traj_lengths must be integers that sum to at most {num_steps} steps; got {lengths[:5].tolist()}"
        )
    return lengths.astype(np.int64)


def _read_bounds(path: Path) -> dict[str, Bounds]:
    if not path.exists():
        return {}
    with reading(path) as archive:
        values = {}
        for name in ("obs_min", "obs_max", "action_min", "action_max"):
            rows = Rows(archive, name)
            values[name] = rows.take(rows.shape[0]).astype(np.float64)
    return {
        "states": (values["obs_min"], values["obs_max"]),
        "actions": (values["action_min"], values["action_max"]),
    }


# --- Values -----------------------------------------------------------------------------------------------------------


def _scaled(
    values: Float[ndarray, "length elements"], low: Float[ndarray, " elements"], high: Float[ndarray, " elements"]
) -> Float[ndarray, "length elements"]:
    with np.errstate(over="ignore", invalid="ignore"):  # The range of extreme values may be infinite.
        return 2 * (values - low) / (high - low + EPSILON) - 1


def _unscaled(
    values: Shaped[ndarray, "length elements"], low: Float[ndarray, " elements"], high: Float[ndarray, " elements"]
) -> Shaped[ndarray, "length elements"]:
    return ((values.astype(np.float64) + 1) / 2 * (high - low + EPSILON) + low).astype(values.dtype)


def _state(contents: Contents) -> list[str]:
    """The observation fields that make up `states`: numbers and vectors."""
    return [name for name, field in contents.observation.items() if len(field.shape) <= 1]


def _flat(episode: Episode, names: list[str]) -> Float[ndarray, "length elements"]:
    """The fields side by side."""
    arrays = [episode.steps[name] for name in names]
    columns = [values.reshape(episode.length, int(np.prod(values.shape[1:]))) for values in arrays]
    return np.concatenate([np.zeros((episode.length, 0)), *columns], axis=1, dtype=np.float64)


def _stackable(contents: Contents) -> list[str]:
    """The cameras, where their pictures have one size and fit behind each other."""
    films = {name: field for name, field in contents.observation.items() if name.startswith(IMAGES)}
    shapes = {(field.shape, field.dtype) for field in films.values()}
    fits = len(shapes) == 1 and all(len(shape) == 3 and shape[2] == 3 and dtype == "uint8" for shape, dtype in shapes)
    return list(films) if fits else []


def _channels_first(names: list[str], episode: Episode) -> Shaped[ndarray, "length channels height width"]:
    return np.concatenate([np.moveaxis(episode.steps[name], 3, 1) for name in names], axis=1)


def _pictures(names: list[str], arrays: dict[str, Shaped[ndarray, "..."]]) -> dict[str, Shaped[ndarray, "..."]]:
    """Inverse of `_channels_first`."""
    return {
        name: np.ascontiguousarray(np.moveaxis(arrays["images"][:, 3 * index : 3 * index + 3], 1, 3))
        for index, name in enumerate(names)
    }


def _split(file: Path) -> str:
    return "valid" if file.name == VALID_FILE else "train"

"""Episodes of ACT and ALOHA (Zhao et al. 2023, arXiv:2304.13705): a folder of HDF5 files, read only.

    episode_<i>.hdf5                    attributes: sim, compress
        action (T, 14)                  commanded joint positions, left arm then right arm
        base_action (T, 2)              Mobile ALOHA: forward and turning velocity
        observations/qpos, qvel, effort (T, 14)
        observations/images/<camera>    (T, H, W, 3) uint8, or one JPEG a row, padded with zeros, if compressed
        compress_len (cameras, T)       lengths of the JPEGs

Pictures are recorded at 50 Hz, together with the joints. ALOHA compresses RGB as if it were BGR, by OpenCV, and
decodes it likewise; so do we, for the colours of the recording.
"""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Shaped
from numpy import ndarray
from PIL import Image, UnidentifiedImageError

from alula.core.errors import DatasetError
from alula.core.spaces import ControlMode, FieldSpec
from alula.core.transitions import Episode
from alula.datasets.formats.format import Format, Mapping, Plan, Reader
from alula.datasets.formats.hdf5 import (
    IMAGES,
    Layout,
    contents_of,
    datasets_below,
    explaining,
    is_field,
    is_image,
    looks_like,
    open_hdf5,
    plain,
    read_field,
    spec_of,
    with_outcome,
)
from alula.datasets.schema import fitted, step_fields

RATE = 50.0
"""Steps per second [Hz]: DT = 0.02 s."""
JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
"""Of a ViperX 300; ALOHA has two."""
ELEMENT_NAMES = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in JOINTS)
FIELDS = {
    "observations/qpos": "observation.state",
    "observations/qvel": "observation.velocity",
    "observations/effort": "observation.effort",
    "action": "action",
}
UNITS = {"observation.state": ("rad", "1"), "action": ("rad", "1"), "observation.velocity": ("rad/s", "1/s")}
"""Of the joints, and of the gripper, whose opening counts from 0 to 1. The unit of `effort` is not documented."""
EPISODE = re.compile(r"episode_(\d+)\.(?:hdf5|h5)")
PICTURES = "observations/images/"


class AlohaReader(Reader):
    """A folder of ALOHA's episodes."""

    def __init__(self, files: list[Path]) -> None:
        """Map the first episode; the others must be like it."""
        self._files = files
        with open_hdf5(files[0]) as file, explaining(files[0], "/"):
            self._layout = _layout(file)
        self.contents, self.plan = self._layout.contents, self._layout.plan
        self.num_episodes = len(files)

    def episodes(self, start: int = 0) -> Iterator[Episode]:
        """One file after the other."""
        for path in self._files[start:]:
            with open_hdf5(path) as file, explaining(path, "/"):
                episode = fitted(self.contents, self._episode(file, path), "the episode")
            yield episode

    def _episode(self, file: h5py.File, path: Path) -> Episode:
        length = len(file["action"])
        fields, places = step_fields(self.contents), self._layout.places
        steps = {
            name: _pictures(file, place, fields[name], length)
            if place.startswith(PICTURES) and not is_image(file[place])
            else read_field(file, place, fields[name], 0, length)
            for name, place in places.items()
        }
        attributes = {name: plain(value) for name, value in file.attrs.items()}
        return Episode(with_outcome(steps, length), {"source": "aloha", "source_file": path.name, **attributes})


class Aloha(Format):
    """ACT's and ALOHA's episodes."""

    name = "aloha"
    suffix = ""

    def detect(self, path: Path) -> bool:
        """A folder of episodes, or one of them, with joints and actions."""
        files = _files(path)
        return bool(files) and looks_like(files[0], lambda file: "action" in file and "observations/qpos" in file)

    def open(self, path: Path) -> AlohaReader:
        """A reader of a folder, or of a single episode."""
        files = _files(path)
        if not files:
            raise DatasetError(f"there are no files episode_<number>.hdf5 at '{path}'; give the folder that holds them")
        return AlohaReader(files)


def _files(path: Path) -> list[Path]:
    """The episodes in the order of their numbers."""
    if path.is_file():
        return [path]
    found = {int(match[1]): file for file in path.glob("*") if (match := EPISODE.fullmatch(file.name))}
    return [found[number] for number in sorted(found)]


def _layout(file: h5py.File) -> Layout:
    missing = [name for name in ("action", "observations/qpos") if not isinstance(file.get(name), h5py.Dataset)]
    if missing:
        raise DatasetError(f"it is HDF5, but not ALOHA's: it lacks {missing} and has {sorted(file)}")
    length = len(file["action"])
    fields, mappings, losses = [], [], []
    places: dict[str, str] = {}
    for path, dataset in datasets_below(file).items():
        if path.startswith(PICTURES):
            name = IMAGES + path.removeprefix(PICTURES).replace("/", ".")
            compressed = not is_image(dataset)
            shape = _picture(dataset, 0).shape if compressed else dataset.shape[1:]
            fields.append(FieldSpec(name, shape, "uint8", rate=RATE))
            change = "JPEGs decoded, in the channel order of the recording" if compressed else ""
        elif path != "compress_len" and is_field(dataset, length):
            name = FIELDS.get(path, path.replace("observations/", "observation.").replace("/", "."))
            fields.append(spec_of(name, dataset, **_properties(name, dataset)))
            change = ""
        else:
            losses += [f"'{path}' is not one row of numbers a step"] if path != "compress_len" else []
            continue
        places[fields[-1].name] = path
        mappings.append(Mapping(path, fields[-1].name, change))
    mappings += [
        Mapping("(nothing)", "next.reward, next.success", "unknown, stored as 0 and False"),
        Mapping("(nothing)", "next.truncated", "True at an episode's last step"),
        Mapping("attributes", "metadata of each episode"),
    ]
    metadata = {"provenance": "ALOHA HDF5", "rate": RATE, "success_recorded": False}
    return Layout(contents_of(fields, metadata), places, Plan(tuple(mappings), tuple(losses)))


def _properties(name: str, dataset: h5py.Dataset) -> dict[str, Any]:
    """What ALOHA's two arms say of a field; nothing of other robots'."""
    properties: dict[str, Any] = {"rate": RATE}
    if dataset.shape[1:] != (len(ELEMENT_NAMES),) or name not in FIELDS.values():
        return properties
    properties["element_names"] = ELEMENT_NAMES
    if name in UNITS:
        joint, gripper = UNITS[name]
        properties["units"] = 2 * ((joint,) * (len(JOINTS) - 1) + (gripper,))
    if name == "action":
        properties["control_mode"] = ControlMode.JOINT_POSITION_ABSOLUTE
    return properties


def _pictures(file: h5py.File, place: str, field: FieldSpec, length: int) -> Shaped[ndarray, "length height width 3"]:
    """The decoded pictures of one camera."""
    dataset = file[place]
    if len(dataset) != length:
        raise DatasetError(f"the array '{place}' has {len(dataset)} pictures, needed are {length}")
    frames = [_picture(dataset, step) for step in range(length)]
    if any(frame.shape != field.shape for frame in frames):
        raise DatasetError(f"pictures of '{place}' differ in size from {field.shape}")
    return np.stack(frames) if frames else np.zeros((0, *field.shape), np.uint8)


def _picture(dataset: h5py.Dataset, step: int) -> Shaped[ndarray, "height width 3"]:
    """One decoded picture. A JPEG knows its own end, so the padding behind it does no harm."""
    try:
        with Image.open(io.BytesIO(np.asarray(dataset[step]).tobytes())) as picture:
            return np.ascontiguousarray(np.asarray(picture.convert("RGB"))[:, :, ::-1])
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DatasetError(f"picture {step} of '{dataset.name}' cannot be decoded: {error}") from error

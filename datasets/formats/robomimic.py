"""robomimic's HDF5 files (github.com/ARISE-Initiative/robomimic, versions 0.2 to 0.5).

    data                attributes: total, env_args (JSON)
        demo_<i>        attributes: num_samples, model_file (the simulator's XML), ep_meta (JSON), ...
            obs/<key>, next_obs/<key>, actions, rewards, dones, states, action_dict/<key>, ...
    mask/<filter>       names of demonstrations: train, valid, 20_percent, ...

`dones` says what `next.terminated` says. What else we keep lies in groups and attributes named `alula`; an episode
without steps, which robomimic refuses, lies in the group `alula` instead of `data`.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

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
    read_fields,
    read_sidecar,
    require_writable,
    spec_of,
    write_beside,
    write_sidecar,
)

ROBOSUITE, GYM = 1, 2
"""Values of `type` in env_args."""
ROBOSUITE_UNITS = {
    "_eef_pos": "m",
    "_eef_vel_lin": "m/s",
    "_eef_vel_ang": "rad/s",
    "_joint_pos": "rad",
    "_joint_vel": "rad/s",
    "_gripper_qpos": "m",
    "_gripper_qvel": "m/s",
}
"""By the end of an observation's name."""
TEXT_ATTRIBUTES = ("model_file", "ep_meta", "camera_info")
"""Attributes of a demonstration that travel through an episode's metadata under their own names."""
OUTCOME_PLACES = {
    "next.reward": "rewards",
    "next.terminated": "dones",
    "next.truncated": f"{SIDECAR}/next.truncated",
    "next.success": f"{SIDECAR}/next.success",
}
RESERVED = ("obs", "next_obs", "actions", "rewards", "dones", "action_dict", "mask", SIDECAR)


class RobomimicReader(EpisodeGroupReader):
    """An open robomimic file."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        """Find the demonstrations and what they hold."""
        self._masks = _masks(file)
        names = [
            f"{parent}/{demo}" for parent in ("data", SIDECAR) for demo in file.get(parent, ()) if demo[:5] == "demo_"
        ]
        names.sort(key=lambda name: _number(name.split("/")[1]))
        own = read_sidecar(file["data"])
        self._own = own is not None
        super().__init__(path, file, _layout(*own) if own else _foreign_layout(file["data"], names), names)
        self._sparse = not self._own and "success_from" in self.contents.metadata

    def episode(self, group: h5py.Group) -> Episode:
        """A demonstration."""
        length = len(group["actions"])
        if group.attrs.get("num_samples", length) != length:
            raise DatasetError(f"num_samples is {group.attrs['num_samples']}, but there are {length} actions")
        steps = read_fields(group, self._layout, 0, length)
        if self._own:
            return Episode(steps, *read_beside(group, self.contents))
        if self._sparse:
            steps["next.success"] = steps["next.reward"] > 0
        return Episode(steps, self._metadata(group))

    def _metadata(self, group: h5py.Group) -> dict[str, Any]:
        demo = group.name.split("/")[-1]
        attributes = {name: plain(value) for name, value in group.attrs.items() if name != "num_samples"}
        masks = [mask for mask, demos in self._masks.items() if demo in demos]
        metadata = {"source": "robomimic", "demo": demo, "masks": masks, **attributes, **_instruction(attributes)}
        splits = [mask for mask in masks if mask in ("train", "valid")]
        return {**metadata, "split": splits[0]} if len(splits) == 1 else metadata


class RobomimicWriter(DraftWriter):
    """A robomimic file under construction."""

    def build(self, whole: Path) -> None:
        """Write the file."""
        places = own_places(self.contents)
        masks: dict[str, list[str]] = {}
        total = 0
        with h5py.File(whole, "w") as file:
            data = file.create_group("data")
            write_sidecar(data, self.contents, places)
            for index, episode in enumerate(self.episodes()):
                demo = f"demo_{index}"
                group = file.create_group(f"{'data' if episode.length else SIDECAR}/{demo}")
                _write_demo(group, episode, places)
                write_beside(group, episode, f"episode {index}")
                if episode.length:
                    for mask in _masks_of(episode.metadata):
                        masks.setdefault(mask, []).append(demo)
                total += episode.length
            data.attrs["total"] = total
            data.attrs["env_args"] = json.dumps(_env_args(self.contents.metadata), indent=4)
            for mask, demos in masks.items():
                file[f"mask/{mask}"] = np.array(demos, dtype="S")


class Robomimic(WritableFormat):
    """robomimic's HDF5 files."""

    name = "robomimic"
    suffix = ".hdf5"

    def detect(self, path: Path) -> bool:
        """An HDF5 file with a group `data` that describes its environment or has a first demonstration."""

        def known(file: h5py.File) -> bool:
            data = file.get("data")
            return isinstance(data, h5py.Group) and ("env_args" in data.attrs or "demo_0" in data)

        return looks_like(path, known)

    def open(self, path: Path) -> RobomimicReader:
        """A reader of the file."""
        file = open_hdf5(path)
        try:
            if not isinstance(file.get("data"), h5py.Group):
                raise DatasetError(
                    f"'{path}' is HDF5, but not robomimic's: it has no group 'data', only {sorted(file)}; "
                    f"name its format with format=..."
                )
            with explaining(path, "data"):
                return RobomimicReader(path, file)
        except DatasetError:
            file.close()
            raise

    def plan(self, contents: Contents) -> Plan:
        """Everything finds a place."""
        require_writable(contents, "robomimic")
        changes = {"action": _action_note(contents.action["action"]), "next.terminated": "as 0 and 1"}
        mappings = [
            Mapping(name, f"data/demo_*/{path}", changes.get(name, "")) for name, path in own_places(contents).items()
        ]
        if not any(name.startswith(NEXT_OBSERVATION) for name in contents.extra):
            shifted = "the next step's observation, at an episode's end the last one again"
            mappings.append(Mapping("observation.*", "data/demo_*/next_obs/*", shifted))
        mappings += [
            Mapping("metadata split and masks", "mask/*"),
            Mapping("metadata", f"attribute '{SIDECAR}'", "as JSON"),
        ]
        mappings += [
            Mapping(f"stream {stream}", f"data/demo_*/{SIDECAR}/streams/{stream}") for stream in contents.streams
        ]
        return Plan(tuple(mappings))

    def create(self, path: Path, contents: Contents) -> RobomimicWriter:
        """A writer of a new file."""
        require_writable(contents, "robomimic")
        return RobomimicWriter(path, contents)


# --- Ours -------------------------------------------------------------------------------------------------------------


def own_places(contents: Contents) -> dict[str, str]:
    """Where we write each field, below its demonstration."""
    keys = distinct({name: _key(name) for name in contents.observation})
    places = {name: f"obs/{key}" for name, key in keys.items()}
    wanted = {}
    for name, field in contents.extra.items():
        observed = name.removeprefix(NEXT)
        pair = contents.observation.get(observed) if name.startswith(NEXT_OBSERVATION) else None
        if pair is not None and (pair.shape, pair.dtype) == (field.shape, field.dtype):
            places[name] = f"next_obs/{keys[observed]}"
        else:
            part = name.removeprefix("action_dict.")
            wanted[name] = f"action_dict/{part}" if part != name and part.strip(".") else name
    return {**places, "action": "actions", **OUTCOME_PLACES, **distinct(wanted, RESERVED)}


def _key(name: str) -> str:
    """The name of an observation in robomimic."""
    for prefix, suffix in ((IMAGES, "_image"), ("observation.", "")):
        rest = name.removeprefix(prefix)
        if name.startswith(prefix) and rest.strip("."):
            return rest + suffix
    return name


def _layout(contents: Contents, places: dict[str, str]) -> Layout:
    mappings = [Mapping(f"data/demo_*/{path}", name) for name, path in places.items()]
    return Layout(contents, places, Plan((*mappings, Mapping(f"attribute '{SIDECAR}'", "metadata"))))


def _write_demo(group: h5py.Group, episode: Episode, places: dict[str, str]) -> None:
    for name, path in places.items():
        values = episode.steps[name]
        _write_array(group, path, values.astype(np.int64) if path == "dones" else values)
    for path in [path for path in places.values() if path.startswith("obs/")]:
        if f"next_{path}" not in group:
            _write_array(group, f"next_{path}", _shifted(group[path][:]))
    group.attrs["num_samples"] = episode.length
    texts = {name: episode.metadata[name] for name in TEXT_ATTRIBUTES if isinstance(episode.metadata.get(name), str)}
    if "instruction" in episode.metadata:
        texts.setdefault("ep_meta", json.dumps({"lang": episode.metadata["instruction"]}))
    for name, text in texts.items():
        if "\0" not in text:  # HDF5's texts end there; the sidecar has it, too
            group.attrs[name] = text


def _write_array(group: h5py.Group, path: str, values: Shaped[ndarray, "length *field"]) -> None:
    """Store an array as it is; observations of a single number get an axis, as robomimic's encoders expect."""
    observed = path.startswith(("obs/", "next_obs/")) and values.ndim == 1
    group.create_dataset(path, data=values[:, None] if observed else values)


def _shifted(values: Shaped[ndarray, "length *field"]) -> Shaped[ndarray, "length *field"]:
    """Each step's successor; the last step's is itself."""
    return np.concatenate([values[1:], values[-1:]])


def _masks_of(metadata: dict[str, Any]) -> list[str]:
    """The filters that an episode belongs to."""
    listed = metadata.get("masks", [])
    masks = [mask for mask in listed if isinstance(mask, str)] if isinstance(listed, list) else []
    split = metadata.get("split")
    names = [*masks, split] if isinstance(split, str) else masks
    return [name for name in dict.fromkeys(names) if name.strip(".") and "/" not in name and "\0" not in name]


def _env_args(metadata: dict[str, Any]) -> dict[str, Any]:
    """The description of the environment that robomimic reads."""
    known = metadata.get("env_args")
    if isinstance(known, dict):
        return known
    task = metadata.get("task")
    name = task.get("name") if isinstance(task, dict) else task
    return {"env_name": str(name or "alula"), "env_version": None, "type": GYM, "env_kwargs": {}}


def _action_note(action: FieldSpec) -> str:
    low, high = action.bounds()
    if (low >= -1).all() and (high <= 1).all():
        return ""
    return "may lie outside [-1, 1], which robomimic's policies cannot reach; normalise them for its training"


# --- Others' ----------------------------------------------------------------------------------------------------------


def _foreign_layout(data: h5py.Group, names: Sequence[str]) -> Layout:
    """Map a file that robomimic's own tools wrote, by its first demonstration."""
    if not names:
        raise DatasetError("it holds no demonstrations (groups demo_<i>); there is nothing to read")
    demos = [data[name.split("/")[1]] for name in names]
    arrays = datasets_below(demos[0])
    if "actions" not in arrays or arrays["actions"].ndim != 2:
        raise DatasetError(f"{names[0]} has no actions with two axes; it has {sorted(arrays)}")
    env_args = json.loads(data.attrs.get("env_args", "{}"))
    fields, places = _foreign_fields(arrays, len(arrays["actions"]), env_args)
    losses = [f"{names[0]}/{path} is not one row of numbers a step" for path in arrays if path not in places.values()]
    for name, path in list(places.items()):
        if path.startswith(("obs/", "actions", "rewards", "dones")):
            continue
        different = [demo.name for demo in demos if path not in demo or demo[path].shape[1:] != arrays[path].shape[1:]]
        if different:
            losses.append(f"{path} has another shape in {different[0]}, or is missing there")
            del places[name]
    contents = contents_of([field for field in fields if field.name in places], _foreign_metadata(env_args))
    plan = Plan(tuple(_foreign_mappings(places, contents)), tuple(losses))
    return Layout(contents, places, plan)


def _foreign_fields(
    arrays: dict[str, h5py.Dataset], length: int, env_args: dict[str, Any]
) -> tuple[list[FieldSpec], dict[str, str]]:
    rate = env_args.get("env_kwargs", {}).get("control_freq")
    robosuite = env_args.get("type") == ROBOSUITE
    fields, places = [], {}
    for path, dataset in arrays.items():
        if not is_field(dataset, length):
            continue
        if path in ("rewards", "dones"):
            places["next.reward" if path == "rewards" else "next.terminated"] = path
            continue
        name = _foreign_name(path, dataset)
        properties = _robosuite_properties(path, dataset) if robosuite and not path.startswith("action") else {}
        fields.append(spec_of(name, dataset, **properties, **({"rate": rate} if name == "action" else {})))
        places[fields[-1].name] = path
    return fields, places


def _foreign_name(path: str, dataset: h5py.Dataset) -> str:
    """Our name of an array below a demonstration."""
    head, _, rest = path.partition("/")
    if path == "actions":
        return "action"
    if head not in ("obs", "next_obs"):
        return path.replace("/", ".")
    key = rest.replace("/", ".")
    observed = f"{IMAGES}{key.removesuffix('_image')}" if is_image(dataset) else f"observation.{key}"
    return observed if head == "obs" else f"{NEXT}{observed}"


def _robosuite_properties(path: str, dataset: h5py.Dataset) -> dict[str, Any]:
    """Units and order of elements that robosuite's documentation gives."""
    if path.endswith("_quat") and dataset.shape[1:] == (4,):
        return {"element_names": ("x", "y", "z", "w")}
    units = [(unit,) for end, unit in ROBOSUITE_UNITS.items() if path.endswith(end)]
    return {"units": units[0]} if units else {}


def _foreign_metadata(env_args: dict[str, Any]) -> dict[str, Any]:
    kwargs = env_args.get("env_kwargs", {})
    metadata: dict[str, Any] = {"provenance": "robomimic HDF5", "env_args": env_args, "success_recorded": False}
    if "env_name" in env_args:
        metadata["task"] = env_args["env_name"]
    if isinstance(kwargs.get("control_freq"), int | float):
        metadata["rate"] = kwargs["control_freq"]
    if env_args.get("type") == ROBOSUITE and not kwargs.get("reward_shaping", False):
        # robosuite's unshaped reward is above 0 exactly where the task is solved.
        metadata |= {"success_recorded": True, "success_from": "reward > 0"}
    return metadata


def _foreign_mappings(places: dict[str, str], contents: Contents) -> Iterator[Mapping]:
    known = {"next.terminated": "other than 0 is True"}
    for name, path in places.items():
        yield Mapping(f"data/demo_*/{path}", name, known.get(name, ""))
    yield Mapping("(nothing)", "next.truncated", "True at an episode's last step unless it terminates there")
    if "success_from" in contents.metadata:
        yield Mapping("data/demo_*/rewards", "next.success", "True where the reward is above 0 (robosuite, unshaped)")
    else:
        yield Mapping("(nothing)", "next.success", "unknown, stored as False")
    yield Mapping("mask/*", "metadata masks and split")
    yield Mapping("attributes", "metadata", "env_args of the dataset, the others of each episode")


def _masks(file: h5py.File) -> dict[str, set[str]]:
    if "mask" not in file:
        return {}
    return {name: {plain(demo) for demo in dataset[:]} for name, dataset in datasets_below(file["mask"]).items()}


def _instruction(attributes: dict[str, Any]) -> dict[str, str]:
    """The task in words, which robosuite's successors keep in `ep_meta`."""
    try:
        lang = json.loads(attributes.get("ep_meta", "{}")).get("lang")
    except (TypeError, ValueError, AttributeError):
        return {}
    return {"instruction": lang} if isinstance(lang, str) else {}


def _number(demo: str) -> int:
    digits = demo.removeprefix("demo_")
    if not digits.isdecimal():
        raise DatasetError(f"the demonstration '{demo}' has no number; its name must be demo_<number>")
    return int(digits)

"""LeRobotDataset: what its versions share.

A dataset is a folder: `meta/info.json` names the features, data files (Parquet) hold a row per step, pictures are in
them as PNG or beside them as videos. Versions differ in how episodes are laid out in files (`lerobot21.py`,
`lerobot3.py`). LeRobot's own `timestamp` is `frame_index / fps`; a capture time of ours is a column of its own.

Ours in addition, which LeRobot ignores: `alula` in `meta/info.json` (the contents), `meta/alula_episodes.jsonl`
(metadata of episodes) and `streams/episode_000000.npz` (fields with a clock of their own).
"""

import json
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alula.core.errors import DatasetError, SpecError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.datasets.formats.format import Contents, Mapping, Plan
from alula.datasets.formats.lerobot_columns import IMAGE, IMAGE_AXES, MAX_AXES, STRING, VIDEO, Feature
from alula.datasets.schema import DTYPES, OUTCOME, TIMESTAMP, require_storable, step_fields
from alula.datasets.video import VideoSettings

INFO_FILE = Path("meta/info.json")
SIDECAR_FILE = Path("meta/alula_episodes.jsonl")
SIDECAR_KEY = "alula"
FALLBACK_RATE = 30.0
"""Frames per second [Hz] that LeRobot is told where no rate is known."""
CLOCK = Feature("timestamp", "float32", (1,))
TASK_INDEX = "task_index"
COUNTERS = tuple(Feature(name, "int64", (1,)) for name in ("frame_index", "episode_index", "index", TASK_INDEX))
DONE = Feature("next.done", "bool", (1,))
"""LeRobot's name for terminated or truncated."""
RESERVED = (CLOCK.name, *(counter.name for counter in COUNTERS), DONE.name, "task")
"""Columns that LeRobot fills in itself."""


@dataclass(frozen=True)
class LeRobotOptions:
    """What a writer may choose; each version's format has these."""

    video: bool = False
    """Store pictures as video: smaller than PNG, but exact only with codec libx264rgb and crf 0."""
    codec: str = "libsvtav1"
    """FFmpeg's encoder for videos."""
    crf: int = 30
    """Constant rate factor of videos: 0 is best."""
    gop: int = 2
    """Frames from one key frame of a video to the next."""
    modality: bool = False
    """Also write GR00T's `meta/modality.json`."""

    def __post_init__(self) -> None:
        """Check the choices."""
        VideoSettings(self.codec, self.crf, self.gop)

    @property
    def settings(self) -> VideoSettings:
        """How videos are encoded."""
        return VideoSettings(self.codec, self.crf, self.gop)


@dataclass(frozen=True)
class Layout:
    """Which feature each field of a step is."""

    contents: Contents
    features: dict[str, Feature]
    """By the field's name; among them the outcomes that there are."""
    texts: tuple[Feature, ...] = ()
    """Columns of strings; they become metadata of the episode."""
    own: bool = False
    """Whether alula wrote the dataset, and it was not changed since."""
    losses: tuple[str, ...] = ()

    @property
    def videos(self) -> list[str]:
        """Names of the features that are videos."""
        return [feature.name for feature in self.features.values() if feature.dtype == VIDEO]


def own_layout(contents: Contents, options: LeRobotOptions) -> Layout:
    """Where we put each field."""
    features = {name: _own_feature(field, options.video) for name, field in step_fields(contents).items()}
    return Layout(contents, features, own=True)


def _own_feature(field: FieldSpec, video: bool) -> Feature:
    name = f"alula.{field.name}" if field.name in RESERVED else field.name
    coloured = field.dtype == "uint8" and len(field.shape) == 3 and field.shape[2] == 3
    if coloured and name.startswith("observation.image"):
        return Feature(name, VIDEO if video else IMAGE, field.shape, IMAGE_AXES)
    shape = field.shape or (1,)
    names = list(field.element_names) if field.element_names and len(shape) == 1 else None
    return Feature(name, field.dtype, shape if len(shape) <= MAX_AXES else (field.size,), names)


def rate_of(contents: Contents) -> float | None:
    """Steps per second [Hz]: what the metadata say, or the rate of the action or an observation; None if unknown."""
    fields = (*contents.action.fields, *contents.observation.fields)
    rates = [contents.metadata.get("rate"), *(field.rate for field in fields)]
    return next((float(rate) for rate in rates if isinstance(rate, int | float) and 0 < rate < np.inf), None)


def writing_plan(contents: Contents, options: LeRobotOptions) -> Plan:
    """What writing `contents` would do.

    Raises:
        DatasetError: a field cannot be stored.
    """
    require_storable(contents)
    layout = own_layout(contents, options)
    mappings = [Mapping(name, feature.name, _change(feature, options)) for name, feature in layout.features.items()]
    mappings += [Mapping(f"stream {name}", "streams/episode_*.npz", "LeRobot ignores it") for name in contents.streams]
    if rate_of(contents) is None:
        mappings.append(Mapping("(no rate)", "fps", f"LeRobot needs one, and is told {FALLBACK_RATE:g} Hz"))
    losses = []
    if layout.videos and not options.settings.lossless:
        losses.append(f"pictures lose detail as {options.settings.codec} video: {', '.join(layout.videos)}")
    return Plan(tuple(mappings), tuple(losses))


def _change(feature: Feature, options: LeRobotOptions) -> str:
    changes = {IMAGE: "PNG, exact", VIDEO: f"{options.settings.codec} video, crf {options.settings.crf}"}
    return changes.get(feature.dtype, "")


def info_of(
    layout: Layout, options: LeRobotOptions, num_episodes: int, num_steps: int, num_tasks: int
) -> dict[str, Any]:
    """Entries of `meta/info.json` that all versions share."""
    rate = rate_of(layout.contents) or FALLBACK_RATE
    fps = int(rate) if rate.is_integer() else rate
    features = {feature.name: feature.to_info() for feature in (*layout.features.values(), DONE, CLOCK, *COUNTERS)}
    for name in layout.videos:
        features[name]["info"] = _video_info(features[name]["shape"], options.settings, fps)
    return {
        "robot_type": layout.contents.metadata.get("robot_type", "unknown"),
        "fps": fps,
        "total_episodes": num_episodes,
        "total_frames": num_steps,
        "total_tasks": num_tasks,
        "chunks_size": 1000,
        "splits": {"train": f"0:{num_episodes}"},
        "features": features,
        SIDECAR_KEY: layout.contents.to_dict(),
    }


def _video_info(shape: list[int], settings: VideoSettings, fps: float) -> dict[str, Any]:
    height, width, channels = shape
    return {
        "video.height": height,
        "video.width": width,
        "video.channels": channels,
        "video.codec": "av1" if settings.codec == "libsvtav1" else "h264",
        "video.pix_fmt": "gbrp" if settings.codec == "libx264rgb" else "yuv420p",
        "video.fps": fps,
        "video.g": settings.gop,
        "video.crf": settings.crf,
        "video.is_depth_map": False,
        "has_audio": False,
    }


def modality_of(layout: Layout) -> dict[str, Any]:
    """GR00T's `meta/modality.json`: which part of which column is what. Each field is one part."""
    modality: dict[str, Any] = {"state": {}, "action": {}, "video": {}}
    for name, feature in layout.features.items():
        short = name.removeprefix("observation.")
        if feature.picture:
            modality["video"][short.removeprefix("images.")] = {"original_key": feature.name}
        elif len(feature.shape) == 1 and name in (*layout.contents.observation, *layout.contents.action):
            kind = "action" if name == "action" else "state"
            modality[kind][short] = {"start": 0, "end": feature.shape[0], "original_key": feature.name}
    return modality | {"annotation": {"human.task_description": {"original_key": TASK_INDEX}}}


def read_info(path: Path, versions: tuple[str, ...]) -> dict[str, Any]:
    """`meta/info.json` of the dataset at `path`.

    Raises:
        DatasetError: there is none, it is damaged, or of another version.
    """
    info = read_json(path / INFO_FILE)
    version = info.get("codebase_version")
    if version not in versions:
        raise DatasetError(
            f"'{path}' says it is LeRobotDataset {version}; read here are {', '.join(versions)}. Choose another format"
        )
    return info


def read_json(path: Path) -> dict[str, Any]:
    """An object of JSON, or a `DatasetError`."""
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        values.items()
        return values
    except OSError as error:
        raise DatasetError(f"cannot read '{path}': {error.strerror}; check the path and its permissions") from error
    except (ValueError, AttributeError) as error:
        raise DatasetError(f"'{path}' is damaged ({error}); restore it from a copy") from error


def detect_version(path: Path, versions: tuple[str, ...]) -> bool:
    """Whether a LeRobotDataset of one of these versions is at `path`; never raises."""
    try:
        read_info(path, versions)
    except DatasetError:
        return False
    return True


def layout_of(info: MappingType[str, Any], changing: bool, source: Path) -> Layout:
    """Which field each feature of an existing dataset is: by our own rule if we wrote it, else by its name.

    Args:
        info: `meta/info.json`.
        changing: Whether the instruction changes within an episode.
        source: The dataset, for messages.

    Raises:
        DatasetError: `info.json` is damaged.
    """
    try:
        features = [
            Feature(name, entry["dtype"], tuple(entry["shape"]) or (1,), entry.get("names"))
            for name, entry in info["features"].items()
        ]
        own = _restored(info, features) if SIDECAR_KEY in info else None
        return own or _foreign_layout(info, features, changing)
    except (KeyError, TypeError, ValueError, AttributeError, SpecError) as error:
        raise DatasetError(
            f"'{source / INFO_FILE}' is damaged ({type(error).__name__}: {error}); restore it from a copy"
        ) from error


def _restored(info: MappingType[str, Any], features: list[Feature]) -> Layout | None:
    """Our layout; None where LeRobot's tools have changed the features since."""
    contents = Contents.from_dict(info[SIDECAR_KEY])
    present = {feature.name: feature for feature in features}
    wanted = own_layout(contents, LeRobotOptions()).features
    found = {name: present.get(feature.name) for name, feature in wanted.items()}
    kept = {name: feature for name, feature in found.items() if feature and _alike(feature, wanted[name])}
    same = len(kept) == len(wanted) and len(features) == len(wanted) + len(COUNTERS) + 2
    return Layout(contents, kept, own=True) if same else None


def _alike(feature: Feature, wanted: Feature) -> bool:
    same_type = feature.dtype == wanted.dtype or (feature.picture and wanted.picture)
    return same_type and feature.shape == wanted.shape


def _foreign_layout(info: MappingType[str, Any], features: list[Feature], changing: bool) -> Layout:
    fields: dict[str, FieldSpec] = {}
    chosen: dict[str, Feature] = {}
    losses, texts = [], []
    rate = float(info["fps"])
    for feature in features:
        if feature.dtype == STRING:
            texts.append(feature)
        elif feature.dtype not in (*DTYPES, IMAGE, VIDEO) or (feature.picture and len(feature.shape) != 3):
            losses.append(f"feature '{feature.name}' is left out: {feature.dtype} of shape {feature.shape}")
        elif _is_depth(info["features"][feature.name]):
            losses.append(f"feature '{feature.name}' is left out: depth as a video has lost its unit")
        elif feature.name not in RESERVED or feature == DONE:
            chosen[feature.name] = feature
            fields[feature.name] = _foreign_field(feature, rate)
    fields[CLOCK.name] = TIMESTAMP
    if changing:
        fields["instruction_index"] = FieldSpec("instruction_index", (), "int64")
    outcomes = (*OUTCOME, DONE.name)
    extra = [name for name in fields if not name.startswith("observation.") and name not in ("action", *outcomes)]
    action = fields.get("action")
    contents = Contents(
        SpaceSpec(tuple(field for name, field in fields.items() if name.startswith("observation."))),
        SpaceSpec((action,) if action else ()),
        SpaceSpec(tuple(fields[name] for name in extra)),
        metadata={
            "rate": rate,
            "robot_type": info.get("robot_type"),
            "success_recorded": "next.success" in chosen,
        },
    )
    return Layout(contents, chosen, tuple(texts), losses=tuple(losses))


def _is_depth(entry: MappingType[str, Any]) -> bool:
    details = entry.get("info") or entry.get("video_info") or {}
    return bool(details.get("video.is_depth_map") or details.get("is_depth_map"))


def _foreign_field(feature: Feature, rate: float) -> FieldSpec:
    if feature.picture:
        return FieldSpec(feature.name, feature.picture_shape, "uint8")
    allow_nan = np.dtype(feature.dtype).kind == "f" and feature.name.startswith("observation.")
    return FieldSpec(
        feature.name,
        feature.shape,
        feature.dtype,
        element_names=_element_names(feature),
        rate=rate if feature.name == "action" else None,
        allow_nan=allow_nan,
    )


def _element_names(feature: Feature) -> tuple[str, ...]:
    """Names of the elements, which some versions keep in a dict of one entry; empty where they do not fit."""
    names = feature.names
    if isinstance(names, dict) and len(names) == 1:
        names = next(iter(names.values()))
    fits = isinstance(names, list) and len(feature.shape) == 1 and len(names) == feature.shape[0]
    return tuple(str(name) for name in names) if fits else ()

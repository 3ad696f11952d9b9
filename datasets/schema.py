"""What a dataset may hold: which specifications can become arrays, and which episodes fit them."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from alula.core.errors import ConfigError, DatasetError, SpecError, unknown_name
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.commits import encode_json
from alula.datasets.formats.format import Contents
from alula.datasets.video import VideoSettings
from alula.datasets.video_field import VIDEOS_FOLDER

FORMAT = 2
"""Raised when older code could no longer read what newer code writes. 1 had no streams, videos and empty episodes."""
READABLE_FORMATS = (1, FORMAT)
OUTCOME = SpaceSpec(
    (
        FieldSpec("next.reward", (), "float64"),
        FieldSpec("next.terminated", (), "bool"),
        FieldSpec("next.truncated", (), "bool"),
        FieldSpec("next.success", (), "bool"),
    )
)
"""What every step led to; part of every dataset."""
TIMESTAMP = FieldSpec("timestamp", (), "int64", ("ns",))
"""When a step or sample was captured, on any clock that never runs backwards; every stream has it, steps may."""
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = ("bool", *INTEGERS, "float16", "float32", "float64")
STREAMS_FOLDER = "streams"
RESERVED = (STREAMS_FOLDER, VIDEOS_FOLDER, "windows", "zarr.json", "episodes.jsonl", "statistics.npz")
"""Names inside a dataset's folder that no field may take."""

Arrays = Mapping[str, Shaped[ndarray, "_ ..."]]


def step_fields(contents: Contents) -> SpaceSpec:
    """Every field of a step: observation, action, outcome, extra."""
    parts = (contents.observation, contents.action, OUTCOME, contents.extra)
    return SpaceSpec(tuple(field for part in parts for field in part.fields))


def require_storable(contents: Contents) -> None:
    """Refuse specifications that cannot become arrays.

    Raises:
        DatasetError: names the field and what is wrong with it.
    """
    for name in contents.observation:
        if not name.startswith("observation."):
            raise DatasetError(f"observation field '{name}' must be named 'observation.*'; rename it")
    action = contents.action
    if action and (list(action) != ["action"] or len(action["action"].shape) != 1):
        shapes = {name: field.shape for name, field in action.items()}
        raise DatasetError(
            f"the action space must be one field 'action' with one axis, or without fields where nothing was "
            f"commanded; got {shapes}: flatten it"
        )
    try:
        steps = step_fields(contents)
    except SpecError as error:
        raise DatasetError(f"{error}; rename the extra ones") from error
    for field in steps.values():
        _require_field(field)
    for stream, fields in contents.streams.items():
        _require_name("stream", stream)
        if "timestamp" not in fields:
            raise DatasetError(f"stream '{stream}' has no field 'timestamp' (int64 [ns]); allowed are {list(fields)}")
        for field in fields.values():
            _require_field(field)


def require_same_fields(mine: Contents, theirs: Contents, my_name: str, their_name: str) -> None:
    """Require that episodes of one dataset fit the other as they are.

    Raises:
        SpecError: names what differs.
    """
    remedy = "Only datasets of the same fields fit together: convert one of them first"
    step_fields(mine).require(step_fields(theirs), f"'{my_name}'", f"'{their_name}'", remedy)
    if mine.streams.keys() != theirs.streams.keys():
        raise SpecError(
            f"'{my_name}' has streams {list(mine.streams)}, '{their_name}' has {list(theirs.streams)}. {remedy}"
        )
    for name, fields in mine.streams.items():
        fields.require(theirs.streams[name], f"stream '{name}' of '{my_name}'", f"that of '{their_name}'", remedy)


def require_video(contents: Contents, video: Iterable[str]) -> None:
    """Refuse to store these fields as video unless each holds colour images.

    Raises:
        DatasetError: names the field and what is wrong with it.
    """
    for name in video:
        if name not in contents.observation:
            raise DatasetError("to store as video: " + unknown_name("observation field", name, contents.observation))
        field = contents.observation[name]
        if field.dtype != "uint8" or len(field.shape) != 3 or field.shape[2] != 3:
            raise DatasetError(
                f"field '{name}' is {field.dtype} of shape {field.shape}; only uint8 images of shape (height, width, "
                f"3) can be stored as video"
            )


def _require_field(field: FieldSpec) -> None:
    _require_name("field", field.name)
    if field.dtype not in DTYPES:
        raise DatasetError(f"field '{field.name}' has dtype '{field.dtype}'; allowed are {', '.join(DTYPES)}")
    if field.size == 0:
        raise DatasetError(f"field '{field.name}' has shape {field.shape}, which holds no element; leave it out")
    if field.name == TIMESTAMP.name and (field.dtype, field.shape, field.units) != ("int64", (), ("ns",)):
        raise DatasetError(
            f"field 'timestamp' is {field.dtype} of shape {field.shape} [{', '.join(field.units)}], but a capture "
            f"time is int64 of shape () [ns]; convert it or choose another name"
        )


def _require_name(kind: str, name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) or name.startswith("__"):
        raise DatasetError(f"{kind} name '{name}' cannot be stored; use letters, digits, '_', '-' and '.'")
    if name in RESERVED:
        raise DatasetError(f"{kind} name '{name}' is reserved, as are {', '.join(RESERVED)}; choose another")


def schema_attributes(contents: Contents, video: Mapping[str, VideoSettings]) -> dict[str, Any]:
    """What `zarr.json` says of a dataset."""
    settings = {name: asdict(chosen) for name, chosen in video.items()}
    return {"alula": {"format": FORMAT, **contents.to_dict(), "video": settings}}


def read_schema(path: Path) -> tuple[Contents, dict[str, VideoSettings]]:
    """Specifications and metadata of the dataset at `path`, and which fields are stored as video.

    Raises:
        DatasetError: they are damaged, or newer than this code.
    """
    try:
        schema: dict[str, Any] = json.loads((path / "zarr.json").read_bytes())["attributes"]["alula"]
        if schema["format"] not in READABLE_FORMATS:
            raise DatasetError(
                f"dataset '{path}' has format {schema['format']}, this version of alula reads format {FORMAT} and "
                f"older; update alula"
            )
        schema = {"streams": {}, "video": {}, **schema}
        video = {name: VideoSettings(**settings) for name, settings in schema["video"].items()}
        return Contents.from_dict(schema), video
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SpecError, ConfigError) as error:
        raise DatasetError(
            f"'{path / 'zarr.json'}' is damaged ({type(error).__name__}: {error}); restore it from a copy"
        ) from error


def fitted(contents: Contents, episode: Episode, owner: str) -> Episode:
    """The episode as it will be read back: arrays in the order and types of the fields.

    Floats take the precision of their field; other types must fit exactly.

    Raises:
        DatasetError: a field is missing, surplus, of another shape or type, or holds a value that may not be there.
    """
    _require_keys(owner, "streams", contents.streams, episode.streams)
    streams = {}
    for stream, fields in contents.streams.items():
        streams[stream] = _fitted_arrays(
            f"stream '{stream}' of {owner}", fields, episode.streams[stream], infinite=True
        )
    steps = _fitted_arrays(owner, step_fields(contents), episode.steps)
    return Episode(steps, plain(episode.metadata, owner), streams)


def _require_keys(owner: str, kind: str, wanted: Iterable[str], found: Iterable[str]) -> None:
    wanted, found = list(wanted), list(found)
    missing = [name for name in wanted if name not in found]
    surplus = [name for name in found if name not in wanted]
    if missing or surplus:
        raise DatasetError(
            f"{owner} does not fit the dataset: missing {kind} {missing}, unknown {kind} {surplus}; "
            f"allowed are exactly {wanted}. Nothing was written"
        )


def _fitted_arrays(owner: str, fields: SpaceSpec, arrays: Arrays, infinite: bool = False) -> dict[str, ndarray]:
    _require_keys(owner, "fields", fields, arrays)
    length = len(next(iter(arrays.values())))
    fitted = {
        name: _fitted_array(f"field '{name}' of {owner}", fields[name], arrays[name], length, infinite)
        for name in fields
    }
    if TIMESTAMP.name in fitted:
        _require_monotonic(owner, fitted[TIMESTAMP.name])
    return fitted


def _fitted_array(
    where: str, field: FieldSpec, array: Shaped[ndarray, "_ ..."], length: int, infinite: bool
) -> ndarray:
    """The array in the field's type.

    Nothing learns from streams, and autopilots and laser scanners log infinity where there is no limit and no echo:
    `infinite` lets a field that allows NaN hold it, too.
    """
    values = np.asarray(array)
    if values.shape != (length, *field.shape):
        raise DatasetError(
            f"{where} has shape {values.shape}, needed is {(length, *field.shape)} (steps first). Nothing was written"
        )
    dtype = np.dtype(field.dtype)
    both_float = values.dtype.kind == "f" and dtype.kind == "f"
    if not both_float and not np.can_cast(values.dtype, dtype, "safe"):
        raise DatasetError(
            f"{where} has dtype {values.dtype}, which does not fit into {dtype}; convert it. Nothing was written"
        )
    with np.errstate(over="ignore"):  # What overflows is infinite and refused below.
        stored = values.astype(dtype, copy=False)
    if dtype.kind == "f":
        refused = np.isinf(stored) if field.allow_nan else ~np.isfinite(stored)
        if field.allow_nan and infinite:
            refused &= np.isfinite(values)
        if refused.any():
            step = int(np.argwhere(refused)[0, 0])
            raise DatasetError(
                f"{where} is not a finite {dtype} at step {step}: {values[step].tolist()}; "
                f"drop or mend the episode. Nothing was written"
            )
    return stored


def _require_monotonic(owner: str, timestamps: Shaped[ndarray, " _"]) -> None:
    falls = np.flatnonzero(timestamps[1:] < timestamps[:-1])
    if len(falls):
        before, after = timestamps[falls[0] : falls[0] + 2].tolist()
        raise DatasetError(
            f"field 'timestamp' of {owner} falls from {before} ns to {after} ns at step {falls[0] + 1}; capture times "
            f"may repeat but never fall: sort the samples or mend the clock. Nothing was written"
        )


def plain(metadata: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """The metadata as they will be read back.

    Raises:
        DatasetError: a value cannot be written as JSON.
    """
    values: dict[str, Any] = json.loads(encode_json(metadata, owner))
    return values


def digest(episode: Episode, videos: Mapping[str, bytes]) -> str:
    """Hash of the arrays of a fitted episode and of the files of those that are stored as video."""
    content = hashlib.blake2b(digest_size=16)
    tables = [("", episode.steps), *((f"{stream}/", arrays) for stream, arrays in episode.streams.items())]
    for prefix, arrays in tables:
        for name, values in arrays.items():
            content.update(f"{prefix}{name} {values.dtype} {values.shape};".encode())
            content.update(np.ascontiguousarray(values).data)
    for name, file in videos.items():
        content.update(f"{name} video {len(file)};".encode() + file)
    return content.hexdigest()

"""Reading a LeRobotDataset of any version, once its version has said where each episode lies."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Shaped
from numpy import ndarray

from alula.core.errors import DatasetError
from alula.core.transitions import Episode
from alula.datasets.formats.format import Contents, Mapping, Plan, Reader
from alula.datasets.formats.lerobot import CLOCK, COUNTERS, DONE, SIDECAR_FILE, TASK_INDEX, Layout
from alula.datasets.formats.lerobot_columns import VIDEO, Feature, from_arrow
from alula.datasets.schema import OUTCOME, step_fields
from alula.datasets.video import read_video

EPISODE_INDEX = Feature("episode_index", "int64", (1,))
TASK = next(counter for counter in COUNTERS if counter.name == TASK_INDEX)


@dataclass(frozen=True)
class Place:
    """Where one episode lies."""

    length: int
    data: Path
    row: int = 0
    """Its first row in the data file."""
    videos: dict[str, tuple[Path, int]] = field(default_factory=dict)
    """Of each video feature, the file and the number of the first frame."""


class ParquetRows:
    """Rows of Parquet files by their number, one row group in memory at a time."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._file: pq.ParquetFile
        self._ends: ndarray
        self._group = -1
        self._table: pa.Table

    def read(self, path: Path, start: int, stop: int) -> pa.Table:
        """Rows `start` to `stop` (exclusive).

        Raises:
            DatasetError: the file is missing, damaged, or has fewer rows.
        """
        try:
            if path != self._path:
                self._open(path)
            if stop > (self._ends[-1] if len(self._ends) else 0):
                raise DatasetError(f"'{path}' has fewer than {stop} rows; it is incomplete, copy the dataset again")
            first = int(np.searchsorted(self._ends, start, side="right"))
            last = max(first, int(np.searchsorted(self._ends, stop)))
            parts = [self._read_group(group, start, stop) for group in range(first, min(last + 1, len(self._ends)))]
            return pa.concat_tables(parts) if parts else self._file.schema_arrow.empty_table()
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"'{path}' cannot be read ({error}); restore it from a copy") from error

    def _open(self, path: Path) -> None:
        self.close()
        self._file = pq.ParquetFile(path)
        groups = range(self._file.num_row_groups)
        self._ends = np.cumsum([self._file.metadata.row_group(group).num_rows for group in groups], dtype=np.int64)
        self._path, self._group = path, -1

    def _read_group(self, group: int, start: int, stop: int) -> pa.Table:
        if group != self._group:
            self._table, self._group = self._file.read_row_group(group), group
        begin = int(self._ends[group - 1]) if group else 0
        return self._table.slice(max(0, start - begin), max(0, stop - max(start, begin)))

    def close(self) -> None:
        """Close the open file."""
        if self._path is not None:
            self._file.close()
            self._path = None


class LeRobotReader(Reader):
    """An open LeRobotDataset."""

    def __init__(self, path: Path, layout: Layout, places: list[Place], tasks: dict[int, str]) -> None:
        """Use a format's `open`.

        Args:
            path: The dataset's folder.
            layout: Which feature each field is.
            places: Where each episode lies.
            tasks: Instructions by `task_index`.
        """
        self.path = path
        self.contents: Contents = layout.contents
        self.num_episodes = len(places)
        self._layout, self._places, self._tasks = layout, places, tasks
        self._rows = ParquetRows()
        self._metadata = _read_sidecar(path, places) if layout.own else None
        self.plan = self._make_plan()

    def episodes(self, start: int = 0) -> Iterator[Episode]:
        """The episodes from number `start` on, in order, one in memory at a time."""
        for index in range(start, self.num_episodes):
            yield self._episode(index)

    def close(self) -> None:
        """Let go of the open file."""
        self._rows.close()

    def _episode(self, index: int) -> Episode:
        place = self._places[index]
        table = self._rows.read(place.data, place.row, place.row + place.length)
        owners = self._column(EPISODE_INDEX, table, place)
        if (owners != index).any():
            raise DatasetError(
                f"rows {place.row} to {place.row + place.length} of '{place.data}' should be episode {index}, but "
                f"belong to {np.unique(owners).tolist()}; the dataset is damaged, restore it from a copy"
            )
        features = self._layout.features
        found = {name: self._values(feature, table, place) for name, feature in features.items()}
        if self._layout.own:
            fields = step_fields(self.contents)
            steps = {name: values.reshape(place.length, *fields[name].shape) for name, values in found.items()}
            metadata = self._metadata[index] if self._metadata else self._instructions(table, place)[1]
            return Episode(steps, metadata, self._streams(index))
        indices, metadata = self._instructions(table, place)
        steps = {name: values for name, values in found.items() if name in step_fields(self.contents)}
        steps |= _outcomes(found, place.length)
        steps["timestamp"] = self._capture_times(table, place)
        if "instruction_index" in self.contents.extra:
            steps["instruction_index"] = indices
        return Episode(steps, metadata | {text.name: self._text(text, table, place) for text in self._layout.texts})

    def _values(self, feature: Feature, table: pa.Table, place: Place) -> Shaped[ndarray, "steps *shape"]:
        if feature.dtype != VIDEO:
            return self._column(feature, table, place)
        frames = np.empty((place.length, *feature.picture_shape), np.uint8)
        if place.length:
            path, first = place.videos[feature.name]
            read_video(path, frames, first)
        return frames

    def _column(self, feature: Feature, table: pa.Table, place: Place) -> Shaped[ndarray, "steps *shape"]:
        return from_arrow(feature, self._raw(feature, table, place), str(place.data))

    def _raw(self, feature: Feature, table: pa.Table, place: Place) -> pa.ChunkedArray:
        if feature.name not in table.column_names:
            raise DatasetError(
                f"'{place.data}' has no column '{feature.name}', which info.json names; there are "
                f"{', '.join(table.column_names)}. The dataset is damaged, restore it from a copy"
            )
        return table[feature.name]

    def _text(self, feature: Feature, table: pa.Table, place: Place) -> str | list[str]:
        texts = self._raw(feature, table, place).to_pylist()
        return texts[0] if len(set(texts)) == 1 else texts

    def _instructions(self, table: pa.Table, place: Place) -> tuple[Shaped[ndarray, " steps"], dict[str, Any]]:
        """Number of the instruction at each step, and the episode's metadata about them."""
        tasks = self._column(TASK, table, place).reshape(-1)
        unknown = set(tasks.tolist()) - set(self._tasks)
        if unknown:
            raise DatasetError(f"'{place.data}' names tasks {sorted(unknown)}, which are not in '{self.path}/meta'")
        order = list(dict.fromkeys(tasks.tolist()))
        texts = [self._tasks[task] for task in order]
        metadata: dict[str, Any] = {"instruction": texts[0]} if len(texts) == 1 and texts[0] else {}
        if "instruction_index" in self.contents.extra:
            metadata["instructions"] = texts
        return np.array([order.index(task) for task in tasks], np.int64), metadata

    def _capture_times(self, table: pa.Table, place: Place) -> Shaped[ndarray, " steps"]:
        seconds = self._column(CLOCK, table, place).astype(np.float64).reshape(-1)
        if not np.isfinite(seconds).all() or (np.diff(seconds) <= 0).any():
            raise DatasetError(f"column 'timestamp' of '{place.data}' does not rise at every step; mend the recording")
        return np.round(seconds * 1e9).astype(np.int64)

    def _streams(self, index: int) -> dict[str, dict[str, ndarray]]:
        if not self.contents.streams:
            return {}
        path = self.path / stream_file(index)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                return {
                    stream: {name: archive[f"{stream}/{name}"] for name in fields}
                    for stream, fields in self.contents.streams.items()
                }
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise DatasetError(f"'{path}' cannot be read ({error}); restore it from a copy") from error

    def _make_plan(self) -> Plan:
        features = self._layout.features
        mappings = [Mapping(feature.name, name) for name, feature in features.items() if feature != DONE]
        mappings += [Mapping(text.name, f"metadata {text.name}") for text in self._layout.texts]
        if not self._layout.own:
            mappings.append(Mapping(CLOCK.name, "timestamp", "seconds (float32) become nanoseconds"))
            mappings += _outcome_mappings(features)
            changing = "instruction_index" in self.contents.extra
            mappings.append(Mapping(TASK_INDEX, "instructions, instruction_index" if changing else "instruction"))
        return Plan(tuple(mappings), self._layout.losses)


def stream_file(index: int) -> Path:
    """Where the streams of an episode are."""
    return Path(f"streams/episode_{index:06d}.npz")


def _read_sidecar(path: Path, places: list[Place]) -> list[dict[str, Any]] | None:
    """Metadata of the episodes; None where LeRobot's tools have dropped it, or removed or added episodes since."""
    if not (path / SIDECAR_FILE).exists():
        return None
    try:
        lines = [json.loads(line) for line in (path / SIDECAR_FILE).read_bytes().splitlines()]
        lengths = [line["length"] for line in lines]
        metadata: list[dict[str, Any]] = [line["metadata"] for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"'{path / SIDECAR_FILE}' is damaged ({error}); restore it from a copy") from error
    return metadata if lengths == [place.length for place in places] else None


def _outcomes(found: dict[str, ndarray], length: int) -> dict[str, ndarray]:
    """What LeRobot's optional columns say about the outcome of every step."""
    last = np.arange(length) == length - 1
    columns = {name: values.reshape(length) for name, values in found.items() if name in (*OUTCOME, DONE.name)}
    success = columns.get("next.success", np.zeros(length, bool)).astype(bool)
    done = columns.get(DONE.name, last).astype(bool)
    terminated = columns.get("next.terminated", done & success).astype(bool)
    return {
        "next.reward": columns.get("next.reward", np.zeros(length)).astype(np.float64),
        "next.terminated": terminated,
        "next.truncated": columns.get("next.truncated", done & ~terminated).astype(bool),
        "next.success": success,
    }


def _outcome_mappings(features: dict[str, Feature]) -> list[Mapping]:
    done = DONE.name if DONE.name in features else "(last step)"
    derived = {
        "next.reward": ("(none)", "0 at every step"),
        "next.terminated": (done, "where it succeeded"),
        "next.truncated": (done, "where it did not succeed"),
        "next.success": ("(none)", "false at every step"),
    }
    return [Mapping(source, name, change) for name, (source, change) in derived.items() if name not in features]

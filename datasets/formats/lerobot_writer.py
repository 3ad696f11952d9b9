"""Writing a LeRobotDataset of any version: what is the same however episodes are laid out in files.

Every episode ends as one line of `meta/alula_episodes.jsonl`, written and flushed once its files are on the disk; the
lines alone say what an unfinished dataset holds. LeRobot's own metadata are derived from them at the end.
"""

import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Shaped, UInt8
from numpy import ndarray

from alula.core.errors import DatasetError
from alula.core.transitions import Episode
from alula.datasets.commits import encode_json, sync
from alula.datasets.formats.format import Contents, Writer
from alula.datasets.formats.lerobot import (
    CLOCK,
    COUNTERS,
    DONE,
    FALLBACK_RATE,
    INFO_FILE,
    SIDECAR_FILE,
    LeRobotOptions,
    info_of,
    modality_of,
    own_layout,
    rate_of,
)
from alula.datasets.formats.lerobot_columns import arrow_schema, to_arrow
from alula.datasets.formats.lerobot_reader import stream_file
from alula.datasets.formats.lerobot_statistics import Aggregate, Statistics, feature_statistics, quantiles_of_whole
from alula.datasets.schema import fitted

Videos = dict[str, UInt8[ndarray, "steps height width 3"]]


@dataclass(frozen=True)
class Record:
    """What is remembered of a finished episode; its line holds statistics and metadata besides."""

    length: int
    tasks: list[int]
    file: int
    """Number of the data file it is in."""


class LeRobotWriter(Writer):
    """A LeRobotDataset under construction."""

    version: str
    """`codebase_version` of `info.json`."""

    def __init__(self, path: Path, contents: Contents, options: LeRobotOptions) -> None:
        """Begin, or take up what an earlier writer of the same contents left.

        Args:
            path: Folder to write.
            contents: What the dataset will hold.
            options: How pictures are stored, ...
        """
        self._path, self._contents, self._options = path, contents, options
        self._layout = own_layout(contents, options)
        self._columns = [*self._layout.features.values(), DONE, CLOCK, *COUNTERS]
        self._schema = arrow_schema(self._columns)
        self._rate = rate_of(contents) or FALLBACK_RATE
        self._tasks: dict[str, int] = {}
        self._records: list[Record] = []
        (path / SIDECAR_FILE).parent.mkdir(parents=True, exist_ok=True)
        (path / SIDECAR_FILE).touch()
        self._take_up()
        self.num_episodes = len(self._records)

    def append(self, episode: Episode) -> None:
        """Add one episode."""
        index = len(self._records)
        episode = fitted(self._contents, episode, f"episode {index}")
        tasks = self._tasks_of(episode, index)
        columns = self._values(episode, index, tasks)
        features = {feature.name: feature for feature in self._columns}
        found = {name: feature_statistics(features[name], values) for name, values in columns.items()}
        record = Record(episode.length, list(dict.fromkeys(tasks.tolist())), self._file_number())
        line = {
            "length": record.length,
            "file": record.file,
            "tasks": [list(self._tasks)[task] for task in record.tasks],
            "metadata": episode.metadata,
            "stats": {name: statistics for name, statistics in found.items() if statistics},
        }
        encoded = encode_json(line, f"episode {index}").encode() + b"\n"
        self._write_streams(index, episode)
        arrays = [to_arrow(features[name], columns[name]) for name in self._schema.names]
        videos = {name: columns[name] for name in self._layout.videos}
        self._write(index, pa.Table.from_arrays(arrays, schema=self._schema), videos)
        self._records.append(record)
        self._commit(encoded)

    def finish(self) -> None:
        """Write the metadata, which need all episodes."""
        self._close()
        aggregate = Aggregate()
        for _, _, line in self._lines():
            aggregate.add(line["stats"])
        statistics = aggregate.result()
        files = sorted((self._path / "data").rglob("*.parquet"))
        counted = [feature for feature in self._columns if feature.name in statistics]
        for name, quantiles in quantiles_of_whole(files, counted).items():
            statistics[name] |= quantiles
        self._write_json(Path("meta/stats.json"), statistics)
        if self._options.modality:
            self._write_json(Path("meta/modality.json"), modality_of(self._layout))
        self._write_metadata(statistics)
        total = sum(record.length for record in self._records)
        info = info_of(self._layout, self._options, len(self._records), total, len(self._tasks))
        self._write_json(INFO_FILE, {"codebase_version": self.version, **info, **self._own_info()})

    @abstractmethod
    def _write(self, index: int, table: pa.Table, videos: Videos) -> None:
        """Put an episode's rows and frames into files."""

    @abstractmethod
    def _commit(self, line: bytes) -> None:
        """Make the episodes written last count, as soon as their files are complete."""

    @abstractmethod
    def _file_number(self) -> int:
        """Number of the data file that the next episode goes to."""

    @abstractmethod
    def _close(self) -> None:
        """Complete the open files."""

    @abstractmethod
    def _write_metadata(self, statistics: dict[str, Statistics]) -> None:
        """Write the version's own files of episodes and tasks; `statistics` are those of all episodes together."""

    @abstractmethod
    def _own_info(self) -> dict[str, Any]:
        """The version's own entries of `info.json`."""

    def _take_up(self) -> None:
        """Recall the episodes that are complete; an unfinished last line is cut off."""
        path = self._path / SIDECAR_FILE
        content = path.read_bytes()
        finished = content.rfind(b"\n") + 1
        with path.open("r+b") as file:
            file.truncate(finished)
        for line in content[:finished].splitlines():
            values = json.loads(line)
            tasks = [self._tasks.setdefault(task, len(self._tasks)) for task in values["tasks"]]
            self._records.append(Record(values["length"], tasks, values["file"]))

    def _log(self, lines: Sequence[bytes]) -> None:
        """Commit episodes whose files are on the disk."""
        with (self._path / SIDECAR_FILE).open("ab") as file:
            file.write(b"".join(lines))
        sync(self._path / SIDECAR_FILE)

    def _lines(self) -> Iterator[tuple[int, Record, dict[str, Any]]]:
        """Number, record and line of every episode, one after the other."""
        with (self._path / SIDECAR_FILE).open("rb") as file:
            for index, (record, line) in enumerate(zip(self._records, file, strict=True)):
                yield index, record, json.loads(line)

    def _tasks_of(self, episode: Episode, index: int) -> Shaped[ndarray, " steps"]:
        """`task_index` of every step; an episode without an instruction has the task ""."""
        several = "instruction_index" in self._contents.extra and "instructions" in episode.metadata
        texts = episode.metadata["instructions"] if several else [episode.metadata.get("instruction") or ""]
        known = np.array([self._tasks.setdefault(text, len(self._tasks)) for text in texts], np.int64)
        chosen = episode.steps["instruction_index"] if several else np.zeros(episode.length, np.int64)
        if episode.length and not (chosen.min() >= 0 and chosen.max() < len(texts)):
            raise DatasetError(
                f"episode {index} has instructions 0 to {len(texts) - 1}, but 'instruction_index' runs from "
                f"{chosen.min()} to {chosen.max()}; mend the metadata 'instructions'"
            )
        return known[chosen]

    def _values(self, episode: Episode, index: int, tasks: Shaped[ndarray, " steps"]) -> dict[str, ndarray]:
        """Every feature's values, in its shape."""
        steps, length = episode.steps, episode.length
        counted = np.arange(length)
        first = sum(record.length for record in self._records)
        values = {feature.name: steps[name] for name, feature in self._layout.features.items()}
        values |= {
            DONE.name: steps["next.terminated"] | steps["next.truncated"],
            CLOCK.name: (counted / self._rate).astype(np.float32),
            "frame_index": counted,
            "episode_index": np.full(length, index),
            "index": first + counted,
            "task_index": tasks,
        }
        return {feature.name: values[feature.name].reshape(length, *feature.shape) for feature in self._columns}

    def _write_streams(self, index: int, episode: Episode) -> None:
        if not episode.streams:
            return
        path = self._path / stream_file(index)
        path.parent.mkdir(exist_ok=True)
        arrays: dict[str, Any] = {
            f"{stream}/{name}": values for stream, fields in episode.streams.items() for name, values in fields.items()
        }
        np.savez_compressed(path, **arrays)
        sync(path)

    def _write_json(self, path: Path, values: dict[str, Any]) -> None:
        (self._path / path).write_text(json.dumps(values, indent=4))

    def _row_options(self) -> dict[str, Any]:
        """How Parquet stores the columns. A dictionary would merge NaNs that differ, so floats have none."""
        plain = [name for name in self._schema.names if name in ("task_index", "episode_index")]
        return {"compression": "snappy", "use_dictionary": plain}

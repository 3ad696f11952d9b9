"""LeRobotDataset 3.0: many episodes in every data file and video.

    meta/info.json, tasks.parquet, stats.json, episodes/chunk-000/file-000.parquet
    data/chunk-000/file-000.parquet                  one row group an episode
    videos/<camera>/chunk-000/file-000.mp4

Data file and videos of the same number hold the same episodes and are closed together, so that an interrupted
conversion goes on behind the last closed ones.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alula.core.errors import DatasetError
from alula.datasets.commits import sync
from alula.datasets.formats.format import Contents, Plan, WritableFormat
from alula.datasets.formats.lerobot import LeRobotOptions, detect_version, layout_of, read_info, writing_plan
from alula.datasets.formats.lerobot_reader import LeRobotReader, Place
from alula.datasets.formats.lerobot_statistics import Statistics
from alula.datasets.formats.lerobot_writer import LeRobotWriter, Record, Videos
from alula.datasets.video import VideoWriter

VERSIONS = ("v3.0",)
CHUNK_FILES = 1000
DATA_MB, VIDEO_MB = 100, 200
"""Files larger than this are closed, and the next episode begins new ones; LeRobot's own limits [MiB]."""
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_FOLDER = "meta/episodes"
TASKS_FILE = "meta/tasks.parquet"
ROWS_AT_ONCE = 100
"""Rows of the table of episodes held in memory."""


@dataclass(frozen=True)
class LeRobot3(LeRobotOptions, WritableFormat):
    """LeRobotDataset 3.0."""

    name = "lerobot3"
    suffix = ""

    def detect(self, path: Path) -> bool:
        """Whether `meta/info.json` says 3.0."""
        return detect_version(path, VERSIONS)

    def open(self, path: Path) -> LeRobotReader:
        """A reader of the dataset."""
        info = read_info(path, VERSIONS)
        episodes = _read_episodes(path)
        layout = layout_of(info, any(len(episode["tasks"] or ()) > 1 for episode in episodes), path)
        try:
            places = _places(path, info, episodes, layout.videos)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise DatasetError(
                f"the metadata of '{path}' do not say where episodes are ({type(error).__name__}: {error}); restore "
                f"the dataset from a copy"
            ) from error
        return LeRobotReader(path, layout, places, _read_tasks(path / TASKS_FILE))

    def plan(self, contents: Contents) -> Plan:
        """What writing `contents` would do."""
        return writing_plan(contents, self)

    def create(self, path: Path, contents: Contents) -> "LeRobot3Writer":
        """A writer at `path`."""
        return LeRobot3Writer(path, contents, self)


class LeRobot3Writer(LeRobotWriter):
    """Episodes count once their files are closed: an interrupted conversion repeats at most one file of each kind."""

    version = "v3.0"
    _rows: pq.ParquetWriter | None = None

    def _write(self, index: int, table: pa.Table, videos: Videos) -> None:
        if self._rows is None:
            self._begin()
        assert self._rows is not None
        for name, frames in videos.items():
            for frame in frames:
                self._encoders[name].add(frame)
        self._rows.write_table(table, row_group_size=max(1, len(table)))

    def _begin(self) -> None:
        """Open the next data file and videos."""
        number = self._file_number()
        self._data = self._make_folder(DATA_PATH.format(**_file_names(number)))
        self._rows = pq.ParquetWriter(self._data, self._schema, **self._row_options())
        self._encoders = {
            name: VideoWriter(
                self._make_folder(VIDEO_PATH.format(video_key=name, **_file_names(number))),
                self._rate,
                self._options.settings,
            )
            for name in self._layout.videos
        }
        self._lines_waiting: list[bytes] = []

    def _make_folder(self, name: str) -> Path:
        path = self._path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _commit(self, line: bytes) -> None:
        self._lines_waiting.append(line)
        full = self._data.stat().st_size > DATA_MB * 2**20
        if full or any(encoder.num_bytes > VIDEO_MB * 2**20 for encoder in self._encoders.values()):
            self._close()

    def _file_number(self) -> int:
        if not self._records:
            return 0
        return self._records[-1].file + (self._rows is None)

    def _close(self) -> None:
        if self._rows is None:
            return
        self._rows.close()
        for encoder in self._encoders.values():
            encoder.close()
        for path in (self._data, *(encoder.path for encoder in self._encoders.values() if encoder.num_frames)):
            sync(path)
            sync(path.parent)
        self._rows = None
        self._log(self._lines_waiting)

    def abandon(self) -> None:
        """Close files; episodes in files that were open do not count."""
        if self._rows is not None:
            for file in (self._rows, *self._encoders.values()):
                with suppress(OSError):  # The disk may be full still.
                    file.close()
            self._rows = None

    def _write_metadata(self, statistics: dict[str, Statistics]) -> None:
        pq.write_table(_tasks_table(list(self._tasks)), self._path / TASKS_FILE)
        folder = self._path / EPISODES_FOLDER / "chunk-000"
        folder.mkdir(parents=True, exist_ok=True)
        schema = _episodes_schema(self._layout.videos, statistics)
        with pq.ParquetWriter(folder / "file-000.parquet", schema) as writer:
            rows: list[dict[str, Any]] = []
            for row in self._episode_rows():
                rows.append(row)
                if len(rows) == ROWS_AT_ONCE:
                    writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                    rows = []
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))

    def _episode_rows(self) -> Iterator[dict[str, Any]]:
        """One row of the table of episodes after the other."""
        texts, begin, begin_of_file, previous = list(self._tasks), 0, 0, Record(0, [], 0)
        for index, record, line in self._lines():
            if record.file != previous.file:
                begin_of_file = begin
            end, file = begin + record.length, _file_names(record.file)
            row = {
                "episode_index": index,
                "tasks": [texts[task] for task in record.tasks] or [""],
                "length": record.length,
                "dataset_from_index": begin,
                "dataset_to_index": end,
                **{f"data/{key}": value for key, value in file.items()},
                **{f"meta/episodes/{key}": 0 for key in file},
            }
            for name in self._layout.videos:
                row |= {f"videos/{name}/{key}": value for key, value in file.items()}
                row[f"videos/{name}/from_timestamp"] = (begin - begin_of_file) / self._rate
                row[f"videos/{name}/to_timestamp"] = (end - begin_of_file) / self._rate
            for name, parts in line["stats"].items():
                row |= {f"stats/{name}/{part}": value for part, value in parts.items()}
            yield row
            begin, previous = end, record

    def _own_info(self) -> dict[str, Any]:
        return {
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._layout.videos else None,
        }


def _file_names(number: int) -> dict[str, int]:
    return {"chunk_index": number // CHUNK_FILES, "file_index": number % CHUNK_FILES}


def _tasks_table(tasks: list[str]) -> pa.Table:
    """The table as pandas would write it: the task is the index, which readers look it up by."""

    def column(name: str, kind: str, numpy_type: str) -> dict[str, Any]:
        return {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_type, "metadata": None}

    index = {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object"}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [index | {"metadata": {"encoding": "UTF-8"}}],
        "columns": [column("task_index", "int64", "int64"), column("task", "unicode", "object")],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.3",
    }
    columns = {"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())}
    return pa.table(columns).replace_schema_metadata({"pandas": json.dumps(pandas)})


def _episodes_schema(videos: list[str], statistics: dict[str, Statistics]) -> pa.Schema:
    whole, file = pa.int64(), ("chunk_index", "file_index")
    kinds = {"episode_index": whole, "tasks": pa.list_(pa.string()), "length": whole}
    kinds |= {name: whole for name in ("dataset_from_index", "dataset_to_index", *(f"data/{key}" for key in file))}
    for name in videos:
        kinds |= {f"videos/{name}/{key}": whole for key in file}
        kinds |= {f"videos/{name}/{key}": pa.float64() for key in ("from_timestamp", "to_timestamp")}
    for name, parts in statistics.items():
        kinds |= {f"stats/{name}/{part}": _list_type(value) for part, value in parts.items()}
    kinds |= {f"meta/episodes/{key}": whole for key in file}
    return pa.schema(kinds)


def _list_type(value: Any) -> pa.DataType:
    if isinstance(value, list):
        return pa.list_(_list_type(value[0]))
    return pa.int64() if isinstance(value, int) else pa.float64()


def _read(path: Path, columns: list[str] | None = None) -> list[dict[str, Any]]:
    try:
        return pq.read_table(path, columns=columns, partitioning=None).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"'{path}' cannot be read ({error}); restore the dataset from a copy") from error


def _read_tasks(path: Path) -> dict[int, str]:
    """Instructions by `task_index`; the column of texts has had several names."""
    tasks = {}
    for row in _read(path):
        index = row.pop("task_index", None)
        if index is None or len(row) != 1:
            raise DatasetError(f"'{path}' is not a table of tasks with their task_index; restore it from a copy")
        tasks[index] = next(iter(row.values()))
    return tasks


def _read_episodes(path: Path) -> list[dict[str, Any]]:
    """The rows of the table of episodes, in order, without their statistics."""
    files = sorted((path / EPISODES_FOLDER).glob("*/*.parquet"))
    if not files:
        raise DatasetError(f"'{path / EPISODES_FOLDER}' holds no table of episodes; the dataset was never finished")
    episodes: list[dict[str, Any]] = []
    for file in files:
        try:
            columns = [name for name in pq.read_schema(file).names if not name.startswith("stats/")]
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"'{file}' cannot be read ({error}); restore the dataset from a copy") from error
        episodes += _read(file, columns)
    return episodes


def _places(path: Path, info: dict[str, Any], episodes: list[dict[str, Any]], videos: list[str]) -> list[Place]:
    starts: dict[Path, int] = {}
    places = []
    for episode in episodes:
        data = path / info["data_path"].format(
            chunk_index=episode["data/chunk_index"], file_index=episode["data/file_index"]
        )
        start = episode["dataset_from_index"]
        # A file's rows are contiguous: its first episode says which one is row 0.
        row = start - starts.setdefault(data, start)
        places.append(
            Place(episode["length"], data, row, {name: _frames(path, info, episode, name) for name in videos})
        )
    return places


def _frames(path: Path, info: dict[str, Any], episode: dict[str, Any], video: str) -> tuple[Path, int]:
    """The file of an episode's frames, and the number of the first."""
    prefix = f"videos/{video}/"
    file = info["video_path"].format(
        video_key=video, chunk_index=episode[f"{prefix}chunk_index"], file_index=episode[f"{prefix}file_index"]
    )
    return path / file, round(episode[f"{prefix}from_timestamp"] * info["fps"])

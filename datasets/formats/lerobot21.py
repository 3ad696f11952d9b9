"""LeRobotDataset 2.1: one data file and one video a camera for every episode; 2.0 is read, too.

meta/info.json, tasks.jsonl, episodes.jsonl, episodes_stats.jsonl (2.0: stats.json)
data/chunk-000/episode_000000.parquet
videos/chunk-000/<camera>/episode_000000.mp4
"""

import json
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
from alula.datasets.formats.lerobot_writer import LeRobotWriter, Videos
from alula.datasets.video import encode_video

VERSIONS = ("v2.0", "v2.1")
CHUNK_EPISODES = 1000
DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"


@dataclass(frozen=True)
class LeRobot21(LeRobotOptions, WritableFormat):
    """LeRobotDataset 2.1."""

    name = "lerobot21"
    suffix = ""

    def detect(self, path: Path) -> bool:
        """Whether `meta/info.json` says 2.0 or 2.1."""
        return detect_version(path, VERSIONS)

    def open(self, path: Path) -> LeRobotReader:
        """A reader of the dataset."""
        info = read_info(path, VERSIONS)
        tasks = {line["task_index"]: line["task"] for line in _read_lines(path / "meta/tasks.jsonl")}
        episodes = _read_lines(path / "meta/episodes.jsonl")
        changing = any(len(episode.get("tasks", ())) > 1 for episode in episodes)
        layout = layout_of(info, changing, path)
        try:
            places = [
                _place(path, info, index, episode["length"], layout.videos) for index, episode in enumerate(episodes)
            ]
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise DatasetError(
                f"the metadata of '{path}' do not say where episodes are ({type(error).__name__}: {error}); restore "
                f"the dataset from a copy"
            ) from error
        return LeRobotReader(path, layout, places, tasks)

    def plan(self, contents: Contents) -> Plan:
        """What writing `contents` would do."""
        return writing_plan(contents, self)

    def create(self, path: Path, contents: Contents) -> "LeRobot21Writer":
        """A writer at `path`."""
        return LeRobot21Writer(path, contents, self)


class LeRobot21Writer(LeRobotWriter):
    """Every appended episode is complete: an interrupted conversion goes on with the next one."""

    version = "v2.1"

    def _write(self, index: int, table: pa.Table, videos: Videos) -> None:
        chunk = index // CHUNK_EPISODES
        for name, frames in videos.items():
            if len(frames):
                path = self._path / VIDEO_PATH.format(episode_chunk=chunk, episode_index=index, video_key=name)
                path.parent.mkdir(parents=True, exist_ok=True)
                encode_video(frames, path, self._rate, self._options.settings)
                sync(path)
        path = self._path / DATA_PATH.format(episode_chunk=chunk, episode_index=index)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, **self._row_options())
        sync(path)
        sync(path.parent)

    def _commit(self, line: bytes) -> None:
        self._log([line])

    def _file_number(self) -> int:
        return len(self._records)

    def _close(self) -> None:
        pass

    def _write_metadata(self, statistics: dict[str, Statistics]) -> None:
        tasks = [{"task_index": index, "task": task} for task, index in self._tasks.items()]
        _write_lines(self._path / "meta/tasks.jsonl", tasks)
        texts = list(self._tasks)
        episodes = [
            {"episode_index": index, "tasks": [texts[task] for task in record.tasks], "length": record.length}
            for index, record in enumerate(self._records)
        ]
        _write_lines(self._path / "meta/episodes.jsonl", episodes)
        with (self._path / "meta/episodes_stats.jsonl").open("w") as file:
            for index, _, line in self._lines():
                file.write(json.dumps({"episode_index": index, "stats": line["stats"]}) + "\n")

    def _own_info(self) -> dict[str, Any]:
        num_episodes, num_cameras = len(self._records), len(self._layout.videos)
        return {
            "total_videos": num_episodes * num_cameras,
            "total_chunks": -(-num_episodes // CHUNK_EPISODES),
            "chunks_size": CHUNK_EPISODES,
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if num_cameras else None,
        }


def _place(path: Path, info: dict[str, Any], index: int, length: int, videos: list[str]) -> Place:
    names = {"episode_chunk": index // info["chunks_size"], "episode_index": index}
    files = {video: path / info["video_path"].format(video_key=video, **names) for video in videos}
    return Place(length, path / info["data_path"].format(**names), 0, {name: (file, 0) for name, file in files.items()})


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines() if line]
    except OSError as error:
        raise DatasetError(
            f"cannot read '{path}': {error.strerror}; the dataset is incomplete, copy it again"
        ) from error
    except ValueError as error:
        raise DatasetError(f"'{path}' is damaged ({error}); restore it from a copy") from error

"""LeRobotDataset 2.1 and 3.0: what is written comes back exactly, and LeRobot finds what it needs where it looks."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from alula.core.errors import ConfigError, DatasetError
from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.formats import lerobot3
from alula.datasets.formats.format import Contents, WritableFormat
from alula.datasets.formats.lerobot import SIDECAR_FILE
from alula.datasets.formats.lerobot3 import LeRobot3
from alula.datasets.formats.lerobot21 import LeRobot21
from alula.datasets.schema import DTYPES, step_fields
from alula.datasets.video import decode_video, psnr

FORMATS = [LeRobot21(), LeRobot3()]
PNG_AND_VIDEO = [
    LeRobot21(),
    LeRobot3(),
    LeRobot21(video=True, codec="libx264rgb", crf=0),
    LeRobot3(video=True, codec="libx264rgb", crf=0),
]
every_format = pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.name)
every_exact_format = pytest.mark.parametrize(
    "fmt", PNG_AND_VIDEO, ids=lambda fmt: f"{fmt.name}-{'video' if fmt.video else 'png'}"
)

CONTENTS = Contents(
    SpaceSpec(
        (
            FieldSpec("observation.state", (3,), "float64", ("rad", "rad", "m"), ("shoulder", "elbow", "slide")),
            FieldSpec("observation.images.front", (16, 20, 3), "uint8"),
            FieldSpec("observation.images.wrist", (7, 5, 3), "uint8"),
            FieldSpec("observation.grid", (2, 3), "float32"),
            FieldSpec("observation.depth_image", (4, 4), "uint16"),
            FieldSpec("observation.phase", (), "int8"),
        )
    ),
    SpaceSpec((FieldSpec("action", (2,), control_mode=ControlMode.JOINT_POSITION_DELTA, rate=20.0, low=(-1.0,)),)),
    SpaceSpec((FieldSpec("timestamp", (), "int64", ("ns",)), FieldSpec("index", (), "uint64"))),
    {"imu": SpaceSpec((FieldSpec("timestamp", (), "int64", ("ns",)), FieldSpec("gyro", (3,), "float32", ("rad/s",))))},
    {"licence": "CC0", "rate": 20.0, "provenance": {"who": "Ünïcödé 🤖"}},
)


def make_episode(contents: Contents, seed: int, length: int, **metadata: object) -> Episode:
    """Random bits in every field, as far as its type may hold them."""
    rng = np.random.default_rng(seed)

    def values(field: FieldSpec, count: int) -> np.ndarray:
        shape = (count, *field.shape)
        if field.name == "timestamp":
            return np.sort(rng.integers(0, 2**62, shape))
        if np.dtype(field.dtype).kind == "f":
            numbers = rng.standard_normal(shape).astype(field.dtype)
            return (
                np.where(rng.random(shape) < 0.3, np.nan, numbers).astype(field.dtype) if field.allow_nan else numbers
            )
        if field.dtype == "bool":
            return rng.random(shape) < 0.5
        return rng.integers(np.iinfo(field.dtype).min, np.iinfo(field.dtype).max, shape, field.dtype, endpoint=True)

    steps = {name: values(field, length) for name, field in step_fields(contents).items()}
    streams = {
        stream: {name: values(field, 5 * length) for name, field in fields.items()}
        for stream, fields in contents.streams.items()
    }
    return Episode(steps, {"seed": seed, **metadata}, streams)


def episodes_of(contents: Contents = CONTENTS) -> list[Episode]:
    tasks = ["pick", "place the 🍎", "pick", "", "pick"]
    lengths = [4, 1, 0, 7, 3]
    made = [
        make_episode(contents, seed, length, instruction=task)
        for seed, (length, task) in enumerate(zip(lengths, tasks, strict=True))
    ]
    del made[3].metadata["instruction"]
    return made


def write(fmt: WritableFormat, path: Path, episodes: Sequence[Episode], contents: Contents = CONTENTS) -> Path:
    writer = fmt.create(path, contents)
    for episode in episodes:
        writer.append(episode)
    writer.finish()
    return path


def assert_equal(got: Episode, wanted: Episode) -> None:
    def check(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
        assert list(found) == list(expected)
        for name, values in expected.items():
            assert found[name].dtype == values.dtype, name
            assert found[name].shape == values.shape, name
            assert found[name].tobytes() == values.tobytes(), name

    check(got.steps, wanted.steps)
    assert list(got.streams) == list(wanted.streams)
    for stream in wanted.streams:
        check(got.streams[stream], wanted.streams[stream])
    assert got.metadata == wanted.metadata


@every_exact_format
def test_everything_comes_back_exactly(fmt: WritableFormat, tmp_path: Path) -> None:
    episodes = episodes_of()
    path = write(fmt, tmp_path / "data", episodes)
    assert [other.name for other in FORMATS if other.detect(path)] == [fmt.name]
    with fmt.open(path) as reader:
        assert reader.contents == CONTENTS
        assert reader.num_episodes == len(episodes)
        for got, wanted in zip(reader.episodes(), episodes, strict=True):
            assert_equal(got, wanted)
        for start in range(len(episodes) + 1):
            rest = list(reader.episodes(start))
            assert len(rest) == len(episodes) - start
            assert not rest or rest[0].metadata == episodes[start].metadata


@every_format
def test_every_type_comes_back_to_the_bit(fmt: WritableFormat, tmp_path: Path) -> None:
    """Among them NaNs that differ in their payload, and shapes of none to seven axes."""
    shapes = [(), (1,), (3,), (1, 1), (2, 3), (2, 1, 3), (1, 2, 1, 2, 1, 2, 1)]
    fields = [
        FieldSpec(f"observation.{dtype}_{number}", shape, dtype, allow_nan=True)
        for dtype in DTYPES
        for number, shape in enumerate(shapes)
    ]
    contents = Contents(SpaceSpec(tuple(fields)), SpaceSpec(()))
    episodes = [make_episode(contents, seed, length) for seed, length in enumerate((3, 1, 6))]
    payload = np.array([0x7FF8_0000_0000_0000, 0x7FF8_0000_0000_0001, 0xFFF8_0000_0000_0007], np.uint64).view(
        np.float64
    )
    episodes[0].steps["observation.float64_0"] = payload
    path = write(fmt, tmp_path / "data", episodes, contents)
    with fmt.open(path) as reader:
        for got, wanted in zip(reader.episodes(), episodes, strict=True):
            assert_equal(got, wanted)


@every_format
def test_a_dataset_without_episodes_is_one(fmt: WritableFormat, tmp_path: Path) -> None:
    with fmt.open(write(fmt, tmp_path / "data", [])) as reader:
        assert reader.num_episodes == 0
        assert list(reader.episodes()) == []


@pytest.mark.parametrize("cls", [LeRobot21, LeRobot3])
def test_lossy_videos_are_announced_and_close(cls: type, tmp_path: Path) -> None:
    rows, columns = np.mgrid[:64, :64]
    smooth = np.stack([(rows + 3 * step) % 128 + columns for step in range(12)]).astype(np.uint8)
    frames = np.stack([smooth, smooth // 2, 255 - smooth], axis=-1)
    contents = Contents(SpaceSpec((FieldSpec("observation.images.front", (64, 64, 3), "uint8"),)), CONTENTS.action)
    episode = make_episode(contents, 0, 12)
    episode.steps["observation.images.front"] = frames
    fmt = cls(video=True)
    assert "observation.images.front" in fmt.plan(contents).losses[0]
    assert cls().plan(contents).losses == ()
    assert cls(video=True, codec="libx264rgb", crf=0).plan(contents).losses == ()
    with fmt.open(write(fmt, tmp_path / "data", [episode] * 3, contents)) as reader:
        for got in reader.episodes():
            for wanted, frame in zip(frames, got.steps["observation.images.front"], strict=True):
                assert psnr(wanted, frame) > 28


# What LeRobot itself looks for


@every_format
def test_info_names_every_feature(fmt: WritableFormat, tmp_path: Path) -> None:
    info = json.loads((write(fmt, tmp_path / "data", episodes_of()) / "meta/info.json").read_text())
    assert info["codebase_version"] == {"lerobot21": "v2.1", "lerobot3": "v3.0"}[fmt.name]
    assert (info["fps"], info["total_episodes"], info["total_frames"], info["total_tasks"]) == (20, 5, 15, 3)
    assert info["splits"] == {"train": "0:5"}
    features = info["features"]
    assert features["observation.state"] == {
        "dtype": "float64",
        "shape": [3],
        "names": ["shoulder", "elbow", "slide"],
    }
    assert features["observation.images.front"] == {
        "dtype": "image",
        "shape": [16, 20, 3],
        "names": ["height", "width", "channels"],
    }
    for name in ("frame_index", "episode_index", "index", "task_index"):
        assert features[name] == {"dtype": "int64", "shape": [1], "names": None}
    assert features["timestamp"]["dtype"] == "float32"
    assert features["alula.timestamp"]["dtype"] == "int64"
    assert features["alula.index"]["dtype"] == "uint64"
    assert {"next.done", "next.success", "next.reward", "next.terminated", "next.truncated"} <= set(features)


@every_format
def test_lerobot_s_own_columns_follow_its_rules(fmt: WritableFormat, tmp_path: Path) -> None:
    episodes = episodes_of()
    path = write(fmt, tmp_path / "data", episodes)
    files = sorted((path / "data").rglob("*.parquet"))
    columns = {
        name: np.concatenate([pq.read_table(file)[name].to_numpy() for file in files])
        for name in ("timestamp", "frame_index", "episode_index", "index", "task_index", "next.done")
    }
    lengths = [episode.length for episode in episodes]
    assert columns["index"].tolist() == list(range(15))
    assert columns["episode_index"].tolist() == np.repeat(range(5), lengths).tolist()
    assert columns["frame_index"].tolist() == [step for length in lengths for step in range(length)]
    assert columns["timestamp"].dtype == np.float32
    assert columns["timestamp"] == pytest.approx(columns["frame_index"] / 20, abs=1e-6)
    assert columns["task_index"].tolist() == np.repeat([0, 1, 0, 2, 0], lengths).tolist()
    done = np.concatenate([episode.steps["next.terminated"] | episode.steps["next.truncated"] for episode in episodes])
    assert (columns["next.done"] == done).all()


def test_version_3_keeps_a_row_group_and_a_row_of_metadata_per_episode(tmp_path: Path) -> None:
    path = write(LeRobot3(), tmp_path / "data", episodes_of())
    data = pq.ParquetFile(path / "data/chunk-000/file-000.parquet")
    groups = [data.metadata.row_group(group).num_rows for group in range(data.num_row_groups)]
    assert [rows for rows in groups if rows] == [4, 1, 7, 3]
    rows = pq.read_table(path / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in rows] == [
        (0, 4),
        (4, 5),
        (5, 5),
        (5, 12),
        (12, 15),
    ]
    assert [row["tasks"] for row in rows][:2] == [["pick"], ["place the 🍎"]]
    tasks = pq.read_table(path / "meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    assert tasks.to_pydict() == {"task_index": [0, 1, 2], "task": ["pick", "place the 🍎", ""]}


def test_version_3_videos_say_when_an_episode_begins(tmp_path: Path) -> None:
    fmt = LeRobot3(video=True, codec="libx264rgb", crf=0)
    episodes = episodes_of()
    path = write(fmt, tmp_path / "data", episodes)
    name = "observation.images.front"
    frames = list(decode_video(path / f"videos/{name}/chunk-000/file-000.mp4"))
    assert np.array_equal(frames, np.concatenate([episode.steps[name] for episode in episodes]))
    for row in pq.read_table(path / "meta/episodes/chunk-000/file-000.parquet").to_pylist():
        assert row[f"videos/{name}/from_timestamp"] == pytest.approx(row["dataset_from_index"] / 20)
        assert row[f"videos/{name}/to_timestamp"] == pytest.approx(row["dataset_to_index"] / 20)


def test_version_2_keeps_files_of_its_own_per_episode(tmp_path: Path) -> None:
    path = write(LeRobot21(video=True, codec="libx264rgb", crf=0), tmp_path / "data", episodes_of())
    lines = [json.loads(line) for line in (path / "meta/episodes.jsonl").read_text().splitlines()]
    assert lines[1] == {"episode_index": 1, "tasks": ["place the 🍎"], "length": 1}
    tasks = [json.loads(line) for line in (path / "meta/tasks.jsonl").read_text().splitlines()]
    assert tasks[0] == {"task_index": 0, "task": "pick"}
    for index, length in enumerate([4, 1, 0, 7, 3]):
        assert pq.read_metadata(path / f"data/chunk-000/episode_{index:06d}.parquet").num_rows == length
        video = path / f"videos/chunk-000/observation.images.wrist/episode_{index:06d}.mp4"
        assert video.exists() == (length > 0)


@every_format
def test_statistics_are_those_of_the_data(fmt: WritableFormat, tmp_path: Path) -> None:
    episodes = [make_episode(CONTENTS, seed, length) for seed, length in enumerate((40, 17, 3))]
    path = write(fmt, tmp_path / "data", episodes)
    stats = json.loads((path / "meta/stats.json").read_text())
    states = np.concatenate([episode.steps["observation.state"] for episode in episodes])
    assert stats["observation.state"]["min"] == pytest.approx(states.min(0))
    assert stats["observation.state"]["max"] == pytest.approx(states.max(0))
    assert stats["observation.state"]["mean"] == pytest.approx(states.mean(0))
    assert stats["observation.state"]["std"] == pytest.approx(states.std(0))
    assert stats["observation.state"]["count"] == [60]
    images = np.concatenate([episode.steps["observation.images.front"] for episode in episodes]) / 255
    assert np.array(stats["observation.images.front"]["mean"]) == pytest.approx(images.mean((0, 1, 2)).reshape(3, 1, 1))
    assert np.array(stats["observation.images.front"]["std"]) == pytest.approx(images.std((0, 1, 2)).reshape(3, 1, 1))
    assert "observation.depth_image" not in stats  # LeRobot insists that such a name has three channels
    for name, fraction in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
        # Of the whole, where LeRobot takes the mean of the episodes' quantiles.
        grids = np.concatenate([episode.steps["observation.grid"] for episode in episodes]).astype(np.float64)
        assert np.array(stats["observation.grid"][name]) == pytest.approx(np.quantile(grids, fraction, axis=0))


@every_format
def test_statistics_leave_out_what_was_not_measured(fmt: WritableFormat, tmp_path: Path) -> None:
    contents = Contents(
        SpaceSpec(
            tuple(FieldSpec(f"observation.{name}", (2,), "float64", allow_nan=True) for name in ("gaps", "silent"))
        ),
        CONTENTS.action,
    )
    episodes = [make_episode(contents, seed, 30) for seed in range(2)]
    for episode in episodes:
        episode.steps["observation.silent"][:, 1] = np.nan
    stats = json.loads((write(fmt, tmp_path / "data", episodes, contents) / "meta/stats.json").read_text())
    gaps = np.concatenate([episode.steps["observation.gaps"] for episode in episodes])
    assert stats["observation.gaps"]["max"] == pytest.approx(np.nanmax(gaps, axis=0))
    assert stats["observation.gaps"]["q50"] == pytest.approx(np.nanmedian(gaps, axis=0))
    assert "observation.silent" not in stats


@pytest.mark.parametrize("cls", [LeRobot21, LeRobot3])
def test_modality_is_written_on_request(cls: type, tmp_path: Path) -> None:
    path = write(cls(modality=True), tmp_path / "data", episodes_of())
    modality = json.loads((path / "meta/modality.json").read_text())
    assert modality["state"]["state"] == {"start": 0, "end": 3, "original_key": "observation.state"}
    assert modality["action"] == {"action": {"start": 0, "end": 2, "original_key": "action"}}
    assert modality["video"]["front"] == {"original_key": "observation.images.front"}
    assert modality["annotation"] == {"human.task_description": {"original_key": "task_index"}}
    assert not (write(cls(), tmp_path / "plain", []) / "meta/modality.json").exists()


# Instructions


@every_format
def test_several_instructions_in_an_episode(fmt: WritableFormat, tmp_path: Path) -> None:
    contents = replace(CONTENTS, extra=SpaceSpec((FieldSpec("instruction_index", (), "int64"),)))
    episode = make_episode(contents, 0, 4, instructions=["open", "close"])
    episode.steps["instruction_index"] = np.array([0, 1, 1, 0])
    other = make_episode(contents, 1, 2, instructions=["close"])
    other.steps["instruction_index"] = np.zeros(2, np.int64)
    path = write(fmt, tmp_path / "data", [episode, other], contents)
    tables = [pq.read_table(file) for file in sorted((path / "data").rglob("*.parquet"))]
    assert np.concatenate([table["task_index"].to_numpy() for table in tables]).tolist() == [0, 1, 1, 0, 1, 1]
    with fmt.open(path) as reader:
        assert_equal(next(reader.episodes()), episode)
    episode.steps["instruction_index"][0] = 2
    with pytest.raises(DatasetError, match="instructions 0 to 1"):
        fmt.create(tmp_path / "bad", contents).append(episode)


def make_foreign(path: Path) -> Path:
    """As if alula had not written it."""
    info = json.loads((path / "meta/info.json").read_text())
    del info["alula"]
    (path / "meta/info.json").write_text(json.dumps(info))
    (path / SIDECAR_FILE).unlink()
    return path


@every_exact_format
def test_others_datasets_are_mapped_by_name(fmt: WritableFormat, tmp_path: Path) -> None:
    contents = replace(CONTENTS, extra=SpaceSpec((FieldSpec("gripper_force", (2,), "float64"),)), streams={})
    episodes = [episode for episode in episodes_of(contents) if episode.length]
    with fmt.open(make_foreign(write(fmt, tmp_path / "data", episodes, contents))) as reader:
        found = reader.contents
        assert found.observation["observation.state"].element_names == ("shoulder", "elbow", "slide")
        assert found.observation["observation.state"].dtype == "float64"
        assert found.action["action"].rate == found.metadata["rate"] == 20.0
        assert set(found.extra) == {"gripper_force", "timestamp"}
        for got, wanted in zip(reader.episodes(), episodes, strict=True):
            for name in ("observation.state", "observation.images.front", "observation.grid", "action"):
                assert got.steps[name].tobytes() == wanted.steps[name].tobytes()
            for name in ("next.reward", "next.terminated", "next.truncated", "next.success"):
                assert got.steps[name].tobytes() == wanted.steps[name].tobytes()
            assert got.metadata.get("instruction") == wanted.metadata.get("instruction")
            assert got.steps["timestamp"] == pytest.approx(np.arange(wanted.length) * 5e7, abs=50)


@every_format
def test_changes_by_lerobot_s_tools_do_not_mislead(fmt: WritableFormat, tmp_path: Path) -> None:
    """A feature added to the dataset appears, instead of being hidden by what alula once wrote beside it."""
    path = write(fmt, tmp_path / "data", episodes_of())
    info = json.loads((path / "meta/info.json").read_text())
    info["features"]["observation.phase2"] = info["features"]["observation.phase"]
    for file in (path / "data").rglob("*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.append_column("observation.phase2", table["observation.phase"]), file)
    (path / "meta/info.json").write_text(json.dumps(info))
    with fmt.open(path) as reader:
        assert "observation.phase2" in reader.contents.observation
        episode = next(reader.episodes(3))
        assert np.array_equal(episode.steps["observation.phase2"][:, 0], episodes_of()[3].steps["observation.phase"])


# Interruptions


@every_format
def test_an_interrupted_writer_goes_on(fmt: WritableFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the point: what the new writer claims is complete, and the result is that of an uninterrupted one."""
    monkeypatch.setattr(lerobot3, "DATA_MB", 0)  # so that every episode closes its files
    episodes = episodes_of()
    whole = write(fmt, tmp_path / "whole", episodes)
    for stop in range(len(episodes) + 1):
        path = tmp_path / f"data{stop}"
        writer = fmt.create(path, CONTENTS)
        for episode in episodes[:stop]:
            writer.append(episode)
        if stop % 2:
            writer.abandon()
        del writer  # Killed: no call of `finish`.
        with (path / SIDECAR_FILE).open("ab") as file:
            file.write(b'{"length": 4, "ta')  # A line that was never finished.
        again = fmt.create(path, CONTENTS)
        assert again.num_episodes == stop
        for episode in episodes[again.num_episodes :]:
            again.append(episode)
        again.finish()
        for file in whole.rglob("*.*"):
            assert (path / file.relative_to(whole)).read_bytes() == file.read_bytes(), file


def test_version_3_repeats_only_the_open_files(tmp_path: Path) -> None:
    episodes = episodes_of()
    fmt = LeRobot3(video=True, codec="libx264rgb", crf=0)
    writer = fmt.create(tmp_path / "data", CONTENTS)
    for episode in episodes[:3]:
        writer.append(episode)
    assert fmt.create(tmp_path / "data", CONTENTS).num_episodes == 0
    write(fmt, tmp_path / "data", episodes)
    with fmt.open(tmp_path / "data") as reader:
        for got, wanted in zip(reader.episodes(), episodes, strict=True):
            assert_equal(got, wanted)


def test_version_3_begins_new_files_when_they_are_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lerobot3, "CHUNK_FILES", 2)
    monkeypatch.setattr(lerobot3, "VIDEO_MB", 1e-4)
    fmt = LeRobot3(video=True, codec="libx264rgb", crf=0)
    episodes = [make_episode(CONTENTS, seed, 80) for seed in range(5)]  # more than an encoder holds back
    path = write(fmt, tmp_path / "data", episodes)
    assert sorted(str(file.relative_to(path)) for file in (path / "data").rglob("*.parquet")) == [
        f"data/chunk-{number // 2:03d}/file-{number % 2:03d}.parquet" for number in range(5)
    ]
    with fmt.open(path) as reader:
        for got, wanted in zip(reader.episodes(), episodes, strict=True):
            assert_equal(got, wanted)


# Bad input


@every_format
def test_detection_never_raises(fmt: WritableFormat, tmp_path: Path) -> None:
    assert not fmt.detect(tmp_path / "absent")
    assert not fmt.detect(tmp_path)
    (tmp_path / "meta").mkdir()
    for content in (b"", b"\xff\xfe", b"[]", b"{}", b'{"codebase_version": "v1.6"}'):
        (tmp_path / "meta/info.json").write_bytes(content)
        assert not fmt.detect(tmp_path)
        with pytest.raises(DatasetError, match=r"info\.json|LeRobotDataset v1\.6|LeRobotDataset None"):
            fmt.open(tmp_path)


@every_exact_format
def test_any_truncated_file_is_named(fmt: WritableFormat, tmp_path: Path) -> None:
    whole = write(fmt, tmp_path / "whole", episodes_of())
    skipped = {"stats.json", "episodes_stats.jsonl"}  # derived; nobody reads them back
    files = [file.relative_to(whole) for file in whole.rglob("*.*") if file.is_file() and file.name not in skipped]
    assert len(files) > 5
    for file in files:
        path = tmp_path / "damaged"
        shutil.copytree(whole, path)
        content = (path / file).read_bytes()
        (path / file).write_bytes(content[: len(content) * 2 // 3])
        with pytest.raises(DatasetError), fmt.open(path) as reader:
            list(reader.episodes())
        shutil.rmtree(path)


@every_format
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: info.pop("features"), "features"),
        (lambda info: info["features"].pop("action"), "action"),
        (lambda info: info["features"]["action"].update(dtype="int32"), "int32"),
        (lambda info: info["features"]["action"].update(shape=[3]), r"shape \(3,\)"),
        (lambda info: info["features"].update(absent={"dtype": "int8", "shape": [1], "names": None}), "'absent'"),
        (lambda info: info.update(data_path="data/{nothing}.parquet"), "nothing"),
        (lambda info: info.pop("data_path"), "data_path"),
    ],
)
def test_wrong_metadata_are_named(fmt: WritableFormat, tmp_path: Path, change: object, message: str) -> None:
    path = make_foreign(write(fmt, tmp_path / "data", episodes_of()))
    info = json.loads((path / "meta/info.json").read_text())
    change(info)
    (path / "meta/info.json").write_text(json.dumps(info))
    if message == "action":
        with fmt.open(path) as reader:  # A dataset without actions is a recording.
            assert not reader.contents.action
        return
    with pytest.raises(DatasetError, match=message), fmt.open(path) as reader:
        list(reader.episodes())


@every_format
def test_rows_of_another_episode_and_falling_times_are_refused(fmt: WritableFormat, tmp_path: Path) -> None:
    def changed(name: str, value: object) -> Path:
        path = tmp_path / name
        shutil.copytree(whole, path)
        file = sorted((path / "data").rglob("*.parquet"))[0]
        table = pq.read_table(file)
        values = table[name].to_numpy().copy()
        values[2] = value
        table = table.set_column(table.column_names.index(name), table.schema.field(name), [values])
        pq.write_table(table, file)
        return path

    whole = make_foreign(write(fmt, tmp_path / "data", [make_episode(CONTENTS, 0, 5)]))
    for name, value, message in (
        ("episode_index", 7, r"belong to \[0, 7\]"),
        ("timestamp", 0.0, "does not rise"),
        ("timestamp_nan", np.nan, "does not rise"),
        ("task_index", 9, r"tasks \[9\]"),
    ):
        path = changed(name.removesuffix("_nan"), value)
        with pytest.raises(DatasetError, match=message), fmt.open(path) as reader:
            list(reader.episodes())
        shutil.rmtree(path)


@every_format
def test_an_episode_that_does_not_fit_changes_nothing(fmt: WritableFormat, tmp_path: Path) -> None:
    episodes = episodes_of()
    writer = fmt.create(tmp_path / "data", CONTENTS)
    writer.append(episodes[0])
    wrong = make_episode(CONTENTS, 1, 3)
    wrong.steps["action"] = wrong.steps["action"][:, :1]
    with pytest.raises(DatasetError, match="'action' of episode 1 has shape"):
        writer.append(wrong)
    for episode in episodes[1:]:
        writer.append(episode)
    writer.finish()
    with fmt.open(tmp_path / "data") as reader:
        for got, wanted in zip(reader.episodes(), episodes, strict=True):
            assert_equal(got, wanted)


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="gop is 0"):
        LeRobot3(video=True, gop=0)
    with pytest.raises(ConfigError, match="libx264"):
        LeRobot21(video=True, codec="h265")

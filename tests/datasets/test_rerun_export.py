"""Recordings for the viewer rerun: what is in the dataset comes back out of the file."""

import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.rerun_export import write_rerun
from alula.datasets.store import EpisodeStore

NAMES = ("x", "yaw")
TIMESTAMP = FieldSpec("timestamp", (), "int64", ("ns",))
LENGTHS = (4, 0, 1)


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    """A camera, a state with a gap, an action with names, a clock, and an IMU with one of its own."""
    observation = (
        FieldSpec("observation.state", (3,), "float64", allow_nan=True),
        FieldSpec("observation.images.top", (6, 4, 3), "uint8"),
    )
    imu = SpaceSpec((TIMESTAMP, FieldSpec("gyro", (3,))))
    action = SpaceSpec((FieldSpec("action", (2,), element_names=NAMES),))
    store = EpisodeStore.create(
        tmp_path / "data.zarr", SpaceSpec(observation), action, extra=SpaceSpec((TIMESTAMP,)), streams={"imu": imu}
    )
    rng = np.random.default_rng(0)
    for index, length in enumerate(LENGTHS):
        no = np.zeros(length, dtype=bool)
        steps = {
            "observation.state": rng.standard_normal((length, 3)),
            "observation.images.top": rng.integers(0, 256, (length, 6, 4, 3), dtype=np.uint8),
            "action": rng.standard_normal((length, 2)).astype(np.float32),
            "timestamp": 10**15 * (index + 1) + np.arange(length) * 33_333_333,
            **{"next.reward": rng.standard_normal(length), "next.terminated": no},
            **{"next.truncated": no, "next.success": no},
        }
        steps["observation.state"][:1, 1] = np.nan
        imu_samples = {
            "timestamp": np.arange(5 * length),
            "gyro": rng.standard_normal((5 * length, 3)).astype(np.float32),
        }
        store.append(Episode(steps, {"instruction": f"task {index} ✓"}, {"imu": imu_samples}))
    return store


def test_without_rerun_the_error_says_what_to_install(
    store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(DatasetError, match=r"alula\[rerun\].*rerun-sdk"):
        write_rerun(store, tmp_path / "out.rrd")
    assert not (tmp_path / "out.rrd").exists()


def columns(path: Path) -> dict[str, dict[str, Any]]:
    """Every column of the file, by the path of what it describes and its own name."""
    found: dict[str, dict[str, Any]] = {}
    for chunk in pytest.importorskip("rerun.chunk").RrdReader(path).stream():
        batch = chunk.to_record_batch()
        found.setdefault(chunk.entity_path, {}).update(zip(batch.schema.names, batch.columns, strict=True))
    return found


def test_everything_comes_back(store: EpisodeStore, tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="needs the extra `rerun`")
    reports: list[tuple[int, int]] = []
    write_rerun(store, tmp_path / "out.rrd", lambda done, total: reports.append((done, total)))
    assert reports == [(1, 3), (2, 3), (3, 3)]
    found = columns(tmp_path / "out.rrd")
    for index, length in enumerate(LENGTHS):
        episode, folder = store.episode(index), f"/episode_{index}"
        assert found[f"{folder}/instruction"]["TextDocument:text"].to_pylist() == [[f"task {index} ✓"]]
        if not length:
            assert f"{folder}/action" not in found
            continue
        for name in ("observation.state", "action", "next.reward", "next.success"):
            column = found[f"{folder}/{name}"]
            recorded = episode.steps[name].reshape(length, -1).astype(np.float64)
            np.testing.assert_array_equal(np.array(column["Scalars:scalars"].to_pylist()), recorded)
            assert column["step"].to_pylist() == list(range(length))
            assert column["time"].cast("int64").to_pylist() == episode.steps["timestamp"].tolist()
        assert found[f"{folder}/action"]["SeriesLines:names"].to_pylist() == [list(NAMES)]
        files = found[f"{folder}/observation.images.top"]["EncodedImage:blob"].to_pylist()
        pictures = [np.asarray(Image.open(BytesIO(bytes(content)))) for (content,) in files]
        np.testing.assert_array_equal(np.stack(pictures), episode.steps["observation.images.top"])
        gyro = found[f"{folder}/streams/imu/gyro"]
        np.testing.assert_array_equal(np.array(gyro["Scalars:scalars"].to_pylist()), episode.streams["imu"]["gyro"])
        assert "step" not in gyro
        assert gyro["time"].cast("int64").to_pylist() == list(range(5 * length))

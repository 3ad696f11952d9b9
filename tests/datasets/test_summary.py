"""The summary says what is in a dataset, also what is odd about it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.store import EpisodeStore
from alula.datasets.summary import clocks, state_action_coverage, summarize, trajectory_quality

MakeEpisode = Callable[..., Episode]
MakeStore = Callable[..., EpisodeStore]


def test_summary_counts_ranges_and_outcomes(make_store: MakeStore, make_episode: MakeEpisode) -> None:
    store = make_store([3, 8])
    failed = make_episode(2, 4)
    failed.steps["next.success"][:] = False
    store.append(failed)
    summary = summarize(store)
    assert (summary["episodes"], summary["steps"]) == (3, 15)
    assert summary["lengths"] == {"min": 3, "median": 4.0, "max": 8}
    assert summary["success_rate"] == pytest.approx(2 / 3)
    returns = [make_episode(seed, length).steps["next.reward"].sum() for seed, length in ((0, 3), (1, 8), (2, 4))]
    assert summary["returns"]["max"] == pytest.approx(max(returns))
    state = summary["fields"]["observation.state"]
    assert (state["shape"], state["dtype"], state["units"]) == ([3], "float32", ["rad", "rad", "m"])
    np.testing.assert_array_equal(state["min"], store.read("observation.state").min(0))
    image = summary["fields"]["observation.image"]
    np.testing.assert_array_equal(image["max"], store.read("observation.image").max((0, 1, 2)))
    assert summary["size_on_disk_bytes"] > 1000
    assert summary["metadata"] == {"licence": "CC0"}
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_summary_points_out_what_is_odd(make_store: MakeStore, make_episode: MakeEpisode) -> None:
    store = make_store([])
    episodes = [make_episode(seed, 5) for seed in (0, 1, 0)]
    for episode in episodes:
        episode.steps["observation.state"][:, 1] = 0.25
        episode.steps["action"][:] = 0.0
        episode.steps["action"][0] = (1.0, 1.5)
    store.extend(episodes)
    summary = summarize(store)
    assert summary["constant_elements"] == {"observation.state": ["elbow"]}
    assert summary["actions"]["saturated_share"] == pytest.approx(0.2)
    assert summary["actions"]["outside_share"] == pytest.approx(0.1)
    assert summary["duplicate_episodes"] == [[0, 2]]


def test_unknown_success_and_limits_are_none(
    make_store: MakeStore, make_episode: MakeEpisode, observation: SpaceSpec, tmp_path: Path
) -> None:
    unlimited = SpaceSpec.from_list([{"name": "action", "shape": [2]}])
    store = EpisodeStore.create(tmp_path / "unknown", observation, unlimited, {"success_recorded": False})
    store.append(make_episode(0))
    summary = summarize(store)
    assert summary["success_rate"] is None
    assert summary["actions"] == {"saturated_share": None, "outside_share": None}


def test_an_empty_dataset_has_no_summary(make_store: MakeStore) -> None:
    with pytest.raises(DatasetError, match=r"no episodes"):
        summarize(make_store([]))


def returning(store: EpisodeStore, make_episode: MakeEpisode, returns: list[float]) -> EpisodeStore:
    """`store` with one episode of five steps for each return."""
    for seed, value in enumerate(returns):
        episode = make_episode(seed, 5)
        episode.steps["next.reward"] = np.full(5, value / 5)
        store.append(episode)
    return store


def test_quality_runs_from_the_worst_episode_to_the_best(make_store: MakeStore, make_episode: MakeEpisode) -> None:
    replay = returning(make_store([], "replay"), make_episode, [0.0, 2.0, 10.0])
    good = returning(make_store([], "good"), make_episode, [8.0, 10.0])
    assert trajectory_quality(replay, replay) == pytest.approx(0.4)
    assert trajectory_quality(good, replay) == pytest.approx(0.9)
    assert trajectory_quality(returning(make_store([], "flat"), make_episode, [3.0, 3.0]), replay) == pytest.approx(0.3)
    flat = make_store([])
    assert trajectory_quality(returning(flat, make_episode, [1.0, 1.0]), flat) is None


def test_coverage_counts_what_is_new(make_store: MakeStore, make_episode: MakeEpisode) -> None:
    replay = make_store([40, 40], "replay")
    repeated = make_store([], "repeated")
    repeated.extend([make_episode(0, 40)] * 2)
    narrow = make_store([40], "narrow")
    assert state_action_coverage(repeated, None) == pytest.approx(state_action_coverage(narrow, None) / 2)
    assert state_action_coverage(replay, replay) == 1.0
    share = state_action_coverage(narrow, replay)
    assert share is not None
    assert 0.3 < share < 0.8
    assert state_action_coverage(repeated, replay) == share


def test_clocks_are_measured_within_episodes(observation: SpaceSpec, action: SpaceSpec, tmp_path: Path) -> None:
    stamp = FieldSpec("timestamp", (), "int64", units=("ns",))
    streams = {"imu": SpaceSpec((stamp,))}
    nothing = SpaceSpec(())
    store = EpisodeStore.create(tmp_path / "clocked", nothing, nothing, extra=SpaceSpec((stamp,)), streams=streams)
    outcome = {name: np.zeros(4, bool) for name in ("next.terminated", "next.truncated", "next.success")}
    for start in (0, 5_000_000_000):
        steps = {**outcome, "next.reward": np.zeros(4), "timestamp": start + np.array([0, 10, 20, 60]) * 1_000_000}
        samples = {"imu": {"timestamp": start + np.arange(100) * 1_000_000}}
        store.append(Episode(steps, {}, samples))
    found = clocks(store)
    assert found["imu"] == {"rate_hz": 1000.0, "jitter_ms": 0.0, "longest_ms": 1.0}
    assert found["steps"]["rate_hz"] == 100.0
    assert found["steps"]["longest_ms"] == 40.0
    assert found["steps"]["jitter_ms"] == pytest.approx(np.std([10, 10, 40]))


def test_empty_and_damaged_episodes_are_named(make_store: MakeStore, make_episode: MakeEpisode) -> None:
    store = make_store([3, 0, 2])
    summary = summarize(store)
    assert (summary["empty_episodes"], summary["damaged_episodes"]) == ([1], [])
    assert summary["returns"]["min"] <= 0.0
    log = store.path / "episodes.jsonl"
    log.write_text(log.read_text().replace(store.digests[2], "0" * 32))
    assert summarize(EpisodeStore.open(store.path))["damaged_episodes"] == [2]

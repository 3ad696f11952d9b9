"""The summary says what is in a dataset, also what is odd about it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alula.core.errors import DatasetError
from alula.core.spaces import SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.store import EpisodeStore
from alula.datasets.summary import summarize

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

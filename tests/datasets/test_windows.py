"""Windows hold the actions that followed each step, and nothing of the next episode."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.store import EpisodeStore
from alula.datasets.windows import WindowSampler

MakeEpisode = Callable[..., Episode]
MakeStore = Callable[..., EpisodeStore]


def counted_store(path: Path, lengths: list[int]) -> EpisodeStore:
    """A dataset whose every action and observation is the index of its step."""
    store = EpisodeStore.create(
        path, SpaceSpec((FieldSpec("observation.state", (1,)),)), SpaceSpec((FieldSpec("action", (1,)),))
    )
    start = 0
    for length in lengths:
        count = np.arange(start, start + length, dtype=np.float32)[:, None]
        flags = np.zeros(length, dtype=bool)
        outcome = {f"next.{name}": flags for name in ("terminated", "truncated", "success")}
        store.append(Episode({"observation.state": count, "action": count, "next.reward": np.zeros(length), **outcome}))
        start += length
    return store


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 15), st.randoms(use_true_random=False))
def test_windows_equal_a_loop_over_steps(lengths: list[int], horizon: int, random: Random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sampler = WindowSampler(counted_store(Path(folder) / "data", lengths), horizon)
    ends = np.cumsum(lengths)
    assert len(sampler) == ends[-1]
    indices = np.array([random.randrange(len(sampler)) for _ in range(20)])
    windows = sampler.sample(indices)
    assert windows.actions.shape == (20, horizon, 1)
    for row, index in enumerate(indices):
        last = next(end - 1 for end in ends if index < end)
        assert windows.observation["observation.state"][row] == [index]
        for ahead in range(horizon):
            assert windows.actions[row, ahead] == [min(index + ahead, last)]
            assert windows.mask[row, ahead] == (index + ahead <= last)


def test_every_recorded_action_is_in_as_many_windows_as_reach_it(tmp_path: Path) -> None:
    """Padding must not cost an episode its last actions, which decide whether it succeeds."""
    sampler = WindowSampler(counted_store(tmp_path / "data", [3, 5]), horizon=4)
    windows = sampler.sample(np.arange(len(sampler)))
    times_seen = np.bincount(windows.actions[windows.mask].astype(int).ravel(), minlength=8)
    assert times_seen.tolist() == [1, 2, 3, 1, 2, 3, 4, 4]


def test_windows_hold_what_was_recorded(make_store: MakeStore, make_episode: MakeEpisode) -> None:
    sampler = WindowSampler(make_store([6, 5]), horizon=2)
    windows = sampler.sample(np.array([7, 10]))
    wanted = make_episode(1, 5).steps
    np.testing.assert_array_equal(windows.observation["observation.state"], wanted["observation.state"][[1, 4]])
    np.testing.assert_array_equal(windows.observation["observation.image"], wanted["observation.image"][[1, 4]])
    np.testing.assert_array_equal(windows.actions, wanted["action"][[[1, 2], [4, 4]]])
    assert windows.observation["observation.image"].dtype == np.uint8
    assert windows.actions.dtype == windows.observation["observation.state"].dtype == np.float32
    assert windows.mask.tolist() == [[True, True], [True, False]]


def test_memory_is_stated_and_bounded(make_store: MakeStore) -> None:
    store = make_store([6, 5])
    assert WindowSampler(store, horizon=2).num_bytes == 11 * (3 * 4 + 12 + 2 * 4)
    assert WindowSampler(store, 2, fields=["observation.state"]).num_bytes == 11 * (3 * 4 + 2 * 4)
    with pytest.raises(DatasetError, match=r"need .* MiB.*choose fewer fields"):
        WindowSampler(store, 2, memory_limit=300)


def test_impossible_requests_are_refused(make_store: MakeStore) -> None:
    store = make_store([6])
    with pytest.raises(DatasetError, match=r"horizon is 0"):
        WindowSampler(store, 0)
    with pytest.raises(DatasetError, match=r"Did you mean 'observation.state'"):
        WindowSampler(store, 2, fields=["observation.stat"])
    with pytest.raises(DatasetError, match=r"no episodes"):
        WindowSampler(make_store([], name="empty"), 2)

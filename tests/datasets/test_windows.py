"""Windows hold what led up to each step and the actions that followed it, and nothing of other episodes."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from threading import Barrier

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.store import EpisodeStore
from alula.datasets.window_cache import FOLDER
from alula.datasets.windows import WindowSampler, prefetch

MakeEpisode = Callable[..., Episode]
MakeStore = Callable[..., EpisodeStore]


def outcome(length: int) -> dict[str, np.ndarray]:
    """Steps that led to nothing."""
    flags = np.zeros(length, dtype=bool)
    return {
        "next.reward": np.zeros(length),
        **dict.fromkeys(("next.terminated", "next.truncated", "next.success"), flags),
    }


def counted_store(path: Path, lengths: list[int]) -> EpisodeStore:
    """A dataset whose every action and observation is the index of its step."""
    store = EpisodeStore.create(
        path, SpaceSpec((FieldSpec("observation.state", (1,)),)), SpaceSpec((FieldSpec("action", (1,)),))
    )
    start = 0
    for length in lengths:
        count = np.arange(start, start + length, dtype=np.float32)[:, None]
        store.append(Episode({"observation.state": count, "action": count, **outcome(length)}))
        start += length
    return store


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=4).filter(any),
    st.integers(1, 15),
    st.integers(1, 6),
    st.sampled_from([0, 40, 2**20]),
    st.randoms(use_true_random=False),
)
def test_windows_equal_a_loop_over_steps(
    lengths: list[int], horizon: int, history: int, memory_limit: int, random: Random
) -> None:
    """Wherever the values are kept: all mapped, the smallest field held, all held."""
    with tempfile.TemporaryDirectory() as folder:
        store = counted_store(Path(folder) / "data", lengths)
        sampler = WindowSampler(store, horizon, memory_limit=memory_limit, history=history)
    ends = np.cumsum(lengths)
    assert len(sampler) == ends[-1]
    indices = np.array([random.randrange(len(sampler)) for _ in range(20)])
    windows = sampler.sample(indices)
    assert windows.actions.shape == (20, horizon, 1)
    assert windows.observation["observation.state"].shape == (20, history, 1)
    assert windows.history_mask is not None
    for row, index in enumerate(indices):
        last = next(end - 1 for end in ends if index < end)
        first = max(end for end in (0, *ends) if end <= index)
        for ahead in range(horizon):
            assert windows.actions[row, ahead] == [min(index + ahead, last)]
            assert windows.mask[row, ahead] == (index + ahead <= last)
        for place in range(history):
            step = index - history + 1 + place
            assert windows.observation["observation.state"][row, place] == [max(step, first)]
            assert windows.history_mask[row, place] == (step >= first)


def test_without_a_history_there_is_no_axis_for_it(tmp_path: Path) -> None:
    store = counted_store(tmp_path / "data", [3, 5])
    plain, longer = WindowSampler(store, 4), WindowSampler(store, 4, history=2)
    indices = np.arange(8)
    got, wanted = plain.sample(indices), longer.sample(indices)
    assert got.history_mask is None
    np.testing.assert_array_equal(got.observation["observation.state"], wanted.observation["observation.state"][:, -1])
    np.testing.assert_array_equal(got.actions, wanted.actions)


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
    """The smallest fields are held first: 2 floats of action, 3 of state, 12 bytes of image, 11 steps each."""
    store = make_store([6, 5])
    assert WindowSampler(store, horizon=2).num_bytes == 11 * (3 * 4 + 12 + 2 * 4)
    assert WindowSampler(store, 2, fields=["observation.state"]).num_bytes == 11 * (3 * 4 + 2 * 4)
    assert not (store.path / FOLDER).exists()
    assert WindowSampler(store, 2, memory_limit=300).num_bytes == 11 * (2 * 4 + 3 * 4)
    assert copies(store) == {"observation.image.uint8": 11 * 12}


def copies(store: EpisodeStore) -> dict[str, int]:
    """Name and size of each copy in the dataset's folder."""
    return {path.name: path.stat().st_size for path in (store.path / FOLDER).glob("*/*")}


def assert_same_windows(sampler: WindowSampler, wanted: WindowSampler) -> None:
    """Equal values, whatever holds them."""
    indices = np.random.default_rng(0).integers(0, len(wanted), 50)
    got, right = sampler.sample(indices), wanted.sample(indices)
    np.testing.assert_array_equal(got.actions, right.actions)
    for name, values in right.observation.items():
        assert got.observation[name].dtype == values.dtype
        np.testing.assert_array_equal(got.observation[name], values)


def test_copies_are_built_once_and_for_the_data_as_they_are(
    make_store: MakeStore, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store([6, 5])
    earlier = WindowSampler(store, 2, memory_limit=0)
    before = EpisodeStore.open(store.path)
    with monkeypatch.context() as patch:
        patch.setattr(EpisodeStore, "read", lambda *_: pytest.fail("the data were read again"))
        again = WindowSampler(before, 2, memory_limit=0)
    assert_same_windows(again, WindowSampler(before, 2))
    store.append(make_episode(2, 40))
    assert_same_windows(WindowSampler(store, 2, memory_limit=0), WindowSampler(store, 2))
    assert len(copies(store)) == 3, "copies of the earlier state are removed"
    assert_same_windows(earlier, again)  # Those who had mapped them keep them.


def test_an_unfinished_copy_is_built_again(make_store: MakeStore) -> None:
    store = make_store([6, 5])
    WindowSampler(store, 2, memory_limit=0)
    for path in (store.path / FOLDER).glob("*/*"):
        path.write_bytes(path.read_bytes()[:-1])
        path.with_name(f"{path.name}.draft").write_bytes(b"left by a killed process")
    assert_same_windows(WindowSampler(store, 2, memory_limit=0), WindowSampler(store, 2))
    assert len(copies(store)) == 3


def test_copies_go_where_they_may(make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store([6, 5])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "users"))
    chosen = WindowSampler(store, 2, memory_limit=0, cache=tmp_path / "chosen")
    assert len(list((tmp_path / "chosen").glob("*/*.float32"))) == 2
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert_same_windows(WindowSampler(store, 2, memory_limit=0), chosen)
    assert len(list((tmp_path / "users" / "alula").glob("*/*/*.float32"))) == 2
    assert not (store.path / FOLDER).exists()
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"cannot write 0\.0 MiB to .*File exists; give another folder as cache"):
        WindowSampler(store, 2, memory_limit=0, cache=tmp_path / "file")


def sum_of_windows(path: Path, start: Barrier) -> float:
    """What a process sees that asks for copies at the same moment as others."""
    store = EpisodeStore.open(path)
    start.wait()
    sampler = WindowSampler(store, 4, memory_limit=0)
    return float(sampler.sample(np.arange(len(sampler))).actions.sum())


def test_processes_that_start_together_share_the_copies(tmp_path: Path) -> None:
    counted_store(tmp_path / "data", [500, 700])
    wanted = WindowSampler(EpisodeStore.open(tmp_path / "data"), 4)
    total = float(wanted.sample(np.arange(len(wanted))).actions.sum())
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(3) as pool:
        start = manager.Barrier(3)
        assert pool.starmap(sum_of_windows, [(tmp_path / "data", start)] * 3) == [total] * 3


def test_mapped_pages_are_let_go(tmp_path: Path) -> None:
    """64 MiB are sampled all over, but never more than 12 MiB of them are resident."""
    store = EpisodeStore.create(
        tmp_path / "data",
        SpaceSpec((FieldSpec("observation.image", (64, 64, 3), "uint8"),)),
        SpaceSpec((FieldSpec("action", (1,)),)),
    )
    length = 64 * 2**20 // (64 * 64 * 3)
    images = np.zeros((length, 64, 64, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(length)
    store.append(Episode({"observation.image": images, "action": np.zeros((length, 1), np.float32), **outcome(length)}))
    sampler = WindowSampler(store, 2, memory_limit=12 * 2**20)
    rng = np.random.default_rng(0)
    most = 0
    for _ in range(50):
        indices = rng.integers(0, length, 8)
        windows = sampler.sample(indices)
        np.testing.assert_array_equal(windows.observation["observation.image"][:, 0, 0, 0], indices % 256)
        most = max(most, resident_bytes("observation.image.uint8"))
    assert 0 < most <= 12 * 2**20


def resident_bytes(file_name: str) -> int:
    """Mapped pages of a file that this process holds, as the kernel counts them."""
    total, counting = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            counting = line.endswith(file_name)
        elif counting and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def test_prefetched_windows_are_those_of_the_batches_in_order(tmp_path: Path) -> None:
    sampler = WindowSampler(counted_store(tmp_path / "data", [3, 5]), horizon=2)
    batches = [np.array([index, 0]) for index in range(8)]
    got = [windows.observation["observation.state"][0].item() for windows in prefetch(sampler.sample, batches)]
    assert got == list(range(8))
    with pytest.raises(IndexError):
        list(prefetch(sampler.sample, [np.array([0]), np.array([99])]))


def test_impossible_requests_are_refused(make_store: MakeStore, make_episode: MakeEpisode, tmp_path: Path) -> None:
    store = make_store([6])
    with pytest.raises(DatasetError, match=r"horizon is 0"):
        WindowSampler(store, 0)
    with pytest.raises(DatasetError, match=r"history is 0"):
        WindowSampler(store, 2, history=0)
    with pytest.raises(DatasetError, match=r"Did you mean 'observation.state'"):
        WindowSampler(store, 2, fields=["observation.stat"])
    with pytest.raises(DatasetError, match=r"no episodes"):
        WindowSampler(make_store([], name="empty"), 2)


def test_a_recording_without_actions_has_no_windows(tmp_path: Path) -> None:
    state = SpaceSpec((FieldSpec("observation.state", (1,)),))
    store = EpisodeStore.create(tmp_path / "data", state, SpaceSpec(()))
    store.append(Episode({"observation.state": np.zeros((3, 1), np.float32), **outcome(3)}))
    with pytest.raises(DatasetError, match=r"no field 'action'.*recording without commands"):
        WindowSampler(store, 2)

"""Small spaces and episodes that the tests of datasets share."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.store import EpisodeStore

OBSERVATION = SpaceSpec(
    (
        FieldSpec("observation.state", (3,), units=("rad", "rad", "m"), element_names=("shoulder", "elbow", "slide")),
        FieldSpec("observation.image", (2, 2, 3), dtype="uint8"),
    )
)
ACTION = SpaceSpec(
    (FieldSpec("action", (2,), low=(-1.0,), high=(1.0,), control_mode=ControlMode.JOINT_POSITION_ABSOLUTE, rate=20.0),)
)

MakeEpisode = Callable[..., Episode]
MakeStore = Callable[..., EpisodeStore]


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushing decides what survives a power failure, which no test causes, and takes most of their time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def observation() -> SpaceSpec:
    """A joint state and a tiny image."""
    return OBSERVATION


@pytest.fixture
def action() -> SpaceSpec:
    """Two joint targets in [-1, 1]."""
    return ACTION


@pytest.fixture
def make_episode() -> MakeEpisode:
    """`make_episode(seed, length)`: an episode that is a function of its arguments and succeeds at its end."""

    def make(seed: int, length: int = 5) -> Episode:
        rng = np.random.default_rng(seed)
        at_end = np.arange(length) == length - 1
        steps = {
            "observation.state": rng.standard_normal((length, 3)).astype(np.float32),
            "observation.image": rng.integers(0, 256, (length, 2, 2, 3), dtype=np.uint8),
            "action": rng.uniform(-1, 1, (length, 2)).astype(np.float32),
            "next.reward": rng.standard_normal(length),
            "next.terminated": at_end,
            "next.truncated": np.zeros(length, dtype=bool),
            "next.success": at_end,
        }
        return Episode(steps, {"seed": seed})

    return make


@pytest.fixture
def make_store(tmp_path: Path, make_episode: MakeEpisode) -> MakeStore:
    """`make_store(lengths)`: a dataset of episodes 0, 1, ... of these lengths."""

    def make(lengths: list[int], name: str = "data") -> EpisodeStore:
        store = EpisodeStore.create(tmp_path / name, OBSERVATION, ACTION, {"licence": "CC0"})
        store.extend([make_episode(seed, length) for seed, length in enumerate(lengths)])
        return store

    return make


@pytest.fixture
def assert_same() -> Callable[[Episode, Episode], None]:
    """Equal bit for bit, types and metadata included."""

    def check(got: Episode, wanted: Episode) -> None:
        assert set(got.streams) == set(wanted.streams)
        for stream, samples in wanted.streams.items():
            check_arrays(got.streams[stream], samples)
        check_arrays(got.steps, wanted.steps)
        assert got.metadata == wanted.metadata

    def check_arrays(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
        assert set(got) == set(wanted)
        for name, values in wanted.items():
            assert got[name].dtype == values.dtype
            assert got[name].shape == values.shape
            assert got[name].tobytes() == values.tobytes(), name

    return check

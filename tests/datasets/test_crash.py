"""A recorder may be killed at any moment, and read from at any moment.

Run as a script this file is the recorder: it appends episodes whose content follows from their index.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.store import EpisodeStore

OBSERVATION = SpaceSpec((FieldSpec("observation.state", (4,)),))
ACTION = SpaceSpec((FieldSpec("action", (2,)),))


def episode_at(index: int) -> Episode:
    """The episode that must be found at `index`."""
    rng = np.random.default_rng(index)
    length = int(rng.integers(1, 400))
    flags = rng.random((3, length)) < 0.5
    steps = {
        "observation.state": rng.standard_normal((length, 4)).astype(np.float32),
        "action": rng.standard_normal((length, 2)).astype(np.float32),
        "next.reward": rng.standard_normal(length),
        **dict(zip(("next.terminated", "next.truncated", "next.success"), flags, strict=True)),
    }
    return Episode(steps, {"index": index})


def record(path: Path) -> None:
    """Append episodes for ever, telling after each how many there are."""
    store = EpisodeStore.open(path, append=True)
    print(store.num_episodes, flush=True)
    while True:
        store.append(episode_at(store.num_episodes))
        print(store.num_episodes, flush=True)


def recorder(path: Path) -> subprocess.Popen[str]:
    """A recorder in its own process."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen([sys.executable, __file__, str(path)], stdout=subprocess.PIPE, text=True, env=environment)


def check(store: EpisodeStore, start: int = 0) -> None:
    """Every episode from `start` on is exactly the one that belongs there."""
    for index in range(start, store.num_episodes):
        got, wanted = store.episode(index), episode_at(index)
        assert got.metadata == wanted.metadata
        for name, values in wanted.steps.items():
            assert got.steps[name].tobytes() == values.tobytes(), (index, name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty dataset."""
    return EpisodeStore.create(tmp_path / "data", OBSERVATION, ACTION).path


def test_a_killed_recorder_loses_at_most_the_open_episode(path: Path) -> None:
    moments = random.Random(0)
    repairs = []
    for _ in range(12):
        process = recorder(path)
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(moments.randint(2, 4))]
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        acknowledged += [int(line) for line in process.stdout.read().split()]
        process.wait()
        process.stdout.close()
        store = EpisodeStore.open(path)
        assert store.num_episodes - acknowledged[-1] in (0, 1)
        check(store)
        repairs.append(EpisodeStore.open(path, append=True).repaired)
    assert any(repairs), "no kill fell into a write; the test proves nothing"
    writer = EpisodeStore.open(path, append=True)
    assert writer.num_episodes > 12
    writer.append(episode_at(writer.num_episodes))
    check(EpisodeStore.open(path))


def test_readers_see_a_consistent_prefix_while_a_recorder_writes(path: Path) -> None:
    process = recorder(path)
    assert process.stdout is not None
    process.stdout.readline()
    counts = set()
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        store = EpisodeStore.open(path)
        check(store, start=max(0, store.num_episodes - 5))
        counts.add(store.num_episodes)
    assert process.poll() is None
    process.kill()
    process.communicate()
    check(EpisodeStore.open(path))
    assert len(counts) > 5


if __name__ == "__main__":
    record(Path(sys.argv[1]))

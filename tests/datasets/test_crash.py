"""A recorder may be killed at any moment, and read from at any moment.

Run as a script this file is the recorder: for every line on its standard input it starts a life, a process of its own
that appends episodes whose content follows from their index.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.schema import TIMESTAMP
from alula.datasets.store import EpisodeStore
from alula.datasets.video import LOSSLESS

CAMERA = "observation.image"
OBSERVATION = SpaceSpec((FieldSpec("observation.state", (4,)), FieldSpec(CAMERA, (16, 16, 3), "uint8")))
ACTION = SpaceSpec((FieldSpec("action", (2,)),))
STREAMS = {"imu": SpaceSpec((TIMESTAMP, FieldSpec("acceleration", (3,), units=("m/s^2",))))}


@cache
def episode_at(index: int) -> Episode:
    """The episode that must be found at `index`: up to 40 steps and 400 samples, every tenth without either."""
    rng = np.random.default_rng(index)
    length, samples = (0, 0) if index % 10 == 9 else rng.integers(1, (41, 401)).tolist()
    flags = rng.random((3, length)) < 0.5
    steps = {
        "observation.state": rng.standard_normal((length, 4)).astype(np.float32),
        CAMERA: rng.integers(0, 256, (length, 16, 16, 3), np.uint8),
        "action": rng.standard_normal((length, 2)).astype(np.float32),
        "next.reward": rng.standard_normal(length),
        **dict(zip(("next.terminated", "next.truncated", "next.success"), flags, strict=True)),
    }
    imu = {
        "timestamp": np.cumsum(rng.integers(0, 10**7, samples)),
        "acceleration": rng.standard_normal((samples, 3)).astype(np.float32),
    }
    return Episode(steps, {"index": index}, {"imu": imu})


def record(path: Path) -> None:
    """Append episodes for ever, telling after each how many there are."""
    store = EpisodeStore.open(path, append=True)
    print(store.num_episodes, flush=True)
    while True:
        store.append(episode_at(store.num_episodes))
        print(store.num_episodes, flush=True)


class Recorders:
    """Processes that record, one after the other; each is alive a few milliseconds after it was asked for."""

    def __init__(self, path: Path) -> None:
        """Start what they are forked from, where everything is imported already."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._parent = subprocess.Popen(
            [sys.executable, __file__, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._pid = 0

    def _line(self) -> str:
        assert self._parent.stdout is not None
        return self._parent.stdout.readline().strip()

    def start(self) -> None:
        """Let one record."""
        assert self._parent.stdin is not None
        self._parent.stdin.write("\n")
        self._parent.stdin.flush()
        self._pid = int(self._line())

    def told(self) -> int:
        """How many episodes the recorder says there are, the next time it says so."""
        return int(self._line())

    def kill(self) -> int | None:
        """Kill the recorder; returns how many episodes it told of last, if it did since `told` was called."""
        os.kill(self._pid, signal.SIGKILL)
        last = None
        while (line := self._line()) != "killed":
            last = int(line)
        return last

    def close(self) -> None:
        """Let no more record."""
        self._parent.communicate()


def serve(path: Path) -> None:
    """Fork a recorder for every line of standard input; tell its process number first, and last that it was killed."""
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            print(os.getpid(), flush=True)
            record(path)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
        print("killed", flush=True)


def check(path: Path, start: int = 0) -> EpisodeStore:
    """Every committed episode from `start` on is exactly the one that belongs there."""
    store = EpisodeStore.open(path)
    wanted = [episode_at(index) for index in range(start, store.num_episodes)]
    assert store.episode_metadata[start:] == [episode.metadata for episode in wanted]
    ends, sample_ends = [0, *store.episode_ends.tolist()], [0, *store.stream_ends("imu").tolist()]
    assert np.diff(ends)[start:].tolist() == [episode.length for episode in wanted]
    assert np.diff(sample_ends)[start:].tolist() == [len(episode.streams["imu"]["timestamp"]) for episode in wanted]
    if wanted:
        for name in store.fields:
            values = np.concatenate([episode.steps[name] for episode in wanted])
            assert store.read(name, ends[start]).tobytes() == values.tobytes(), name
        for name in store.streams["imu"]:
            values = np.concatenate([episode.streams["imu"][name] for episode in wanted])
            assert store.read_stream("imu", name, sample_ends[start]).tobytes() == values.tobytes(), name
    return store


@pytest.fixture(params=["arrays", "video"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An empty dataset."""
    video = {CAMERA: LOSSLESS} if request.param == "video" else {}
    return EpisodeStore.create(tmp_path / "data", OBSERVATION, ACTION, streams=STREAMS, video=video).path


@pytest.fixture
def recorders(path: Path) -> Iterator[Recorders]:
    """Who records into it."""
    recorders = Recorders(path)
    yield recorders
    recorders.close()


def survive(path: Path, recorders: Recorders, kills: int, moments: random.Random) -> int:
    """Kill so many recorders, each when it has written 0 to 4 episodes and a part of the next; check after each.

    Returns how often there was something to repair.
    """
    repairs = duration = 0.0
    for _ in range(kills):
        started = time.monotonic()
        recorders.start()
        told = checked = EpisodeStore.open(path).num_episodes
        for _ in range(moments.randint(0, 5)):
            told, duration, started = recorders.told(), time.monotonic() - started, time.monotonic()
        time.sleep(moments.uniform(0, duration))
        told = recorders.kill() or told
        store = check(path, start=max(0, checked - 3))
        assert store.num_episodes - told in (0, 1)
        repairs += EpisodeStore.open(path, append=True).repaired is not None
    return int(repairs)


def test_a_killed_recorder_loses_at_most_the_open_episode(path: Path, recorders: Recorders) -> None:
    repairs = survive(path, recorders, kills=10, moments=random.Random(0))
    assert repairs, "no kill fell into a write; the test proves nothing"
    writer = EpisodeStore.open(path, append=True)
    assert writer.num_episodes > 10
    writer.append(episode_at(writer.num_episodes))
    check(path)


@pytest.mark.slow
def test_200_episodes_survive_a_hundred_kills(path: Path, recorders: Recorders) -> None:
    assert survive(path, recorders, kills=100, moments=random.Random(1)) > 20
    recorders.start()
    while recorders.told() < 200:
        pass
    recorders.kill()
    store = check(path)
    assert store.num_episodes >= 200
    assert store.damaged_episodes() == []


def test_readers_see_a_consistent_prefix_while_a_recorder_writes(path: Path, recorders: Recorders) -> None:
    recorders.start()
    recorders.told()
    counts, until = {0}, time.monotonic() + 60
    while len(counts) < 10 and time.monotonic() < until:
        counts.add(check(path, start=max(0, max(counts) - 5)).num_episodes)
    recorders.kill()
    check(path)
    assert len(counts) == 10


if __name__ == "__main__":
    serve(Path(sys.argv[1]))

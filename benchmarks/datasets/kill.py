"""Recorders killed a hundred times while they write 200 episodes: what is left of them, ours and LeRobot's.

    python benchmarks/datasets/kill.py [PYTHON ...]

Every PYTHON is an interpreter that has LeRobot (by default those of `make interop`); one that is missing is skipped.
The protocol is the same for all: a recorder dies by SIGKILL after 0 to 4 further episodes and a part of the next; the
one after it goes on where it stopped. Where the dataset cannot be opened again, recording starts anew in another
folder, as a person would have to. The last recorder is not killed and closes its dataset properly. Then every folder
is opened by the library that wrote it, and each episode compared with what was recorded.

This file is both sides: the parent judges; the child runs it as a script, by an interpreter that may lack alula.
"""

import inspect
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

EPISODES, KILLS = 200, 100
LAST_EPISODES = 10
"""Recorded by the recorder that is not killed, at least."""
ROOT = Path(__file__).parents[2]
INTERPRETERS = (ROOT / ".peers/interop/bin/python", ROOT / ".peers/lerobot21/bin/python")
RATE = 20  # Hz


def steps_of(index: int) -> dict[str, np.ndarray]:
    """Observation and action of episode `index` of a folder: 20 to 39 steps."""
    rng = np.random.default_rng(index)
    length = 20 + index % 20
    sizes = {"observation.state": 7, "action": 6}
    return {name: rng.standard_normal((length, size)).astype(np.float32) for name, size in sizes.items()}


class Alula:
    """Our recorder."""

    def __init__(self, folder: Path) -> None:
        from alula.core.spaces import FieldSpec, SpaceSpec
        from alula.datasets.store import EpisodeStore

        if folder.exists():
            self.store = EpisodeStore.open(folder, append=True)
        else:
            observation, action = FieldSpec("observation.state", (7,)), FieldSpec("action", (6,))
            self.store = EpisodeStore.create(folder, SpaceSpec((observation,)), SpaceSpec((action,)))

    @property
    def num_episodes(self) -> int:
        return self.store.num_episodes

    def record(self) -> None:
        from alula.core.transitions import Episode

        steps = steps_of(self.num_episodes)
        zeros = np.zeros(len(steps["action"]))
        outcome = {f"next.{name}": zeros.astype(bool) for name in ("terminated", "truncated", "success")}
        self.store.append(Episode({**steps, "next.reward": zeros, **outcome}))

    def finish(self) -> None: ...

    def exact(self) -> int:
        episodes = [self.store.episode(index).steps for index in range(self.num_episodes)]
        return sum(
            all(np.array_equal(steps[name], values) for name, values in steps_of(index).items())
            for index, steps in enumerate(episodes)
        )


class LeRobot:
    """LeRobot's recorder, used as its own recording script uses it."""

    def __init__(self, folder: Path) -> None:
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        if folder.exists():
            self.dataset = LeRobotDataset("local/kill", root=folder)
        else:
            features = {
                name: {"dtype": "float32", "shape": (size,), "names": None}
                for name, size in (("observation.state", 7), ("action", 6))
            }
            self.dataset = LeRobotDataset.create("local/kill", RATE, features, root=folder, use_videos=False)

    @property
    def num_episodes(self) -> int:
        return int(self.dataset.meta.total_episodes)

    def record(self) -> None:
        steps = steps_of(self.num_episodes)
        task_apart = "task" in inspect.signature(self.dataset.add_frame).parameters  # until 0.3
        for state, action in zip(*steps.values(), strict=True):
            frame: dict[str, Any] = {"observation.state": state, "action": action}
            self.dataset.add_frame(frame, "kill") if task_apart else self.dataset.add_frame({**frame, "task": "kill"})
        self.dataset.save_episode()

    def finish(self) -> None:
        if hasattr(self.dataset, "finalize"):
            self.dataset.finalize()

    def exact(self) -> int:
        found: dict[int, list[Any]] = {}
        for index in range(len(self.dataset)):
            # A step that cannot be read costs its episode, not the others.
            with suppress(Exception):
                step = self.dataset[index]
                found.setdefault(int(step["episode_index"]), []).append(step)
        return sum(
            all(
                len(steps) == len(values) and np.array_equal(np.stack([step[name].numpy() for step in steps]), values)
                for name, values in steps_of(index).items()
            )
            for index, steps in found.items()
        )


RECORDERS: dict[str, Callable[[Path], Any]] = {"alula": Alula, "lerobot": LeRobot}


def record(name: str, folder: Path, enough: int) -> None:
    """Record until there are so many episodes, telling after each how many there are."""
    recorder = RECORDERS[name](folder)
    print(recorder.num_episodes, flush=True)
    while recorder.num_episodes < enough:
        recorder.record()
        print(recorder.num_episodes, flush=True)
    recorder.finish()
    print("finished", flush=True)


def check(name: str, folder: Path) -> None:
    """Tell how many episodes read back exactly."""
    print(RECORDERS[name](folder).exact(), flush=True)


def serve(name: str) -> None:
    """Fork a process for every line of standard input, `record FOLDER EPISODES` or `check FOLDER`; tell its end."""
    # What takes long to import is imported once.
    __import__("alula.datasets.store" if name == "alula" else "lerobot.datasets.lerobot_dataset")
    from importlib.metadata import version

    print(f"{name} {version(name)}", flush=True)
    for line in sys.stdin:
        task, folder, *count = line.split()
        if (pid := os.fork()) == 0:
            print(os.getpid(), flush=True)
            try:
                record(name, Path(folder), int(count[0])) if task == "record" else check(name, Path(folder))
            except Exception as error:
                print(f"failed {type(error).__name__}: {str(error).splitlines()[0]}"[:110], flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        print("gone", flush=True)


class Child:
    """The other side."""

    def __init__(self, python: Path, name: str) -> None:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
        self._process = subprocess.Popen(
            [str(python), __file__, "--serve", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.title = self.line()

    def start(self, *words: object) -> int:
        """Begin a task; its process number."""
        assert self._process.stdin is not None
        print(*words, file=self._process.stdin, flush=True)
        return int(self.line())

    def line(self) -> str:
        """The next thing it tells."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def rest(self) -> list[str]:
        """What it tells until the task's process is gone."""
        return list(iter(self.line, "gone"))

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()


@dataclass
class Outcome:
    """What became of one recorder's episodes."""

    saved: dict[Path, int] = field(default_factory=dict)
    """Episodes that the recorder said were saved, by folder."""
    exact: int = 0
    """Those that read back exactly."""
    unopened: list[str] = field(default_factory=list)
    """Why a folder could not be recorded to again."""
    unread: list[str] = field(default_factory=list)
    """Why a folder could not be read in the end."""

    @property
    def lost(self) -> int:
        return max(0, sum(self.saved.values()) - self.exact)


def torture(child: Child, folder: Path, moments: random.Random) -> Outcome:
    """Kill recorders as the head of this file says, and judge what they leave."""
    outcome, duration, last = Outcome(), 0.0, False
    current = folder / "0"
    outcome.saved[current] = 0

    def ready() -> int:
        """Start a recorder; in a new folder where the old one cannot be opened."""
        nonlocal current
        while True:
            more = max(LAST_EPISODES, EPISODES - sum(outcome.saved.values())) if last else 10**9
            pid = child.start("record", current, outcome.saved[current] + more)
            answer = child.line()
            if not answer.startswith("failed"):
                return pid
            child.rest()
            outcome.unopened.append(answer)
            current = folder / str(len(outcome.saved))
            outcome.saved[current] = 0

    for _ in range(KILLS):
        pid, started = ready(), time.monotonic()
        for _ in range(moments.randint(0, 4)):
            outcome.saved[current] = int(child.line())
            duration, started = time.monotonic() - started, time.monotonic()
        time.sleep(moments.uniform(0, duration))
        os.kill(pid, signal.SIGKILL)
        told = child.rest()
        outcome.saved[current] = int(told[-1]) if told else outcome.saved[current]
    last = True
    ready()
    told = child.rest()
    outcome.saved[current] = max([outcome.saved[current], *(int(line) for line in told if line.isdecimal())])
    for path in outcome.saved:
        child.start("check", path)
        answer = child.rest()[0]
        if answer.isdecimal():
            outcome.exact += int(answer)
        else:
            outcome.unread.append(answer)
    return outcome


def main(interpreters: list[Path]) -> None:
    """Print one line per recorder."""
    from alula.training.provenance import commit, machine

    print(f"{machine()}; commit {commit()}; {KILLS} kills, then {LAST_EPISODES} episodes more, or up to {EPISODES}\n")
    print("| recorder | saved | read back exactly | lost | datasets begun | not opened to record on | not read | s |")
    print("|---|---|---|---|---|---|---|---|")
    sides = [(Path(sys.executable), "alula"), *((python, "lerobot") for python in interpreters)]
    reasons = []
    for python, name in sides:
        if not python.exists():
            print(f"| {name} | skipped: there is no interpreter '{python}'; `make interop` prepares it | | | | | | |")
            continue
        child, started = Child(python, name), time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            outcome = torture(child, Path(folder), random.Random(0))
        child.close()
        saved = sum(outcome.saved.values())
        failures = (len(outcome.saved), len(outcome.unopened), len(outcome.unread))
        cells = (child.title, saved, outcome.exact, outcome.lost, *failures)
        print(f"| {' | '.join(map(str, cells))} | {time.monotonic() - started:.0f} |", flush=True)
        reasons += [f"{child.title}: {reason}" for reason in sorted({*outcome.unopened, *outcome.unread})]
    print("\n".join(["", *reasons]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
    else:
        main([Path(argument) for argument in sys.argv[1:]] or list(INTERPRETERS))

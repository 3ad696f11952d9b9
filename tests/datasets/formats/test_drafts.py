"""Drafts: whatever kills a writer, what it said is there stays there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from alula.core.errors import DatasetError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.formats.drafts import DraftWriter
from alula.datasets.formats.format import Contents

CONTENTS = Contents(SpaceSpec((FieldSpec("observation.state", (2,)),)), SpaceSpec((FieldSpec("action", (1,)),)))


def episode(number: int, length: int = 3) -> Episode:
    steps = {
        "observation.state": np.full((length, 2), number, np.float32),
        "action": np.zeros((length, 1), np.float32),
        "next.reward": np.zeros(length),
        **{f"next.{name}": np.zeros(length, bool) for name in ("terminated", "truncated", "success")},
    }
    return Episode(steps, {"number": number})


class ListWriter(DraftWriter):
    """Its target is a text file with the numbers of the episodes."""

    def build(self, whole: Path) -> None:
        whole.write_text(" ".join(str(episode.metadata["number"]) for episode in self.episodes()))


class FullDisk(DraftWriter):
    """Fails while its target is half written."""

    def build(self, whole: Path) -> None:
        whole.write_text("half")
        raise OSError(28, "No space left on device")


def test_the_target_replaces_the_draft(tmp_path: Path) -> None:
    writer = ListWriter(tmp_path / "a", CONTENTS)
    for number in range(12):
        writer.append(episode(number))
    writer.finish()
    assert (tmp_path / "a").read_text() == " ".join(map(str, range(12)))
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_target_that_fails_leaves_the_draft(tmp_path: Path) -> None:
    broken = FullDisk(tmp_path / "a", CONTENTS)
    broken.append(episode(0))
    with pytest.raises(OSError, match="No space"):
        broken.finish()
    writer = ListWriter(tmp_path / "a", CONTENTS)
    assert writer.num_episodes == 1
    writer.append(episode(1))
    writer.finish()
    assert (tmp_path / "a").read_text() == "0 1"


def test_a_finished_target_is_begun_anew(tmp_path: Path) -> None:
    """Killed between finishing and publishing."""
    for _ in range(2):
        writer = ListWriter(tmp_path / "a", CONTENTS)
        assert writer.num_episodes == 0
        writer.append(episode(7))
        writer.finish()
    assert (tmp_path / "a").read_text() == "7"


def test_parts_of_episodes_can_be_read_alone(tmp_path: Path) -> None:
    writer = ListWriter(tmp_path / "a", CONTENTS)
    writer.append(episode(3, length=5))
    assert list(writer.lengths()) == [5]
    (found,) = writer.episodes(["action"])
    assert list(found.steps) == ["action"]


def test_a_misfit_is_refused_and_not_counted(tmp_path: Path) -> None:
    writer = ListWriter(tmp_path / "a", CONTENTS)
    wrong = episode(0)
    wrong.steps["action"] = wrong.steps["action"][1:]
    with pytest.raises(DatasetError, match="action"):
        writer.append(wrong)
    assert writer.num_episodes == ListWriter(tmp_path / "a", CONTENTS).num_episodes == 0


@pytest.mark.slow
def test_episodes_survive_a_kill_at_any_moment(tmp_path: Path) -> None:
    """A process that appends is killed again and again; the next one finds each episode it was told of, whole."""
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_drafts import CONTENTS, ListWriter, episode
writer = ListWriter(Path({str(tmp_path / "a")!r}), CONTENTS)
while True:
    writer.append(episode(writer.num_episodes))
    print(writer.num_episodes, flush=True)
"""
    told = 0
    rng = np.random.default_rng(0)
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        told = int(process.stdout.readline())
        time.sleep(rng.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        told = max([told, *(int(line) for line in process.stdout.read().split())])
        process.stdout.close()
        process.wait()
        writer = ListWriter(tmp_path / "a", CONTENTS)
        # The last one may have been committed without being told.
        assert told <= writer.num_episodes <= told + 1
        assert [found.metadata["number"] for found in writer.episodes()] == list(range(writer.num_episodes))


def test_a_full_disk_is_told_in_plain_words(tmp_path: Path) -> None:
    """HDF5's own message is a page of addresses; `strerror` is what the conversion shows."""
    writer = ListWriter(tmp_path / "a", CONTENTS)
    (tmp_path / "a" / "parts" / "unfinished.hdf5").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"^\[Errno 28\] No space left on device$"):
        writer.append(episode(0, length=100_000))
    assert ListWriter(tmp_path / "a", CONTENTS).num_episodes == 0

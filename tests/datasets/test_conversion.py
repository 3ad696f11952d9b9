"""A conversion leaves a whole target or none, never touches its source, and can be taken up again."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alula.core.errors import DatasetError
from alula.core.transitions import Episode
from alula.datasets.comparison import compare
from alula.datasets.conversion import Conversion, detect, for_target, source_format
from alula.datasets.formats.native import Native, NativeWriter
from alula.datasets.formats.robomimic import Robomimic
from alula.datasets.store import EpisodeStore
from alula.datasets.transforms import Rotation

MakeStore = Callable[..., EpisodeStore]


def converted(source: Path, target: Path, force: bool = False) -> None:
    """The native dataset at `source`, once more at `target`."""
    with Native().open(source) as reader:
        Conversion(source, target, reader, for_target(target, None)).run(force)


def fingerprints(folder: Path) -> dict[str, bytes]:
    """Contents of every file, hidden ones included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_converted_holds_the_same(make_store: MakeStore, tmp_path: Path) -> None:
    source = make_store([3, 1, 4]).path
    before = fingerprints(source)
    converted(source, tmp_path / "new.hdf5")
    with Native().open(source) as left, Robomimic().open(tmp_path / "new.hdf5") as right:
        assert all(agreement.identical for agreement in compare(left, right))
    assert fingerprints(source) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "new.hdf5"]


def test_a_comparison_finds_what_differs(make_store: MakeStore, tmp_path: Path) -> None:
    first = make_store([3, 4], "first")
    second = EpisodeStore.create(tmp_path / "second", first.observation, first.action, first.metadata)
    for index in range(2):
        episode = first.episode(index)
        episode.steps["observation.image"] = episode.steps["observation.image"] ^ np.uint8(1)
        episode.steps["action"][0, 0] += 0.25
        second.append(Episode(episode.steps, {"other": index}))
    with Native().open(first.path) as left, Native().open(second.path) as right:
        found = {agreement.name: agreement for agreement in compare(left, right)}
    differing = {name for name, agreement in found.items() if not agreement.identical}
    assert differing == {"observation.image", "action", "texts"}
    assert found["action"].greatest_difference == pytest.approx(0.25, abs=1e-6)
    # Every byte is off by one: a mean square of 1, so 20 log10(255) decibels.
    assert found["observation.image"].psnr == pytest.approx(48.13, abs=0.01)


def test_a_taken_target_is_kept_unless_forced(make_store: MakeStore, tmp_path: Path) -> None:
    source, target = make_store([3]).path, tmp_path / "new.zarr"
    converted(make_store([1, 2], "other").path, target)
    with pytest.raises(DatasetError, match=r"new.zarr' exists already.*--force"):
        converted(source, target)
    assert EpisodeStore.open(target).num_episodes == 2
    converted(source, target, force=True)
    assert EpisodeStore.open(target).num_episodes == 1


def test_what_is_no_dataset_is_never_replaced(make_store: MakeStore, tmp_path: Path) -> None:
    (tmp_path / "thesis.zarr").mkdir()
    (tmp_path / "thesis.zarr" / "chapter.tex").write_text("years of work")
    with pytest.raises(DatasetError, match=r"is not a dataset; it is never replaced"):
        converted(make_store([3]).path, tmp_path / "thesis.zarr", force=True)
    assert (tmp_path / "thesis.zarr" / "chapter.tex").read_text() == "years of work"
    source = make_store([3], "again.zarr").path
    with pytest.raises(DatasetError, match="source and target are both"):
        converted(source, source, force=True)


def test_a_disk_that_fails_at_the_last_moment_keeps_what_was_there(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old dataset is aside already when the new one cannot take its place."""
    source, target = make_store([3]).path, tmp_path / "new.zarr"
    converted(make_store([1, 2], "other").path, target)
    before, rename = fingerprints(tmp_path), Path.rename

    def fail(path: Path, new: Path) -> Path:
        if path.name == "draft":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, new)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(DatasetError, match="Input/output error"):
        converted(source, target, force=True)
    assert fingerprints(tmp_path) == before


class Failing(NativeWriter):
    """Stops at its second episode, in a way that the test chooses."""

    failure: BaseException = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def append(self, episode: Episode) -> None:
        super().append(episode)
        self._commit()
        if self.num_episodes == 2:
            raise self.failure


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """`fail(error)`: from now on conversions stop after their second episode."""

    def install(failure: BaseException) -> None:
        monkeypatch.setattr(Failing, "failure", failure)
        monkeypatch.setattr("alula.datasets.formats.native.NativeWriter", Failing)

    return install


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), r"cannot write .*No space left on device; free some space"),
        (DatasetError("episode 1 is damaged"), "episode 1 is damaged"),
    ],
)
def test_a_failure_leaves_nothing(
    failure: Exception, message: str, make_store: MakeStore, tmp_path: Path, fail: Callable[[BaseException], None]
) -> None:
    source = make_store([3, 1, 4]).path
    before = fingerprints(tmp_path)
    fail(failure)
    with pytest.raises(DatasetError, match=message):
        converted(source, tmp_path / "new.zarr")
    assert fingerprints(tmp_path) == before


def test_an_interruption_is_gone_on_with(
    make_store: MakeStore, tmp_path: Path, fail: Callable[[BaseException], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = make_store([3, 1, 4]).path, tmp_path / "new.zarr"
    fail(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        converted(source, target)
    assert not target.exists()
    monkeypatch.undo()
    told: list[int] = []
    with Native().open(source) as reader:
        Conversion(source, target, reader, Native()).run(report=lambda done, total: told.append(done))
    assert told == [2, 3]  # The first two were there already.
    assert EpisodeStore.open(target).digests == EpisodeStore.open(source).digests


def test_a_draft_of_another_source_is_not_gone_on_with(
    make_store: MakeStore, tmp_path: Path, fail: Callable[[BaseException], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "new.zarr"
    fail(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        converted(make_store([3, 1, 4]).path, target)
    monkeypatch.undo()
    other = make_store([2, 2], "other")
    converted(other.path, target)
    assert EpisodeStore.open(target).digests == other.digests


def test_a_killed_conversion_leaves_no_target_and_is_gone_on_with(make_store: MakeStore, tmp_path: Path) -> None:
    source, target = make_store([5] * 40).path, tmp_path / "new.zarr"
    slow = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from alula.datasets import conversion
        from alula.datasets.formats import native
        native.BATCH_BYTES = 1
        with native.Native().open(Path({str(source)!r})) as reader:
            job = conversion.Conversion(Path({str(source)!r}), Path({str(target)!r}), reader, native.Native())
            job.run(report=lambda done, total: time.sleep(0.02))
        """
    )
    process = subprocess.Popen([sys.executable, "-c", slow])
    log = tmp_path / ".new.zarr.converting" / "draft" / "episodes.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_bytes().count(b"\n") >= 3):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not target.exists()
    told: list[int] = []
    with Native().open(source) as reader:
        Conversion(source, target, reader, Native()).run(report=lambda done, total: told.append(done))
    assert told[0] >= 3
    assert EpisodeStore.open(target).digests == EpisodeStore.open(source).digests
    assert not log.parent.parent.exists()


def test_two_conversions_to_one_target_do_not_mix(make_store: MakeStore, tmp_path: Path) -> None:
    source, target = make_store([3, 1]).path, tmp_path / "new.zarr"
    with Native().open(source) as reader:
        outer = Conversion(source, target, reader, Native())

        def interfere(done: int, total: int) -> None:
            with pytest.raises(DatasetError, match="another process is converting"):
                converted(source, target)

        outer.run(report=interfere)
    assert EpisodeStore.open(target).digests == EpisodeStore.open(source).digests


def test_formats_are_found_by_content_or_suffix(make_store: MakeStore, tmp_path: Path) -> None:
    source = make_store([3]).path
    converted(source, tmp_path / "renamed.hdf5")
    (tmp_path / "renamed.hdf5").rename(tmp_path / "renamed.bin")
    assert detect(tmp_path / "renamed.bin") == "robomimic"
    assert source_format(source, None).name == "zarr"
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DatasetError, match=r"none of the formats zarr, npz, robomimic"):
        detect(tmp_path / "notes.txt")
    with pytest.raises(DatasetError, match=r"nothing at .*missing"):
        detect(tmp_path / "missing")
    with pytest.raises(DatasetError, match=r"which format should .*Give format=NAME, one of zarr"):
        for_target(tmp_path / "folder", None)
    with pytest.raises(DatasetError, match=r"format 'npz' can only be read"):
        for_target(tmp_path / "folder", "npz")


def test_rotations_are_rewritten_on_the_way(make_store: MakeStore, tmp_path: Path) -> None:
    source = make_store([3]).path
    with Native().open(source) as reader:
        turned = Conversion(
            source, tmp_path / "new", reader, Native(), Rotation("observation.state", 0, "axis_angle", "rot6d")
        )
        turned.run()
    new = EpisodeStore.open(tmp_path / "new")
    assert new.observation["observation.state"].shape == (6,)
    columns = new.read("observation.state").reshape(-1, 2, 3)
    np.testing.assert_allclose(np.linalg.norm(columns, axis=2), 1.0, rtol=1e-5)

"""Pictures of a run wait on the disk: all come back in their order, memory stays small, and nothing is left behind."""

import errno
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from alula.commands.deployment.spool import Spool
from alula.core.spaces import FieldSpec

PICTURE = FieldSpec("picture", (480, 640, 3), "uint8")


@given(array_shapes(max_dims=3, max_side=5), st.sampled_from(["uint8", "float32", "int64"]), st.integers(0, 20))
def test_everything_comes_back_in_its_order(shape: tuple[int, ...], dtype: str, length: int) -> None:
    fields = FieldSpec("a", shape, dtype), FieldSpec("b", (2,), "float64")
    values = np.arange(length * int(np.prod(shape))).reshape(length, *shape).astype(dtype)
    with TemporaryDirectory() as folder:
        spool = Spool(fields, Path(folder))
        for number, value in enumerate(values):
            assert spool.append("a", value) == number
            spool.append("b", np.full(2, -number))
        first, second = spool.rows("a"), spool.rows("b")
        spool.close()
        np.testing.assert_array_equal(first, values)
        assert first.dtype == dtype
        np.testing.assert_array_equal(second, np.repeat(-np.arange(length), 2).reshape(-1, 2))


def test_what_is_appended_may_change_afterwards(tmp_path: Path) -> None:
    spool, value = Spool((PICTURE,), tmp_path), np.zeros(PICTURE.shape, np.uint8)
    for number in range(5):
        value[:] = number
        spool.append("picture", value)
    assert spool.rows("picture")[:, 0, 0, 0].tolist() == list(range(5))
    spool.close()


def test_nothing_has_a_name(tmp_path: Path) -> None:
    """So nothing is left behind, however the process ends."""
    spool = Spool((PICTURE,), tmp_path)
    spool.append("picture", np.zeros(PICTURE.shape, np.uint8))
    assert len(spool.rows("picture")) == 1
    assert list(tmp_path.iterdir()) == []
    spool.close()


def test_a_disk_that_is_full_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    spool = Spool((PICTURE,), tmp_path)
    spool.append("picture", np.full(PICTURE.shape, 0, np.uint8))
    with monkeypatch.context() as patched:
        patched.setattr("os.pwrite", full)
        for number in (1, 2):
            spool.append("picture", np.full(PICTURE.shape, number, np.uint8))
        with pytest.raises(OSError, match="No space left"):
            spool.rows("picture")
    spool.append("picture", np.full(PICTURE.shape, 3, np.uint8))
    assert spool.rows("picture").mean(axis=(1, 2, 3)).tolist() == [0, 1, 2, 3]
    spool.close()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured as Linux tells it")
def test_memory_does_not_grow_with_a_run(tmp_path: Path) -> None:
    def own_memory() -> int:
        """Of this process, without what is mapped from files [bytes]."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

    spool, picture = Spool((PICTURE,), tmp_path), np.full(PICTURE.shape, 7, np.uint8)
    before = own_memory()
    for number in range(200):
        spool.append("picture", picture)
        if number % 20 == 0:
            spool.rows("picture")  # until then the disk may be slow
    assert spool.rows("picture").nbytes == 200 * picture.nbytes
    assert (spool.rows("picture") == 7).all(axis=(1, 2, 3)).all()
    assert own_memory() - before < 40 * picture.nbytes
    spool.close()

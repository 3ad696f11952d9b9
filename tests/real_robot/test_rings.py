"""Readers of a ring never see half a record, whatever its writer does or suffers."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alula.core.errors import DeviceError
from alula.real_robot import rings
from alula.real_robot.rings import Layout, Ring

IMAGE: Layout = {"image": ("uint8", (120, 160, 3)), "stamp": ("int64", ())}
TYPES = (
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
)
WRITER = """
import sys, numpy as np
from pathlib import Path
from alula.real_robot.rings import Ring
ring, image = Ring.attach(Path(sys.argv[1])), np.empty((120, 160, 3), "uint8")
print("ready", flush=True)
while True:
    number = ring.count + 1
    image[...] = number % 251
    ring.write(image=image, stamp=number)
"""  # fmt: skip


@contextlib.contextmanager
def made(layout: Layout, slots: int = 4) -> Iterator[Ring]:
    ring = Ring.create(layout, slots)
    try:
        yield ring
    finally:
        ring.close()


@contextlib.contextmanager
def writing(ring: Ring) -> Iterator[subprocess.Popen[str]]:
    """A process that writes as fast as it can: every element of a picture is its record's number modulo 251."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(ring.path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def require_whole(number: int, record: np.void) -> None:
    assert record["stamp"] == number
    assert record["image"].min() == record["image"].max() == number % 251


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)
    fields: Layout = draw(
        st.dictionaries(
            st.text("abc_.", min_size=1, max_size=6), st.tuples(st.sampled_from(TYPES), shapes), min_size=1, max_size=4
        )
    )
    return fields


@settings(max_examples=50, deadline=None)
@given(layouts(), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_what_is_written_is_read_and_the_last_records_are_kept(layout: Layout, slots: int, seed: int) -> None:
    rng, written = np.random.default_rng(seed), list[dict[str, np.ndarray]]()
    with made(layout, slots) as ring, contextlib.closing(Ring.attach(ring.path)) as reader:
        assert reader.newest() is None
        for _ in range(2 * slots + 1):
            bits = {
                name: rng.integers(0, 2, (*shape, 8 * np.dtype(kind).itemsize), dtype="u1")
                for name, (kind, shape) in layout.items()
            }
            written.append(
                {
                    name: rng.integers(0, 2, shape).astype("bool")
                    if kind == "bool"
                    else np.packbits(bits[name], axis=-1).view(kind)[..., 0]
                    for name, (kind, shape) in layout.items()
                }
            )
            assert ring.write(**written[-1]) == len(written)
        newest = reader.newest()
        assert newest is not None
        assert newest[0] == reader.count == len(written)
        for number in range(1, len(written) + 2):
            record = reader.read(number)
            if len(written) - slots < number <= len(written):
                assert record is not None
                for name, value in written[number - 1].items():
                    assert record[name].tobytes() == value.tobytes()
            else:
                assert record is None
        assert reader.newest(after=len(written)) is None


@pytest.mark.parametrize("slots", [2, 8])
def test_no_reader_sees_half_a_record_of_a_writer_at_full_speed(slots: int) -> None:
    with made(IMAGE, slots) as ring, writing(ring):
        seen, end = list[int](), time.monotonic() + 20
        while len(seen) < 300 and time.monotonic() < end:
            newest = ring.newest(after=seen[-1] if seen else 0)
            if newest is not None:
                require_whole(*newest)
                seen.append(newest[0])
        assert len(seen) == 300
        assert seen == sorted(set(seen))


def test_a_record_that_is_being_written_is_not_read() -> None:
    """The states that a writer passes through, one after the other, as a reader between any two stores finds them."""
    with made({"value": ("int64", (4,))}, slots=2) as ring:
        for number in (1, 2, 3):
            ring.write(value=np.full(4, number))
        slot = ring._bytes[1]  # of record 2, and next of record 4
        slot[rings.BEGUN * 8] = 4
        assert ring.read(2) is None
        slot[rings.FRONT + 8] = 99
        assert ring.read(2) is None
        assert ring.read(4) is None
        newest = ring.newest()
        assert newest is not None
        assert newest[0] == 3
        # Stores that arrive in another order, as on ARM: everything says that it is complete, but half is old.
        slot[rings.COMPLETED * 8] = 4
        assert ring.read(4) is None


@pytest.mark.slow
def test_readers_outlive_a_killed_writer_and_a_new_one_goes_on() -> None:
    with made(IMAGE) as ring:
        last = 0
        for _ in range(3):
            with writing(ring) as process:
                end = time.monotonic() + 20
                while ring.count < last + 20 and time.monotonic() < end:
                    time.sleep(0.001)
                process.send_signal(signal.SIGKILL)
                process.wait()
            newest = ring.newest(after=last)
            assert newest is not None
            require_whole(*newest)
            last = newest[0]


def test_an_owner_that_closes_takes_the_memory_away_and_readers_keep_theirs() -> None:
    ring = Ring.create(IMAGE)
    reader = Ring.attach(ring.path)
    ring.write(image=np.full((120, 160, 3), 7, "uint8"), stamp=1)
    ring.close()
    ring.close()
    assert not ring.path.exists()
    newest = reader.newest()
    assert newest is not None
    assert (newest[1]["image"] == 7).all()
    reader.close()


def test_a_reader_that_ends_takes_nothing_away_and_says_nothing() -> None:
    """`multiprocessing.shared_memory` would do both before Python 3.13."""
    lines = "import sys", "from pathlib import Path", "from alula.real_robot.rings import Ring"
    read = ";".join((*lines, "ring = Ring.attach(Path(sys.argv[1]))", "ring.newest()"))
    with made(IMAGE) as ring:
        result = subprocess.run([sys.executable, "-c", read, str(ring.path)], capture_output=True, text=True)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        assert ring.path.exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": np.zeros((120, 160, 1), "uint8"), "stamp": 0}, r"shape \(120, 160, 1\)"),
        ({"image": np.zeros((120, 160, 3)), "stamp": 0}, "float64"),
        ({"image": np.zeros((120, 160, 3), "uint8")}, r"not \['image'\]"),
    ],
)
def test_records_that_do_not_fit_are_refused(fields: dict[str, np.ndarray], message: str) -> None:
    with made(IMAGE) as ring:
        with pytest.raises(DeviceError, match=message):
            ring.write(**fields)
        assert ring.count == 0


def test_impossible_rings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="only numbers"):
        Ring.create({"thing": ("object", ())})
    with pytest.raises(DeviceError, match="nothing to share"):
        Ring.create({"thing": ("uint8", (0, 3))})
    with pytest.raises(DeviceError, match=r"no shared memory of .* bytes"):
        Ring.create({"thing": ("uint8", (2**30,))}, slots=2**14)
    with pytest.raises(DeviceError, match="there is no ring"):
        Ring.attach(tmp_path / "none")
    (tmp_path / "other").write_bytes(os.urandom(64))
    with pytest.raises(DeviceError, match="no ring of shared memory"):
        Ring.attach(tmp_path / "other")

"""A camera in a process of its own, so that nobody waits for pictures: `CameraProcess` here, `main` over there.

    python -m alula.real_robot.cameras.process '{"kind": "opencv", "config": {...}, "ring": "/dev/shm/..."}'

It says `{}` once pictures come, or `{"error": ...}` when none do (any more), and ends when its standard input does.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import numpy as np

from alula.core.errors import DeviceError
from alula.real_robot.cameras.camera import Driver, Frame, specification
from alula.real_robot.cameras.config import CameraConfig
from alula.real_robot.cameras.registry import CAMERAS, camera_kind, make_driver
from alula.real_robot.rings import Layout, Ring

OPENING_S = 15.0
"""Time within which a camera must deliver its first picture [s]: our choice; some take seconds to wake up."""
DARK = 16
"""A picture without any brighter value is black: our choice, above the noise of a covered lens."""
SLOW = 1.6
"""Mean time between pictures, in periods, from which the camera is too slow: our choice."""
MEMORY = 0.1
"""Share of the newest in the mean time between pictures: our choice."""


class CameraProcess:
    """Any camera of the table, without waiting for it.

    Args:
        name: What it looks at or where it is: `front`, `wrist`.
        config: Settings, which say what kind of camera it is.
    """

    def __init__(self, name: str, config: CameraConfig) -> None:
        self.name, self.config = name, config
        self._kind, self._depth = camera_kind(config), bool(getattr(config, "depth", False))
        self.spec = specification(name, config, self._depth)
        self._ring: Ring | None = None
        self._process: subprocess.Popen[str] | None = None
        self._error: str | None = None

    def open(self) -> None:
        """Start the process and wait for the first picture."""
        self.close()
        self._newest: tuple[int, np.void] | None = None
        self._ring, self._error = Ring.create(self._layout()), None
        setup = {"kind": self._kind, "config": asdict(self.config), "ring": str(self._ring.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, json.dumps(setup)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # where libraries put noise; what went wrong comes on standard output
            text=True,
            start_new_session=True,  # Ctrl-C is not for the camera
        )
        self._error = self._hear(OPENING_S)
        if self._error is not None:
            self.close()
            raise DeviceError(self._tell(self._error))

    def _layout(self) -> Layout:
        layout: dict[str, tuple[str, tuple[int, ...]]] = {
            "image": ("uint8", (self.config.height, self.config.width, 3)),
            "captured_ns": ("int64", ()),
            "changed_ns": ("int64", ()),  # when a picture last differed from the one before
            "brightest": ("uint8", ()),
            "period": ("float64", ()),  # mean time between pictures [s]
        }
        return layout | ({"depth": ("float32", (self.config.height, self.config.width))} if self._depth else {})

    def _hear(self, patience: float) -> str | None:
        """What the process complains of, if it says anything at all within so many seconds."""
        assert self._process is not None
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], patience)[0]:
            return f"no picture has come within {patience:g} s"
        line = self._process.stdout.readline()
        if not line:
            return f"its process has ended (code {self._process.wait()})"
        error: str | None = json.loads(line).get("error")
        return error

    def latest(self, now_ns: int, max_age: float) -> Frame | None:
        """The newest picture; None where it is older than `max_age` [s]."""
        newest = self._read()
        if newest is None:
            return None
        sequence, record = newest
        captured_ns = int(record["captured_ns"])
        age = (now_ns - captured_ns) / 1e9
        depth = record["depth"] if self._depth else None
        return Frame(record["image"], depth, sequence, captured_ns, age) if age <= max_age else None

    def _read(self) -> tuple[int, np.void] | None:
        """The newest record; copied only once."""
        if self._ring is None:
            return None
        self._newest = self._ring.newest(after=self._newest[0] if self._newest else 0) or self._newest
        return self._newest

    def problem(self, now_ns: int, max_age: float) -> str | None:
        """What is wrong, the worst first."""
        if self._process is None:
            return self._tell(self._error or "it is not open")
        if self._process.poll() is not None:
            self._error = self._error or self._hear(0.0)
            return self._tell(str(self._error))
        newest = self._read()
        assert newest is not None  # `open` has waited for it
        record = newest[1]
        age = (now_ns - int(record["captured_ns"])) / 1e9
        still = (int(record["captured_ns"]) - int(record["changed_ns"])) / 1e9
        period = float(record["period"])
        if age > max_age:
            return self._tell(f"late, its newest picture is {1e3 * age:.0f} ms old, allowed are {1e3 * max_age:.0f} ms")
        if record["brightest"] < DARK:
            return self._tell("black, is its lens covered?")
        if still >= self.config.frozen:
            return self._tell(f"frozen, it has shown the same picture for {still:.1f} s")
        if period > SLOW / self.config.rate:
            return self._tell(
                f"slow, it delivers {1 / period:.1f} pictures per second, {self.config.rate:g} are asked for"
            )
        return None

    def _tell(self, what: str) -> str:
        return f"camera '{self.name}': {what}"

    def close(self) -> None:
        """End the process; doing it again changes nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        if self._ring is not None:
            self._ring.close()
            self._ring = None


def publish(driver: Driver, ring: Ring, config: CameraConfig) -> None:
    """Put every picture into the ring, for ever.

    Raises:
        DeviceError: the camera does not deliver any more.
    """
    before, changed_ns, last_ns = None, 0, 0
    period = 1 / config.rate  # one picture that comes late does not yet make a slow camera
    while True:
        picture = driver.grab()
        captured_ns = picture.captured_ns - round(1e9 * config.latency)
        if before is None or not np.array_equal(picture.image, before):
            changed_ns = captured_ns
        if before is not None:
            gap = (captured_ns - last_ns) / 1e9
            period = (1 - MEMORY) * period + MEMORY * gap
        before, last_ns = picture.image, captured_ns
        depth = {} if picture.depth is None else {"depth": picture.depth}
        brightest = picture.image.max()
        stamps = {"captured_ns": captured_ns, "changed_ns": changed_ns}
        ring.write(image=picture.image, brightest=brightest, period=period, **stamps, **depth)
        if ring.count == 1:
            print("{}", flush=True)


def main() -> None:
    """The camera's process."""
    setup = json.loads(sys.argv[1])
    path = Path(setup["ring"])
    ring = Ring.attach(path)
    threading.Thread(target=_end_with_parent, args=(path,), daemon=True).start()
    try:
        config = CAMERAS[setup["kind"]].config(**setup["config"])
        driver = make_driver(config)
        driver.open()
        with contextlib.closing(driver):
            publish(driver, ring, config)
    except Exception as error:  # whatever it is, the parent must be told in words
        text = str(error) if isinstance(error, DeviceError) else f"{type(error).__name__}: {error}"
        print(json.dumps({"error": text}), flush=True)


def _end_with_parent(ring: Path) -> None:
    """Whoever started this has ended, maybe without a chance to take its memory away."""
    sys.stdin.read()
    ring.unlink(missing_ok=True)
    os._exit(0)


if __name__ == "__main__":
    main()

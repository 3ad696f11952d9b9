"""`alula calibrate` with an emulated arm that is moved by hand, and a person whose enter key is a pipe."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alula.commands import calibrate as command
from alula.real_robot.devices.registry import DEVICES, make_device
from alula.real_robot.emulators.emulation import Emulation

pytestmark = pytest.mark.real_time

WAY = 0.3
"""How far it moves every joint either way [rad]."""
LOOKS = 30
"""Times that the command looks meanwhile."""
ZERO = np.array([0.2, -0.3, 0.1, 0.0, -0.2, 0.4, 0.3])
"""Where the person thinks that its zero is."""


class Arm:
    """An emulated arm, and a person who moves it as asked."""

    def __init__(self, name: str, folder: Path) -> None:
        entry = DEVICES[name]
        module = import_module(f"alula.real_robot.emulators.{entry.emulator}")
        self.config = entry.config()
        setup, _ = module.prepare(self.config, folder)
        common = {"limits": None, "scene": None, "faults": [], "seed": 0}
        self.emulation = Emulation(module.__name__, folder, {**setup, **common})
        self.config.address = self.emulation.address
        self.asked = self.looked = 0
        self.joints = 7 if name == "viperx" else 6

    def ready(self, seconds: float | None) -> bool:
        """Do what was asked: let the arm lose its power, hold the zero pose, move every joint to both ends."""
        time.sleep(seconds or 0.0)
        if seconds is None:
            self.asked += 1
            if self.asked == 2:
                self.move(0.0)
                time.sleep(1.5)
            return True
        if self.looked % LOOKS == 0:
            self.move(-WAY if self.looked else WAY)
        self.looked += 1
        return self.looked >= 2 * LOOKS

    def move(self, way: float) -> None:
        """All joints so far from the zero pose [rad]."""
        self.emulation.ask(hand=(ZERO[: self.joints] + way).tolist())


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], object]]:
    """Presses enter."""
    read, write = os.pipe()
    with os.fdopen(read) as pipe, os.fdopen(write, "wb", buffering=0) as key:
        monkeypatch.setattr(sys, "stdin", pipe)
        yield lambda: key.write(b"\n")


@pytest.fixture
def arm(tmp_path: Path) -> Iterator[Callable[[str], Arm]]:
    """Starts an emulated arm."""
    arms = list[Arm]()

    def start(name: str) -> Arm:
        arms.append(Arm(name, tmp_path))
        return arms[-1]

    yield start
    for each in arms:
        each.emulation.end()


@pytest.mark.parametrize("name", ["so101", pytest.param("koch", marks=pytest.mark.slow), "viperx"])
def test_the_file_says_how_the_servos_are_mounted(
    name: str, arm: Callable[[str], Arm], alula: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the driver takes it, and finds the arm where it is."""
    emulated, out = arm(name), tmp_path / "new" / "arm.json"
    monkeypatch.setattr(command.Person, "ready", lambda _, seconds: emulated.ready(seconds))
    words = (f"device={name}", f"device.address={emulated.config.address}", f"out={out}")
    done = alula("calibrate", *words, "--json")
    assert done.status == 0, done.err
    assert [path.name for path in out.parent.iterdir()] == ["arm.json"]
    content = json.loads(out.read_text(encoding="utf-8"))
    assert content["device"] == name
    assert content["expires"] == (date.today() + timedelta(days=365)).isoformat()
    for servo in content["servos"].values():
        ends = (np.array([servo["low"], servo["high"]]) - servo["zero"]) * 2 * np.pi / 4096
        assert servo["zero"] == 2048
        np.testing.assert_allclose(ends, [-WAY, WAY], atol=0.06)
    assert {result["name"] for result in done.report["results"]} == set(content["servos"])
    device = make_device(replace(emulated.config, calibration=str(out)))
    device.configure()
    try:
        state = device.read(1.0)
        np.testing.assert_allclose(state.position, -WAY, atol=0.06)
        np.testing.assert_allclose(device.spec.limits.high[:2], WAY, atol=0.06)
    finally:
        device.close()
    again = alula("calibrate", *words)
    assert "exists; give another out=FILE, or overwrite=true" in again.error


def test_a_joint_that_was_not_moved_is_refused(
    arm: Callable[[str], Arm], enter: Callable[[], object], alula: Any, tmp_path: Path
) -> None:
    """Somebody who only presses enter."""
    emulated, out = arm("so101"), tmp_path / "arm.json"
    for _ in range(3):
        enter()
    done = alula("calibrate", "device=so101", f"device.address={emulated.config.address}", f"out={out}")
    assert done.status == 1
    assert "nothing was written: shoulder_pan has low 2048, zero 2048 and high 2048 counts" in done.err
    assert not out.exists()


def test_without_a_person_nothing_happens(
    arm: Callable[[str], Arm], alula: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulated = arm("so101")
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        done = alula("calibrate", "device=so101", f"device.address={emulated.config.address}", f"out={tmp_path}/a.json")
    assert done.status == 1
    assert "standard input has ended; this needs a person" in done.err
    assert not emulated.emulation.log()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "calibrate needs an arm made of servos: device=NAME with one of so101, koch, viperx"),
        (["device=ur5e"], "calibrate needs an arm made of servos"),
        (["device=so101"], "device.address is missing; give the serial port"),
        (["device=so101", "device.address=/dev/nothing"], "out is missing"),
        (["device=so101", "device.address=/dev/nothing", "out=a.json"], "/dev/nothing cannot be opened"),
    ],
)
def test_what_is_missing_is_said(words: list[str], message: str, alula: Any) -> None:
    assert message in alula("calibrate", *words).error

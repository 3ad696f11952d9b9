"""Emulated arms of bus servos."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alula.real_robot.contract import Intent, State
from alula.real_robot.devices.config import DynamixelArmConfig
from alula.real_robot.devices.registry import DEVICES, make_device
from alula.real_robot.devices.servo_arm import ServoArm
from alula.real_robot.emulators.emulation import Emulation
from alula.real_robot.loop import ControlLoop, Tick

WAY = 0.7
"""How far a run goes, if it is long enough [rad]."""


class Towards:
    """Wants all joints to be elsewhere, and does something in a certain period."""

    def __init__(self, period: int = -1, action: Callable[[], object] = lambda: None) -> None:
        self.left, self.action = period, action
        self.target: Any = None

    def at(self, now_ns: int, state: State) -> Intent:
        if self.target is None:
            self.target = state.position - WAY
        self.left -= 1
        if self.left == 0:
            self.action()
        return Intent(self.target, now_ns, "policy")


class Bench:
    """An emulation, and drivers for it."""

    def __init__(self, name: str, folder: Path, faults: tuple[dict[str, Any], ...], servos: Mapping[int, Any]) -> None:
        entry = DEVICES[name]
        module = import_module(f"alula.real_robot.emulators.{entry.emulator}")
        setup, changes = module.prepare(entry.config(), folder)
        for number, change in servos.items():
            setup["servos"][number] |= change
        self.config = replace(entry.config(), **changes)
        if isinstance(self.config, DynamixelArmConfig):
            self.config.watchdog = 1.0  # a busy machine may be silent for a tenth of a second
        limits = make_device(self.config).spec.limits
        names = ("low", "high", "velocity", "acceleration", "jerk")
        allowed = {"rate": 50.0, **{name: getattr(limits, name) for name in names}}
        common = {"limits": allowed, "scene": None, "faults": faults, "seed": 0}
        self.emulation = Emulation(module.__name__, folder, {**setup, **common})
        self.config.address = self.emulation.address
        self.devices = list[ServoArm]()

    def connect(self) -> ServoArm:
        """A driver that is configured."""
        device = make_device(self.config)
        assert isinstance(device, ServoArm)
        self.devices.append(device)
        device.configure()
        return device

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """What has been decoded."""
        return [entry for entry in self.emulation.log() if entry["event"] in kinds]

    def goals(self) -> np.ndarray:
        """Decoded goals since power came on, one row each [rad]."""
        log = self.emulation.log()
        first = next(index for index, entry in enumerate(log) if entry["event"] == "start")
        return np.array([list(entry["goals"].values()) for entry in log[first:] if entry["event"] == "command"])

    def require_no_violation(self) -> None:
        """Something has been commanded, and nothing of it broke a limit."""
        outcome = self.emulation.ask(outcome=True)
        assert outcome["commands"] > 1
        assert self.emulation.violations() == []

    def run(
        self, device: ServoArm, seconds: float, period: int = -1, action: Callable[[], object] = lambda: None
    ) -> tuple[ControlLoop, list[Tick]]:
        """A run of the loop towards elsewhere, that does something in a certain period."""
        ticks = list[Tick]()
        loop = ControlLoop(device, Towards(period, action), ticks.append)
        loop.run(seconds)
        return loop, ticks

    def undisturbed(self, device: ServoArm, seconds: float) -> list[Tick]:
        """A run that is not ended by a machine so busy that the emulator is silent for 0.1 s."""
        for _ in range(5):
            loop, ticks = self.run(device, seconds)
            if loop.governor.stopped == "the run is over":
                return ticks
            time.sleep(0.3)
        raise AssertionError(loop.governor.stopped)

    @staticmethod
    def told(loop: ControlLoop, ticks: list[Tick]) -> str:
        """Everything that was complained of."""
        return " ".join([str(loop.governor.stopped), *(fault for tick in ticks for fault in tick.state.faults)])

    def end(self) -> None:
        for device in self.devices:
            device.close()
        self.emulation.end()


@pytest.fixture
def start_arm(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Starts an emulation with faults, and changes of its servos by number."""
    benches = list[Bench]()

    def start(name: str, *faults: dict[str, Any], servos: Mapping[int, Any] | None = None) -> Bench:
        folder = tmp_path / str(len(benches))
        folder.mkdir()
        benches.append(Bench(name, folder, faults, servos or {}))
        return benches[-1]

    yield start
    for bench in benches:
        bench.end()


Failure = tuple[Bench, ServoArm, ControlLoop, list[Tick]]


@pytest.fixture
def fail_arm(start_arm: Callable[..., Bench]) -> Callable[[str, dict[str, Any], str], Failure]:
    """Runs an arm with a fault until somebody complains in these words."""

    def fail(name: str, fault: dict[str, Any], words: str) -> Failure:
        for _ in range(4):  # a busy machine may end a run before the fault does
            bench = start_arm(name, fault)
            device = bench.connect()
            loop, ticks = bench.run(device, 1.2)
            if words in (told := bench.told(loop, ticks)):
                break
        assert words in told
        return bench, device, loop, ticks

    return fail


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Bench]]:
    """Arms that are shared by tests which do not move them."""
    benches = dict[str, Bench]()

    def find(name: str) -> Bench:
        if name not in benches:
            benches[name] = Bench(name, tmp_path_factory.mktemp(name), (), {})
        return benches[name]

    yield find
    for bench in benches.values():
        bench.end()

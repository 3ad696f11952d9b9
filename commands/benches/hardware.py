"""Promises of the hardware layer, measured: fuzzing, punctuality beside a busy policy, delays, and every fault."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.commands.benches.delays import bench_delays
from alula.commands.console import ERR, OUT, Result
from alula.commands.deployment.emulating import judged_limits, start_emulation
from alula.configs.schemas import BenchConfig
from alula.core.errors import AlulaError
from alula.core.real_time import Execution, Mode
from alula.real_robot.contract import Intent, Limits, State
from alula.real_robot.devices.config import SimulatedConfig
from alula.real_robot.devices.registry import DEVICES, make_device
from alula.real_robot.devices.simulated import SimulatedArm
from alula.real_robot.emulators.judge import Judge
from alula.real_robot.governor import Governor
from alula.real_robot.loop import ControlLoop
from alula.real_robot.planning.process import ProcessPlanner
from alula.real_robot.sources.policy import PolicySource

FUZZED = 1_000_000
"""Wishes without a wire; as many more go over wires as fit into FUZZ_S."""
FUZZ_S = 5.0
"""Fuzzing of each device before its emulator [s]."""
LOOP_RATE, LOOP_S = 250.0, 30.0
"""Of the punctuality [Hz, s]."""
THINKING_S = 0.04
"""Of the busy policy, per plan [s]; it is asked anew at once."""
FAULT_AT = 40
"""Motion commands before a fault."""
FAULT_RUN_S = 4.0
"""Longest run with a fault [s]."""
AMPLITUDE = 2.0
"""Of the first element's motion before and during a fault, in distances that it may stay behind its commands."""
SEVERITIES = {
    **{"delay": 300.0, "jitter": 300.0, "late": 300.0, "reorder": 30.0, "slow_handshake": 1500.0},  # ms
    "stamp_backwards": 500.0,  # ms
    **{"jump": 1.0, "encoder_jump": 1.0},  # rad
    **{"estimator_jump": 1.0, "estimator_reset": 1.0},  # m
    **{"quaternion_length": 3.0, "quaternion_scale": 3.0, "battery_sag": 1.0, "battery": 0.05},  # 1, 1, V, share
    "wrong_version": 5.0,
    "burst": 100.0,  # messages
}
"""How severe a fault is, where that is a number, in the unit of its kind."""


def bench_hardware(config: BenchConfig) -> list[Result]:
    """All of it; the table of faults is printed."""
    results = _fuzz_governor()
    for name in _emulated(config):
        results.append(_fuzz_device(name))
    violations = sum(result.value for result in results if result.name.startswith("fuzz_violations"))
    commands = sum(result.runs for result in results)
    bar = Result("fuzz_violations", violations, "1", runs=commands, bar=0, ok=violations == 0)
    results = [bar, *results, *_punctuality(), *bench_delays()]
    rows = [row for name in _emulated(config) for row in _faults(name)]
    OUT.print(_table(rows), markup=False, soft_wrap=True)
    unsafe = sum(row.violations for row in rows)
    return [*results, Result("fault_violations", unsafe, "1", runs=len(rows), bar=0, ok=unsafe == 0)]


def _emulated(config: BenchConfig) -> list[str]:
    return [
        name
        for name, entry in DEVICES.items()
        if entry.emulator is not None and (not config.devices or name in config.devices)
    ]


class Fuzz:
    """A source of wishes that no sane policy has."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        self.count = 0

    def at(self, now_ns: int, state: State) -> Intent | None:
        """Anything."""
        self.count += 1
        generator, here = self.generator, state.position
        kind = generator.integers(0, 40)
        if kind == 0:
            return None
        action = here + 10.0 ** generator.uniform(-4, 3) * generator.standard_normal(len(here))
        if kind == 1:
            action[generator.integers(len(action))] = generator.choice([np.nan, np.inf, -np.inf, 1e38])
        return Intent(action[:-1] if kind == 2 else action, now_ns, "policy")


def _fuzz_governor() -> list[Result]:
    """The governor on its own, judged by differences of its commands; a run that it ends begins anew."""
    device = make_device(SimulatedConfig())
    spec = device.spec
    fuzz, now, sequence = Fuzz(0), time.monotonic_ns(), 0
    with tempfile.TemporaryDirectory() as folder:
        judge = Judge(Path(folder) / "log", judged_limits(spec), [0.0] * len(spec.limits.low))
        governor = Governor(spec)
        position: Float64[ndarray, " action"] = np.zeros(len(spec.limits.low))
        while judge.commands < FUZZED:
            now, sequence = now + spec.period_ns, sequence + 1
            valid = np.ones(len(position), dtype=bool)
            state = State({}, position, 0 * position, valid, sequence, now)
            if governor.stopped is not None and (not sequence > 1 or np.abs(governor.speed).max() < 1e-9):
                governor.start(state, now)
                judge.start(dict(enumerate(position)))
            command = governor(fuzz.at(now, state), state, now)
            position = command.position
            judge.command(dict(enumerate(position.tolist())))
        return [Result("fuzz_violations_governor", judge.violations, "1", runs=judge.commands)]


@contextmanager
def _emulation(name: str, faults: list[dict[str, Any]]) -> Iterator[tuple[Any, Any]]:
    with tempfile.TemporaryDirectory(prefix="alula-") as folder:
        emulation, config = start_emulation(DEVICES[name].config(), Path(folder), faults=faults)
        with emulation:
            yield emulation, config


def _fuzz_device(name: str) -> Result:
    """A device before its emulator, whose decoder judges."""
    ERR.print(f"fuzzing {name}")
    with _emulation(name, []) as (emulation, config):
        device = make_device(config)
        device.configure()
        end = time.monotonic() + FUZZ_S
        seed = 0
        while time.monotonic() < end:
            ControlLoop(device, Fuzz(seed)).run(end - time.monotonic())
            seed += 1
        device.close()
        outcome = emulation.ask(outcome=True)
    return Result(f"fuzz_violations_{name}", outcome["violations"], "1", runs=outcome["commands"])


def _punctuality() -> list[Result]:
    """A loop beside a process that thinks all the time."""
    device = SimulatedArm(SimulatedConfig(rate=LOOP_RATE))
    device.configure()
    size = len(device.spec.limits.low)
    arguments = {"seconds": THINKING_S, "size": size}
    planner = ProcessPlanner("alula.commands.benches.busy:think", arguments, deadline=1.0)
    about = planner.description
    execution = Execution(Mode.ASYNCHRONOUS, about.horizon, about.execute_steps, size, threshold=1.0)
    source = PolicySource(
        planner,
        execution,
        about.rate,
        device.spec.period_ns,
        lambda state: {"observation.state": state.position.astype(np.float32)},
        lambda action, state: action.astype(np.float64),
    )
    loop = ControlLoop(device, source)
    loop.run(LOOP_S)
    planner.close()
    timing = loop.timing
    lateness, missed = timing.lateness_p99_ms, timing.missed_percent
    runs = len(timing.lateness_ns)
    plans = len(source.punctuality.latencies_ns)
    return [
        replace(Result("lateness_p99_ms", lateness, "ms", runs=runs, bar=1), ok=lateness <= 1),
        replace(Result("missed_percent", missed, "%", runs=runs, bar=0.5), ok=missed <= 0.5),
        replace(Result("catch_up_bursts", timing.bursts, "1", runs=runs, bar=0), ok=timing.bursts == 0),
        Result("plans_meanwhile", plans, "1"),
    ]


@dataclass
class FaultRow:
    """What became of a fault."""

    device: str
    kind: str
    what: str
    outcome: str
    violations: int


def _table(rows: list[FaultRow]) -> str:
    """In Markdown, which terminals and documentation show alike."""
    lines = ["| device | fault | outcome | violations |", "|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {row.device} | `{row.kind}`: {row.what} | {row.outcome} | {row.violations} |")
    return "\n".join(lines)


def _faults(name: str) -> Iterator[FaultRow]:
    """Each fault of a device: in flight first, and from the beginning where that went unnoticed."""
    module = import_module(f"alula.real_robot.emulators.{DEVICES[name].emulator}")
    for kind, what in module.FAULTS.items():
        ERR.print(f"{name}: {kind}")
        fault = {"kind": kind, "value": SEVERITIES.get(kind, 0.0)}
        outcome, violations = _with_fault(name, {**fault, "start": FAULT_AT})
        if outcome == "goes on":
            early, more = _with_fault(name, fault)
            violations += more
            if early != "goes on":
                outcome = f"{early} (from the beginning on)"
        yield FaultRow(name, kind, what, outcome, violations)


def _with_fault(name: str, fault: dict[str, Any]) -> tuple[str, int]:
    with _emulation(name, [fault]) as (emulation, config):
        outcome = _drive(config)
        try:
            return outcome, int(emulation.ask(outcome=True)["violations"])
        except AlulaError:  # it ended by itself, as with a port that vanishes
            return outcome, len(emulation.violations())


def _drive(config: Any) -> str:
    """To and fro; how it ended."""
    device = make_device(config)
    try:
        device.configure()
        loop = ControlLoop(device, ToAndFro(device.spec.limits))
        loop.run(FAULT_RUN_S)
    except AlulaError as error:
        return f"refused: {error}"
    finally:
        device.close()
    stopped = loop.governor.stopped
    return "goes on" if stopped == "the run is over" else f"stopped: {stopped}"


class ToAndFro:
    """Moves the first element to and fro, and the others a little.

    Args:
        limits: Of the device.
    """

    def __init__(self, limits: Limits) -> None:
        self._reach = np.full(len(limits.low), 0.05)
        self._reach[0] = AMPLITUDE * limits.following[0] if limits.following else 1.0
        self._start: Float64[ndarray, " action"] | None = None
        self._begun = 0

    def at(self, now_ns: int, state: State) -> Intent:
        """A cosine of a quarter of a hertz."""
        if self._start is None:
            self._start, self._begun = state.position.copy(), now_ns
        phase = 2 * np.pi * 0.25 * (now_ns - self._begun) / 1e9
        return Intent(self._start + self._reach * (1 - np.cos(phase)) / 2, now_ns, "policy")

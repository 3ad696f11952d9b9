"""`alula emulate`: start a robot's emulator and keep it running."""

import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alula.commands.console import ERR, OUT, Result, print_results
from alula.commands.deployment.emulating import scene_of, start_emulation
from alula.configs.robots import EmulateConfig
from alula.core.errors import ConfigError
from alula.real_robot.devices.config import DeviceConfig
from alula.real_robot.devices.registry import DEVICES, find_entry

FIELDS = {"target": int, "start": int, "duration": float, "probability": float, "value": float}
"""Of a fault on the command line, behind its kind and in this order."""


def run(config: EmulateConfig, as_json: bool) -> None:
    """Emulate until Ctrl-C, then say what was decoded."""
    if config.device is None:
        emulated = ", ".join(name for name, entry in DEVICES.items() if entry.emulator)
        raise ConfigError(f"device is missing; choose device=NAME with one of {emulated}")
    name, _ = find_entry(config.device)
    with ExitStack() as stack:
        if config.log:
            folder = Path(config.log).expanduser()
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="alula-")))
        faults = [read_fault(text) for text in config.faults]
        emulation, device = start_emulation(config.device, folder, _scene(config), faults, config.seed)
        stack.callback(emulation.end)
        emulation.reset(config.seed)
        emulation.ask(begin=True)
        try:
            OUT.print(f"emulating {name}. Drive it with", markup=False)
            OUT.print(f"    alula deploy checkpoint=RUN device={name} {_words(config.device, device)}", markup=False)
            emulation.process.wait()
        except KeyboardInterrupt:
            ERR.print()
        outcome = emulation.ask(outcome=True)
        OUT.print(f"decoded {outcome['commands']} commands, {outcome['violations']} of them broke a limit")
    if as_json:
        print_results("emulate", [Result(key, outcome[key], "1") for key in ("commands", "violations")])


def _scene(config: EmulateConfig) -> dict[str, Any]:
    around = {} if config.task is None else scene_of(config.task)
    return {**around, "tracker": config.tracker, "view": config.view}


def _words(given: DeviceConfig, found: DeviceConfig) -> str:
    """What the driver must be told beyond what is known."""
    usual = asdict(given)
    return " ".join(f"device.{key}={value}" for key, value in asdict(found).items() if value != usual[key])


def read_fault(text: str) -> dict[str, Any]:
    """A fault from KIND:TARGET:START:DURATION:PROBABILITY:VALUE, of which all but KIND may be empty or missing.

    Raises:
        ConfigError: it is something else.
    """
    kind, *values = text.split(":")
    try:
        if len(values) > len(FIELDS):
            raise ValueError
        given = zip(FIELDS.items(), values, strict=False)
        return {"kind": kind, **{name: convert(value) for (name, convert), value in given if value}}
    except ValueError:
        raise ConfigError(
            f"faults: '{text}' is no fault; expected is KIND:TARGET:START:DURATION:PROBABILITY:VALUE, such as "
            "drop:0:100:50:0.2"
        ) from None

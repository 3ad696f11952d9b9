"""Starting the emulator of any device."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from alula.core.errors import ConfigError, DeviceError
from alula.real_robot.contract import DeviceSpec
from alula.real_robot.devices.registry import DEVICES, find_entry, make_device
from alula.real_robot.emulators.emulation import Emulation
from alula.training.pipeline import describe_task


def start_emulation(
    config: Any,
    folder: Path,
    scene: Mapping[str, Any] | None = None,
    faults: Sequence[Mapping[str, Any]] = (),
    seed: int = 0,
) -> tuple[Emulation, Any]:
    """Start the emulator of a device.

    Args:
        config: Settings of the device.
        folder: For its setup, its log, and what the driver needs, such as a calibration.
        scene: What stands around it: `task`, `settings`, `tracker`, `view`; None: nothing in particular.
        faults: What goes wrong.
        seed: Of the faults' chances.

    Returns:
        The running emulator, and the settings with which the driver finds it.

    Raises:
        DeviceError: it has no emulator, or that does not start.
    """
    name, entry = find_entry(config)
    if entry.emulator is None:
        emulated = ", ".join(name for name, entry in DEVICES.items() if entry.emulator)
        raise ConfigError(f"{name} needs no emulator and has none; those that do: {emulated}")
    module_name = f"alula.real_robot.emulators.{entry.emulator}"
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise DeviceError(
            f"emulating {name} needs the package {error.name}: install it by pip install 'alula[{entry.extra}]'"
        ) from error
    own, changes = module.prepare(config, folder)
    config = replace(config, **changes)
    limits = judged_limits(make_device(config).spec)
    setup = {**own, "limits": limits, "scene": scene, "faults": list(faults), "seed": seed}
    emulation = Emulation(module_name, folder, setup)
    return emulation, replace(config, address=emulation.address)


def scene_of(task_config: Any) -> dict[str, Any]:
    """The scene of a task, as emulators take it; nothing in it is randomised."""
    described = describe_task(task_config)
    settings = {name: value for name, value in described["config"].items() if name != "randomization"}
    return {"task": described["name"], "settings": settings}


def judged_limits(spec: DeviceSpec) -> dict[str, Any]:
    """What the emulator's witness holds commands against."""
    limits, margin = spec.limits, spec.limits.margin
    return {
        "rate": spec.rate,
        "low": [low + margin for low in limits.low],
        "high": [high - margin for high in limits.high],
        **{name: list(getattr(limits, name)) for name in ("velocity", "acceleration", "jerk")},
    }

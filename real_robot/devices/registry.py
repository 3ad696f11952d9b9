"""All devices: the name on the command line, settings, driver, emulator."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from alula.core.errors import ConfigError, DeviceError
from alula.real_robot.contract import Device
from alula.real_robot.devices.config import (
    CrazyflieConfig,
    DeviceConfig,
    FrankaConfig,
    KochConfig,
    KochLeaderConfig,
    PX4Config,
    SimulatedConfig,
    SO101Config,
    UR5eConfig,
    ViperXConfig,
)


@dataclass(frozen=True)
class DeviceEntry:
    """One line of the table."""

    config: type[DeviceConfig]
    driver: str
    """Where the driver's class is, as module:name below `alula.real_robot.devices`; it takes the settings."""
    emulator: str | None
    """Module below `alula.real_robot.emulators`, see `emulation.py`; None: none is needed."""
    robot: str | None
    """Name of the simulated robot that it is; None for quadcopters and what is not simulated."""
    extra: str | None = None
    """What to install for it: `pip install 'alula[EXTRA]'`."""


DEVICES = {
    "simulated": DeviceEntry(SimulatedConfig, "simulated:SimulatedArm", None, None),
    "so101": DeviceEntry(SO101Config, "so101:SO101", "feetech", "so101", "arms"),
    "koch": DeviceEntry(KochConfig, "dynamixel:Koch", "dynamixel", None, "arms"),
    "viperx": DeviceEntry(ViperXConfig, "dynamixel:ViperX", "dynamixel", "viperx", "arms"),
    "koch_leader": DeviceEntry(KochLeaderConfig, "dynamixel:KochLeader", "dynamixel", None, "arms"),
    "ur5e": DeviceEntry(UR5eConfig, "ur5e:UR5e", "ur", "ur5e"),
    "franka": DeviceEntry(FrankaConfig, "franka:Franka", "franka", "panda", "arms"),
    "crazyflie": DeviceEntry(CrazyflieConfig, "crazyflie:Crazyflie", "crazyflie", None),
    "px4": DeviceEntry(PX4Config, "px4:PX4", "px4", None, "drones"),
}


def find_entry(config: Any) -> tuple[str, DeviceEntry]:
    """Name and line of a configuration.

    Raises:
        ConfigError: no device has such a configuration.
    """
    for name, entry in DEVICES.items():
        if entry.config is type(config):
            return name, entry
    raise ConfigError(f"no device has the configuration {type(config).__name__}")


def find_driver(config: Any) -> Any:
    """The class of a configuration's driver.

    Raises:
        DeviceError: something to install is missing.
    """
    name, entry = find_entry(config)
    module, driver = entry.driver.split(":")
    try:
        return getattr(import_module(f"alula.real_robot.devices.{module}"), driver)
    except ImportError as error:
        raise DeviceError(
            f"{name} needs the package {error.name}: install it by pip install 'alula[{entry.extra}]'"
        ) from error


def make_device(config: Any) -> Device:
    """The driver of a configuration; nothing is connected yet.

    Raises:
        DeviceError: something to install is missing, or the settings do not fit the device.
    """
    device: Device = find_driver(config)(config)
    device.spec = device.spec.slower(config.speed)
    return device

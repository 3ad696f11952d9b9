"""All kinds of cameras: the name on the command line, settings, driver."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from alula.core.errors import ConfigError, DeviceError
from alula.real_robot.cameras.camera import Driver
from alula.real_robot.cameras.config import CameraConfig, OpenCVConfig, RealSenseConfig, SyntheticConfig


@dataclass(frozen=True)
class CameraEntry:
    """One line of the table."""

    config: type[CameraConfig]
    driver: str
    """Where the driver's class is, as module:name below `alula.real_robot.cameras`; it takes the settings."""
    source: str | None
    """The setting that says which one of this kind it is; None where there is only one."""


CAMERAS = {
    "opencv": CameraEntry(OpenCVConfig, "opencv:OpenCVDriver", "source"),
    "realsense": CameraEntry(RealSenseConfig, "realsense:RealSenseDriver", "serial"),
    "synthetic": CameraEntry(SyntheticConfig, "synthetic:SyntheticDriver", None),
}


def camera_kind(config: CameraConfig) -> str:
    """Name in the table.

    Raises:
        ConfigError: no kind of camera has such a configuration.
    """
    for name, entry in CAMERAS.items():
        if entry.config is type(config):
            return name
    raise ConfigError(f"no camera has the configuration {type(config).__name__}; there are {', '.join(CAMERAS)}")


def make_driver(config: Any) -> Driver:
    """The driver of a configuration; nothing is connected yet.

    Raises:
        ConfigError: no kind of camera has such a configuration.
        DeviceError: something to install is missing.
    """
    name = camera_kind(config)
    module, driver = CAMERAS[name].driver.split(":")
    try:
        made: Driver = getattr(import_module(f"alula.real_robot.cameras.{module}"), driver)(config)
    except ImportError as error:
        raise DeviceError(
            f"{name} cameras cannot be used: {error}. Install them by pip install 'alula[cameras]'"
        ) from error
    return made

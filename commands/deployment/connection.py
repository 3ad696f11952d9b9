"""From the settings of a device to one that is connected, or to its emulator."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from alula.commands.deployment.emulating import start_emulation
from alula.core.errors import ConfigError
from alula.real_robot.contract import Device
from alula.real_robot.devices.registry import DEVICES, make_device


@contextmanager
def connected(config: Any, emulate: bool) -> Iterator[Device]:
    """A device, configured; it is let go of at the end.

    Args:
        config: Its settings.
        emulate: Whether to start its emulator instead of looking for the real one.

    Raises:
        ConfigError: none is chosen.
        DeviceError: it is not there, or not what it should be.
    """
    if config is None:
        raise ConfigError(f"device is missing; choose device=NAME with one of {', '.join(DEVICES)}")
    with ExitStack() as stack:
        if emulate:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            emulation, config = start_emulation(config, folder)
            stack.callback(emulation.end)
        device = make_device(config)
        stack.callback(device.close)
        device.configure()
        yield device

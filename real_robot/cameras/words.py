"""Cameras as the command line says them: NAME:KIND or NAME:KIND:SOURCE, like `front:opencv:/dev/video0`."""

import re
from dataclasses import dataclass
from typing import Any

from alula.core.errors import ConfigError, unknown_name
from alula.real_robot.cameras.process import CameraProcess
from alula.real_robot.cameras.registry import CAMERAS


@dataclass(frozen=True)
class CameraWords:
    """What was said of a camera."""

    name: str
    kind: str
    source: str
    """Which one of its kind; empty: whatever is the default."""

    @classmethod
    def read(cls, words: str) -> "CameraWords":
        """Take them apart.

        Raises:
            ConfigError: they name no camera.
        """
        name, _, rest = words.partition(":")
        kind, _, source = rest.partition(":")
        form = f"cameras has '{words}', needed is NAME:KIND or NAME:KIND:SOURCE, like front:opencv:/dev/video0; "
        if not re.fullmatch(r"[\w-]+", name):
            raise ConfigError(f"{form}a name is made of letters, digits, _ and -")
        if kind not in CAMERAS:
            raise ConfigError(form + unknown_name("kind of camera", kind, CAMERAS))
        if source and CAMERAS[kind].source is None:
            raise ConfigError(f"{form}there is only one {kind} camera: leave '{source}' out")
        return cls(name, kind, source)

    def make(self, width: int | None, height: int | None) -> CameraProcess:
        """The camera, not opened yet.

        Args:
            width: Of its pictures [pixel]; None: the usual one.
            height: See `width`.

        Raises:
            ConfigError: no picture has that size.
        """
        entry = CAMERAS[self.kind]
        settings: dict[str, Any] = {"width": width, "height": height}
        if entry.source is not None:
            settings[entry.source] = self.source or None
        said = {name: value for name, value in settings.items() if value is not None}
        return CameraProcess(self.name, entry.config(**said))

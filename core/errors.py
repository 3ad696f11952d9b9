"""Every error that alula raises on purpose: what, the value, what is permitted, and the remedy.

    AlulaError
    ├── ConfigError        a setting is unknown or has an impossible value
    ├── SpecError          two sides disagree about a space, or data does not fit its space
    ├── ActionError        an action that must not reach physics or a motor
    ├── DatasetError       a dataset is missing, empty, corrupt or cannot be written
    ├── CheckpointError    a checkpoint is missing, corrupt or made for something else
    ├── RenderError        no picture can be drawn on this machine
    └── DeviceError        a robot is absent, not what it should be, or not ready

The command line prints an `AlulaError` as one message; anything else is a defect and shows its traceback.
"""

import difflib
from collections.abc import Iterable


class AlulaError(Exception):
    """Base of all errors with a remedy in their message."""


class ConfigError(AlulaError):
    """A setting is unknown or its value is not permitted."""


class SpecError(AlulaError):
    """Two space specifications disagree, or an array does not fit its specification."""


class ActionError(AlulaError):
    """An action is not finite or has the wrong shape; physics has not seen it."""


class DatasetError(AlulaError):
    """A dataset cannot be read or written."""


class CheckpointError(AlulaError):
    """A checkpoint cannot be read or belongs to something else."""


class RenderError(AlulaError):
    """No OpenGL context could be made."""


class DeviceError(AlulaError):
    """A device is not there, not what it should be, or not ready."""


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> str:
    """Message for a name that is not in a table: the nearest valid name first, then all of them."""
    names = sorted(valid)
    near = [candidate for candidate in names if name in candidate] or difflib.get_close_matches(
        name, names, n=1, cutoff=0.5
    )
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"unknown {kind} '{name}'.{hint} Valid: {', '.join(names)}"

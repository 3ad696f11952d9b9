"""How a particular arm's servos are mounted: a file, written by `alula calibrate` and checked before anything moves.

{"version": 1, "device": "so101", "expires": "2027-01-31",
"servos": {"shoulder_pan": {"zero": 2048, "low": 798, "high": 3299, "homing_offset": -7}, ...}}
"""

import json
import os
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from alula.core.errors import DeviceError

VERSION = 1
"""Of the file's format."""
COUNTS_PER_TURN = 4096
"""Of all servos that we know."""
VALID_DAYS = 365
"""Age at which a calibration expires: our choice; screws loosen and horns slip."""
LEAST_RANGE = 100
"""Counts that a joint must have been moved through, 9 degrees: our choice."""

Counts = Int64[ndarray, " servos"]
COLUMNS = ("zero", "low", "high", "homing_offset")


@dataclass(frozen=True)
class Calibration:
    """One entry per servo, in the order of the arm's servos."""

    device: str
    """Name of the device in the table."""
    servos: tuple[str, ...]
    zero: tuple[int, ...]
    """Position at 0 rad [count]."""
    low: tuple[int, ...]
    high: tuple[int, ...]
    """Ends of the range that it was moved through by hand [count]."""
    homing_offset: tuple[int, ...]
    """What the servos' registers of that name held at the time; another arm's differ [count]."""
    expires: date

    @classmethod
    def load(cls, path: str, device: str, servos: tuple[str, ...]) -> "Calibration":
        """Read a file.

        Args:
            path: Of the file.
            device: Whose it must be.
            servos: Their names.

        Raises:
            DeviceError: there is none, it is incomplete, impossible, another device's, or too old.
        """
        remedy = f"calibrate the arm: alula calibrate device={device} device.address=PORT out=FILE"
        if not path:
            raise DeviceError(f"{device} needs its calibration, device.calibration=FILE; {remedy}")
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            version, owner = content["version"], content["device"]
            columns = {name: tuple(int(content["servos"][servo][name]) for servo in servos) for name in COLUMNS}
            found = cls(owner, servos, **columns, expires=date.fromisoformat(content["expires"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DeviceError(
                f"the calibration {path} cannot be read: {type(error).__name__} {error}. It is JSON with 'version', "
                f"'device', 'expires' and, for each of {', '.join(servos)} under 'servos', {', '.join(COLUMNS)}; "
                f"{remedy}"
            ) from None
        if version != VERSION or owner != device:
            raise DeviceError(
                f"the calibration {path} is of version {version} for '{owner}'; it must be of version {VERSION} for "
                f"'{device}': {remedy}"
            )
        try:
            found.require_possible()
        except DeviceError as error:
            raise DeviceError(f"the calibration {path} cannot be true: {error}; {remedy}") from None
        if date.today() > found.expires:
            raise DeviceError(f"the calibration {path} has expired on {found.expires}: {remedy}")
        return found

    def require_possible(self) -> None:
        """Check the ranges.

        Raises:
            DeviceError: a range is empty, does not hold its zero, or passes the end of the encoder.
        """
        for servo, low, zero, high in zip(self.servos, self.low, self.zero, self.high, strict=True):
            if not (0 <= low <= zero <= high < COUNTS_PER_TURN and high - low >= LEAST_RANGE):
                raise DeviceError(
                    f"{servo} has low {low}, zero {zero} and high {high} counts; they must rise, between 0 and "
                    f"{COUNTS_PER_TURN - 1}, by at least {LEAST_RANGE} together"
                )

    def save(self, path: Path) -> None:
        """Write the file; whatever happens, it is the old or the new one.

        Raises:
            DeviceError: it cannot be written.
        """
        columns = {name: getattr(self, name) for name in COLUMNS}
        servos = {
            servo: {name: column[index] for name, column in columns.items()} for index, servo in enumerate(self.servos)
        }
        content = {"version": VERSION, "device": self.device, "expires": self.expires.isoformat(), "servos": servos}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
                file.write(json.dumps(content, indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(file.name, path)
        except OSError as error:
            raise DeviceError(f"the calibration {path} cannot be written: {error}; choose another out=FILE") from None

    def angle(self, counts: Counts) -> Float64[ndarray, " servos"]:
        """Joint positions [rad]."""
        return (counts - np.array(self.zero)) * (2 * np.pi / COUNTS_PER_TURN)

    def counts(self, angle: Float64[ndarray, " servos"]) -> Counts:
        """Nearest positions of the servos."""
        return np.rint(angle * (COUNTS_PER_TURN / (2 * np.pi))).astype(np.int64) + np.array(self.zero)


def expiry(today: date) -> date:
    """Last day on which a calibration of today is valid."""
    return today + timedelta(days=VALID_DAYS)

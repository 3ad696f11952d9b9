"""`alula calibrate`: find out how an arm's servos are mounted, with a person who moves it."""

import os
import select
import sys
from datetime import date

import numpy as np
from rich.live import Live
from rich.table import Table

from alula.commands.console import ERR, OUT, Result, print_results
from alula.commands.inputs import required
from alula.configs.robots import CalibrateConfig
from alula.core.errors import ConfigError, DeviceError
from alula.real_robot.devices.calibrating import Calibrator, Ranges
from alula.real_robot.devices.calibration import COUNTS_PER_TURN, Calibration
from alula.real_robot.devices.config import ServoArmConfig
from alula.real_robot.devices.registry import DEVICES, find_driver
from alula.real_robot.devices.servos import Arm

LOOK_S = 0.05
"""Between two looks at the arm [s]."""
DEGREES = 360 / COUNTS_PER_TURN
"""A count."""


class Person:
    """Somebody who presses enter when something is done."""

    def __init__(self) -> None:
        self._said = b""

    def ready(self, seconds: float | None) -> bool:
        """Whether enter has been pressed, after waiting so long at most; None: as long as it takes.

        Raises:
            ConfigError: nobody is there.
        """
        while b"\n" not in self._said:
            if not select.select([sys.stdin], [], [], seconds)[0]:
                return False
            said = os.read(sys.stdin.fileno(), 1024)
            if not said:
                raise ConfigError("standard input has ended; this needs a person who moves the arm and presses enter")
            self._said += said
        _, _, self._said = self._said.partition(b"\n")
        return True


def run(config: CalibrateConfig, as_json: bool) -> None:
    """Calibrate the arm and write the file."""
    arm, out = _arm(config), required(config.out, "out", "arm.json")
    if out.exists() and not config.overwrite:
        raise ConfigError(f"'{out}' exists; give another out=FILE, or overwrite=true")
    calibrator, person = Calibrator(arm, config.device.address), Person()
    calibrator.connect()
    try:
        found = _calibrate(calibrator, person)
    finally:
        calibrator.close()
    found.save(out)
    OUT.print(f"{out}", markup=False)
    OUT.print(f"valid until {found.expires}. From now on: device={arm.name} device.calibration={out}", markup=False)
    if as_json:
        ways = zip(found.servos, found.low, found.high, strict=True)
        print_results(
            "calibrate", [Result(name, np.radians((high - low) * DEGREES), "rad") for name, low, high in ways]
        )


def _arm(config: CalibrateConfig) -> Arm:
    """The arm of the settings.

    Raises:
        ConfigError: there is none that could be calibrated.
    """
    able = [name for name, entry in DEVICES.items() if issubclass(entry.config, ServoArmConfig)]
    if not isinstance(config.device, ServoArmConfig):
        raise ConfigError(f"calibrate needs an arm made of servos: device=NAME with one of {', '.join(able)}")
    if not config.device.address:
        raise ConfigError("device.address is missing; give the serial port, for example device.address=/dev/ttyACM0")
    arm: Arm = find_driver(config.device).arm
    return arm


def _calibrate(calibrator: Calibrator, person: Person) -> Calibration:
    """Ask for what is to be done, and watch."""
    arm = calibrator.arm
    _ask(person, f"Support the {arm.name} with your hands: its motors lose their power now.")
    calibrator.release()
    _ask(person, f"Bring it to its zero pose and hold it there: {arm.zero_pose}.")
    calibrator.center()
    ERR.print("Move every joint to both of its ends, in any order; press enter when all have been there.")
    with Live(_table(arm, calibrator.look()), console=ERR, auto_refresh=False) as live:
        while not person.ready(LOOK_S):
            live.update(_table(arm, calibrator.look()), refresh=True)
    try:
        return calibrator.result(date.today())
    except DeviceError as error:
        raise DeviceError(f"nothing was written: {error}; begin anew") from None


def _ask(person: Person, what: str) -> None:
    ERR.print(f"{what} Press enter when that is so.", markup=False)
    person.ready(None)


def _table(arm: Arm, ranges: Ranges) -> Table:
    """Where every joint is and has been."""
    table = Table("joint", "lowest", "now", "highest")
    for servo in arm.servos:
        middle = ranges.zero[servo.number]
        angles = (values[servo.number] - middle for values in (ranges.low, ranges.present, ranges.high))
        table.add_row(servo.name, *(f"{DEGREES * value:.1f}°" for value in angles))
    return table

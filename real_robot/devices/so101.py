"""TheRobotStudio's SO-100 and SO-101: six STS3215 servos on one serial bus.

An STS has no watchdog: when its controller dies it keeps its last goal, under power. Goals are never farther ahead
than the governor's next step, so it stops where it was about to be; its torque is limited from activation on.

Sources:
    URDF: TheRobotStudio/SO-ARM100, Simulation/SO101/so101_new_calib.urdf (limits of the joints).
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from alula.core.errors import DeviceError
from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec
from alula.real_robot.codecs import feetech
from alula.real_robot.codecs.feetech import COUNTS_PER_TURN, Register
from alula.real_robot.contract import DeviceSpec, Limits, Receipt, State, Stop
from alula.real_robot.governor import SafeCommand
from alula.real_robot.serial_bus import SerialBus

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
SERVOS = (1, 2, 3, 4, 5, 6)
LOW = (-1.91986, -1.74533, -1.69, -1.65806, -2.74385, -0.17453)
HIGH = (1.91986, 1.74533, 1.69, 1.65806, 2.84121, 1.74533)
"""Of the joints [rad] (URDF)."""
VELOCITY, ACCELERATION, JERK = 2.0, 8.0, 100.0
"""Limits of motion [rad/s, rad/s^2, rad/s^3]: our choice, less than half of the servo's 4.7 rad/s without load."""
MARGIN = 0.02
"""Kept from the ends of the joints [rad]: our choice."""
RATE = 50.0
BAUD = 1_000_000
TORQUE_LIMIT = 500
"""Share of the stall torque [0.1 %]: our choice, enough to carry the arm, too little to hurt."""
SERVO_RAMP = 254
"""Acceleration of the servo's own ramp [100 count/s^2]: its greatest; the governor's is far below."""
ANSWER_SHARE = 0.7
"""Share of a period within which servos must have answered."""
SETUP_S = 0.2
"""Time for an answer while nothing moves yet."""
ATTEMPTS = 3
"""Times that memory is written until every servo confirms it."""
BLOCK = Register.POSITION.address, Register.LOAD.address + Register.LOAD.size - Register.POSITION.address
"""Address and size of what is read every period: position, velocity and load."""

Counts = Int64[ndarray, " action"]


@dataclass(frozen=True)
class Calibration:
    """How a particular arm's servos are mounted; one entry per joint, in the order of `JOINTS`."""

    zero: tuple[int, ...]
    """Position at 0 rad [count]."""
    low: tuple[int, ...]
    high: tuple[int, ...]
    """Ends of the range that it was moved through by hand [count]."""
    homing_offset: tuple[int, ...]
    """What the servos' registers of that name held at the time; another arm's differ [count]."""
    expires: date

    @classmethod
    def load(cls, path: Path) -> "Calibration":
        """Read `{"expires": "2027-01-31", "servos": {"shoulder_pan": {"zero": 2048, "low": ...}, ...}}`.

        Raises:
            DeviceError: there is none, it is incomplete, impossible, or too old.
        """
        names = ("zero", "low", "high", "homing_offset")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            columns = {name: tuple(int(content["servos"][joint][name]) for joint in JOINTS) for name in names}
            found = cls(**columns, expires=date.fromisoformat(content["expires"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DeviceError(
                f"the calibration {path} cannot be read: {type(error).__name__} {error}. It is JSON with "
                f"'expires' and, for each of {', '.join(JOINTS)} under 'servos', {', '.join(names)}; calibrate the arm"
            ) from None
        found._require_possible(path)
        return found

    def _require_possible(self, path: Path) -> None:
        for joint, low, zero, high in zip(JOINTS, self.low, self.zero, self.high, strict=True):
            if not 0 <= low < zero < high < COUNTS_PER_TURN:
                raise DeviceError(
                    f"the calibration {path} has low {low}, zero {zero} and high {high} counts for {joint}; "
                    f"they must rise, between 0 and {COUNTS_PER_TURN - 1}: calibrate the arm"
                )
        if date.today() > self.expires:
            raise DeviceError(f"the calibration {path} has expired on {self.expires}: calibrate the arm again")

    def angle(self, counts: Counts) -> Float64[ndarray, " action"]:
        """Joint positions [rad]."""
        return (counts - np.array(self.zero)) * (2 * np.pi / COUNTS_PER_TURN)

    def counts(self, angle: Float64[ndarray, " action"]) -> Counts:
        """Nearest positions of the servos."""
        return np.rint(angle * (COUNTS_PER_TURN / (2 * np.pi))).astype(np.int64) + np.array(self.zero)

    def limits(self) -> Limits:
        """Of motion: the joints' own, where this arm can go as far."""
        low = np.maximum(LOW, self.angle(np.array(self.low)))
        high = np.minimum(HIGH, self.angle(np.array(self.high)))
        velocity, acceleration, jerk = ((value,) * len(JOINTS) for value in (VELOCITY, ACCELERATION, JERK))
        return Limits(tuple(low.tolist()), tuple(high.tolist()), velocity, acceleration, jerk, MARGIN)


def specification(limits: Limits) -> DeviceSpec:
    """An SO-101 with these limits."""
    state = FieldSpec("observation.state", (len(JOINTS),), units=("rad",), element_names=JOINTS, rate=RATE)
    load = replace(state, name="observation.load", units=("1",))
    mode = ControlMode.JOINT_POSITION_ABSOLUTE
    action = replace(state, name="action", low=limits.low, high=limits.high, control_mode=mode)
    return DeviceSpec(
        name="so101",
        model=f"STS3215 (model {feetech.MODEL_STS3215}) on numbers 1 to {len(SERVOS)}",
        observation=SpaceSpec((state, load)),
        action=SpaceSpec((action,)),
        limits=limits,
        rate=RATE,
        stops=(Stop.HOLD, Stop.BRAKE, Stop.LIMP),
        device_watchdog=None,
    )


class SO101:
    """Driver of the arm.

    Args:
        port: Path of its serial adapter.
        calibration: File.
        limp_on_close: Whether `close` takes the torque away, so that the arm sinks.

    Raises:
        DeviceError: the calibration is missing, impossible, or too old.
    """

    def __init__(self, port: str, calibration: Path, limp_on_close: bool = True) -> None:
        self.calibration, self._limp_on_close = Calibration.load(calibration), limp_on_close
        self.spec = specification(self.calibration.limits())
        self._bus = SerialBus(port, BAUD, feetech)
        self._counts, self._speed, self._load = (np.zeros(len(SERVOS), dtype=np.int64) for _ in range(3))
        self._alerts = dict.fromkeys(SERVOS, 0)
        self._active, self._sequence, self._received_ns = False, 0, 0

    def configure(self) -> None:
        """Open the port and check that the servos are those of the calibration; nothing moves."""
        self._bus.open()
        try:
            self._require_identity()
        except DeviceError:
            self._bus.close()
            raise

    def _require_identity(self) -> None:
        silent = [servo for servo in SERVOS if self._bus.ping(servo, _soon(SETUP_S)) is None]
        if silent:
            raise DeviceError(
                f"servos {silent} on {self._bus.port} do not answer at {BAUD} baud; {self.spec.name} has "
                f"{self.spec.model}: check the power supply, the cables, and the numbers of the servos"
            )
        expected = dict.fromkeys(SERVOS, feetech.MODEL_STS3215)
        self._require(Register.MODEL, expected, "this is no SO-101")
        self._require(Register.MODE, dict.fromkeys(SERVOS, 0), "set the servos to position mode")
        homing = dict(zip(SERVOS, self.calibration.homing_offset, strict=True))
        self._require(Register.HOMING_OFFSET, homing, "the calibration is another arm's, or calibrate this one")

    def _require(self, register: Register, expected: Mapping[int, int], remedy: str) -> None:
        found = self._get(register)
        if found != expected:
            raise DeviceError(
                f"{register.name.lower()} of the servos on {self._bus.port} is {found}, must be {expected}: {remedy}"
            )

    def activate(self) -> State:
        """Limit the torque, make the present position the goal, and switch the motors on."""
        state = self.read(SETUP_S)
        if not state.valid.all() or state.faults:
            silent = [joint for joint, valid in zip(JOINTS, state.valid, strict=True) if not valid]
            problems = [self._bus.lost or "", f"no answer from {', '.join(silent)}" if silent else "", *state.faults]
            raise DeviceError(f"{self.spec.name} cannot be activated: {'; '.join(filter(None, problems))}")
        values = {Register.TORQUE_LIMIT: TORQUE_LIMIT, Register.ACCELERATION: SERVO_RAMP}
        wanted = {register: dict.fromkeys(SERVOS, value) for register, value in values.items()}
        wanted[Register.GOAL_POSITION] = dict(zip(SERVOS, self._counts.tolist(), strict=True))
        wanted[Register.TORQUE_ENABLE] = dict.fromkeys(SERVOS, 1)
        for register, data in wanted.items():
            if not self._set(register, data):
                self.stop(Stop.LIMP)
                raise DeviceError(f"{self.spec.name} does not confirm {register.name.lower()}: {self._get(register)}")
        self._active = True
        return self.read(SETUP_S)

    def read(self, patience: float = ANSWER_SHARE / RATE) -> State:
        """What the servos that answer within `patience` [s] say; the others' values stay."""
        replies = self._bus.read(SERVOS, *BLOCK, _soon(patience))
        for servo, reply in replies.items():
            index = SERVOS.index(servo)
            for array, register in (
                (self._counts, Register.POSITION),
                (self._speed, Register.VELOCITY),
                (self._load, Register.LOAD),
            ):
                start = register.address - BLOCK[0]
                array[index] = register.decode(reply.data[start : start + register.size])
            self._alerts[servo] = reply.alerts
        if replies:
            self._sequence, self._received_ns = self._sequence + 1, time.monotonic_ns()
        position = self.calibration.angle(self._counts)
        observation = {
            "observation.state": position.astype(np.float32),
            "observation.load": (self._load / 1000).astype(np.float32),
        }
        velocity = self._speed * (2 * np.pi / COUNTS_PER_TURN)
        valid = np.array([servo in replies for servo in SERVOS])
        return State(observation, position, velocity, valid, self._sequence, self._received_ns, self._faults())

    def _faults(self) -> tuple[str, ...]:
        return tuple(
            f"{joint} (servo {servo}): {complaint}"
            for joint, servo in zip(JOINTS, SERVOS, strict=True)
            for complaint in feetech.complaints(self._alerts[servo])
        )

    def write(self, command: SafeCommand) -> Receipt:
        """Make the command the servos' goals, all at once."""
        if not isinstance(command, SafeCommand):
            raise TypeError(f"a device takes a SafeCommand, not {type(command).__name__}")
        if not self._active:
            raise DeviceError(f"{self.spec.name} is not active; call activate first")
        goals = self.calibration.counts(command.position).tolist()
        sent = self._write(Register.GOAL_POSITION, dict(zip(SERVOS, goals, strict=True)))
        return Receipt(time.monotonic_ns(), sent, self._bus.lost or "")

    def stop(self, how: Stop) -> None:
        """Servos stop at their last goals and hold them, or lose their torque."""
        if how not in (Stop.HOLD, Stop.BRAKE):
            self._active = False
            self._set(Register.TORQUE_ENABLE, dict.fromkeys(SERVOS, 0))

    def close(self) -> None:
        """Let go of the port."""
        if self._limp_on_close:
            self.stop(Stop.LIMP)
        self._active = False
        self._bus.close()

    def _set(self, register: Register, data: Mapping[int, int]) -> bool:
        """Change a register until the servos confirm it; whether all did."""
        for _ in range(ATTEMPTS):
            self._write(register, data)
            if self._get(register) == data:
                return True
        return False

    def _write(self, register: Register, data: Mapping[int, int]) -> bool:
        return self._bus.write(register.address, {servo: register.encode(value) for servo, value in data.items()})

    def _get(self, register: Register) -> dict[int, int]:
        """A register of all servos that answer."""
        replies = self._bus.read(SERVOS, register.address, register.size, _soon(SETUP_S))
        return {servo: register.decode(reply.data) for servo, reply in replies.items()}


def _soon(seconds: float) -> int:
    return time.monotonic_ns() + round(seconds * 1e9)

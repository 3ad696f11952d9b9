"""Universal Robots UR5e: joints over the real-time data exchange, followed by a small program on the robot.

The robot streams its state 250 times a second; commands go out 125 times a second into registers, from which the
program (`ur5e_script.py`) takes them. When they stop coming, for whatever reason, the robot's own watchdog ends the
program and the robot stops. What the safety system does is final: it is reported as a fault, and only a person and a
new `configure` and `activate` end that.

Sources:
    RTDE: Universal Robots, "Real-time data exchange (RTDE) guide" (variables, modes, bits).
    Manual: Universal Robots e-Series user manual, UR5e (ranges and speeds of the joints); the elbow is held to half its
        range, as in Universal_Robots_ROS2_Description, config/ur5e, as the links would collide.
"""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.core.errors import DeviceError
from alula.core.geometry import rotation_from_axis_angle
from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec
from alula.real_robot.contract import DeviceSpec, Limits, Receipt, State, Stop
from alula.real_robot.devices.config import UR5eConfig
from alula.real_robot.devices.ur5e_script import COUNT, OBEYED, READY, SESSION, TARGETS, program
from alula.real_robot.devices.ur_link import Address, RTDEClient
from alula.real_robot.governor import SafeCommand

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")
WRENCH = ("force_x", "force_y", "force_z", "torque_x", "torque_y", "torque_z")
LOW = (-2 * np.pi, -2 * np.pi, -np.pi, -2 * np.pi, -2 * np.pi, -2 * np.pi)
HIGH = (2 * np.pi, 2 * np.pi, np.pi, 2 * np.pi, 2 * np.pi, 2 * np.pi)
"""Of the joints [rad] (Manual)."""
VELOCITY, ACCELERATION, JERK = 1.5, 10.0, 800.0
"""Limits of motion [rad/s, rad/s^2, rad/s^3]: our choice; the joints can do pi rad/s (Manual)."""
MARGIN = 0.02
"""Kept from the ends of the joints [rad]: our choice."""
FOLLOWING_LAGS = 2.5
"""Largest distance from the commands, in what servoj should lag behind at the greatest velocity: our choice."""
RATE = 125.0
"""Control periods per second [Hz]: our choice."""
STREAM_RATE = 250.0
"""At which the robot sends its state [Hz]: our choice, twice a control period; it can do 500 (RTDE)."""
START_S, END_S = 3.0, 3.0
"""How long a program may take to start, and to end with the arm at rest [s]: our choice."""
CLOSE_S = 0.5
"""How long the end of a program is waited for before hanging up [s]: our choice."""
AT_REST = 2e-3
"""Measured velocity that is taken for noise of a joint at rest [rad/s]: our choice."""
REST_S = 0.05
"""How long it must have been at rest to be believed so [s]: our choice; a swinging arm rests for moments."""
UNANSWERED_S = 0.2
"""Time for which commands may go out that the robot does not confirm [s]: our choice."""
PAYLOAD_ERROR = 0.05
"""Largest difference of the payload from what the pendant says [kg]: our choice."""
MOST_POSITION, MOST_VELOCITY, MOST_WRENCH, MOST_TIME = 7.0, 7.0, 1e4, 1e9
"""What is not below these is not believed [rad, rad/s, N and N m, s]: our choice, more than can be."""
CLOCK_ERROR = 1e-3
"""By how much the robot's clock may be slow: our choice, far more than crystals are."""
LAST_SESSION = 1_000_000
CHECKS = (
    ("PolyscopeVersion", r"URSoftware 5\..*", "it must be a robot of the e-Series with PolyScope 5"),
    ("get robot model", "UR5e?", "it must be a UR5e"),
    ("robotmode", "Robotmode: RUNNING", "switch the arm on and release its brakes, at the pendant"),
    ("safetystatus", "Safetystatus: (NORMAL|REDUCED)", "clear what stopped it, at the pendant"),
    ("is in remote control", "true", "choose remote control, in the upper right corner of the pendant"),
)
"""Questions to the dashboard, answers as regular expressions, and what to do about others."""
OUTPUTS = (
    *("timestamp", "actual_q", "actual_qd", "actual_TCP_pose", "actual_TCP_force", "payload"),
    *("robot_mode", "safety_status_bits", "runtime_state", OBEYED, READY),
)
ROBOT_MODES = {
    **{-1: "no controller", 0: "disconnected", 1: "confirm safety", 2: "booting", 3: "power off", 4: "power on"},
    **{5: "idle", 6: "backdrive", 7: "running", 8: "updating firmware"},
}
PROGRAM_STATES = {0: "stopping", 1: "stopped", 2: "playing", 3: "pausing", 4: "paused", 5: "resuming"}
"""By number (RTDE)."""
RUNNING, PLAYING = 7, 2
"""Those in which it moves."""
SAFETY_BITS = {
    **{2: "protective stop", 3: "recovery mode", 4: "safeguard stop", 5: "system emergency stop"},
    **{6: "robot emergency stop", 7: "emergency stop", 8: "safety violation", 9: "safety fault"},
    10: "stopped by its safety system",
}
"""Bits of the safety status that keep it from moving (RTDE); 0 is normal, 1 reduced."""

Joints = Float64[ndarray, "6"]


def specification(config: UR5eConfig) -> DeviceSpec:
    """A UR5e with these settings."""
    count = len(JOINTS)
    state = FieldSpec("observation.state", (count,), units=("rad",), element_names=JOINTS, rate=RATE)
    velocity = replace(state, name="observation.velocity", units=("rad/s",))
    wrench = FieldSpec("observation.wrench", (6,), units=("N",) * 3 + ("N m",) * 3, element_names=WRENCH, rate=RATE)
    mode = ControlMode.JOINT_POSITION_ABSOLUTE
    velocity_limit, acceleration, jerk = ((value,) * count for value in (VELOCITY, ACCELERATION, JERK))
    following = (FOLLOWING_LAGS * VELOCITY * (config.lookahead + 2 / config.gain**0.5),) * count
    return DeviceSpec(
        name="ur5e",
        model="UR5e with PolyScope 5",
        observation=SpaceSpec((state, velocity, wrench)),
        action=SpaceSpec((replace(state, name="action", low=LOW, high=HIGH, control_mode=mode),)),
        limits=Limits(LOW, HIGH, velocity_limit, acceleration, jerk, MARGIN, following),
        rate=RATE,
        stops=(Stop.HOLD, Stop.BRAKE),
        device_watchdog=config.watchdog,
    )


class UR5e:
    """Driver of the arm.

    `observation.wrench` is what the tool does to its surroundings, along the tool's axes, at the tool's point (TCP) of
    the pendant's installation: what pushes against the tip of a tool that points down has a positive z, as the sensors
    of the simulated tasks say it.

    Args:
        config: Settings.

    Raises:
        DeviceError: the address is none.
    """

    def __init__(self, config: UR5eConfig) -> None:
        self.config, self.spec = config, specification(config)
        self._address = Address.parse(config.address)
        self._link = RTDEClient(self._address)
        self._values: dict[str, Any] = {}
        """What the robot said last, as it said it; and what of it could be believed:"""
        self._position, self._velocity, self._wrench = np.zeros(len(JOINTS)), np.zeros(len(JOINTS)), np.zeros(6)
        self._valid = np.zeros(len(JOINTS), dtype=bool)
        self._time, self._apart = -np.inf, np.inf
        """The robot's clock at the last news [s], and how far ours is ahead of it [ns]."""
        self._sequence, self._received_ns, self._moved_ns = 0, 0, 0
        self._session = self._count = 0
        """Of the program that follows us, 0 if none does; commands sent to it."""
        self._started = False
        """Whether a program of ours may still run."""

    def configure(self) -> None:
        """Connect and check that it is a UR5e that may be moved from here; nothing moves."""
        self.close()
        self._session, self._values = 0, {}
        self._time, self._apart = -np.inf, np.inf
        self._require_ready()
        self._link.open(OUTPUTS, (*TARGETS, COUNT, SESSION), STREAM_RATE)
        try:
            if not self._await(lambda: True, START_S):
                raise DeviceError(f"{self.spec.name} at {self.config.address} sends no state: {self._link.lost}")
            payload, mass = self._values["payload"], self.config.tool_mass
            if not abs(payload - mass) <= PAYLOAD_ERROR:
                raise DeviceError(
                    f"the pendant says that the arm carries {payload} kg, device.tool_mass is {mass} kg: correct the "
                    "one that is wrong"
                )
        except DeviceError:
            self._link.close()
            raise

    def _require_ready(self) -> None:
        """Ask the dashboard who it is, and whether it may be moved from here.

        Raises:
            DeviceError: it is another robot, or not ready.
        """
        answers = self._address.ask(question for question, _, _ in CHECKS)
        problems = [
            f"'{answer}' to '{question}', not '{expected}': {remedy}"
            for answer, (question, expected, remedy) in zip(answers, CHECKS, strict=True)
            if not re.fullmatch(expected, answer)
        ]
        if problems:
            raise DeviceError(f"{self.spec.name} at {self.config.address} answers {'; '.join(problems)}")

    def _await(self, reached: Callable[[], bool], seconds: float) -> bool:
        """Go on reading until something is so; whether it came to be in this time [s]."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and self._link.lost is None:
            if self._update(left) and reached():
                return True
        return False

    def activate(self) -> State:
        """Start the program that will follow commands; the arm stays where it is."""
        self.stop(Stop.HOLD)
        self._require(self._problems())
        self._require_ready()
        self._moved_ns = time.monotonic_ns()
        if not self._await(lambda: self._values["runtime_state"] != PLAYING and self._rests, END_S):
            self._require(self._problems() or self._unrest())
        self._require(self._problems())
        # Never what the register holds already, so that an old program is not taken for the new one.
        self._session, self._count = self._values[READY] % LAST_SESSION + 1, 0
        self._send(self._position)
        config, self._started = self.config, True
        text = program(self._session, config.watchdog, config.lookahead, config.gain)
        try:
            with self._address.run(text):
                if not self._await(lambda: self._values[READY] == self._session and not self._problems(), START_S):
                    self._require(self._problems() or ("its program does not start",))
        except DeviceError:
            self.stop(Stop.HOLD)
            raise
        return self.read()

    def _require(self, problems: tuple[str, ...]) -> None:
        """Go on only without problems, and with all joints known.

        Raises:
            DeviceError: otherwise.
        """
        if problems or not self._valid.all():
            silent = [joint for joint, valid in zip(JOINTS, self._valid, strict=True) if not valid]
            what = [*problems, *([f"no position of {', '.join(silent)}"] if silent else [])]
            raise DeviceError(f"{self.spec.name} cannot be activated: {'; '.join(what)}")

    def _unrest(self) -> tuple[str, ...]:
        """Why nothing can be begun."""
        if self._values["runtime_state"] == PLAYING:
            return ("it runs another program: stop that at the pendant",)
        if not self._rests:
            return (f"it does not come to rest: {self._velocity.tolist()} rad/s",)
        return (f"it has said nothing for {END_S} s",)

    def read(self) -> State:
        """What the robot said last; waits for nothing."""
        self._update()
        measured = {"state": self._position, "velocity": self._velocity, "wrench": self._wrench}
        return State(
            observation={f"observation.{name}": value.astype(np.float32) for name, value in measured.items()},
            position=self._position.copy(),
            velocity=self._moving,
            valid=self._valid & (self._link.lost is None),
            sequence=self._sequence,
            received_ns=self._received_ns,
            faults=self._problems(),
        )

    @property
    def _rests(self) -> bool:
        """Whether it has stood still for long enough."""
        return self._received_ns - self._moved_ns > REST_S * 1e9

    @property
    def _moving(self) -> Joints:
        """Velocities without noise [rad/s]."""
        return np.where(np.abs(self._velocity) < AT_REST, 0.0, self._velocity)

    def _update(self, patience: float = 0.0) -> bool:
        """Take what has come in this time [s]; whether it is news, which nothing is that repeats an older time."""
        values = self._link.newest(patience)
        if values is None or not self._time < values["timestamp"] < MOST_TIME:
            return False
        self._values, self._time, self._sequence = values, values["timestamp"], self._sequence + 1
        self._received_ns = self._arrival(1e9 * self._time)
        position, velocity = np.array(values["actual_q"]), np.array(values["actual_qd"])
        known, measured = np.abs(position) < MOST_POSITION, np.abs(velocity) < MOST_VELOCITY
        self._position = np.where(known, position, self._position)
        self._velocity = np.where(measured, velocity, self._velocity)
        self._valid = known & measured
        if self._moving.any():
            self._moved_ns = self._received_ns
        wrench = np.array([*values["actual_TCP_force"], *values["actual_TCP_pose"][3:]])
        if (np.abs(wrench) < MOST_WRENCH).all():
            # It is told along the axes of the base, and as what the world does to the tool.
            force, torque, turn = wrench.reshape(3, 3)
            tool = rotation_from_axis_angle(turn[None])[0]
            self._wrench = -np.concatenate([force @ tool, torque @ tool])
        return True

    def _arrival(self, made: float) -> int:
        """When news should have arrived that the robot made at this time of its own [ns]: later is no excuse.

        The two clocks are compared by the quickest news; that is forgotten slowly, since no two run alike.
        """
        now = time.monotonic_ns()
        self._apart = min(self._apart + CLOCK_ERROR * (now - self._received_ns), now - made)
        return round(made + self._apart)

    def _problems(self) -> tuple[str, ...]:
        return tuple(self._complaints())

    def _complaints(self) -> Iterator[str]:
        """What speaks against moving, in words."""
        if self._link.lost is not None:
            yield f"no connection: {self._link.lost}"
        if not self._values:
            return
        mode, bits, state = (self._values[name] for name in ("robot_mode", "safety_status_bits", "runtime_state"))
        yield from (words for bit, words in SAFETY_BITS.items() if bits >> bit & 1)
        if mode != RUNNING:
            yield f"the arm's mode is {ROBOT_MODES.get(mode, mode)}"
        if self._session and state != PLAYING:
            said = f", the robot says '{self._link.message}'" if self._link.message else ""
            yield f"its program is {PROGRAM_STATES.get(state, state)}{said}"
        unanswered = self._count - self._values[OBEYED]
        if self._session and unanswered > UNANSWERED_S * RATE:
            yield f"it does not confirm the last {unanswered} commands"

    def write(self, command: SafeCommand) -> Receipt:
        """Tell the program on the robot where to go."""
        if not isinstance(command, SafeCommand):
            raise TypeError(f"a device takes a SafeCommand, not {type(command).__name__}")
        if not self._session:
            raise DeviceError(f"{self.spec.name} is not active; call activate first")
        self._count += 1
        sent = self._send(command.position)
        return Receipt(time.monotonic_ns(), sent, self._link.lost or "")

    def _send(self, position: Joints) -> bool:
        targets = dict(zip(TARGETS, position.tolist(), strict=True))
        return self._link.send({**targets, COUNT: self._count, SESSION: self._session})

    def stop(self, how: Stop) -> None:
        """End the program: the arm brakes, and holds under power. There is no way that is more final from here."""
        if self._session:
            self._session = 0
            self._send(self._position)

    def close(self) -> None:
        """Hang up; the arm holds."""
        self.stop(Stop.HOLD)
        if self._started:
            self._started = False
            self._await(lambda: self._values["runtime_state"] != PLAYING, CLOSE_S)
        self._link.close()

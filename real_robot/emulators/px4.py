"""A PX4 multicopter made of software, on UDP: `python -m alula.real_robot.emulators.px4 SETUP.json`, see `console.py`.

The frames of the driver are not used here: setpoints are taken apart byte by byte, and turned into the plant's frame,
which is the driver's, by a second reading of the protocol. A setpoint that carries velocity and acceleration is a
command that the judge judges by the limits; one with a position alone (take-off, proof of life) may only not jump.

Setup, beside that of every emulator:
    battery     share of the charge at the beginning
    parameters  values of parameters that differ from the factory's
"""

import math
import struct
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from pymavlink.dialects.v20 import common

from alula.real_robot.emulators.console import Console, read_setup
from alula.real_robot.emulators.faults import FaultPlan
from alula.real_robot.emulators.judge import Judge
from alula.real_robot.emulators.plant import MOST_BEHIND_NS, QuadcopterPlant
from alula.real_robot.emulators.px4_commander import ACCEPTED, FAILED, PARAMETERS, UNSUPPORTED, Commander, Setpoint
from alula.real_robot.emulators.px4_telemetry import Telemetry
from alula.real_robot.emulators.px4_wire import FAULTS as WIRE_FAULTS
from alula.real_robot.emulators.px4_wire import TO_HOST, TO_VEHICLE, Wire

FAULTS: dict[str, str] = {
    **WIRE_FAULTS,
    "heartbeat_only": "nothing but heartbeats comes from the vehicle",
    "frozen": "the same measurement comes again and again, with its old stamp",
    "stamp_backwards": "stamps are `value` ms older than they should be",
    "nan": "the measured position is not a number",
    "quaternion_flip": "the measured attitude has the other sign, which means the same",
    "quaternion_scale": "the measured attitude has the length `value`",
    "frame": "measurements come in another frame",
    "estimator_reset": "the estimated position jumps by `value` m to the east, and the vehicle says so",
    "position_lost": "the estimator loses its position; the vehicle lands by its failsafe",
    "arming_denied": "the rotors cannot be switched on",
    "hold_refused": "the mode Hold is refused, as without a global position",
    "pilot": "a pilot takes over, in Position mode",
    "geofence": "the vehicle's own geofence is hit; it holds",
    "motor": "a motor stops",
    "battery": "the battery has a charge of `value` at most (0 to 1)",
    "autopilot": "it says that it runs ArduPilot",
    "vehicle": "it says that it is a fixed-wing aircraft",
    "version": "it says that it runs PX4 1.12",
}
SYSTEM, COMPONENT = 1, 1
SETPOINT = struct.Struct("<I11fHBBB")
"""SET_POSITION_TARGET_LOCAL_NED: its fields by size, as MAVLink orders them; zeros at the end may be missing."""
HEADER = 10
"""Bytes before the payload of MAVLink 2; the second is the payload's length."""
IGNORE_POSITION, IGNORE_VELOCITY, IGNORE_ACCELERATION = 0x007, 0x038, 0x1C0
IGNORE_YAW, IGNORE_YAW_RATE = 0x400, 0x800
LOCAL_NED = 1
ROUNDING = float(np.spacing(np.float32(4.0)))
"""Of positions in single precision, in rooms of this size [m]."""
REMEMBERED = 50
"""Measurements of which the first command may repeat one: half a second of them."""
PLACE_SPEED, JUMP = 2.0, 0.1
"""How fast positions alone may move [m/s], and the time by which they may be ahead, as messages do not come evenly [s]:
our choice, twice as fast as take-offs are."""
TICK_S = 0.004


def prepare(config: Any, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What this emulator needs beside the setup of all, and what changes in the device's settings."""
    del config, folder
    return {}, {"address": "udpin:127.0.0.1:0"}


class Witness:
    """Reads setpoints off the wire for the judge.

    Args:
        judge: Who is told.
        strict: Whether positions alone are judged.
    """

    def __init__(self, judge: Judge, strict: bool) -> None:
        self._judge, self._strict = judge, strict
        self.measured: deque[ndarray] = deque(maxlen=REMEMBERED)
        """What the vehicle has said of where it is, newest last."""
        self._goal: ndarray | None = None
        """The last command; None where none came since the last position alone."""
        self._place, self._place_ns = np.zeros(3), 0

    def see(self, setpoint: Setpoint, now_ns: int) -> bool:
        """Tell of a setpoint; whether it was a command."""
        if setpoint.position is None:
            return False
        if setpoint.velocity is None or setpoint.acceleration is None or setpoint.yaw is None:
            self._goal = None
            self._see_place(setpoint.position, now_ns)
            return False
        goal = np.append(setpoint.position, setpoint.yaw)
        if self._goal is None:
            said = min(self.measured, key=lambda place: _distance(place, goal))
            self._judge.start(dict(enumerate(said.tolist())))
            self._goal = said
        goal[3] = self._goal[3] + math.remainder(goal[3] - self._goal[3], 2 * math.pi)
        self._goal = goal
        details = {"velocity": setpoint.velocity.tolist(), "yaw_rate": setpoint.yaw_rate}
        self._judge.command(dict(enumerate(goal.tolist())), **details)
        return True

    def _see_place(self, place: Float64[ndarray, "3"], now_ns: int) -> None:
        since, last = (now_ns - self._place_ns) / 1e9, self._place
        if since > 1.0 and self.measured:
            last, since = self.measured[-1][:3], 0.0
        jumps = self._strict and not np.linalg.norm(place - last) <= PLACE_SPEED * (since + JUMP)
        said = [f"a position alone goes from {last.tolist()} to {place.tolist()} in {since:.3f} s"]
        self._judge.note("place", said if jumps else [], place=place.tolist())
        self._place, self._place_ns = place, now_ns


def _distance(place: ndarray, goal: ndarray) -> float:
    turn = math.remainder(place[3] - goal[3], 2 * math.pi)
    return float(np.linalg.norm(np.append(place[:3] - goal[:3], turn)))


def read_setpoint(frame_v2: bytes) -> Setpoint | None:
    """What SET_POSITION_TARGET_LOCAL_NED asks for, in the plant's frame; None where its frame is another."""
    payload = frame_v2[HEADER : HEADER + frame_v2[1]]
    _, *numbers, mask, _, _, frame = SETPOINT.unpack(payload.ljust(SETPOINT.size, b"\0"))
    if frame != LOCAL_NED:
        return None
    position, velocity, acceleration = (
        None if mask & ignored else np.array([numbers[at + 1], numbers[at], -numbers[at + 2]])
        for at, ignored in ((0, IGNORE_POSITION), (3, IGNORE_VELOCITY), (6, IGNORE_ACCELERATION))
    )
    yaw = None if mask & IGNORE_YAW else math.pi / 2 - numbers[9]
    return Setpoint(position, velocity, acceleration, yaw, 0.0 if mask & IGNORE_YAW_RATE else -numbers[10])


class Emulator:
    """A vehicle, its world and the wire to it."""

    def __init__(self, setup: dict[str, Any]) -> None:
        scene = setup.get("scene") or {}
        task = scene.get("task") or "hover"
        settings = scene.get("settings") or {"action_mode": "velocity"}
        self.faults = FaultPlan(setup.get("faults") or (), FAULTS, setup.get("seed", 0))
        self.plant = QuadcopterPlant(task, settings, scene.get("tracker"), scene.get("view", False))
        self.plant.battery = setup.get("battery", 1.0)
        limits = setup.get("limits")
        self.judge = Judge(Path(setup["log"]), limits, (ROUNDING,) * 4)
        self.witness = Witness(self.judge, limits is not None)
        self.wire = Wire(self.faults)
        self.commander = Commander(self.plant, self.faults, self.judge, self._say, setup.get("parameters") or {})
        self.telemetry = Telemetry(self.commander, self.faults, time.monotonic_ns() - 10**9)
        self._last_ns = self._vehicle_ns = time.monotonic_ns()
        """When time was let pass last, and the clock of the vehicle's timers: like its world's, it slows down on a host
        that is late, so that the computer does not seem silent where this process was."""
        self._packer = common.MAVLink(None, SYSTEM, COMPONENT)
        self._seen, self._heard = common.MAVLink(None), common.MAVLink(None)
        self._seen.robust_parsing = self._heard.robust_parsing = True

    def pass_time(self) -> None:
        """Receive, decide, fly and report."""
        now = time.monotonic_ns()
        self._vehicle_ns += min(now - self._last_ns, MOST_BEHIND_NS)
        self._last_ns = now
        for data in self.wire.arrivals():
            self._witness(data, now)
            self.wire.put(TO_VEHICLE, data, now)
        for data in self.wire.arrived(TO_VEHICLE, now):
            for message in self._heard.parse_buffer(data) or ():
                self._answer(message, now)
        self.commander.advance(self._vehicle_ns)
        self.plant.advance(now)
        for message in self.telemetry.due(now):
            if message.get_type() == "ODOMETRY":
                self.witness.measured.append(self.telemetry.measured())
            self._send(message)
        self.wire.flush(time.monotonic_ns())

    def _witness(self, data: bytes, now: int) -> None:
        for message in self._seen.parse_buffer(data) or ():
            if message.get_type() == "SET_POSITION_TARGET_LOCAL_NED":
                setpoint = read_setpoint(bytes(message.get_msgbuf()))
                if setpoint is not None and self.witness.see(setpoint, now):
                    self.faults.power()
                    self.faults.command()

    def _send(self, message: Any) -> None:
        self.wire.put(TO_HOST, message.pack(self._packer), time.monotonic_ns())

    def _say(self, severity: int, text: str) -> None:
        self.judge.note("text", text=text)
        self._send(common.MAVLink_statustext_message(severity, text.encode()))

    def _answer(self, message: Any, now: int) -> None:
        sender = message.get_srcSystem(), message.get_srcComponent()
        match message.get_type():
            case "SET_POSITION_TARGET_LOCAL_NED":
                setpoint = read_setpoint(bytes(message.get_msgbuf()))
                if setpoint is not None:
                    self.commander.take(setpoint, self._vehicle_ns)
            case "COMMAND_LONG":
                fields = tuple(getattr(message, f"param{number}") for number in range(1, 8))
                self._obey(message.command, fields, sender)
            case "COMMAND_INT":
                four = (message.param1, message.param2, message.param3, message.param4)
                self._obey(message.command, (*four, message.x, message.y, message.z), sender)
            case "PARAM_REQUEST_READ" | "PARAM_SET" | "PARAM_REQUEST_LIST":
                self._tell_parameters(message)
            case "TIMESYNC" if message.tc1 == 0:
                self._send(common.MAVLink_timesync_message(now, message.ts1, *sender))
            case "PING" if message.target_system == 0:
                self._send(common.MAVLink_ping_message(message.time_usec, message.seq, *sender))

    def _obey(self, command: int, parameters: tuple[float, ...], sender: tuple[int, int]) -> None:
        asked = None
        match command:
            case common.MAV_CMD_SET_MESSAGE_INTERVAL:
                known = self.telemetry.set_interval(int(parameters[0]), parameters[1])
                result = ACCEPTED if known else FAILED
            case common.MAV_CMD_REQUEST_MESSAGE:
                asked = self.telemetry.build(int(parameters[0]))
                result = UNSUPPORTED if asked is None else ACCEPTED
            case _:
                result = self.commander.obey(command, parameters)
                self.judge.note("order", command=command, parameters=parameters[:3], result=result)
        self._send(common.MAVLink_command_ack_message(command, result, 0, 0, *sender))
        if asked is not None:
            self._send(asked)

    def _tell_parameters(self, message: Any) -> None:
        names = sorted(PARAMETERS)
        if message.get_type() == "PARAM_REQUEST_READ" and message.param_index >= 0:
            names = names[message.param_index : message.param_index + 1]
        elif message.get_type() != "PARAM_REQUEST_LIST":
            names = [name for name in names if name == message.param_id]
        if message.get_type() == "PARAM_SET" and names:
            whole = PARAMETERS[names[0]][0] == common.MAV_PARAM_TYPE_INT32
            value = np.float32(message.param_value)
            self.commander.parameters[names[0]] = float(value.view(np.int32) if whole else value)
        for name in names:
            self._send(self.telemetry.parameter(name))


def main() -> None:
    """Serve until standard input ends."""
    emulator = Emulator(read_setup())
    console = Console(emulator.wire.address, emulator.plant, emulator.judge, emulator.faults)
    while not console.ended:
        if emulator.wire.wait(console, TICK_S):
            console.answer()
        emulator.pass_time()


if __name__ == "__main__":
    main()

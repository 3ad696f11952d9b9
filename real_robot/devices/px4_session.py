"""A conversation with a PX4: finding it, checking what it is, asking and commanding."""

import time
from collections.abc import Callable, Iterable
from typing import NoReturn

from pymavlink.dialects.v20 import common

from alula.core.errors import DeviceError
from alula.real_robot.codecs import mavlink
from alula.real_robot.codecs.mavlink import Message
from alula.real_robot.devices.px4_link import MavlinkLink
from alula.real_robot.devices.px4_vehicle import TELEMETRY_LOST_S, Vehicle

OFFBOARD_LOSS_S = 1.0
"""PX4's `COM_OF_LOSS_T` as it comes from the factory [s]; ours must not be longer."""
PARAMETERS = {
    "COM_OF_LOSS_T": (0.05, OFFBOARD_LOSS_S, "time without setpoints after which it protects itself [s]"),
    "COM_OBL_RC_ACT": (0, 5, "what it does then: 0 holds its position, 3 returns, 4 lands, 5 holds"),
    "COM_FAIL_ACT_T": (0, 30, "how long it holds before it does that [s]"),
    "COM_RC_LOSS_T": (0, 5, "time without remote control that it bears [s]"),
    "COM_DISARM_LAND": (0.1, 30, "time on the ground after which its rotors stop [s]"),
}
"""Name, least and most that are permitted (our choice), and meaning."""
DRIFTING = (1, 2)
"""Values of COM_OBL_RC_ACT between those that hold a place: without a pilot it would drift off."""
STREAMS = {
    common.MAVLINK_MSG_ID_ODOMETRY: 100.0,
    common.MAVLINK_MSG_ID_EXTENDED_SYS_STATE: 5.0,
    common.MAVLINK_MSG_ID_ESTIMATOR_STATUS: 5.0,
    common.MAVLINK_MSG_ID_BATTERY_STATUS: 2.0,
}
"""What it is to tell of itself, and how often [Hz]: twice per period where it is, so that one lost message is none."""
OLDEST = (1, 14)
"""Version from which on the parameters above mean what they say."""
MULTICOPTERS = (
    common.MAV_TYPE_QUADROTOR,
    common.MAV_TYPE_HEXAROTOR,
    common.MAV_TYPE_OCTOROTOR,
    common.MAV_TYPE_TRICOPTER,
    common.MAV_TYPE_COAXIAL,
    common.MAV_TYPE_DODECAROTOR,
    common.MAV_TYPE_DECAROTOR,
)
HEARTBEAT_NS, QUESTION_NS = 1_000_000_000, 100_000_000
"""Between two heartbeats of ours, and between two that the vehicle is asked for: by itself it tells its mode once a
second only, and does not let that rate be changed."""
HEARTBEAT_WAIT_S = 3.0
"""How long a vehicle is waited for that says something once a second [s]."""
PATIENCE_S, ATTEMPTS = 0.25, 10
"""How long an answer is waited for [s], and how often the question is put."""
STOP_PATIENCE_S, STOP_ATTEMPTS = 0.1, 5
"""The same when something must stop."""
REFUSED_S = 0.3
"""How long after a refusal its reason is waited for, and a second try [s]."""
IN_PROGRESS = common.MAV_RESULT_IN_PROGRESS
SLICE_S = 0.005
"""Longest single wait for a message while something else is due [s]."""
MODEL = f"PX4 {OLDEST[0]}.{OLDEST[1]} or newer on a multicopter"
"""What it must be."""


class Session:
    """Talks with one vehicle.

    Args:
        address: See `MavlinkLink`.
        period_ns: Between two messages that are sent while something is waited for [ns].

    Raises:
        DeviceError: the address is none.
    """

    def __init__(self, address: str, period_ns: int) -> None:
        self.link, self._period_ns = MavlinkLink(address), period_ns
        self.vehicle = Vehicle(0)
        self.connected = False
        self._heartbeat_ns = self._question_ns = 0

    def connect(self) -> None:
        """Find the vehicle, check what it is and how it protects itself, and have it tell of its motion.

        Raises:
            DeviceError: it is not there, not what it must be, or tells nothing.
        """
        self.connected = False
        self.link.open()
        self._find()
        self.connected = True
        self._require_version()
        for message, rate in STREAMS.items():
            self.command(mavlink.ask_for_stream(self.vehicle.system, message, rate), "stream what it measures")
        for name in PARAMETERS:
            self._require_parameter(name)
        vehicle = self.vehicle
        if not self.listen(
            HEARTBEAT_WAIT_S, lambda: vehicle.battery_known and vehicle.silence(now()) < TELEMETRY_LOST_S
        ):
            self.explain("does not tell enough of itself", vehicle.complaints(now()))

    def close(self) -> None:
        """Let go of the link."""
        self.connected = False
        self.link.close()

    def _find(self) -> None:
        """Listen for a vehicle's heartbeat."""
        end, heard = now() + round(HEARTBEAT_WAIT_S * 1e9), set[str]()
        while now() < end:
            self._keep_alive()
            for message, arrived in self.link.receive(SLICE_S):
                autopilot = message.get_type() == "HEARTBEAT" and message.autopilot != common.MAV_AUTOPILOT_INVALID
                if autopilot and message.get_srcComponent() == common.MAV_COMP_ID_AUTOPILOT1:
                    self._require_identity(message)
                    self.vehicle = Vehicle(message.get_srcSystem())
                    self.link.join(message.get_srcSystem())
                    self.vehicle.hear(message, arrived)
                    return
                heard.add(message.get_type())
        others = f"; only {', '.join(sorted(heard))} came" if heard else ""
        raise DeviceError(
            f"no vehicle's heartbeat came in {HEARTBEAT_WAIT_S} s at {self.link.address}{others}: check the address, "
            "the power, and that PX4 sends MAVLink there"
        )

    def _require_identity(self, heartbeat: Message) -> None:
        if heartbeat.autopilot != common.MAV_AUTOPILOT_PX4:
            found = common.enums["MAV_AUTOPILOT"].get(heartbeat.autopilot)
            name = found.name.removeprefix("MAV_AUTOPILOT_") if found else heartbeat.autopilot
            raise DeviceError(f"the autopilot at {self.link.address} is {name}, must be {MODEL}")
        if heartbeat.type not in MULTICOPTERS:
            found = common.enums["MAV_TYPE"].get(heartbeat.type)
            name = found.name.removeprefix("MAV_TYPE_") if found else heartbeat.type
            raise DeviceError(f"the vehicle at {self.link.address} is a {name}, must be {MODEL}")

    def _require_version(self) -> None:
        vehicle = self.vehicle
        for _ in range(ATTEMPTS):
            self.link.send(mavlink.ask_for(vehicle.system, common.MAVLINK_MSG_ID_AUTOPILOT_VERSION))
            if self.listen(PATIENCE_S, lambda: vehicle.version is not None):
                break
        if vehicle.version is None:
            raise DeviceError(f"the vehicle at {self.link.address} does not tell its version: check the link")
        found = mavlink.version(vehicle.version)
        if found < OLDEST:
            text = ".".join(map(str, found))
            raise DeviceError(f"the vehicle at {self.link.address} runs PX4 {text}, must be {MODEL}: update")

    def _require_parameter(self, name: str) -> None:
        low, high, meaning = PARAMETERS[name]
        for _ in range(ATTEMPTS):
            self.link.send(mavlink.ask_for_parameter(self.vehicle.system, name))
            if self.listen(PATIENCE_S, lambda: name in self.vehicle.parameters):
                break
        else:
            raise DeviceError(f"the vehicle at {self.link.address} does not tell its parameter {name}: check the link")
        value = self.vehicle.parameters[name]
        drifting = name == "COM_OBL_RC_ACT" and value in DRIFTING
        if not low <= value <= high or drifting:
            allowed = f"{low} to {high}" + (f" without {DRIFTING}" if drifting else "")
            raise DeviceError(f"the vehicle's {name} is {value:g}, allowed are {allowed}; it is the {meaning}: set it")

    def _keep_alive(self) -> None:
        """Our heartbeat, and a question for the vehicle's, when they are due."""
        if now() - self._heartbeat_ns >= HEARTBEAT_NS and self.link.send(mavlink.heartbeat()):
            self._heartbeat_ns = now()
        if self.connected and now() - self._question_ns >= QUESTION_NS:
            self._question_ns = now()
            self.link.send(mavlink.ask_for(self.vehicle.system, common.MAVLINK_MSG_ID_HEARTBEAT))

    def hear(self, wait: float = 0.0) -> None:
        """Take everything that has come."""
        for message, arrived in self.link.receive(wait):
            self.vehicle.hear(message, arrived)
        self._keep_alive()

    def listen(self, seconds: float, until: Callable[[], bool], send: Callable[[], None] = lambda: None) -> bool:
        """Take what comes until something is true, and send something every period; whether it came true."""
        begun = due = now()
        while not until():
            if now() - begun > seconds * 1e9:
                return False
            if now() >= due:
                send()
                due = max(due + self._period_ns, now())
            self.hear(SLICE_S)
        return True

    def command(self, message: Message, purpose: str, send: Callable[[], None] = lambda: None, tries: int = 1) -> None:
        """Give a command until it is answered; meanwhile `send` every period.

        Args:
            message: The command.
            purpose: What it is for, in words.
            send: What keeps flowing.
            tries: How often it may be refused for the time being.

        Raises:
            DeviceError: it refuses, or does not answer.
        """
        for _ in range(tries):
            result = self._result(message, purpose, send)
            if result == common.MAV_RESULT_ACCEPTED:
                return
            self.listen(REFUSED_S, lambda: False, send)
            if result != common.MAV_RESULT_TEMPORARILY_REJECTED:
                break
        self.explain(f"refuses to {purpose} ({mavlink.result_name(result)})", ())

    def _result(self, message: Message, purpose: str, send: Callable[[], None]) -> int:
        answers, code = self.vehicle.answers, message.command
        answers.pop(code, None)
        self.vehicle.texts.clear()
        for _ in range(ATTEMPTS):
            self.link.send(message)
            if self.listen(PATIENCE_S, lambda: answers.get(code, IN_PROGRESS) != IN_PROGRESS, send):
                return answers[code]
        raise DeviceError(f"the vehicle at {self.link.address} does not answer when told to {purpose}")

    def explain(self, what: str, complaints: Iterable[str]) -> NoReturn:
        """Raise an error that says what the vehicle did, and why as far as it is known."""
        battery = () if self.vehicle.battery_known else ("it does not know its battery's charge",)
        said = [f"it says '{text}'" for text in self.vehicle.texts]
        reasons = dict.fromkeys([*complaints, *battery, *said])
        raise DeviceError(f"the vehicle at {self.link.address} {what}: {'; '.join(reasons) or 'it gives no reason'}")

    def demand(self, message: Message) -> bool:
        """Give a command that must not wait long; whether it was accepted."""
        answers = self.vehicle.answers
        answers.pop(message.command, None)
        for _ in range(STOP_ATTEMPTS):
            self.link.send(message)
            if self.listen(STOP_PATIENCE_S, lambda: message.command in answers):
                return answers[message.command] == common.MAV_RESULT_ACCEPTED
        return False


def now() -> int:
    """Monotonic time [ns]."""
    return time.monotonic_ns()

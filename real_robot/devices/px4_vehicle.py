"""What a PX4 says of itself, and what speaks against flying on."""

import time

from pymavlink.dialects.v20 import common

from alula.real_robot.codecs import mavlink
from alula.real_robot.codecs.mavlink import Message, Mode
from alula.real_robot.contract import State
from alula.real_robot.devices.quadcopter import BatteryWatch, Telemetry

HEARTBEAT_LOST_S, TELEMETRY_LOST_S = 2.0, 0.3
"""Silence that ends a flight [s]."""
CLOCKS_DRIFT = 1e-3
"""How much faster than ours the vehicle's clock may run: our choice, ten times a bad crystal."""
REBOOT_US = 1_000_000
"""A stamp this much older than the newest is no late message [µs]: our choice."""
LATEST_TEXTS = 5
"""Texts that are kept for error messages."""
SOUND = common.ESTIMATOR_ATTITUDE | common.ESTIMATOR_VELOCITY_HORIZ | common.ESTIMATOR_VELOCITY_VERT
"""What the estimator must have, beside a horizontal and a vertical position."""
HORIZONTAL = common.ESTIMATOR_POS_HORIZ_REL | common.ESTIMATOR_POS_HORIZ_ABS
VERTICAL = common.ESTIMATOR_POS_VERT_ABS | common.ESTIMATOR_POS_VERT_AGL


class Vehicle:
    """Listens to one vehicle.

    Args:
        system: Its number; of other systems and components nothing is heard.
    """

    def __init__(self, system: int) -> None:
        self.system = system
        self.telemetry, self._battery = Telemetry(), BatteryWatch()
        self.mode, self.armed, self.landed, self.status = 0, False, True, common.MAV_STATE_UNINIT
        self.version: int | None = None
        """Of the flight software, as AUTOPILOT_VERSION has it."""
        self.answers: dict[int, int] = {}
        """The last result of every command."""
        self.parameters: dict[str, float] = {}
        self.texts: list[str] = []
        """The last that it said in words."""
        self.battery_known = False
        self._charge_state, self._estimator, self._resets = common.MAV_BATTERY_CHARGE_STATE_OK, 0, 0
        self._sequence, self._received_ns, self._heartbeat_ns = 0, 0, time.monotonic_ns()
        self._stamp_us: int | None = None
        self._offset_ns = 0
        """Our clock minus the vehicle's, transport included where it was least."""
        self._alarms: list[str] = []
        """What does not pass by itself."""
        self._resets_before = 0
        self.flying = False
        """Whether it is under our command."""

    def begin(self) -> None:
        """From now on it is under our command; what happened before is forgotten."""
        self.flying, self._resets_before = True, self._resets
        self._alarms.clear()
        self.telemetry.forget_turns()

    @property
    def failsafe(self) -> bool:
        """Whether it protects itself."""
        return bool(self.status >= common.MAV_STATE_CRITICAL)

    def hear(self, message: Message, now_ns: int) -> None:
        """Take a message that arrived at `now_ns`."""
        if message.get_srcSystem() != self.system or message.get_srcComponent() != common.MAV_COMP_ID_AUTOPILOT1:
            return
        match message.get_type():
            case "ODOMETRY":
                self._odometry(message, now_ns)
            case "HEARTBEAT":
                self.mode, self.status, self._heartbeat_ns = message.custom_mode, message.system_status, now_ns
                self.armed = bool(message.base_mode & common.MAV_MODE_FLAG_SAFETY_ARMED)
            case "EXTENDED_SYS_STATE":
                self.landed = message.landed_state == common.MAV_LANDED_STATE_ON_GROUND
            case "BATTERY_STATUS" if message.id == 0:
                self.battery_known = message.battery_remaining >= 0
                self.telemetry.battery = message.battery_remaining / 100 if self.battery_known else float("nan")
                self._charge_state = message.charge_state
            case "ESTIMATOR_STATUS":
                self._estimator = message.flags
            case "COMMAND_ACK":
                self.answers[message.command] = message.result
            case "PARAM_VALUE":
                self.parameters[message.param_id] = mavlink.parameter(message)
            case "AUTOPILOT_VERSION":
                self.version = message.flight_sw_version
            case "STATUSTEXT":
                self._text(message)

    def _odometry(self, message: Message, now_ns: int) -> None:
        """A measurement counts once, and from when it was made: a late one is old."""
        last, stamp = self._stamp_us, message.time_usec
        if last is not None and stamp <= last:
            if stamp < last - REBOOT_US:
                self._alarm(f"its clock has gone back by {(last - stamp) / 1e6:.1f} s: it has been started anew")
            return
        offset = now_ns - 1000 * stamp
        if last is not None:
            offset = min(offset, self._offset_ns + round(1000 * (stamp - last) * CLOCKS_DRIFT))
        found = mavlink.motion(message)
        self.telemetry.valid = False
        if found is not None:
            self.telemetry.update(found.position, found.quaternion, found.velocity, found.rates)
        if self.telemetry.valid:
            self._stamp_us, self._offset_ns, self._resets = stamp, offset, message.reset_counter
            self._sequence, self._received_ns = self._sequence + 1, 1000 * stamp + offset

    def _text(self, message: Message) -> None:
        self.texts = [*self.texts, message.text][-LATEST_TEXTS:]
        if message.severity <= common.MAV_SEVERITY_CRITICAL:
            self._alarm(f"it says '{message.text}'")

    def _alarm(self, words: str) -> None:
        if self.flying and words not in self._alarms:
            self._alarms.append(words)

    @property
    def position_known(self) -> bool:
        """Whether its estimator knows where it is."""
        flags = self._estimator
        return bool(flags & SOUND == SOUND and flags & HORIZONTAL and flags & VERTICAL)

    def silence(self, now_ns: int) -> float:
        """Age of the newest measurement [s]."""
        return (now_ns - self._received_ns) / 1e9

    def lost(self, now_ns: int) -> bool:
        """Whether nothing has been heard of it for long."""
        return now_ns - self._heartbeat_ns > HEARTBEAT_LOST_S * 1e9

    def state(self, now_ns: int) -> State:
        """The newest that is known."""
        return self.telemetry.state(self._sequence, self._received_ns, self.complaints(now_ns))

    def complaints(self, now_ns: int) -> tuple[str, ...]:
        """What speaks against flying on, in words."""
        quiet, silence = (now_ns - self._heartbeat_ns) / 1e9, self.silence(now_ns)
        charge = self._charge_state
        failing = common.MAV_BATTERY_CHARGE_STATE_CRITICAL <= charge <= common.MAV_BATTERY_CHARGE_STATE_UNHEALTHY
        found = [
            (self.lost(now_ns), f"no heartbeat for {quiet:.1f} s"),
            (silence > TELEMETRY_LOST_S, f"no telemetry for {1e3 * silence:.0f} ms"),
            (not self.position_known, "its estimator does not know where it is"),
            (failing, "it calls its battery critical or faulty"),
        ]
        if self.flying:
            here = mavlink.mode_name(self.mode)
            found += [
                (not self.armed, "its rotors are off"),
                (self.mode != Mode.OFFBOARD, f"its mode is {here}: somebody has taken over, or it protects itself"),
                (self.failsafe, "it is in failsafe"),
                (self._resets != self._resets_before, "its estimate of where it is has jumped"),
            ]
        words = [text for true, text in found if true]
        return (*words, *self._battery(self.telemetry.battery, now_ns), *self._alarms)

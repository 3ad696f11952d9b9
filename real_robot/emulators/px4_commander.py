"""PX4's commander made of software: modes, arming, failsafes, and control of a simulated quadcopter.

Everything is in the plant's frame: east-north-up, yaw from east to north.

Source: docs.px4.io, "Flight modes", "Offboard mode", "Safety configuration (failsafes)", "Parameter reference".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.real_robot.emulators.faults import FaultPlan
from alula.real_robot.emulators.judge import Judge
from alula.real_robot.emulators.plant import QuadcopterPlant

ACCEPTED, REJECTED, DENIED, UNSUPPORTED, FAILED = range(5)
"""MAV_RESULT."""
ALTCTL, POSCTL, OFFBOARD = (2, 0), (3, 0), (6, 0)
TAKEOFF, LOITER, RTL, LAND = (4, 2), (4, 3), (4, 5), (4, 6)
MODES = {ALTCTL: "Altitude", POSCTL: "Position", OFFBOARD: "Offboard", TAKEOFF: "Takeoff", LOITER: "Hold"}
MODES |= {RTL: "Return", LAND: "Land"}
"""Main and sub mode."""
OFFBOARD_LOSS = {0: POSCTL, 3: RTL, 4: LAND, 5: LOITER}
"""Mode by COM_OBL_RC_ACT."""
PROOF_NS, SLOWEST_NS = 1_000_000_000, 500_000_000
"""How long setpoints must flow before OFFBOARD, and the longest pause between two (2 Hz)."""
FORCE = 21196
REAL, WHOLE = 9, 6
"""MAV_PARAM_TYPE."""
PARAMETERS: dict[str, tuple[int, float]] = {
    "BAT_CRIT_THR": (REAL, 0.07),
    "BAT_LOW_THR": (REAL, 0.15),
    "COM_ARM_BAT_MIN": (REAL, 0.0),
    "COM_DISARM_LAND": (REAL, 2.0),
    "COM_DL_LOSS_T": (WHOLE, 10),
    "COM_FAIL_ACT_T": (REAL, 5.0),
    "COM_LOW_BAT_ACT": (WHOLE, 0),
    "COM_OBL_RC_ACT": (WHOLE, 0),
    "COM_OF_LOSS_T": (REAL, 1.0),
    "COM_RCL_EXCEPT": (WHOLE, 0),
    "COM_RC_LOSS_T": (REAL, 0.5),
    "GF_ACTION": (WHOLE, 2),
    "GF_MAX_HOR_DIST": (REAL, 0.0),
    "GF_MAX_VER_DIST": (REAL, 0.0),
    "MAV_SYS_ID": (WHOLE, 1),
    "MIS_TAKEOFF_ALT": (REAL, 2.5),
    "MPC_LAND_SPEED": (REAL, 0.7),
    "MPC_TKO_SPEED": (REAL, 1.5),
    "NAV_DLL_ACT": (WHOLE, 0),
    "NAV_RCL_ACT": (WHOLE, 2),
}
"""Type and factory value."""
POSITION_GAIN, YAW_GAIN = 2.0, 2.0
"""Velocity per error [1/s]."""
VELOCITY_LAG = 0.25
"""Of the plant's response to a velocity [s]; what acceleration feed-forward makes up for."""
FASTEST = np.array([3.0, 3.0, 2.0])
"""Velocities that are commanded at most [m/s]."""
ENDURANCE_S = 900.0
"""Time in the air with a full battery [s]."""
CRITICAL_TEXT = 2
"""MAV_SEVERITY."""

Vector = Float64[ndarray, "3"]


@dataclass(frozen=True)
class Setpoint:
    """What a setpoint asks for; None where its mask says that it is to be ignored."""

    position: Vector | None
    velocity: Vector | None
    acceleration: Vector | None
    yaw: float | None
    yaw_rate: float


class Commander:
    """Decides what the quadcopter does.

    Args:
        plant: The quadcopter.
        faults: What goes wrong.
        judge: Gets a note of every change of mode and power.
        say: Sends a text to the ground, with its severity.
        parameters: Values that differ from the factory's.
    """

    def __init__(
        self,
        plant: QuadcopterPlant,
        faults: FaultPlan,
        judge: Judge,
        say: Callable[[int, str], None],
        parameters: dict[str, float],
    ) -> None:
        self.plant, self.faults, self.judge, self.say = plant, faults, judge, say
        self.parameters = {name: parameters.get(name, value) for name, (_, value) in PARAMETERS.items()}
        self.mode, self.armed, self.failsafe = LOITER, False, False
        self.jump, self.resets = np.zeros(3), 0
        """Error of the estimated position [m], and how often the estimate has jumped."""
        self._setpoint: Setpoint | None = None
        self._setpoint_ns = self._flowing_ns = self._now = 0
        self._fell_ns: int | None = None
        """When a failsafe began that changes the mode after COM_FAIL_ACT_T."""
        self._ground_ns: int | None = None
        self._anchor, self._heading = self.position, self.yaw
        """Where and how modes that stay somewhere stay."""
        self._done: set[str] = set()
        """Faults that happen once."""

    @property
    def position(self) -> Vector:
        """As estimated [m]."""
        return self.plant.pose[:3] + self.jump

    @property
    def yaw(self) -> float:
        """Heading [rad]."""
        w, x, y, z = self.plant.pose[3:]
        return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))

    @property
    def landed(self) -> bool:
        """Whether it stands on the ground."""
        return not self.plant.airborne

    @property
    def position_lost(self) -> bool:
        """Whether the estimator has lost its horizontal position."""
        return self.faults.strikes("position_lost")

    # -- commands ----------------------------------------------------------------------------------------------------

    def take(self, setpoint: Setpoint, now_ns: int) -> None:
        """A setpoint has come."""
        if now_ns - self._setpoint_ns > SLOWEST_NS:
            self._flowing_ns = now_ns
        self._setpoint, self._setpoint_ns = setpoint, now_ns

    def obey(self, command: int, parameters: tuple[float, ...]) -> int:
        """Carry out a command; returns the MAV_RESULT."""
        match command:
            case 400:  # COMPONENT_ARM_DISARM
                force = parameters[1] == FORCE
                return self.arm(force) if parameters[0] == 1 else self.disarm(force)
            case 176:  # DO_SET_MODE
                return self.enter((int(parameters[1]), int(parameters[2])))
            case 20 | 21 | 22:  # NAV_RETURN_TO_LAUNCH, NAV_LAND, NAV_TAKEOFF
                return self.enter({20: RTL, 21: LAND, 22: TAKEOFF}[command])
            case 185 if parameters[0] == 1:  # DO_FLIGHTTERMINATION
                return self.disarm(force=True)
            case _:
                return UNSUPPORTED

    def arm(self, force: bool) -> int:
        """Switch the rotors on."""
        problems = {
            "Resolve system health failures first": self.faults.strikes("arming_denied"),
            "Battery is low": self.plant.battery < self.parameters["BAT_LOW_THR"],
            "No position estimate": self.position_lost,
            "No offboard signal": self.mode == OFFBOARD and not self._offered(),
        }
        for text, true in problems.items():
            if true and not force:
                self.say(CRITICAL_TEXT, f"Arming denied: {text}")
                return REJECTED
        if not self.armed:
            self.armed, self.failsafe, self._ground_ns = True, False, None
            self._stay()
            self.judge.note("armed")
        return ACCEPTED

    def disarm(self, force: bool) -> int:
        """Switch the rotors off."""
        if self.armed and not self.landed and not force:
            self.say(CRITICAL_TEXT, "Disarming denied: not landed")
            return REJECTED
        if self.armed:
            self.armed, self.failsafe = False, False
            self.judge.note("disarmed", height=float(self.plant.pose[2]))
        return ACCEPTED

    def enter(self, mode: tuple[int, int]) -> int:
        """Change the mode on somebody's command."""
        if mode not in MODES:
            return DENIED
        if mode == LOITER and self.faults.strikes("hold_refused"):
            return REJECTED
        if mode == OFFBOARD and not self._offered():
            self.say(CRITICAL_TEXT, "Switching to mode 'Offboard' is currently not available")
            return REJECTED
        if mode != self.mode:
            self._change(mode, "commanded")
            self.failsafe, self._fell_ns = False, None
        return ACCEPTED

    def _offered(self) -> bool:
        flowing = self._now - self._flowing_ns > PROOF_NS
        return flowing and self._now - self._setpoint_ns < SLOWEST_NS

    def _change(self, mode: tuple[int, int], why: str) -> None:
        self.mode = mode
        self._stay()
        since = self._now - self._setpoint_ns
        self.judge.note("mode", mode=MODES[mode], why=why, since_setpoint_ns=since)

    def _stay(self) -> None:
        self._anchor, self._heading = self.position.copy(), self.yaw
        if self.mode == TAKEOFF:
            self._anchor[2] += self.parameters["MIS_TAKEOFF_ALT"]

    # -- time --------------------------------------------------------------------------------------------------------

    def advance(self, now_ns: int) -> None:
        """Let time pass: faults, failsafes, landing, control."""
        elapsed = (now_ns - self._now) / 1e9 if self._now else 0.0
        self._now = now_ns
        self._go_wrong()
        if self.armed:
            self.plant.battery = max(self.plant.battery - elapsed / ENDURANCE_S, 0.0)
            self._protect()
            self._notice_ground()
        self._control()

    def _go_wrong(self) -> None:
        """Let the faults strike that are events."""
        sag, reset = self.faults.find("battery"), self.faults.find("estimator_reset")
        if sag is not None:
            self.plant.battery = min(self.plant.battery, sag.value)
        if reset is not None and self._once("estimator_reset"):
            self.jump, self.resets = np.array([reset.value, 0.0, 0.0]), self.resets + 1
        if self.faults.strikes("pilot") and self._once("pilot"):
            self._change(POSCTL, "a pilot moved the sticks")
        if self.faults.strikes("geofence") and self._once("geofence"):
            self._fall("Geofence breached", LOITER)
        if self.faults.strikes("motor") and self._once("motor"):
            self.say(CRITICAL_TEXT, "Motor failure detected")
            self.failsafe = True
        if self.armed and self.position_lost and self._once("position_lost"):
            self._fall("Position estimate lost", LAND)

    def _once(self, kind: str) -> bool:
        first = kind not in self._done
        self._done.add(kind)
        return first

    def _fall(self, text: str, mode: tuple[int, int]) -> None:
        self.say(CRITICAL_TEXT, f"Failsafe activated: {text}")
        self.failsafe = True
        self._change(mode, text)

    def _protect(self) -> None:
        """Failsafes."""
        parameters, now = self.parameters, self._now
        if self.mode == OFFBOARD and now - self._setpoint_ns > 1e9 * parameters["COM_OF_LOSS_T"]:
            self._fall("Offboard control lost", LOITER)
            self._fell_ns = now
        if self._fell_ns is not None and now - self._fell_ns > 1e9 * parameters["COM_FAIL_ACT_T"]:
            self._fell_ns = None
            self._change(OFFBOARD_LOSS.get(int(parameters["COM_OBL_RC_ACT"]), LAND), "COM_OBL_RC_ACT")
        critical = self.plant.battery < parameters["BAT_CRIT_THR"]
        if critical and parameters["COM_LOW_BAT_ACT"] >= 2 and self._once("battery"):
            self._fall("Critical battery", LAND)

    def _notice_ground(self) -> None:
        """Switch off after a landing."""
        if not self.landed or self.mode not in (LAND, RTL):
            self._ground_ns = None
        elif self._ground_ns is None:
            self._ground_ns = self._now
        elif self._now - self._ground_ns > 1e9 * self.parameters["COM_DISARM_LAND"]:
            self.disarm(force=False)

    def _control(self) -> None:
        if not self.armed:
            self.plant.command("rotor_speed", np.zeros(4))
        elif "motor" in self._done:
            self.plant.command("rotor_speed", np.array([0.0, 1500.0, 1500.0, 1500.0]))
        else:
            velocity, yaw_rate = self._wanted()
            self.plant.command("velocity", np.append(np.clip(velocity, -FASTEST, FASTEST), yaw_rate))

    def _wanted(self) -> tuple[Vector, float]:
        """Velocity [m/s] and yaw rate [rad/s] of the present mode."""
        setpoint = self._setpoint
        if self.mode != OFFBOARD or setpoint is None:
            velocity = POSITION_GAIN * (self._anchor - self.position)
            if self.mode == TAKEOFF:
                velocity[2] = min(velocity[2], self.parameters["MPC_TKO_SPEED"])
            if self.mode in (LAND, RTL):
                velocity[2] = -self.parameters["MPC_LAND_SPEED"]
            return velocity, self._turn(self._heading)
        velocity = np.zeros(3)
        if setpoint.position is not None:
            velocity += POSITION_GAIN * (setpoint.position - self.position)
        if setpoint.velocity is not None:
            velocity += setpoint.velocity
        if setpoint.acceleration is not None:
            velocity += VELOCITY_LAG * setpoint.acceleration
        return velocity, setpoint.yaw_rate + (0.0 if setpoint.yaw is None else self._turn(setpoint.yaw))

    def _turn(self, yaw: float) -> float:
        return YAW_GAIN * math.remainder(yaw - self.yaw, 2 * math.pi)

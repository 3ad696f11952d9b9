"""What an emulated PX4 tells the ground: its messages, in its own frames, and when each is due.

The frames are turned here by matrices, which the driver does not do, so that a mistake in one shows against the other.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from pymavlink.dialects.v20 import common

from alula.real_robot.emulators.faults import FaultPlan
from alula.real_robot.emulators.px4_commander import MODES, PARAMETERS, REAL, Commander

Message = Any
WORLD = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
"""From east-north-up to north-east-down."""
BODY = np.diag([1.0, -1.0, -1.0])
"""From front-left-up to front-right-down."""
HOME = (473977420, 85455940, 488000)
"""Latitude, longitude [1e-7 degree] and altitude [mm] of PX4's simulators, in Zürich."""
METRES_PER_DEGREE = 111_319.5
UNKNOWN = math.nan
ESTIMATOR_SOUND, WITHOUT_PLACE = 0b11_0011_1111, 0b00_0010_0111
"""ESTIMATOR_STATUS_FLAGS with and without a horizontal position."""
CELLS = (15000, *(65535,) * 9)
"""Voltages [mV]."""


class Telemetry:
    """Builds messages.

    Args:
        commander: What it is about.
        faults: What goes wrong.
        boot_ns: When the vehicle was switched on.
    """

    def __init__(self, commander: Commander, faults: FaultPlan, boot_ns: int) -> None:
        self.commander, self.faults, self._boot_ns, self._now = commander, faults, boot_ns, boot_ns
        self._frozen: Message | None = None
        self._builders: dict[int, tuple[float, Callable[[], Message]]] = {
            0: (1.0, self._heartbeat),
            1: (1.0, self._sys_status),
            24: (5.0, self._gps),
            31: (50.0, self._attitude),
            32: (30.0, self._local_position),
            33: (10.0, self._global_position),
            147: (0.5, self._battery),
            148: (0.0, self._version),
            230: (1.0, self._estimator),
            242: (0.5, self._home),
            245: (2.0, self._extended),
            331: (30.0, self._odometry),
        }
        """By number of the message: how often it is sent if nobody asks [Hz], and how it is made."""
        self._intervals = {number: 1e9 / rate if rate else math.inf for number, (rate, _) in self._builders.items()}
        self._due = dict.fromkeys(self._builders, 0.0)

    def set_interval(self, number: int, microseconds: float) -> bool:
        """Send a message so often: 0 as usual, negative never; whether that is possible, as not for heartbeats."""
        if number not in self._builders or number == 0:
            return False
        usual = self._builders[number][0]
        self._intervals[number] = math.inf if microseconds < 0 else 1e3 * (microseconds or 1e6 / max(usual, 1e-9))
        self._due[number] = 0.0
        return True

    def due(self, now_ns: int) -> Iterator[Message]:
        """Messages whose time has come."""
        self._now = now_ns
        only_heartbeats = self.faults.strikes("heartbeat_only")
        for number, interval in self._intervals.items():
            if now_ns >= self._due[number] and interval < math.inf:
                self._due[number] = max(self._due[number] + interval, now_ns - interval)
                if number == 0 or not only_heartbeats:
                    yield self._builders[number][1]()

    def build(self, number: int) -> Message | None:
        """One message; None where there is no such."""
        return self._builders[number][1]() if number in self._builders else None

    def parameter(self, name: str) -> Message:
        """PARAM_VALUE."""
        kind, value, names = PARAMETERS[name][0], self.commander.parameters[name], sorted(PARAMETERS)
        field = value if kind == REAL else float(np.array(int(value), dtype="<i4").view("<f4"))
        return common.MAVLink_param_value_message(name.encode(), field, kind, len(names), names.index(name))

    @property
    def _ms(self) -> int:
        return (self._now - self._boot_ns) // 1_000_000 % (1 << 32)

    @property
    def _us(self) -> int:
        return (self._now - self._boot_ns) // 1000

    def _motion(self) -> tuple[ndarray, ndarray, ndarray, ndarray]:
        """Position, quaternion, velocity and body rates in PX4's frames."""
        pose, twist = self.commander.plant.pose, self.commander.plant.twist
        matrix, quaternion = np.zeros(9), np.zeros(4)
        mujoco.mju_quat2Mat(matrix, pose[3:])
        mujoco.mju_mat2Quat(quaternion, (WORLD @ matrix.reshape(3, 3) @ BODY).ravel())
        return WORLD @ self.commander.position, quaternion, WORLD @ twist[:3], BODY @ twist[3:]

    def measured(self) -> Float64[ndarray, "4"]:
        """What ODOMETRY says of position and yaw, in the plant's frame, rounded as there."""
        position, quaternion, _, _ = self._motion()
        w, x, y, z = quaternion.astype(np.float32).astype(np.float64)
        north_to_east = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        place = WORLD.T @ position.astype(np.float32).astype(np.float64)
        return np.append(place, math.remainder(math.pi / 2 - north_to_east, 2 * math.pi))

    def _odometry(self) -> Message:
        faults = self.faults
        if self._frozen is not None and faults.strikes("frozen"):
            return self._frozen
        position, quaternion, velocity, rates = self._motion()
        if faults.strikes("quaternion_flip"):
            quaternion = -quaternion
        scaled = faults.find("quaternion_scale")
        if scaled is not None:
            quaternion = scaled.value * quaternion
        if faults.strikes("nan"):
            position = np.full(3, UNKNOWN)
        back = faults.find("stamp_backwards")
        stamp = max(self._us - (round(1e3 * back.value) if back is not None else 0), 0)
        frame = common.MAV_FRAME_LOCAL_FRD if faults.strikes("frame") else common.MAV_FRAME_LOCAL_NED
        head = (stamp, frame, common.MAV_FRAME_LOCAL_NED, *position, quaternion.tolist(), *velocity, *rates)
        unknown = [UNKNOWN] * 21
        resets = self.commander.resets
        self._frozen = common.MAVLink_odometry_message(*head, unknown, unknown, resets, 0, 100)
        return self._frozen

    def _heartbeat(self) -> Message:
        commander, faults = self.commander, self.faults
        autopilot = common.MAV_AUTOPILOT_ARDUPILOTMEGA if faults.strikes("autopilot") else common.MAV_AUTOPILOT_PX4
        vehicle = common.MAV_TYPE_FIXED_WING if faults.strikes("vehicle") else common.MAV_TYPE_QUADROTOR
        base = common.MAV_MODE_FLAG_CUSTOM_MODE_ENABLED | (common.MAV_MODE_FLAG_SAFETY_ARMED if commander.armed else 0)
        main, sub = commander.mode
        status = common.MAV_STATE_ACTIVE if commander.armed else common.MAV_STATE_STANDBY
        if commander.failsafe:
            status = common.MAV_STATE_CRITICAL
        return common.MAVLink_heartbeat_message(vehicle, autopilot, base, main << 16 | sub << 24, status, 3)

    def _sys_status(self) -> Message:
        sensors = 0x1021_2C2F
        share = round(100 * self.commander.plant.battery)
        return common.MAVLink_sys_status_message(sensors, sensors, sensors, 200, 15000, 1000, share, *(0,) * 6)

    def _battery(self) -> Message:
        battery, parameters = self.commander.plant.battery, self.commander.parameters
        charge = common.MAV_BATTERY_CHARGE_STATE_OK
        if battery < parameters["BAT_LOW_THR"]:
            charge = common.MAV_BATTERY_CHARGE_STATE_LOW
        if battery < parameters["BAT_CRIT_THR"]:
            charge = common.MAV_BATTERY_CHARGE_STATE_CRITICAL
        share = round(100 * battery)
        return common.MAVLink_battery_status_message(0, 1, 1, 32767, CELLS, 1000, -1, -1, share, 0, charge)

    def _version(self) -> Message:
        minor = 12 if self.faults.strikes("version") else 15
        capabilities = (
            common.MAV_PROTOCOL_CAPABILITY_MAVLINK2
            | common.MAV_PROTOCOL_CAPABILITY_PARAM_FLOAT
            | common.MAV_PROTOCOL_CAPABILITY_SET_POSITION_TARGET_LOCAL_NED
        )
        flight = 1 << 24 | minor << 16 | 0xFF  # the last byte: a release
        return common.MAVLink_autopilot_version_message(
            capabilities, flight, flight, 0, 50, bytes(8), bytes(8), bytes(8), 0, 0, 1
        )

    def _estimator(self) -> Message:
        flags = WITHOUT_PLACE if self.commander.position_lost else ESTIMATOR_SOUND
        return common.MAVLink_estimator_status_message(self._us, flags, *(0.0,) * 8)

    def _extended(self) -> Message:
        landed, landing = self.commander.landed, MODES[self.commander.mode] == "Land"
        in_air = common.MAV_LANDED_STATE_LANDING if landing else common.MAV_LANDED_STATE_IN_AIR
        return common.MAVLink_extended_sys_state_message(0, common.MAV_LANDED_STATE_ON_GROUND if landed else in_air)

    def _attitude(self) -> Message:
        _, quaternion, _, rates = self._motion()
        return common.MAVLink_attitude_quaternion_message(self._ms, *quaternion, *rates)

    def _local_position(self) -> Message:
        position, _, velocity, _ = self._motion()
        return common.MAVLink_local_position_ned_message(self._ms, *position, *velocity)

    def _global_place(self) -> tuple[int, int, int]:
        north, east, down = WORLD @ self.commander.position
        east_degrees = east / METRES_PER_DEGREE / math.cos(math.radians(HOME[0] * 1e-7))
        latitude = HOME[0] + round(1e7 * north / METRES_PER_DEGREE)
        return latitude, HOME[1] + round(1e7 * east_degrees), HOME[2] - round(1e3 * down)

    def _global_position(self) -> Message:
        velocity = [round(100 * value) for value in WORLD @ self.commander.plant.twist[:3]]
        degrees = math.degrees(math.pi / 2 - self.commander.yaw) % 360
        place = self._global_place()
        return common.MAVLink_global_position_int_message(
            self._ms, *place, place[2] - HOME[2], *velocity, round(100 * degrees) % 36000
        )

    def _gps(self) -> Message:
        fix = common.GPS_FIX_TYPE_NO_FIX if self.commander.position_lost else common.GPS_FIX_TYPE_3D_FIX
        return common.MAVLink_gps_raw_int_message(self._us, fix, *self._global_place(), 80, 120, 0, 65535, 12)

    def _home(self) -> Message:
        level = [1.0, 0.0, 0.0, 0.0]
        return common.MAVLink_home_position_message(*HOME, 0.0, 0.0, 0.0, level, 0.0, 0.0, 0.0)

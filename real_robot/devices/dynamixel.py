"""Arms on Dynamixel X servos: Koch v1.1 and its leader arm, and Trossen's ViperX 300 S (ALOHA).

The servos stop by themselves when they have heard nothing for a while (Bus_Watchdog), and take no goals any more until
the arm is activated again. Their answers carry their clock: one that is late, or repeats the last, counts as none.

Sources:
    Robotis: e-Manual, control table of the X series.
    LeRobot: lerobot/robots/koch_follower, teleoperators/koch_leader (servos of the Koch v1.1, their numbers, modes).
    Trossen: interbotix_xsarm_control/config/vx300s.yaml (servos, numbers, directions, shadows).
    URDF: interbotix_xsarm_descriptions/urdf/vx300s.urdf.xacro (limits of the joints).
"""

import time
from dataclasses import replace

import numpy as np

from alula.core.errors import DeviceError
from alula.real_robot.codecs import dynamixel
from alula.real_robot.codecs.dynamixel import ALERT, RPM, TICKS, Model, Register
from alula.real_robot.codecs.servo import Reply
from alula.real_robot.contract import Grip, Limits, State, Stop
from alula.real_robot.devices.config import DynamixelArmConfig
from alula.real_robot.devices.servo_arm import RESTARTED, ServoArm
from alula.real_robot.devices.servos import Arm, Family, Servo, soon

RATE = 50.0
BAUD = 1_000_000
LIGHT, HEAVY = (2.0, 8.0, 100.0), (1.5, 4.0, 60.0)
"""Limits of motion of either arm [rad/s, rad/s^2, rad/s^3]: our choice; Trossen permits 3.1 rad/s."""
MARGIN = 0.02
"""Kept from the ends of the joints [rad]: our choice."""
FOLLOWING = 0.3
"""Largest distance from the commands of the last 0.1 s [rad]: our choice, as for the SO-101; not of the gripper."""
WATCHDOG_STEP = 0.02
"""Unit of the servos' watchdog [s] (Robotis)."""
LEAST_FIRMWARE = 38
"""From which on the servos have their watchdog (Robotis)."""
LATE_MS = 10
"""By how much an answer may be older than it should be [ms]: our choice, half a period."""
COMPARED_MS = 1000
"""Silence after which clocks are not compared, since they differ [ms]: our choice."""
ERROR_S = 0.003
"""Time for an answer about hardware errors."""
POSITION, CURRENT_POSITION = 4, 5
"""Operating modes: position of any number of turns, and the same with a limit of the current."""
UNLOADED = {
    Model.XL430_W250: 1 / 1000,  # its load is an estimate [0.1 %]
    Model.XL330_M077: 1 / 1750,  # greatest current [mA]
    Model.XL330_M288: 1 / 1750,  # greatest current [mA]
    Model.XM430_W350: 1 / 1193,  # greatest current [2.69 mA]
    Model.XM540_W270: 1 / 2047,  # greatest current [2.69 mA]
}
"""Share of the greatest load per count (Robotis)."""

X_SERIES = Family(
    codec=dynamixel,
    baud=BAUD,
    model=Register.MODEL,
    homing_offset=Register.HOMING_OFFSET,
    homing_sign=1,
    torque=Register.TORQUE_ENABLE,
    goal=Register.GOAL_POSITION,
    position=Register.POSITION,
    velocity=Register.VELOCITY,
    load=Register.LOAD,
    velocity_unit=RPM * 2 * np.pi / 60,
)


def _arm(
    name: str,
    servos: tuple[Servo, ...],
    low: tuple[float, ...],
    high: tuple[float, ...],
    grip: tuple[float, float],
    reversed_servos: tuple[int, ...],
    grip_current: int,
    motion: tuple[float, float, float],
    zero_pose: str,
) -> Arm:
    """What both arms have in common.

    Args:
        name: In the table of devices.
        servos: From base to gripper.
        low: Of the joints [rad].
        high: Of the joints [rad].
        grip: Angles at which the gripper is closed and open [rad].
        reversed_servos: Numbers of those that turn the other way round.
        grip_current: Limit of the gripper's current [count].
        motion: Limits of velocity, acceleration and jerk of all joints.
        zero_pose: In words.
    """
    numbers = [servo.number for servo in servos]
    leaders = [servo.number for servo in servos if servo.leader is None]
    velocity, acceleration, jerk = ((value,) * len(leaders) for value in motion)
    following = (FOLLOWING,) * (len(leaders) - 1) + (np.inf,)
    models = sorted({Model(servo.model).name.replace("_", "-") for servo in servos})
    return Arm(
        name=name,
        description=f"Dynamixel {', '.join(models)} on numbers 1 to {len(servos)}",
        servos=servos,
        family=X_SERIES,
        limits=Limits(low, high, velocity, acceleration, jerk, MARGIN, following),
        grip=Grip(len(leaders) - 1, *grip),
        zero_pose=zero_pose,
        rate=RATE,
        settings={
            Register.RETURN_DELAY: dict.fromkeys(numbers, 0),
            Register.DRIVE_MODE: {number: int(number in reversed_servos) for number in numbers},
            Register.OPERATING_MODE: {number: POSITION for number in numbers} | {numbers[-1]: CURRENT_POSITION},
            Register.SECONDARY_ID: {servo.number: 255 if servo.leader is None else servo.leader for servo in servos},
        },
        preparation={
            Register.PROFILE_ACCELERATION: dict.fromkeys(leaders, 0),
            Register.PROFILE_VELOCITY: dict.fromkeys(leaders, 0),
            Register.BUS_WATCHDOG: dict.fromkeys(leaders, 0),
            Register.GOAL_CURRENT: {numbers[-1]: grip_current},
        },
        device_watchdog=None,
    )


def _servo(name: str, number: int, model: Model, leader: int | None = None) -> Servo:
    return Servo(name, number, int(model), UNLOADED[model], leader)


class DynamixelArm(ServoArm):
    """Driver of an arm on Dynamixel X servos.

    Args:
        config: Its settings.
    """

    watched = (Register.BUS_WATCHDOG, Register.TICK)

    def __init__(self, config: DynamixelArmConfig) -> None:
        super().__init__(config)
        self._watchdog = max(1, round(config.watchdog / WATCHDOG_STEP))
        self.spec = replace(self.spec, device_watchdog=self._watchdog * WATCHDOG_STEP)
        self._armed, self._tripped = False, set[int]()
        """Whether the watchdogs are meant to be on; servos whose own has tripped."""
        self._errors: dict[int, list[str]] = {}
        self._ticks: dict[int, tuple[int, int]] = {}
        """Clock of each servo [ms], and the host's when it said so [ns]."""

    def require_settings(self) -> None:
        """See `ServoArm.require_settings`; and the firmware must know the watchdog."""
        found = self.servos.get(Register.FIRMWARE)
        old = {number: version for number, version in found.items() if version < LEAST_FIRMWARE}
        if old:
            raise DeviceError(
                f"the firmware of the servos on {self.servos.bus.port} is {old}, must be {LEAST_FIRMWARE} at least, "
                "since older servos do not stop by themselves: update it by Robotis' Dynamixel Wizard"
            )
        super().require_settings()

    def activate(self) -> State:
        """See `ServoArm.activate`; watchdogs that have tripped meanwhile are cleared."""
        self._armed = False
        return super().activate()

    def guard(self) -> None:
        """See `ServoArm.guard`."""
        self.confirm(Register.BUS_WATCHDOG, dict.fromkeys(self.leaders, self._watchdog))
        self._armed = True

    def stop(self, how: Stop) -> None:
        """See `ServoArm.stop`; who holds need not talk, and that a watchdog trips meanwhile is no fault."""
        self._armed = False
        super().stop(how)

    def lets_go(self, number: int) -> bool:
        """Whether the servo has given up its goal: its watchdog has tripped."""
        return number in self._tripped

    def fresh(self, replies: dict[int, Reply]) -> dict[int, Reply]:
        """Those answers whose clocks have gone on by as much as ours."""
        now, found = time.monotonic_ns(), {}
        for number, reply in replies.items():
            tick = self.watched_value(Register.TICK, reply)
            last, heard_ns = self._ticks.get(number, (0, 0))
            self._ticks[number] = tick, now
            passed, ought = (tick - last) % TICKS, (now - heard_ns) / 1e6
            if ought > COMPARED_MS or (passed > 0 and ought - passed < LATE_MS):
                found[number] = reply
        return found

    def complaints(self, number: int, reply: Reply) -> tuple[str, ...]:
        """See `ServoArm.complaints`."""
        watchdog = self.watched_value(Register.BUS_WATCHDOG, reply)
        tripped = watchdog < 0
        (self._tripped.add if tripped else self._tripped.discard)(number)
        if not reply.alerts & ALERT:
            self._errors.pop(number, None)
        elif not self._errors.get(number):
            self._errors[number] = self._hardware_errors(number)
        words = [] if number not in self._errors else self._errors[number] or ["hardware error"]
        found = [f"{word}; it has no torque until it is rebooted" for word in words]
        found += ["its watchdog has tripped: it heard nothing for too long"] if tripped and self._armed else []
        # Its watchdog is set as long as it remembers what it was told.
        found += [RESTARTED] if watchdog == 0 and self._armed else []
        return tuple(found)

    def _hardware_errors(self, number: int) -> list[str]:
        """What its alert is about; nothing where it does not say so in time."""
        register = Register.HARDWARE_ERROR
        answer = self.servos.bus.read([number], register.address, register.size, soon(ERROR_S)).get(number)
        return dynamixel.complaints(register.decode(answer.data)) if answer is not None else []


def _koch(name: str, models: tuple[Model, ...]) -> Arm:
    """An arm of the Koch v1.1; its joints' limits are our choice, since nobody publishes any."""
    joints = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
    return _arm(
        name=name,
        servos=tuple(
            _servo(joint, number, model)
            for number, (joint, model) in enumerate(zip(joints, models, strict=True), start=1)
        ),
        low=(-1.9, -1.7, -1.6, -1.6, -2.7, -0.17),
        high=(1.9, 1.7, 1.6, 1.6, 2.7, 1.74),
        grip=(-0.13, 1.70),
        reversed_servos=(),
        grip_current=500,  # our choice: less than a third of what it can
        motion=LIGHT,
        zero_pose="every joint in the middle of its range, but the gripper's jaws 10 degrees apart",
    )


class Koch(DynamixelArm):
    """Driver of the Koch v1.1."""

    arm = _koch("koch", (*2 * (Model.XL430_W250,), *4 * (Model.XL330_M288,)))


class KochLeader(DynamixelArm):
    """Driver of the leader arm of the Koch v1.1, of lighter servos."""

    arm = _koch("koch_leader", 6 * (Model.XL330_M077,))


class ViperX(DynamixelArm):
    """Driver of the ViperX 300 S; shoulder and elbow have two servos each."""

    arm = _arm(
        name="viperx",
        servos=(
            _servo("waist", 1, Model.XM540_W270),
            _servo("shoulder", 2, Model.XM540_W270),
            _servo("shoulder_shadow", 3, Model.XM540_W270, leader=2),
            _servo("elbow", 4, Model.XM540_W270),
            _servo("elbow_shadow", 5, Model.XM540_W270, leader=4),
            _servo("forearm_roll", 6, Model.XM540_W270),
            _servo("wrist_angle", 7, Model.XM540_W270),
            _servo("wrist_rotate", 8, Model.XM430_W350),
            _servo("gripper", 9, Model.XM430_W350),
        ),
        low=(-3.14158, -1.85005, -1.76278, -3.14158, -1.86750, -3.14158, -0.65),
        high=(3.14158, 1.25664, 1.60570, 3.14158, 2.23402, 3.14158, 1.55),
        grip=(-0.60, 1.50),  # our choice; ALOHA uses -0.62 to 1.49
        reversed_servos=(2, 4, 7),
        grip_current=300,  # our choice: a quarter of what it can
        motion=HEAVY,
        zero_pose="upper arm upright, forearm and gripper level and straight ahead, fingers a third of their way apart",
    )

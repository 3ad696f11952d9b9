"""The driver of arms made of bus servos; what differs between them is in the files of the devices.

What the servos themselves do when their controller dies differs: see the devices.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from alula.core.errors import DeviceError
from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec
from alula.real_robot.codecs.servo import Register, Reply
from alula.real_robot.contract import DeviceSpec, Limits, Receipt, State, Stop
from alula.real_robot.devices.calibration import COUNTS_PER_TURN, Calibration
from alula.real_robot.devices.config import ServoArmConfig
from alula.real_robot.devices.servos import SETUP_S, Arm, ServoGroup, soon
from alula.real_robot.governor import SafeCommand
from alula.real_robot.motion import Motion

ANSWER_SHARE = 0.7
"""Share of a period within which servos must have answered."""
KEPT = 0.5
"""Share of its limit of following that a powered joint may be from its goal when a run starts: our choice; its weight,
and what it presses on, do that. Farther, the run would end at once."""
MISSED = 10
"""Times in a row that a servo has not answered after which it counts as lost: our choice, 0.2 s."""
JUMP = 325
"""Way that no servo can go within JUMP_S [count]: half a radian, our choice."""
JUMP_S = 0.1
"""Longest time between two answers that are compared for a jump [s]: our choice."""
APART = 0.1
"""How far servos of one joint may be from each other [rad]: our choice; beyond, they fight."""
STILL = 0.03
"""Speed below which a servo is taken to stand still [rad/s]: our choice, a little more than the coarsest count."""
RESTARTED = "it has no torque any more: it has restarted, as when its supply sags"
"""What is said of a servo that has lost its torque, and with it what it was told."""
SETTLING_S = 0.5
"""Time that the joints have to come to rest when a run starts."""
ROUNDING = 1e-9
"""Room for floating-point numbers at the limits [rad]."""
COUNT = 2 * np.pi / COUNTS_PER_TURN
"""[rad]"""

Counts = Int64[ndarray, " action"]


def narrowed(arm: Arm, calibration: Calibration) -> Limits:
    """Limits of motion: the joints' own, where this arm can go as far; their margins end at whole counts.

    So the goals that are nearest to permitted positions are permitted, and a run can begin where another one ended.
    """
    own, margin = _own_joints(arm), arm.limits.margin
    low = np.maximum(arm.limits.low, calibration.angle(np.array(calibration.low))[own])
    high = np.minimum(arm.limits.high, calibration.angle(np.array(calibration.high))[own])
    low = np.ceil((low + margin) / COUNT) * COUNT - margin - ROUNDING
    high = np.floor((high - margin) / COUNT) * COUNT + margin + ROUNDING
    return replace(arm.limits, low=tuple(low.tolist()), high=tuple(high.tolist()))


def specification(arm: Arm, limits: Limits) -> DeviceSpec:
    """An arm with these limits."""
    names = tuple(servo.name for servo in arm.joints)
    state = FieldSpec("observation.state", (len(names),), units=("rad",), element_names=names, rate=arm.rate)
    velocity = replace(state, name="observation.velocity", units=("rad/s",))
    load = replace(state, name="observation.load", units=("1",))
    mode = ControlMode.JOINT_POSITION_ABSOLUTE
    action = replace(state, name="action", low=limits.low, high=limits.high, control_mode=mode)
    return DeviceSpec(
        name=arm.name,
        model=arm.description,
        observation=SpaceSpec((state, velocity, load)),
        action=SpaceSpec((action,)),
        limits=limits,
        rate=arm.rate,
        stops=(Stop.HOLD, Stop.BRAKE, Stop.LIMP),
        device_watchdog=arm.device_watchdog,
        grip=arm.grip,
    )


class ServoArm(ABC):
    """Driver; a device says which `arm` it is, and what its servos tell beyond positions.

    Args:
        config: Its settings.

    Raises:
        DeviceError: the calibration is missing, impossible, another device's, or too old.
    """

    arm: ClassVar[Arm]
    watched: ClassVar[tuple[Register, ...]] = ()
    """Registers that are read every period beside position, velocity and load."""

    def __init__(self, config: ServoArmConfig) -> None:
        arm, family = self.arm, self.arm.family
        names = tuple(servo.name for servo in arm.servos)
        self.calibration = Calibration.load(config.calibration, arm.name, names)
        self.spec = specification(arm, narrowed(arm, self.calibration))
        self.servos, self._limp_on_close = ServoGroup(arm, config.address), config.limp_on_close
        self._own = _own_joints(arm)
        self.leaders: list[int] = [joint.number for joint in arm.joints]
        self._moves = np.array(
            [[number in (servo.number, servo.leader) for servo in arm.servos] for number in self.leaders]
        )
        """Which servos move which joint."""
        read = (family.position, family.velocity, family.load, *self.watched)
        self._start = min(register.address for register in read)
        self._size = max(register.address + register.size for register in read) - self._start
        self._zero = np.array(self.calibration.zero)
        self._middle = (np.array(self.calibration.low) + self.calibration.high) / 2
        self._counts, self._turns, self._speed, self._load = (np.zeros(len(arm.servos), dtype=np.int64) for _ in "ptvl")
        """Of every servo; since it was switched on it may have counted a turn too many, or too few."""
        self._complaints: dict[int, tuple[str, ...]] = {}
        self._missed = dict.fromkeys(arm.numbers, MISSED)
        """Times in a row that each servo has not answered."""
        self._jumped = set[int]()
        """Servos that have jumped since they were configured."""
        self.active = False
        """Whether it takes commands."""
        self._sequence = self._received_ns = 0

    @abstractmethod
    def complaints(self, number: int, reply: Reply) -> tuple[str, ...]:
        """What a servo complains of, in words."""

    def guard(self) -> None:  # noqa: B027 - some cannot
        """Let the servos watch whether they are told anything, before they get power."""

    def lets_go(self, number: int) -> bool:
        """Whether a powered servo has stopped, and given up its goal."""
        return False

    def fresh(self, replies: dict[int, Reply]) -> dict[int, Reply]:
        """Those answers that are to the last question, as far as they tell."""
        return replies

    def watched_value(self, register: Register, reply: Reply) -> int:
        """A register that is read every period, from an answer."""
        start = register.address - self._start
        return register.decode(reply.data[start : start + register.size])

    def configure(self) -> None:
        """Open the port and check that the servos are those of the calibration; nothing moves."""
        self.servos.open()
        self._jumped.clear()
        try:
            self.require_settings()
        except DeviceError:
            self.servos.bus.close()
            raise

    def require_settings(self) -> None:
        """Check what the servos keep without power.

        Raises:
            DeviceError: something is not as it should be.
        """
        for register, expected in self.arm.settings.items():
            self.servos.require(register, expected, f"alula calibrate device={self.arm.name} sets it")
        homing = dict(zip(self.arm.numbers, self.calibration.homing_offset, strict=True))
        remedy = "the calibration is another arm's, or calibrate this one"
        self.servos.require(self.arm.family.homing_offset, homing, remedy)

    def activate(self) -> State:
        """Prepare the servos, make the present position the goal, and switch the motors on.

        Nothing moves when a run starts. So a joint that is powered already keeps the goal that it has, as any other
        would be a step: its weight, or what it presses on, holds it away from there. Where that is farther than a run
        permits, its goal is led back to where the joint is, within all limits; not that of a gripper, which holds
        what it has. The position that is returned is where the joints are sent, and where the governor goes on.
        """
        self.active = False
        state = self._settle()
        if not state.valid.all() or state.faults:
            silent = [joint.name for joint, valid in zip(self.arm.joints, state.valid, strict=True) if not valid]
            lost = self.servos.bus.lost or ""
            problems = [lost, f"no answer from {', '.join(silent)}" if silent else "", *state.faults]
            raise DeviceError(f"{self.spec.name} cannot be activated: {'; '.join(filter(None, problems))}")
        family = self.arm.family
        held = self._held()
        here = dict(zip(self.leaders, (self._counts + self._turns)[self._own].tolist(), strict=True))
        for register, data in self.arm.preparation.items():
            self.confirm(register, data)
        self.confirm(family.goal, {number: here[number] for number in here.keys() - held.keys()})
        self.guard()
        self.confirm(family.torque, dict.fromkeys(self.leaders, 1))
        goals = self._lead_back(self._angles(np.array(list((here | held).values()))), state.position)
        self.active = True
        return replace(self._settle(), position=goals)

    def _settle(self) -> State:
        """Wait until the joints rest, but not for long."""
        deadline, state = soon(SETTLING_S), self.read(SETUP_S)
        while np.any(state.velocity) and time.monotonic_ns() < deadline:
            state = self.read()
        return state

    def _held(self) -> dict[int, int]:
        """Goals of the joints that are held there already, by the number of their servos [count]."""
        powered, goals = self.servos.get(self.arm.family.torque), self.servos.get(self.arm.family.goal)
        known = powered.keys() & goals.keys()
        silent = [joint.name for joint in self.arm.joints if joint.number not in known]
        if silent:
            raise DeviceError(f"{self.spec.name} cannot be activated: no answer from {', '.join(silent)}")
        return {number: goals[number] for number in self.leaders if powered[number] == 1 and not self.lets_go(number)}

    def _lead_back(
        self, goals: Float64[ndarray, " action"], here: Float64[ndarray, " action"]
    ) -> Float64[ndarray, " action"]:
        """Lead those goals back to where the joints are that are too far from there for a run; returns all goals."""
        limits = self.spec.limits
        target = np.where(np.abs(goals - here) > KEPT * np.array(limits.following), here, goals)
        if (target == goals).all():
            return goals
        low, high = np.array(limits.low) + limits.margin, np.array(limits.high) - limits.margin
        target = np.clip(target, low, high)
        motion, there = Motion(limits, self.spec.rate, None, np.clip(goals, low, high)), False
        while not there and self.servos.bus.lost is None:
            there, _ = motion.follow(target)
            self.servos.write(self.arm.family.goal, self._numbered(motion.position))
            time.sleep(1 / self.spec.rate)
        return target

    def confirm(self, register: Register, data: Mapping[int, int]) -> None:
        """Change a register of some servos; without success they lose their torque.

        Raises:
            DeviceError: they do not confirm it.
        """
        if data and not self.servos.set(register, data):
            self.stop(Stop.LIMP)
            raise DeviceError(
                f"{self.spec.name} does not confirm {register.name.lower()}: it is {self.servos.get(register)}, "
                f"written was {dict(data)}"
            )

    def read(self, patience: float | None = None) -> State:
        """What the servos that answer within `patience` [s] say; the others' values stay."""
        patience = ANSWER_SHARE / self.spec.rate if patience is None else patience
        replies = self.fresh(self.servos.read(self._start, self._size, patience))
        family, servos = self.arm.family, self.arm.servos
        lately = time.monotonic_ns() - self._received_ns < JUMP_S * 1e9
        for index, servo in enumerate(servos):
            if (reply := replies.get(servo.number)) is not None:
                said, before = self.watched_value(family.position, reply), self._counts[index]
                if not self.active:  # goals must not jump by a turn, whatever a servo says
                    self._turns[index] = COUNTS_PER_TURN * round((said - self._middle[index]) / COUNTS_PER_TURN)
                self._counts[index] = said - self._turns[index]
                if lately and not self._missed[servo.number] and abs(self._counts[index] - before) > JUMP:
                    self._jumped.add(servo.number)
                self._speed[index] = self.watched_value(family.velocity, reply)
                self._load[index] = self.watched_value(family.load, reply)
                self._complaints[servo.number] = self.complaints(servo.number, reply)
            self._missed[servo.number] = 0 if reply is not None else self._missed[servo.number] + 1
        if replies:
            self._sequence, self._received_ns = self._sequence + 1, time.monotonic_ns()
        position = self._angles((self._counts + self._turns)[self._own])
        speed = self._speed[self._own] * family.velocity_unit
        velocity = np.where(np.abs(speed) < STILL, 0.0, speed)
        load = (self._load * [servo.load for servo in servos])[self._own]
        values = {"state": position, "velocity": speed, "load": load}
        observation = {f"observation.{name}": value.astype(np.float32) for name, value in values.items()}
        silent = np.array([servo.number not in replies for servo in servos])
        valid = ~(self._moves & silent).any(axis=1)
        return State(observation, position, velocity, valid, self._sequence, self._received_ns, self._faults())

    def _faults(self) -> tuple[str, ...]:
        arm, angle, found = self.arm, self.calibration.angle(self._counts), list[str]()
        for index, servo in enumerate(arm.servos):
            complaints = [*self._complaints.get(servo.number, ())]
            if min(self._missed.values()) < MISSED <= self._missed[servo.number]:
                complaints.append("does not answer")
            if servo.number in self._jumped:
                complaints.append("its encoder has jumped; check its horn, then start anew")
            if servo.leader is not None:
                apart = abs(float(angle[index] - angle[arm.numbers.index(servo.leader)]))
                complaints += [f"{apart:.2f} rad from servo {servo.leader}"] if apart > APART else []
            found += [f"{servo.name} (servo {servo.number}): {complaint}" for complaint in complaints]
        return tuple(found)

    def write(self, command: SafeCommand) -> Receipt:
        """Make the command the servos' goals, all at once."""
        if not isinstance(command, SafeCommand):
            raise TypeError(f"a device takes a SafeCommand, not {type(command).__name__}")
        if not self.active:
            raise DeviceError(f"{self.spec.name} is not active; call activate first")
        sent = self.servos.write(self.arm.family.goal, self._numbered(command.position))
        return Receipt(time.monotonic_ns(), sent, self.servos.bus.lost or "")

    def stop(self, how: Stop) -> None:
        """Servos stop at their last goals and hold them, or lose their torque."""
        if how not in (Stop.HOLD, Stop.BRAKE):
            self.active = False
            self.servos.set(self.arm.family.torque, dict.fromkeys(self.leaders, 0))

    def close(self) -> None:
        """Let go of the port."""
        if self._limp_on_close:
            self.stop(Stop.LIMP)
        self.active = False
        self.servos.bus.close()

    def _angles(self, counts: Counts) -> Float64[ndarray, " action"]:
        """Where the joints are when their servos say this [rad]."""
        return (counts - (self._zero + self._turns)[self._own]) * COUNT

    def _numbered(self, angles: Float64[ndarray, " action"]) -> dict[int, int]:
        """Nearest positions of the joints' servos, by their numbers [count]."""
        counts = np.rint(angles / COUNT).astype(np.int64) + (self._zero + self._turns)[self._own]
        return dict(zip(self.leaders, counts.tolist(), strict=True))


def _own_joints(arm: Arm) -> Bool[ndarray, " servos"]:
    """Servos with a joint of their own."""
    return np.array([servo.leader is None for servo in arm.servos])

"""The controller of an emulated UR5e: safety, programs, registers, and the joints that it moves 500 times a second."""

import time
from typing import Any

import mujoco
import numpy as np

from alula.real_robot.emulators.faults import Fault, FaultPlan
from alula.real_robot.emulators.judge import Judge
from alula.real_robot.emulators.plant import ArmPlant
from alula.real_robot.emulators.ur_motion import Motion
from alula.real_robot.emulators.ur_programs import HALT, Program, find_program

POWER_OFF, RUNNING = 3, 7
"""Modes of the robot."""
ROBOT_MODES = {POWER_OFF: "POWER_OFF", RUNNING: "RUNNING"}
NORMAL, PROTECTIVE_STOP, EMERGENCY_STOP = 1, 3, 7
"""Modes of its safety system."""
SAFETY_STATES = {NORMAL: "NORMAL", PROTECTIVE_STOP: "PROTECTIVE_STOP", EMERGENCY_STOP: "ROBOT_EMERGENCY_STOP"}
SAFETY_BITS = {NORMAL: 1 << 0, PROTECTIVE_STOP: 1 << 2 | 1 << 10, EMERGENCY_STOP: 1 << 6 | 1 << 7 | 1 << 10}
STOPPED, PLAYING, PAUSED = 1, 2, 4
"""States of the program."""
BUMP = 1e-3
"""How far from the arm the first command may be [rad]: our choice."""
EMERGENCY_HALT = 30.0
"""Deceleration of a protective stop [rad/s^2]: our choice."""


class Robot:
    """One robot.

    Args:
        plant: Its joints.
        judge: Told of every command.
        faults: What goes wrong.
        payload: What it believes to carry [kg].
    """

    def __init__(self, plant: ArmPlant, judge: Judge, faults: FaultPlan, payload: float) -> None:
        self.plant, self.judge, self.faults, self.payload = plant, judge, faults, payload
        self.motion = Motion(plant.position)
        self.program: Program | None = None
        self.mode, self.safety, self.state = RUNNING, NORMAL, STOPPED
        self.outputs: dict[str, float] = {}
        self.messages: list[str] = []
        """To be told to whoever is connected."""
        self._inputs: dict[str, float] = {}
        self._heard: dict[str, int] = {}
        self._watched: dict[str, int] = {}
        """Inputs that must be written, and how often at least [ns]."""
        self._begun, self._time, self._commanded = time.monotonic(), 0.0, False
        """When it was switched on, how long ago that is [s], and whether the program has had a command."""
        self._happened: list[Fault] = []
        self._stuck = np.zeros(6, dtype=bool)
        self._values: dict[str, Any] = {}
        model, servos = plant.environment.task.model, plant.arm.ctrl
        self._lead = model.actuator_biasprm[servos, 2] / model.actuator_biasprm[servos, 1]
        """Damping of the model's servos over their stiffness [s]: by so much they are commanded ahead, because the
        joints of a real UR follow their commands closely."""
        plant.powered = True

    def once(self, kind: str) -> bool:
        """Whether this misfortune happens now; each does once."""
        fault = self.faults.find(kind)
        if fault is None or any(fault is one for one in self._happened):
            return False
        self._happened.append(fault)
        return True

    @property
    def remote(self) -> bool:
        """Whether it takes commands from the network."""
        return not self.faults.strikes("local_control")

    def input(self, name: str) -> float:
        """See `Machine`."""
        return self._inputs.get(name, 0.0)

    def watch(self, variable: str, rate: float) -> None:
        """See `Machine`."""
        self._watched.pop(variable, None)
        if rate > 0:
            self._watched[variable], self._heard[variable] = round(1e9 / rate), time.monotonic_ns()

    def say(self, message: str) -> None:
        """See `Machine`."""
        self.messages.append(message)
        self.judge.note("message", text=message)

    def receive(self, values: dict[str, float]) -> None:
        """A client has written inputs."""
        self._inputs |= values
        self._heard |= dict.fromkeys(values, time.monotonic_ns())
        target = self.program.receive(self, values) if self.program is not None and self.state == PLAYING else None
        if target is None:
            self.judge.note("inputs", values=values)
            return
        goals, positions = dict(enumerate(target.tolist())), self.plant.position
        if not self._commanded:
            self._commanded = True
            bump = float(np.abs(target - positions).max())
            self.judge.note("first", [f"the first command is {bump} rad from the arm"] if not bump < BUMP else [])
            self.judge.start(goals)
        self.faults.command()
        self.judge.command(goals, positions=positions.tolist())

    def load(self, text: str) -> None:
        """Run a program in place of the present one."""
        refused = not self.remote or self.safety != NORMAL or self.mode != RUNNING
        if refused or self.faults.strikes("script_ignored"):
            self.judge.note("ignored", bytes=len(text))
            return
        self.end_program("replaced")
        self.program = find_program(text, self.judge)
        if self.program is None:
            self.say("syntax error in the program: this emulator knows only two")
            return
        self.state, self._commanded = PLAYING, False
        self.faults.power()

    def end_program(self, why: str, state: int = STOPPED) -> None:
        """The program runs no longer."""
        self.state = state if self.program is not None else STOPPED
        if self.program is not None:
            self.judge.release(range(6))
            self.judge.note("ended", why=why)
        if state == STOPPED:
            self.program = None
            self._watched.clear()

    def tick(self, now_ns: int) -> None:
        """Let one control period pass."""
        self._time = now_ns / 1e9 - self._begun
        self._suffer()
        overdue = [name for name, most in self._watched.items() if now_ns - self._heard[name] > most]
        if overdue and self.state == PLAYING:
            self.end_program(f"watchdog of {overdue[0]}")
        if self.program is None or self.state != PLAYING:
            self.motion.stop(HALT if self.safety == NORMAL else EMERGENCY_HALT)
        elif not self.program.tick(self):
            self.end_program("by itself")
        motion, measured = self.motion, self.plant.position
        stuck = np.array([self.faults.strikes("stuck_joint", joint) for joint in range(1, 7)])
        # A joint that comes free goes on from where it is.
        motion.position = np.where(self._stuck & ~stuck, measured, motion.position)
        self._stuck = stuck
        self.plant.command(np.where(stuck, measured, motion.position + self._lead * motion.velocity))
        self.plant.advance(now_ns)
        self._values = {}

    def _suffer(self) -> None:
        if self.once("protective_stop"):
            self.safety = PROTECTIVE_STOP
            self.end_program("protective stop", PAUSED)
        if self.once("emergency_stop"):
            self.safety, self.mode = EMERGENCY_STOP, POWER_OFF
            self.end_program("emergency stop")
        if self.once("powered_off"):
            self.power_off()
        if not self.remote:
            self.end_program("local control")
        if self.once("script_killed"):
            self.end_program("killed")

    def power_off(self) -> None:
        """Brakes on, motors off."""
        self.mode = POWER_OFF
        self.end_program("power off")

    def unlock(self) -> None:
        """End a protective stop; the program that it paused is over."""
        if self.safety == PROTECTIVE_STOP:
            self.safety = NORMAL
            self.end_program("unlocked")

    def values(self) -> dict[str, Any]:
        """Measured variables by name; the same for all who ask in one period."""
        if not self._values:
            self._values = self._measure()
        return self._values

    def _measure(self) -> dict[str, Any]:
        plant, joints = self.plant, self.plant.position
        point, rotation = plant.tool_pose
        wrench = plant.wrench[:6] if len(plant.wrench) >= 6 else np.zeros(6)
        quaternion, turn = np.zeros(4), np.zeros(3)
        mujoco.mju_mat2Quat(quaternion, rotation.ravel())
        mujoco.mju_quat2Vel(turn, quaternion, 1.0)
        pose = [*point, *turn]
        for joint in range(6):
            jump = self.faults.find("encoder_jump", joint + 1)
            joints[joint] += jump.value if jump is not None else 0.0
            joints[joint] = np.nan if self.faults.strikes("nan", joint + 1) else joints[joint]
        return {
            "timestamp": self._time,
            "target_q": self.motion.position.tolist(),
            "target_qd": self.motion.velocity.tolist(),
            "actual_q": joints.tolist(),
            "actual_qd": plant.velocity.tolist(),
            "actual_TCP_pose": pose,
            "target_TCP_pose": pose,
            # The sensor says what the tip does to the world, along its axes; a UR what the world does to it, along
            # those of its base.
            "actual_TCP_force": [*(-rotation @ wrench[:3]), *(-rotation @ wrench[3:])],
            "robot_mode": self.mode,
            "safety_mode": self.safety,
            "safety_status": self.safety,
            "robot_status_bits": (self.mode == RUNNING) | (self.state == PLAYING) << 1,
            "safety_status_bits": SAFETY_BITS[self.safety],
            "runtime_state": self.state,
            "speed_scaling": 1.0,
            "target_speed_fraction": 1.0,
            "payload": self.payload,
            **self.outputs,
        }

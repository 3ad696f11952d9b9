"""Franka Research 3 through franky, whose own thread answers the robot every millisecond.

What is streamed are joint velocities: those of the governor's commands, plus a share of how far the robot's set point
is from where it should be. Each is a motion that replaces the one before: reach this velocity within two periods, then
come to rest; so a program that stalls stops the arm. Motions to joint positions, replaced as often, were tried, too:
each is planned to arrive without acceleration, which took twenty times the jerk.

The arm holds its position by itself whenever nothing moves it, and cannot be made limp.

Sources:
    FR3: Franka Research 3, "Robot and interface specifications"; `franka_description`, robots/fr3/joint_limits.yaml.
    FER: the same for the older robot, whose limits franky 2.0.0 insists on as well.
"""

import time
from dataclasses import replace
from typing import Any

import franky
import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.core.errors import DeviceError
from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec
from alula.real_robot.contract import DeviceSpec, Limits, Receipt, State, Stop
from alula.real_robot.devices.aside import Aside
from alula.real_robot.devices.config import FrankaConfig
from alula.real_robot.governor import SafeCommand
from alula.real_robot.priority import DRIVER, hurry

JOINTS = tuple(f"joint{index}" for index in range(1, 8))
LOW = np.array([-2.9007, -1.8361, -2.9007, -3.0770, -2.8763, 0.4398, -3.0508])
HIGH = np.array([2.9007, 1.8361, 2.9007, -0.1169, 2.8763, 4.6216, 3.0508])
"""Where the robot stops by itself [rad] (FR3)."""
VELOCITY = np.array([2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61])
ACCELERATION = np.array([10.0, 7.5, 10.0, 10.0, 10.0, 10.0, 10.0])
JERK = np.array([5000.0, 3750.0, 5000.0, 5000.0, 5000.0, 5000.0, 5000.0])
"""What may be commanded [rad/s, rad/s^2, rad/s^3]: the lower of FR3 and FER."""
DECELERATION = np.array([6.0, 2.585, 3.5, 4.0, 17.0, 5.5, 17.0])
OFFSET = np.array([0.652, 0.25, 0.2005, 0.3542, 0.5738, 0.4885, 0.4592])
"""At a distance d from its end, a joint may be as fast as (offset^2 + 2 deceleration d)^(1/2) - offset (FR3)."""
MARGIN = 0.01
"""Kept from the limits of position [rad]: our choice, twice what the arm goes too far on a busy machine."""
FOLLOWING = 0.3
"""How far a joint may be from its command [rad]: our choice; pressing with all its force, it is less."""
RATE = 100.0
"""Control periods per second: our choice; more gains nothing over the 20 ms that a velocity is planned for."""
PLANNED_MS = 20
"""Time in which a velocity is reached, after which the arm comes to rest if nothing follows [ms]: our choice, two
periods; a loop that is a little late is then not felt."""
MOST_SHARE = 0.9
"""Of the robot's acceleration and jerk that franky may use: our choice; libfranka's low-pass filter adds 2 %."""
STALL_S = 2 * PLANNED_MS / 1000
"""Time after which the arm brakes at the latest once nothing follows, counted from the state that the last velocity was
made from [s]."""
GAIN = 10.0
"""Share of the distance to the commanded position that is made up for per second [1/s]: our choice."""
CATCH_UP = 1.25
"""How much faster than the limit it may do that: our choice."""
FOREVER = franky.Duration(2**31)
CONNECT_S = 5.0
"""Longest time to wait for a connection [s]."""
ANSWER_S = 2.0
"""The same for everything else before the start and after the end [s]; libfranka itself waits for 1 s."""
STILL = 0.002
"""Measured velocity that counts as rest [rad/s]: our choice; how noisy a real arm's is was not known."""
CALM = 10
"""States in a row without motion that count as rest, since an arm that swings stops for a moment, too: our choice."""
REST_S = 3.0
"""Longest time to wait for the arm to come to rest [s]."""
FRESH_S = 1 / RATE
"""Age of the state, from which a velocity made of it is not sent any more [s]: our choice."""
READ_S = 0.5 / RATE
"""The same for a state while nothing moves [s]."""
LOST_S = 0.1
"""Age of the last state that counts as a lost link [s]: our choice."""
WATCHDOG_S = 0.02
"""20 answers missed in a row make the robot stop by itself (libfranka)."""
NO_ERRORS = str(franky.Errors())
REMEDIES = {
    franky.RobotMode.Other: "unlock the joints and activate FCI in Desk",
    franky.RobotMode.Guiding: "let go of the guiding buttons",
    franky.RobotMode.UserStopped: "release the user stop",
    franky.RobotMode.Reflex: "activate it again once it is safe",
    franky.RobotMode.AutomaticErrorRecovery: "wait until it has recovered",
}
"""What to do in the modes in which the robot takes no commands."""

Joints = Float64[ndarray, "7"]


def specification(config: FrankaConfig) -> DeviceSpec:
    """A robot whose commands use a share of its dynamics.

    The ends of the joints are farther inside than the robot's own, by as much as it takes that its slowing near them
    never concerns us: braking at its deceleration from v needs offset v / deceleration more room.
    """
    velocity = config.dynamics * VELOCITY
    room = OFFSET * CATCH_UP * velocity / DECELERATION
    limits = Limits(
        low=tuple((LOW + room).tolist()),
        high=tuple((HIGH - room).tolist()),
        velocity=tuple(velocity.tolist()),
        acceleration=tuple(np.minimum(config.dynamics * ACCELERATION, DECELERATION).tolist()),
        jerk=tuple((config.dynamics * JERK).tolist()),
        margin=MARGIN,
        following=(FOLLOWING,) * len(JOINTS),
    )
    state = FieldSpec("observation.state", (7,), units=("rad",), element_names=JOINTS, rate=RATE)
    axes = tuple(f"{kind}_{axis}" for kind in ("force", "torque") for axis in "xyz")
    mode = ControlMode.JOINT_POSITION_ABSOLUTE
    return DeviceSpec(
        name="franka",
        model="a Franka Research 3 (fr3) with robot server 10",
        observation=SpaceSpec(
            (
                state,
                replace(state, name="observation.velocity", units=("rad/s",)),
                replace(state, name="observation.effort", units=("N m",)),
                FieldSpec("observation.wrench", (6,), units=("N",) * 3 + ("N m",) * 3, element_names=axes, rate=RATE),
            )
        ),
        action=SpaceSpec((replace(state, name="action", low=limits.low, high=limits.high, control_mode=mode),)),
        limits=limits,
        rate=RATE,
        stops=(Stop.HOLD, Stop.BRAKE),
        device_watchdog=WATCHDOG_S,
    )


class Franka:
    """Driver of the arm; a gripper is not part of it.

    `observation.wrench` is what the tool does to its surroundings, in its frame: libfranka's `K_F_ext_hat_K`.

    Args:
        config: Settings.
    """

    def __init__(self, config: FrankaConfig) -> None:
        self.config, self.spec = config, specification(config)
        self._robot: franky.Robot | None = None
        self._aside = Aside()
        self._measured: franky.RobotState | None = None
        self._sequence, self._stamp, self._received_ns = 0, -1, 0
        self._active = False
        self._failure: str | None = None
        """Why the robot no longer follows; stays until it is activated again."""
        self._expected: Joints | None = None
        """Where the robot's set point should be at the next command."""

    def configure(self) -> None:
        """Connect, check that it is an FR3, and set limits and collision thresholds; nothing moves."""
        self.close()
        try:
            self._robot, description = self._aside(self._connect, CONNECT_S)
            if not description.startswith("fr3"):
                raise DeviceError(f"{self.config.address} is a {description!r}, not {self.spec.model}")
            self._aside(self._prepare, ANSWER_S)
        except DeviceError:
            self.close()
            raise
        except Exception as error:  # franky's exceptions have no ancestor of their own
            self.close()
            raise DeviceError(
                f"franka at {self.config.address!r} cannot be connected to: {_words(error)}. Check the address and the "
                "cable, unlock the joints and activate FCI in Desk; only one program at a time may be connected. "
                "Without a real-time kernel, as before an emulator: device.realtime=false"
            ) from None

    def _connect(self) -> tuple[franky.Robot, str]:
        realtime = franky.RealtimeConfig.Enforce if self.config.realtime else franky.RealtimeConfig.Ignore
        robot = franky.Robot(self.config.address, realtime_config=realtime)
        name = robot.model_urdf.partition("<robot")[2].partition('name="')[2].partition('"')[0]
        return robot, name

    def _prepare(self) -> None:
        robot, config, share = self._require_robot(), self.config, _share(self.config)
        robot.relative_dynamics_factor = franky.RelativeDynamicsFactor(1.0, share, share)
        robot.joint_acceleration_limit.set(ACCELERATION)
        robot.joint_jerk_limit.set(JERK)
        robot.set_collision_behavior(config.torque_threshold, config.force_threshold)
        if config.tool_mass > 0:
            robot.set_load(config.tool_mass, (0.0, 0.0, config.tool_length), (0.0,) * 9)
        self._take(robot.state)

    def activate(self) -> State:
        """Recover from what has stopped it, if that is possible, and hold the position by an own motion."""
        robot = self._require_robot()
        self._failure = self._expected = None
        try:
            state = self._aside(self._recover, REST_S + ANSWER_S)
            self._take(state)
            if state.robot_mode in REMEDIES:
                raise DeviceError(f"franka cannot be activated: {self._complaint(state)}")
            if not robot.is_in_control:
                self._aside(self._start, ANSWER_S)
            self._active = True
            return self._await_control()
        except DeviceError:
            self._active = False
            raise
        except Exception as error:
            self._active = False
            raise DeviceError(f"franka cannot be activated: {_words(error)}") from None

    def _recover(self) -> franky.RobotState:
        """Forget a reflex, and wait until the arm rests."""
        robot, end = self._require_robot(), time.monotonic() + REST_S
        if robot.state.robot_mode == franky.RobotMode.Reflex:
            robot.recover_from_errors()
        calm = 0
        while calm < CALM and time.monotonic() < end:
            calm = calm + 1 if (np.abs(robot.state.dq) < STILL / 2).all() else 0
            time.sleep(1 / RATE)
        return robot.state

    def _start(self) -> None:
        """Begin to stand still; the thread that franky starts for it comes before other work, as this one does."""
        hurry(DRIVER)
        self._require_robot().move(_standstill(), asynchronous=True)

    def _await_control(self) -> State:
        """The first state under the new motion."""
        end, before = time.monotonic() + ANSWER_S, self._sequence
        while time.monotonic() < end:
            state = self.read()
            if self._failure is not None:
                raise DeviceError(f"franka cannot be activated: {self._failure}")
            if state.sequence > before + 1:  # the one after that has been answered
                return state
            time.sleep(1 / RATE)
        raise DeviceError(f"franka cannot be activated: no state for {ANSWER_S} s")

    def read(self) -> State:
        """The newest state."""
        robot = self._require_robot()
        if self._failure is None and self._active:
            if robot.is_in_control:
                self._take(robot.state)  # at once, for franky's own thread has it
            else:
                self._end_motion(robot)
        else:
            try:
                self._take(self._aside(lambda: robot.state, READ_S))
            except TimeoutError:
                pass
            except Exception as error:
                self._failure = self._failure or _words(error)
        return self._state()

    def _end_motion(self, robot: franky.Robot) -> None:
        """Note why franky's thread has ended."""
        try:
            robot.poll_motion()
            self._failure = "the motion has ended"
        except Exception as error:
            self._failure = _words(error)

    def _take(self, state: franky.RobotState) -> None:
        stamp = state.time.to_msec()
        self._measured = state
        if stamp != self._stamp:
            self._stamp, self._received_ns, self._sequence = stamp, time.monotonic_ns(), self._sequence + 1

    def _state(self) -> State:
        state = self._measured
        assert state is not None  # configuring has taken one
        faults = [self._failure or "", self._complaint(state)]
        age = (time.monotonic_ns() - self._received_ns) / 1e9
        if age > LOST_S:
            faults.append(f"no state for {1e3 * age:.0f} ms")
        observation = {
            "observation.state": state.q,
            "observation.velocity": state.dq,
            "observation.effort": state.tau_J,
            "observation.wrench": state.K_F_ext_hat_K,
        }
        return State(
            {name: value.astype(np.float32) for name, value in observation.items()},
            state.q,
            np.where(np.abs(state.dq) < STILL, 0.0, state.dq),
            np.isfinite(state.q) & np.isfinite(state.dq),
            self._sequence,
            self._received_ns,
            tuple(fault for fault in faults if fault),
        )

    def _complaint(self, state: franky.RobotState) -> str:
        """What the robot itself says is wrong."""
        if state.robot_mode not in REMEDIES:
            return ""
        errors = str(state.current_errors)
        reasons = f" because of {errors}" if errors != NO_ERRORS else ""
        return f"the robot's mode is {state.robot_mode.name}{reasons}: {REMEDIES[state.robot_mode]}"

    def write(self, command: SafeCommand) -> Receipt:
        """Stream the command's velocity."""
        if not isinstance(command, SafeCommand):
            raise TypeError(f"a device takes a SafeCommand, not {type(command).__name__}")
        if not self._active or self._measured is None:
            raise DeviceError("franka is not active; call activate first")
        expected = command.position if self._expected is None else self._expected
        self._expected = command.position
        begun = time.monotonic()
        self.read()
        set_point = self._measured.q_d
        velocity = command.velocity + command.acceleration / (2 * RATE) + GAIN * (expected - set_point)
        low, high = np.array(self.spec.limits.low) + MARGIN, np.array(self.spec.limits.high) - MARGIN
        motion = _towards(np.clip(velocity, -self._fastest(set_point - low), self._fastest(high - set_point)))
        if time.monotonic() - begun > FRESH_S:
            return Receipt(time.monotonic_ns(), False, "the host was busy for too long; the arm brakes by itself")
        return self._move(motion)

    def _fastest(self, room: Joints) -> Joints:
        """What may be streamed so far from the joints' ends that the arm still rests before them if nothing follows.

        The governor's own braking is gentler and begins sooner.
        """
        braking = _share(self.config) * ACCELERATION
        stopping = braking * (np.sqrt(STALL_S**2 + 2 * np.clip(room, 0.0, None) / braking) - STALL_S)
        return np.minimum(np.minimum(CATCH_UP * np.array(self.spec.limits.velocity), 0.999 * VELOCITY), stopping)

    def _move(self, motion: Any) -> Receipt:
        """Replace the motion; never start one, which `activate` alone does."""
        robot = self._require_robot()
        if self._failure is None:
            try:
                if robot.is_in_control:
                    robot.move(motion, asynchronous=True)
                else:
                    self._end_motion(robot)
            except Exception as error:
                self._failure = _words(error)
        return Receipt(time.monotonic_ns(), self._failure is None, self._failure or "")

    def stop(self, how: Stop) -> None:
        """Come to rest and hold; the robot has no other way."""
        self._expected = None
        if self._active and self._robot is not None:
            self._move(_standstill())

    def close(self) -> None:
        """End the motion and the connection; the robot holds its position by itself."""
        active, self._active = self._active, False
        if self._robot is None:
            return
        robot, self._robot = [self._robot], None
        try:
            self._aside(lambda: _release(robot, active and self._failure is None), ANSWER_S)
        except Exception:  # whatever franky says of a link that is gone, or nothing at all: it has been let go of
            self._aside = Aside()

    def _require_robot(self) -> franky.Robot:
        if self._robot is None:
            raise DeviceError("franka is not connected; call configure first")
        return self._robot


def _share(config: FrankaConfig) -> float:
    """Of the robot's acceleration and jerk; reaching a velocity without acceleration at either end takes twice."""
    return min(MOST_SHARE, 2 * config.dynamics)


def _towards(velocity: Joints) -> Any:
    """Reach a velocity, then come to rest."""
    waypoints = [
        franky.JointVelocityWaypoint(velocity, minimum_time=franky.Duration(PLANNED_MS)),
        franky.JointVelocityWaypoint(np.zeros(7), hold_target_duration=FOREVER),
    ]
    return franky.JointVelocityWaypointMotion(waypoints)


def _standstill() -> Any:
    return franky.JointVelocityMotion(np.zeros(7), FOREVER)


def _release(robot: list[franky.Robot], moving: bool) -> None:
    """End its motion in order and let go of its last reference, which disconnects."""
    try:
        if moving:
            robot[0].move(franky.JointVelocityStopMotion(), asynchronous=True)
            robot[0].join_motion(ANSWER_S / 2)
    finally:
        robot.clear()


def _words(error: Exception) -> str:
    """An exception of franky's in one line."""
    return " ".join(str(error).split()).rstrip(" .") or type(error).__name__

"""What a Franka's own controller does with set points, millisecond by millisecond: follow, extrapolate, refuse, stop.

Real: the modes, the reflexes for set points that break its limits, the stop after 20 missed answers, the collision
reflex above the thresholds, the recovery. Ours: the joints follow by the servos of the simulated Panda.
"""

from collections import deque

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from alula.real_robot.emulators.franka_wire import (
    ACCELERATION,
    HIGH,
    JERK,
    JOINTS,
    LOW,
    SLOWING,
    VELOCITIES,
    VELOCITY,
    Mode,
    MoveStatus,
    SetPoint,
    Telemetry,
)
from alula.real_robot.emulators.plant import ArmPlant

DT = 0.001
"""Between two states [s] (libfranka)."""
MOST_MISSED = 20
"""Answers missed in a row, after which the robot stops by itself (libfranka: `communication_constraints_violation`)."""
WINDOW = 100
"""Answers over which the success rate counts (libfranka)."""
START_ERROR = 0.01
"""How far from the robot the first set point may be [rad]: our choice."""
EXCESS = 1e-6
"""Relative excess over a limit that floating-point numbers may bring about."""
POSE_EVERY = 10
"""States between two computations of the tool's pose, which few ask for: our choice."""

DECELERATION, OFFSET = np.array(SLOWING).T

Joints = Float64[ndarray, "7"]


class FrankaRobot:
    """The arm and its controller.

    Args:
        plant: What moves.
    """

    def __init__(self, plant: ArmPlant) -> None:
        self.plant, self.mode = plant, Mode.IDLE
        self.errors: frozenset[str] = frozenset()
        self.reasons: frozenset[str] = frozenset()
        self.ended: MoveStatus | None = None
        """How the motion has ended, until the client has been told."""
        self.wrench = np.zeros(6)
        """Of the robot on its surroundings at the tool's tip, in its frame [N, N m]; zero in scenes without sensors."""
        self.thresholds = np.full(6, np.inf)
        """Forces and torques of a collision [N, N m]."""
        self.clock = 0
        """Number of the present state, and milliseconds since power came on."""
        self.missed = 0
        self._received: deque[bool] = deque(maxlen=WINDOW)
        self._gaps: deque[int] = deque(maxlen=3)
        """Answers missed before each of the last set points, as many as a jerk is made of."""
        self._begun, self._generator = False, 0
        self._pose, self._pose_due = (0.0,) * 16, 0
        """Of the tool, and the state from which on it is computed anew."""
        self.desired, self.velocity, self.acceleration = plant.position, np.zeros(JOINTS), np.zeros(JOINTS)
        """The last set point and its differences, which the next one is judged by."""
        plant.powered = True  # without motion it holds its position by itself

    def start(self, generator: int) -> MoveStatus:
        """Begin a motion made of positions or velocities, if it may."""
        if self.mode is not Mode.IDLE or self.velocity.any():
            return MoveStatus.NOT_POSSIBLE
        self._generator = generator
        self.mode, self.reasons, self.ended = Mode.MOVE, frozenset(), None
        self.acceleration = np.zeros(JOINTS)
        self.missed, self._begun = 0, False
        self._received.clear()
        self._gaps.clear()
        return MoveStatus.STARTED

    def end(self, status: MoveStatus) -> None:
        """End the motion; what speed is left is taken off at the robot's own deceleration."""
        if self.mode is Mode.MOVE:
            self.mode, self.ended = Mode.IDLE, status

    def reflex(self, *errors: str) -> None:
        """Stop because of something."""
        self.end(MoveStatus.REFLEX)
        self.mode, self.errors, self.reasons = Mode.REFLEX, frozenset(errors), frozenset(errors)

    def interrupt(self, mode: Mode | None) -> None:
        """Somebody presses the user stop or guides the robot by hand; None: nobody does any more."""
        if mode is not None and self.mode is not mode:
            self.end(MoveStatus.EMERGENCY if mode is Mode.USER_STOPPED else MoveStatus.PREEMPTED)
            self.mode = mode
        elif mode is None and self.mode in (Mode.USER_STOPPED, Mode.GUIDING):
            self.mode = Mode.IDLE

    def recover(self) -> bool:
        """Forget the errors; whether that is possible."""
        if self.mode is Mode.REFLEX:
            self.mode, self.errors = Mode.IDLE, frozenset()
        return self.mode is Mode.IDLE

    def follow(self, answer: SetPoint) -> list[str]:
        """Make a set point the next; returns what it breaks, after which the robot stops."""
        position = np.array(answer.position)
        if self._generator == VELOCITIES:
            position = self.desired + np.array(answer.velocity) * DT
        velocity = (position - self.desired) / DT
        acceleration = (velocity - self.velocity) / DT
        jerk = (acceleration - self.acceleration) / DT
        self._gaps.append(self.missed)
        # A client that does not know of lost answers goes on from where they would have led.
        most_jerk = JERK * (1 + max(self._gaps)) ** 2
        most_acceleration = ACCELERATION + (most_jerk - JERK) * DT
        found = {
            "joint_motion_generator_position_limits_violation": (position < LOW) | (position > HIGH),
            "joint_motion_generator_velocity_limits_violation": self._too_fast(velocity),
            "joint_motion_generator_velocity_discontinuity": np.abs(acceleration) > most_acceleration * (1 + EXCESS),
            "joint_motion_generator_acceleration_discontinuity": np.abs(jerk) > most_jerk * (1 + EXCESS),
        }
        if not self._begun:
            found = {"joint_position_motion_generator_start_pose_invalid": np.abs(velocity) * DT > START_ERROR} | found
        self._begun, self.missed = True, 0
        self._received.append(True)
        breaches = [name for name, where in found.items() if where.any()]
        breaches += ["joint_motion_generator_position_limits_violation"] * (not np.isfinite(position).all())
        if breaches:
            self.reflex(breaches[0])
        else:
            self.desired, self.velocity, self.acceleration = position, velocity, acceleration
        return breaches

    def _too_fast(self, velocity: Joints) -> Bool[ndarray, "7"]:
        """Joints that are faster than allowed, which near their ends is what they could still brake from."""
        room = np.stack([self.desired - LOW, np.array(HIGH) - self.desired]).clip(0.0)
        low, high = np.minimum(VELOCITY, np.sqrt(OFFSET**2 + 2 * DECELERATION * room) - OFFSET)
        return (velocity > high * (1 + EXCESS)) | (velocity < -low * (1 + EXCESS))

    def miss(self) -> None:
        """No set point has come in time: go on at the same acceleration, but not for long."""
        self._received.append(False)
        self.missed += 1
        if self.missed >= MOST_MISSED:
            self.reflex("communication_constraints_violation")
            return
        self.velocity = np.clip(self.velocity + self.acceleration * DT, -np.array(VELOCITY), VELOCITY)
        self.desired = np.clip(self.desired + self.velocity * DT, LOW, HIGH)

    def tick(self) -> None:
        """Let a millisecond pass."""
        self.clock += 1
        if self.mode is not Mode.MOVE and self.velocity.any():
            self.acceleration = np.zeros(JOINTS)
            self.velocity -= np.clip(self.velocity, -ACCELERATION * DT, ACCELERATION * DT)
            self.desired = np.clip(self.desired + self.velocity * DT, LOW, HIGH)
        self.plant.command(self.desired)
        self.plant.advance(round(self.clock * DT * 1e9))
        felt = self.plant.wrench
        self.wrench = felt if felt.size == len(self.wrench) else self.wrench
        if self.mode is Mode.MOVE and (np.abs(self.wrench) > self.thresholds).any():
            self.reflex("cartesian_reflex")

    def telemetry(self) -> Telemetry:
        """The present state."""
        if self.clock >= self._pose_due:
            self._pose_due = self.clock + POSE_EVERY
            position, axes = self.plant.tool_pose
            self._pose = tuple(np.block([[axes, position[:, None]], [np.eye(4)[3:]]]).T.ravel().tolist())
        plant, received = self.plant, self._received
        return Telemetry(
            message_id=self.clock,
            mode=self.mode,
            generator=(self._generator + 1) * (self.mode is Mode.MOVE),
            position=tuple(plant.position.tolist()),
            velocity=tuple(plant.velocity.tolist()),
            torque=tuple(plant.effort.tolist()),
            desired=tuple(self.desired.tolist()),
            desired_velocity=tuple(self.velocity.tolist()),
            desired_acceleration=tuple(self.acceleration.tolist()),
            wrench=tuple(self.wrench.tolist()),
            pose=self._pose,
            errors=self.errors,
            reasons=self.reasons,
            success_rate=sum(received) / len(received) if received and self.mode is Mode.MOVE else 0.0,
        )

"""Scripted demonstrator of all tabletop tasks: it goes from waypoint to waypoint of a plan."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from alula.core.geometry import wrap_angle
from alula.sims.engine import BatchState
from alula.sims.robots.control import ArmControl
from alula.sims.robots.kinematics import yaw_of

MISJUDGEMENT = 0.003
"""Standard deviation of the aim's horizontal error per attempt, per axis, times `noise` [m]."""
TREMOR = 0.03
"""Noise at rest as a share of the action range, times `noise`."""
NEAR_YAW = 0.06
"""Yaw error within which a waypoint counts as reached [rad]."""


@dataclass
class Pose:
    """Where one tool shall be."""

    position: Float64[ndarray, "num_envs 3"]
    """[m]"""
    yaw: Float64[ndarray, " num_envs"]
    """[rad]"""
    opening: float
    """Of the gripper, 0 closed to 1 open."""


@dataclass
class Waypoint:
    """One phase of a plan: where the tools go, and when the next phase begins."""

    poses: Sequence[Pose]
    """One per arm."""
    near: float = 0.01
    """Distance within which every tool must come [m]."""
    wait: int = 0
    """Steps to stay at least."""
    lead: float = np.inf
    """How far ahead of a tool its aim may be [m]: less is slower."""
    follow: bool = False
    """Whether the poses are looked up anew at every step; otherwise they stay as they were when the phase began."""
    failed: Bool[ndarray, " num_envs"] | None = None
    """Where the attempt has failed, so that the plan begins anew."""


class WaypointExpert:
    """Follows a plan; with `noise` > 0 it misjudges its aim a little at each attempt.

    Its motion is disturbed in proportion to its size, as human movement is (Harris & Wolpert 1998, Nature 394).

    Args:
        plan: Waypoints as they look from the present state.
        arms: The arms, in the order of the poses.
        noise: Imperfection; 0 is its best.
        seed: Of that imperfection.
    """

    def __init__(
        self, plan: Callable[[BatchState], list[Waypoint]], arms: Sequence[ArmControl], noise: float, seed: int
    ) -> None:
        self.plan, self.arms, self.noise = plan, arms, noise
        self.generator = np.random.default_rng(seed)
        self.phase = np.zeros(0, dtype=np.int64)

    def act(self, state: BatchState) -> Float64[ndarray, "num_envs action"]:
        """Actions towards the waypoint of each environment's phase."""
        waypoints, count = self.plan(state), len(state.time)
        begun = (state.time == 0.0) | (len(self.phase) != count)
        if len(self.phase) != count:
            self.phase, self.waited = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
            self.held = np.zeros((count, len(self.arms), 5))
            self.error = np.zeros((count, 2))
        for index, waypoint in enumerate(waypoints):
            if waypoint.failed is not None:
                begun |= (self.phase == index) & waypoint.failed
        self.error = np.where(begun[:, None], self._misjudge(count), self.error)
        self.phase = np.where(begun, 0, self.phase)
        self.waited = np.where(begun, 0, self.waited)
        follow = np.array([waypoint.follow for waypoint in waypoints])
        self._hold(waypoints, begun | follow[self.phase])
        moved = self._advance(state, waypoints)
        if moved.any():
            self._hold(waypoints, moved)
        return self._actions(state, np.array([waypoint.lead for waypoint in waypoints])[self.phase])

    def _misjudge(self, count: int) -> Float64[ndarray, "num_envs 2"]:
        return self.noise * MISJUDGEMENT * self.generator.standard_normal((count, 2))

    def _hold(self, waypoints: list[Waypoint], fresh: Bool[ndarray, " num_envs"]) -> None:
        """Take over the poses as they look now, where a phase begins or follows what it aims at."""
        rows = np.arange(len(self.phase))
        for index in range(len(self.arms)):
            poses = [waypoint.poses[index] for waypoint in waypoints]
            position = np.stack([pose.position for pose in poses])[self.phase, rows]
            yaw = np.stack([pose.yaw for pose in poses])[self.phase, rows]
            opening = np.array([pose.opening for pose in poses])[self.phase]
            aim = np.column_stack([position[:, :2] + self.error, position[:, 2], yaw, opening])
            self.held[:, index] = np.where(fresh[:, None], aim, self.held[:, index])

    def _advance(self, state: BatchState, waypoints: list[Waypoint]) -> Bool[ndarray, " num_envs"]:
        """Begin the next phase where this one's poses are reached and its time is over."""
        near = np.array([waypoint.near for waypoint in waypoints])[self.phase]
        wait = np.array([waypoint.wait for waypoint in waypoints])[self.phase]
        self.waited = self.waited + 1
        reached = self.waited > wait
        for index, arm in enumerate(self.arms):
            distance = np.linalg.norm(state.extras[arm.prefix + "tool_position"] - self.held[:, index, :3], axis=1)
            turn = wrap_angle(yaw_of(state.extras[arm.prefix + "tool_rotation"]) - self.held[:, index, 3])
            reached &= (distance < near) & (np.abs(turn) < NEAR_YAW)
        moved: Bool[ndarray, " num_envs"] = reached & (self.phase < len(waypoints) - 1)
        self.phase = self.phase + moved
        self.waited = np.where(moved, 0, self.waited)
        return moved

    def _actions(self, state: BatchState, lead: Float64[ndarray, " num_envs"]) -> Float64[ndarray, "num_envs action"]:
        parts = []
        for index, arm in enumerate(self.arms):
            held = self.held[:, index]
            tool = state.extras[arm.prefix + "tool_position"]
            way = held[:, :3] - tool
            share = np.minimum(1.0, lead / np.maximum(np.linalg.norm(way, axis=1), 1e-9))
            action = arm.toward(state, tool + share[:, None] * way, held[:, 3], held[:, 4])
            low, high = np.array(arm.elements.low), np.array(arm.elements.high)
            spread = self.noise * (np.abs(action) + TREMOR * (high - low) / 2)
            parts.append(np.clip(action + spread * self.generator.standard_normal(action.shape), low, high))
        return np.concatenate(parts, axis=1)

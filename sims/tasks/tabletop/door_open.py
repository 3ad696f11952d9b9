"""Open a hinged door by its handle."""

from dataclasses import dataclass
from functools import cached_property

import mujoco
import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from alula.core.geometry import quaternion_from_yaw, rotate_by_yaw
from alula.sims.engine import BatchState
from alula.sims.tasks.tabletop.base import TabletopTask
from alula.sims.tasks.tabletop.expert import Pose, Waypoint
from alula.sims.tasks.tabletop.grasping import facing, grasp, lost
from alula.sims.tasks.tabletop.scene import CONTACT, Body, FixedBody

WIDTH, HEIGHT, THICKNESS = 0.17, 0.12, 0.012
"""Of the door, the first from the hinge's axis [m]."""
HANDLE = (0.045, 0.145)
"""Where the handle is when the door is closed: before the door, and beside the hinge's axis [m]."""
HANDLE_RADIUS, HANDLE_TOP = 0.008, 0.17
"""Of the upright bar by which the door is opened [m]."""
GRIP_HEIGHT = 0.145
"""Where the expert takes it [m]."""
DENSITY = 600.0
"""Of the door [kg/m^3], as wood."""
DAMPING, FRICTION = 0.05, 0.05
"""Of the hinge [N m s/rad, N m]: our choice; the handle moves at a third of a newton."""
LIMIT = 1.8
"""Angle at which the door stops [rad]."""
OPEN = 0.7
"""Angle from which the door counts as open [rad]."""
YAW_RANGE = 0.3
"""Largest angle of the closed door's front against the arm, either way [rad]."""
AHEAD = 0.3
"""How much further open the expert pulls than the door is [rad]."""
WOOD, METAL = (0.72, 0.53, 0.34, 1.0), (0.30, 0.32, 0.35, 1.0)


@dataclass(frozen=True)
class Handle(Body):
    """The middle of the handle's grip, with the x axis pointing away from the door."""

    frame: FixedBody
    hinge: int
    """The hinge's place in `qpos`."""

    def angle(self, state: BatchState) -> Float64[ndarray, " num_envs"]:
        """How far the door is open [rad]."""
        return state.qpos[:, self.hinge]

    def when(self, state: BatchState, angle: Float64[ndarray, " num_envs"]) -> Float64[ndarray, "num_envs 3"]:
        """Where it is when the door is open by `angle` [m]."""
        closed = np.tile([*HANDLE, GRIP_HEIGHT], (len(angle), 1))
        return self.frame.position(state) + rotate_by_yaw(closed, self.frame.yaw(state) - angle)

    def position(self, state: BatchState) -> Float64[ndarray, "num_envs 3"]:
        """In the world [m]."""
        return self.when(state, self.angle(state))

    def quaternion(self, state: BatchState) -> Float64[ndarray, "num_envs 4"]:
        """In the world, wxyz."""
        return quaternion_from_yaw(self.frame.yaw(state) - self.angle(state))


class DoorOpen(TabletopTask):
    """A door stands on the table, its hinge upright; success is the door open by 0.7 rad."""

    num_draws = 3
    fixture_names = ("frame",)

    @cached_property
    def handle(self) -> Handle:
        """The handle."""
        return Handle(FixedBody.of(self.model, "frame"), int(self.model.joint("hinge").qposadr[0]))

    def seen(self) -> dict[str, Body]:
        """The frame, which stands still, and the handle, which shows the door's angle."""
        return {**super().seen(), "handle": self.handle}

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """A frame whose origin is the hinge's foot; the closed door extends along its y axis and opens towards x."""
        frame = spec.worldbody.add_body(name="frame", mocap=True)
        _add_box(frame, (-0.012, WIDTH / 2, 0.002), (0.03, WIDTH / 2 + 0.03, 0.002), METAL)
        frame.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            pos=[0.0, 0.0, HEIGHT / 2 + 0.008],
            size=[0.008, HEIGHT / 2 + 0.008, 0.0],
            contype=0,
            conaffinity=0,
            rgba=list(METAL),
        )
        door = frame.add_body(name="door")
        door.add_joint(
            name="hinge",
            type=mujoco.mjtJoint.mjJNT_HINGE,
            axis=[0.0, 0.0, -1.0],
            range=[0.0, LIMIT],
            damping=DAMPING,
            frictionloss=FRICTION,
            armature=0.001,
        )
        _add_box(door, (0.0, WIDTH / 2, HEIGHT / 2 + 0.008), (THICKNESS / 2, WIDTH / 2, HEIGHT / 2), WOOD)
        x, y = HANDLE
        for z in (0.06, 0.11):
            _add_box(door, ((x + THICKNESS / 2) / 2, y, z), ((x - THICKNESS / 2) / 2, 0.006, 0.006), METAL)
        door.add_geom(
            name="handle",
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            pos=[x, y, (0.05 + HANDLE_TOP) / 2],
            size=[HANDLE_RADIUS, (HANDLE_TOP - 0.05) / 2, 0.0],
            density=DENSITY,
            rgba=list(METAL),
            **CONTACT,
        )

    def lay_out(
        self, state: BatchState, env_ids: Int64[ndarray, " selected"], unit: Float64[ndarray, "selected n"]
    ) -> None:
        """The handle in the workspace's far half, the door's front towards the arm, closed."""
        yaw = np.pi + YAW_RANGE * (2.0 * unit[:, 2] - 1.0)
        handle = np.zeros((len(unit), 3))
        handle[:, 0] = self.center[0] + self.half * unit[:, 0]
        handle[:, 1] = self.center[1] + 0.5 * self.half * (2.0 * unit[:, 1] - 1.0)
        closed = np.tile([*HANDLE, 0.0], (len(unit), 1))
        self.fixtures["frame"].place(state, env_ids, handle - rotate_by_yaw(closed, yaw), yaw)

    def success(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """Open enough."""
        return self.handle.angle(state) > OPEN

    def metrics(self, state: BatchState) -> dict[str, Float64[ndarray, " num_envs"]]:
        """How far the door is open [rad]."""
        return {"angle": self.handle.angle(state).copy()}

    def plan(self, state: BatchState) -> list[Waypoint]:
        """Take the handle and pull it along its arc, turning with it."""
        handle, angle = self.handle, self.handle.angle(state)
        yaw = facing(handle.yaw(state), self.home_yaw[0], np.pi)
        pulled = Pose(handle.when(state, angle + AHEAD), yaw, 0.0)
        slipped = lost(state, self.arms[0], handle.position(state))
        return [*grasp(handle.position(state), yaw), Waypoint([pulled], follow=True, failed=slipped)]


def _add_box(
    body: mujoco.MjsBody,
    center: tuple[float, float, float],
    half: tuple[float, float, float],
    color: tuple[float, ...],
) -> None:
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=list(center),
        size=list(half),
        density=DENSITY,
        rgba=list(color),
        **CONTACT,
    )

"""Push a T-shaped block to where it shall lie, after Florence et al. 2021 and Chi et al. 2023 (Diffusion Policy)."""

import mujoco
import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from alula.core.geometry import rotate_by_yaw, wrap_angle
from alula.sims.engine import BatchState
from alula.sims.tasks.tabletop.base import TabletopTask
from alula.sims.tasks.tabletop.config import PushTConfig
from alula.sims.tasks.tabletop.expert import Pose, Waypoint
from alula.sims.tasks.tabletop.pushing import STICK_RADIUS, best_push
from alula.sims.tasks.tabletop.scene import CONTACT, MARK_THICKNESS, add_free_body
from alula.sims.tasks.tabletop.t_shape import BAR, STEM, coverage

HALF_HEIGHT = 0.015
"""Of the T [m]."""
MASS = 0.1
"""Of the T [kg]."""
STICK_LENGTH = 0.12
"""From the flange to the stick's end [m]."""
STICK_FRICTION = 1.0
"""Sliding friction of the stick's rubber on plastic."""
TARGET_RANGE = 0.3
"""Half-width of the square of target positions, as a share of the workspace's."""
PUSH_HEIGHT, TRAVEL_HEIGHT = 0.01, 0.06
"""Of the stick's end above the table while the expert pushes and while it moves elsewhere [m]."""
LEAD = 0.010
"""How far ahead of the stick the expert aims while it pushes, so that the T stops with the stick [m]."""


class PushT(TabletopTask):
    """The arm pushes the T with a stick; success is a coverage of the target of 90 %."""

    config: PushTConfig
    num_draws = 6
    thing_names = ("block",)
    fixture_names = ("target",)

    def equip(self, spec: mujoco.MjSpec, flange: mujoco.MjsBody, prefix: str) -> None:
        """A stick."""
        stick = flange.add_body(name=f"{prefix}stick", gravcomp=1.0)
        stick.add_geom(
            name=f"{prefix}stick",
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            fromto=[0.0, 0.0, 0.0, 0.0, 0.0, STICK_LENGTH],
            size=[STICK_RADIUS, 0.0, 0.0],
            mass=0.1,
            rgba=[0.25, 0.27, 0.30, 1.0],
            **CONTACT | {"friction": [STICK_FRICTION, 0.01, 0.001]},
        )
        stick.add_site(name=f"{prefix}tool", pos=[0.0, 0.0, STICK_LENGTH], rgba=[0.0, 0.0, 0.0, 0.0])

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """The T, and its target painted on the table."""
        block, target = add_free_body(spec, "block"), spec.worldbody.add_body(name="target", mocap=True)
        for name, (center, half) in {"bar": BAR, "stem": STEM}.items():
            box, share = (
                mujoco.mjtGeom.mjGEOM_BOX,
                half[0] * half[1] / (BAR[1][0] * BAR[1][1] + STEM[1][0] * STEM[1][1]),
            )
            block.add_geom(
                name=name,
                type=box,
                pos=[*center, 0.0],
                size=[*half, HALF_HEIGHT],
                mass=MASS * share,
                rgba=[0.90, 0.45, 0.13, 1.0],
                **CONTACT,
            )
            target.add_geom(
                type=box,
                pos=[*center, 0.0],
                size=[*half, MARK_THICKNESS],
                contype=0,
                conaffinity=0,
                rgba=[0.25, 0.62, 0.35, 1.0],
            )

    def lay_out(
        self, state: BatchState, env_ids: Int64[ndarray, " selected"], unit: Float64[ndarray, "selected n"]
    ) -> None:
        """The target near the middle, turned any way; the T not far from it."""
        spread = 2.0 * unit - 1.0
        target, block = np.zeros((len(unit), 3)), np.zeros((len(unit), 3))
        target[:, :2] = self.center + TARGET_RANGE * self.half * spread[:, :2]
        target_yaw = np.pi * spread[:, 2]
        block[:, :2] = target[:, :2] + self.config.start_range * spread[:, 3:5]
        block[:, 2] = HALF_HEIGHT
        self.fixtures["target"].place(state, env_ids, target, target_yaw)
        self.things["block"].place(state, env_ids, block, target_yaw + self.config.start_yaw_range * spread[:, 5])

    def block_in_target(
        self, state: BatchState
    ) -> tuple[Float64[ndarray, "num_envs 2"], Float64[ndarray, " num_envs"]]:
        """Position [m] and yaw [rad] of the T in the frame of its target."""
        block, target = self.things["block"], self.fixtures["target"]
        yaw = target.yaw(state)
        offset = rotate_by_yaw(block.position(state) - target.position(state), -yaw)
        return offset[:, :2], wrap_angle(block.yaw(state) - yaw)

    def metrics(self, state: BatchState) -> dict[str, Float64[ndarray, " num_envs"]]:
        """Share of the target that the T covers."""
        return {"coverage": coverage(*self.block_in_target(state))}

    def success(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """Enough of the target is covered."""
        return self.metrics(state)["coverage"] >= self.config.coverage

    def plan(self, state: BatchState) -> list[Waypoint]:
        """Again and again the best straight push: go there, come down, push, leave."""
        tool, target, yaw = (
            state.extras["tool_position"],
            self.fixtures["target"],
            np.full(len(state.time), self.home_yaw[0]),
        )
        block = self.block_in_target(state)

        def pose(point: Float64[ndarray, "num_envs 2"], height: float) -> Pose:
            """The tool at a point of the target's frame."""
            flat = np.column_stack([point, np.full(len(point), height)])
            return Pose(target.position(state) + rotate_by_yaw(flat, target.yaw(state)), yaw, 0.0)

        stick = rotate_by_yaw(tool - target.position(state), -target.yaw(state))[:, :2]
        there = best_push(*block)
        here = best_push(*block, stick)
        back = pose(stick - 0.01 * (there.end - there.start), TRAVEL_HEIGHT)
        return [
            Waypoint([pose(there.start, TRAVEL_HEIGHT)], near=0.006),
            Waypoint([pose(stick, PUSH_HEIGHT)], near=0.006),
            Waypoint([pose(here.end, PUSH_HEIGHT)], near=0.003, lead=LEAD),
            Waypoint([back], near=0.02),
            Waypoint([back], failed=np.ones(len(yaw), dtype=bool)),
        ]

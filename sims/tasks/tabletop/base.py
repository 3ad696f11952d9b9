"""What tabletop tasks share: arms over a table, what they feel, how they start and how they are commanded."""

from abc import abstractmethod
from dataclasses import dataclass

import mujoco
import numpy as np
from jaxtyping import Float, Float32, Float64, Int64
from numpy import ndarray

from alula.core.errors import ConfigError
from alula.core.seeding import BatchRng
from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec
from alula.sims.engine import BatchState, Engine
from alula.sims.robots.control import ArmControl
from alula.sims.robots.kinematics import yaw_of
from alula.sims.robots.registry import find_robot
from alula.sims.robots.robot import Actuation, Vector, add_arm, add_gripper
from alula.sims.task import Task
from alula.sims.tasks.tabletop.config import TabletopConfig
from alula.sims.tasks.tabletop.expert import Waypoint, WaypointExpert
from alula.sims.tasks.tabletop.scene import SUBSTEP, Body, FixedBody, FreeBody, empty_scene

RATE, TORQUE_RATE = 20.0, 200.0
"""Control steps per second of kinematic commands, and of torques [Hz]."""
NUM_STARTS = 1024
"""Initial arm postures are drawn from this many, solved once, instead of by inverse kinematics at every reset."""
START_HEIGHT = (0.6, 1.2)
"""Range of initial tool heights, in half-widths of the workspace."""
START_YAW = 0.2
"""Largest initial tool yaw against the home posture's, either way [rad]."""


@dataclass(frozen=True)
class Mount:
    """Where an arm stands."""

    prefix: str = ""
    base: Vector = (0.0, 0.0, 0.0)
    yaw: float = 0.0


class TabletopTask(Task):
    """One or more arms over a table.

    A task says what lies on the table (`furnish`, `lay_out`), what is seen of it (`things`), when it is solved
    (`success`) and how (`plan`). The arms' part of the observation, the action and the reset are done here.
    """

    camera = "overview"
    num_draws: int
    """Uniform numbers that `lay_out` needs per episode."""
    thing_names: tuple[str, ...] = ()
    """Free bodies that are observed, in this order."""
    fixture_names: tuple[str, ...] = ()
    """Bodies that stand elsewhere in each episode, observed after these."""

    def __init__(self, config: TabletopConfig) -> None:
        self.config = config
        self.randomization = config.randomization
        self.robot = find_robot(config.robot)
        mode = ControlMode(config.action_mode)
        rate = TORQUE_RATE if mode == ControlMode.TORQUE else RATE
        self.substeps = round(1.0 / (rate * SUBSTEP))
        self.max_episode_steps = round(config.max_episode_steps * rate / RATE)
        self.center, self.half = self.robot.workspace[:2], self.robot.workspace[2]
        spec = empty_scene(self.center, 0.3 + 1.2 * self.half)
        mounts = self.mounts()
        for mount in mounts:
            actuation: Actuation = "torque" if mode == ControlMode.TORQUE else "position"
            flange = add_arm(spec, self.robot, mount.prefix, mount.base, mount.yaw, actuation)
            self.equip(spec, flange, mount.prefix)
        self.furnish(spec)
        self.model: mujoco.MjModel = spec.compile()
        self.arms = [ArmControl(self.model, self.robot, mode, prefix=mount.prefix) for mount in mounts]
        self.things = {name: FreeBody.of(self.model, name) for name in self.thing_names}
        self.fixtures = {name: FixedBody.of(self.model, name) for name in self.fixture_names}
        self.extras = {name: shape for arm in self.arms for name, shape in arm.extras.items()} | self.memory()
        self.action = SpaceSpec((self._action_field(mode),))
        self.observation = SpaceSpec((self._state_field(), self.environment_field()))
        self.home_yaw = [float(yaw_of(arm.chain.forward(arm.home[None]).rotation)[0]) for arm in self.arms]
        self.starts = [self._solve_starts(index) for index in range(len(self.arms))]
        self.start_poses = [arm.chain.forward(starts) for arm, starts in zip(self.arms, self.starts, strict=True)]

    def mounts(self) -> tuple[Mount, ...]:
        """Where the arms stand; by default there is one, at the origin."""
        return (Mount(),)

    def equip(self, spec: mujoco.MjSpec, flange: mujoco.MjsBody, prefix: str) -> None:
        """Add what an arm has at its flange, with the site `tool`; by default its gripper."""
        add_gripper(spec, self.robot, flange, prefix)

    def make_engine(self, num_envs: int, num_threads: int | None) -> Engine:
        """MuJoCo, or Bullet with the same state."""
        if self.config.engine == "mujoco":
            return super().make_engine(num_envs, num_threads)
        from alula.sims.robots.bullet_engine import BulletTabletop  # prints a line about itself when it loads

        return BulletTabletop(self.model, self.robot, num_envs, self.substeps, self.extras)

    @abstractmethod
    def furnish(self, spec: mujoco.MjSpec) -> None:
        """Add what is on the table."""

    @abstractmethod
    def lay_out(
        self, state: BatchState, env_ids: Int64[ndarray, " selected"], unit: Float64[ndarray, "selected n"]
    ) -> None:
        """Place the things of a new episode, by `num_draws` uniform numbers of [0, 1) each."""

    @abstractmethod
    def plan(self, state: BatchState) -> list[Waypoint]:
        """The expert's waypoints, one per phase, as they look from the present state."""

    def memory(self) -> dict[str, tuple[int, ...]]:
        """Further arrays per environment: name and shape of one environment's entry."""
        return {}

    def start_center(self, index: int) -> tuple[float, float]:
        """Centre of the square above which the tool of arm `index` starts [m]."""
        del index
        return self.center

    def seen(self) -> dict[str, Body]:
        """What is observed beside the arms."""
        return {**self.things, **self.fixtures}

    def environment_field(self) -> FieldSpec:
        """What is seen of the things: pose in the world, and position from every tool."""
        names: list[str] = []
        seen = self.seen()
        for thing in seen:
            names += [f"{thing}_{axis}" for axis in "xyz"]
            names += [f"{thing}_{entry}" for entry in ("xx", "xy", "xz", "yx", "yy", "yz")]
            names += [f"{arm.prefix}to_{thing}_{axis}" for arm in self.arms for axis in "xyz"]
        relative = 3 * len(self.arms)
        return FieldSpec(
            name="observation.environment_state",
            shape=(len(names),),
            element_names=tuple(names),
            units=(*("m",) * 3, *("1",) * 6, *("m",) * relative) * len(seen),
            resolution=(*(0.0,) * 9, *(0.01,) * relative) * len(seen),
        )

    def observe_environment(self, state: BatchState) -> Float32[ndarray, "num_envs field"]:
        """See `environment_field`; of the rotation the first two columns (Zhou et al. 2019)."""
        values = np.empty(
            (len(state.time), len(self.observation["observation.environment_state"].element_names)), np.float32
        )
        column = 0
        for thing in self.seen().values():
            position, rotation = thing.position(state), thing.rotation(state)
            values[:, column : column + 3] = position
            values[:, column + 3 : column + 6], values[:, column + 6 : column + 9] = (
                rotation[:, :, 0],
                rotation[:, :, 1],
            )
            column += 9
            for arm in self.arms:
                values[:, column : column + 3] = position - state.extras[arm.prefix + "tool_position"]
                column += 3
        return values

    def _action_field(self, mode: ControlMode) -> FieldSpec:
        elements = [arm.elements for arm in self.arms]
        names = tuple(name for part in elements for name in part.names)
        return FieldSpec(
            name="action",
            shape=(len(names),),
            element_names=names,
            units=tuple(unit for part in elements for unit in part.units),
            low=tuple(low for part in elements for low in part.low),
            high=tuple(high for part in elements for high in part.high),
            control_mode=mode,
            rate=self.control_rate,
        )

    def _state_field(self) -> FieldSpec:
        names: list[str] = []
        units: list[str] = []
        resolution: list[float] = []
        for arm in self.arms:
            joints = self.robot.joint_names(arm.prefix)
            names += [*joints, *(f"{joint}_velocity" for joint in joints)]
            units += ["rad"] * len(joints) + ["rad/s"] * len(joints)
            own = ("tool_x", "tool_y", "tool_z", "tool_yaw", "velocity_x", "velocity_y", "velocity_z", "yaw_rate")
            opening = ("opening",) if arm.fingers else ()
            names += [arm.prefix + name for name in (*own, *opening, "lead_x", "lead_y", "lead_z", "lead_yaw")]
            units += [*("m",) * 3, "rad", *("m/s",) * 3, "rad/s", *("m",) * len(opening), *("m",) * 3, "rad"]
            resolution += [0.0] * (2 * len(joints) + 8 + len(opening)) + [0.01] * 3 + [0.1]
        return FieldSpec(
            name="observation.state",
            shape=(len(names),),
            element_names=tuple(names),
            units=tuple(units),
            resolution=tuple(resolution),
        )

    def _solve_starts(self, index: int) -> Float64[ndarray, "starts joints"]:
        """Arm postures whose tools fill the space above the workspace."""
        unit = BatchRng.from_seeds(range(NUM_STARTS)).uniform(np.arange(NUM_STARTS), 0.0, 1.0, 4)
        low, high = START_HEIGHT
        position = np.empty((NUM_STARTS, 3))
        position[:, :2] = self.start_center(index) + 0.5 * self.half * (2.0 * unit[:, :2] - 1.0)
        position[:, 2] = self.half * (low + (high - low) * unit[:, 2])
        return self.arms[index].postures(position, self.home_yaw[index] + START_YAW * (2.0 * unit[:, 3] - 1.0))

    def reset(self, state: BatchState, env_ids: Int64[ndarray, " selected"], rng: BatchRng) -> None:
        """Arms at rest above the workspace, things laid out."""
        unit = rng.uniform(env_ids, 0.0, 1.0, len(self.arms) + self.num_draws)
        for index, arm in enumerate(self.arms):
            start = (NUM_STARTS * unit[:, index]).astype(np.int64)
            arm.start(state, env_ids, self.starts[index][start], self.start_poses[index].rows(start))
        self.lay_out(state, env_ids, unit[:, len(self.arms) :])

    def forward(self, state: BatchState) -> None:
        """Tool poses and Jacobians, fresh from the joint positions."""
        for arm in self.arms:
            arm.forward(state)

    def control(self, state: BatchState, action: Float[ndarray, "num_envs action"]) -> None:
        """Each arm takes its part of the action."""
        begin = 0
        for arm in self.arms:
            end = begin + len(arm.elements.names)
            arm.command(state, action[:, begin:end])
            begin = end

    def observe(self, state: BatchState) -> dict[str, Float32[ndarray, "num_envs field"]]:
        """Joints, tool motion, gripper and lead of every arm; the things."""
        own = np.empty((len(state.time), len(self.observation["observation.state"].element_names)), np.float32)
        column = 0
        for arm in self.arms:
            count, extras, prefix = len(arm.home), state.extras, arm.prefix
            velocity = np.einsum("bij,bj->bi", extras[prefix + "jacobian"], state.qvel[:, arm.qvel])
            yaw = yaw_of(extras[prefix + "tool_rotation"])
            parts = (
                (state.qpos[:, arm.qpos], count),
                (state.qvel[:, arm.qvel], count),
                (extras[prefix + "tool_position"], 3),
                (yaw[:, None], 1),
                (velocity[:, :3], 3),
                (velocity[:, 5:], 1),
                *([(arm.opening(state)[:, None], 1)] if arm.fingers else []),
                (extras[prefix + "target"] - extras[prefix + "tool_position"], 3),
                (extras[prefix + "target_yaw"] - yaw[:, None], 1),
            )
            for values, width in parts:
                own[:, column : column + width] = values
                column += width
        return {"observation.state": own, "observation.environment_state": self.observe_environment(state)}

    def expert(self, noise: float, seed: int) -> WaypointExpert:
        """Goes from waypoint to waypoint of `plan`.

        Raises:
            ConfigError: the actions are torques.
        """
        if self.arms[0].mode == ControlMode.TORQUE:
            raise ConfigError(
                "the expert commands poses and joints, not torques; use another task.action_mode or recorded data"
            )
        return WaypointExpert(self.plan, self.arms, noise, seed)

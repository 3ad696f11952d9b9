"""A point passes an obstacle on one of two sides: how much of each does a cloned policy keep?

Start and goal are distributed symmetrically about the line through the obstacle, so that neither way is better; a
policy that averages the demonstrations runs into the obstacle.
"""

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64
from numpy import ndarray

from alula.core.seeding import BatchRng
from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec
from alula.sims.engine import BatchState
from alula.sims.scenery import add_camera
from alula.sims.task import Task
from alula.sims.tasks.two_routes.config import TwoRoutesConfig
from alula.sims.tasks.two_routes.expert import RouteExpert

ARENA = 0.6
"""Half-width of the square within the walls [m]."""
START, GOAL = -0.4, 0.4
"""Where episodes start and end, along x [m]."""
SPREAD = 0.05
"""Largest distance of start and goal from the line through the obstacle, either way [m]."""
RADIUS, OBSTACLE_RADIUS = 0.03, 0.1
"""Of the moving disc and of the obstacle at the origin [m]."""
NEAR = 0.03
"""Distance from the goal that counts as reached [m]."""
SPEED = 0.6
"""Largest commanded velocity per axis [m/s]."""
MASS, GAIN = 1.0, 20.0
"""Of the disc [kg], and of the servo of its velocity [N s/m]: it follows commands within 50 ms."""
SUBSTEP = 0.01
"""Physics step [s]."""


class TwoRoutes(Task):
    """Velocity commands move a disc from the left of an obstacle to a goal on its right; touching it ends the episode.

    `info["route"]` is 1 once it has passed the obstacle on the left (at y > 0), -1 on the right, and 0 before.
    """

    substeps = 5
    camera = "top"
    extras = {"route": (1,)}  # noqa: RUF012  # read only

    def __init__(self, config: TwoRoutesConfig) -> None:
        self.config, self.randomization = config, config.randomization
        self.max_episode_steps = config.max_episode_steps
        self.model = build_model()
        meters, velocity = ("m",), ("m/s",)
        self.observation = SpaceSpec(
            (
                FieldSpec(
                    "observation.state", (4,), units=2 * meters + 2 * velocity, element_names=_axes("", "velocity_")
                ),
                FieldSpec(
                    "observation.environment_state", (4,), units=meters, element_names=_axes("goal_", "to_goal_")
                ),
            )
        )
        self.action = SpaceSpec(
            (
                FieldSpec(
                    name="action",
                    shape=(2,),
                    element_names=("velocity_x", "velocity_y"),
                    units=velocity,
                    low=(-SPEED,),
                    high=(SPEED,),
                    control_mode=ControlMode.VELOCITY,
                    rate=self.control_rate,
                ),
            )
        )

    def reset(self, state: BatchState, env_ids: Int64[ndarray, " selected"], rng: BatchRng) -> None:
        """Start and goal at rest near the line through the obstacle."""
        spread = rng.uniform(env_ids, -SPREAD, SPREAD, 2)
        state.qpos[env_ids, 0], state.qpos[env_ids, 1] = START, spread[:, 0]
        state.mocap_pos[env_ids, 0, 0], state.mocap_pos[env_ids, 0, 1] = GOAL, spread[:, 1]

    def control(self, state: BatchState, action: Float[ndarray, "num_envs action"]) -> None:
        """The servos' target velocities."""
        state.ctrl[:] = action

    def forward(self, state: BatchState) -> None:
        """Remember the side on which the obstacle was passed."""
        route, passed = state.extras["route"][:, 0], state.qpos[:, 0] > 0.0
        route[:] = np.where((route == 0.0) & passed, np.where(state.qpos[:, 1] > 0.0, 1.0, -1.0), route)

    def observe(self, state: BatchState) -> dict[str, Float32[ndarray, "num_envs field"]]:
        """Position, velocity, goal."""
        goal = state.mocap_pos[:, 0, :2]
        own, around = (state.qpos, state.qvel), (goal, goal - state.qpos)
        return {
            "observation.state": np.concatenate(own, axis=1, dtype=np.float32),
            "observation.environment_state": np.concatenate(around, axis=1, dtype=np.float32),
        }

    def touching(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """Whether the disc overlaps the obstacle."""
        return np.hypot(state.qpos[:, 0], state.qpos[:, 1]) < RADIUS + OBSTACLE_RADIUS

    def success(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """At the goal; an episode that touches the obstacle does not come that far."""
        way = state.mocap_pos[:, 0, :2] - state.qpos
        return np.hypot(way[:, 0], way[:, 1]) < NEAR

    def terminated(self, state: BatchState, success: Bool[ndarray, " num_envs"]) -> Bool[ndarray, " num_envs"]:
        """At the goal, or touching the obstacle."""
        return success | self.touching(state)

    def metrics(self, state: BatchState) -> dict[str, Float64[ndarray, " num_envs"]]:
        """Which way the episode took: 1 left, -1 right, 0 none yet."""
        return {"route": state.extras["route"][:, 0].copy()}

    def expert(self, noise: float, seed: int) -> RouteExpert:
        """See `RouteExpert`."""
        return RouteExpert(self.config.left_share, self.action["action"], noise, seed)


def _axes(*prefixes: str) -> tuple[str, ...]:
    return tuple(prefix + axis for prefix in prefixes for axis in "xy")


def build_model() -> mujoco.MjModel:
    """A disc on two slides within four walls, an obstacle that it can enter, and a mark for the goal."""
    spec = mujoco.MjSpec()
    spec.modelname = "two_routes"
    spec.option.timestep = SUBSTEP
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_GRAVITY
    spec.visual.headlight.ambient = [0.5, 0.5, 0.5]
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 960
    world, thickness = spec.worldbody, 0.02
    _draw(world, mujoco.mjtGeom.mjGEOM_BOX, (ARENA, ARENA, 0.01), -0.02, (0.90, 0.90, 0.88, 1.0))
    _draw(world, mujoco.mjtGeom.mjGEOM_CYLINDER, (OBSTACLE_RADIUS, 0.03, 0.0), 0.02, (0.35, 0.37, 0.40, 1.0))
    goal = world.add_body(name="goal", mocap=True)
    _draw(goal, mujoco.mjtGeom.mjGEOM_CYLINDER, (NEAR, 0.001, 0.0), -0.008, (0.25, 0.62, 0.35, 1.0))
    for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        world.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[x * (ARENA + thickness), y * (ARENA + thickness), 0.01],
            size=[thickness if x else ARENA, thickness if y else ARENA, 0.02],
            rgba=[0.55, 0.57, 0.60, 1.0],
        )
    disc = world.add_body(name="disc")
    for name, axis in (("x", [1, 0, 0]), ("y", [0, 1, 0])):
        disc.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis)
        spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT).set_to_velocity(kv=GAIN)
    disc.add_geom(
        name="disc",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[RADIUS, 0.01, 0.0],
        mass=MASS,
        rgba=[0.90, 0.45, 0.13, 1.0],
    )
    add_camera(spec.worldbody, "top", (0.0, -0.001, 1.9), (0.0, 0.0, 0.0), 40)
    return spec.compile()


def _draw(
    body: mujoco.MjsBody,
    kind: mujoco.mjtGeom,
    size: tuple[float, float, float],
    height: float,
    color: tuple[float, float, float, float],
) -> None:
    """Something that is seen but touches nothing."""
    body.add_geom(type=kind, size=list(size), pos=[0.0, 0.0, height], contype=0, conaffinity=0, rgba=list(color))

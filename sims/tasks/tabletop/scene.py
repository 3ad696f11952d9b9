"""The table, its cameras, and the things that lie on it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import mujoco
import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.core.geometry import quaternion_from_yaw, rotation_from_quaternion
from alula.sims.engine import BatchState
from alula.sims.robots.robot import Vector
from alula.sims.scenery import add_camera, lit_scene

SUBSTEP = 0.0025
"""Physics step [s]."""
TABLE_COLOR = (0.66, 0.60, 0.52, 1.0)
FRICTION = (0.6, 0.01, 0.001)
"""Sliding [1], torsional [m] and rolling [m] friction of plastic on wood, of the order of tribology tables."""
CONTACT = {"condim": 4, "solref": [0.01, 1.0], "friction": list(FRICTION)}
"""Contacts that also resist twisting, with a time constant of two control substeps."""
MARK_THICKNESS = 0.0005
"""How far marks stand out of the table, so that they are seen [m]."""


def empty_scene(center: tuple[float, float], size: float) -> mujoco.MjSpec:
    """A table at height zero under an even light.

    Args:
        center: Centre of the workspace [m].
        size: Distance scale of the cameras [m]: about how far the workspace is from the base.
    """
    spec = lit_scene(SUBSTEP, brightness=0.3)
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    # Without these, what a gripper holds creeps out of it.
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0
    world = spec.worldbody
    world.add_light(pos=[0.3, -0.6, 1.6], dir=[0.1, 0.4, -1.0], type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=[0.4, 0, -0.02],
        size=[0.8, 0.8, 0.02],
        rgba=list(TABLE_COLOR),
        **CONTACT,
    )
    x, y = center
    add_camera(
        spec.worldbody, "overview", (x + 1.1 * size, y - 1.4 * size, 1.3 * size), (x - 0.3 * size, y, 0.4 * size), 42
    )
    add_camera(spec.worldbody, "closeup", (x + 0.55 * size, y - 0.65 * size, 0.55 * size), (x, y, 0.1 * size), 40)
    add_camera(spec.worldbody, "top", (x, y - 0.001, 1.6 * size), (x, y, 0.0), 40)
    return spec


def add_free_body(spec: mujoco.MjSpec, name: str) -> mujoco.MjsBody:
    """A body that moves freely; give it geoms."""
    body = spec.worldbody.add_body(name=name)
    body.add_freejoint(name=name)
    return body


def add_block(
    spec: mujoco.MjSpec, name: str, half_sizes: Vector, mass: float, rgba: tuple[float, float, float, float]
) -> None:
    """A box [m, kg] that moves freely."""
    add_free_body(spec, name).add_geom(
        name=name, type=mujoco.mjtGeom.mjGEOM_BOX, size=list(half_sizes), mass=mass, rgba=list(rgba), **CONTACT
    )


def add_mark(spec: mujoco.MjSpec, name: str, half: float, rgba: tuple[float, float, float, float]) -> None:
    """A square of half-width `half` [m], painted on the table: a fixed body that nothing touches."""
    spec.worldbody.add_body(name=name, mocap=True).add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[half, half, MARK_THICKNESS],
        contype=0,
        conaffinity=0,
        rgba=list(rgba),
    )


class Body(ABC):
    """Where a thing is in a batch of states."""

    @abstractmethod
    def position(self, state: BatchState) -> Float64[ndarray, "num_envs 3"]:
        """In the world [m]."""

    @abstractmethod
    def quaternion(self, state: BatchState) -> Float64[ndarray, "num_envs 4"]:
        """In the world, wxyz."""

    def rotation(self, state: BatchState) -> Float64[ndarray, "num_envs 3 3"]:
        """Axes in the world, as columns."""
        return rotation_from_quaternion(self.quaternion(state))

    def yaw(self, state: BatchState) -> Float64[ndarray, " num_envs"]:
        """Direction of the body's x axis about the vertical [rad]."""
        rotation = self.rotation(state)
        return np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])


@dataclass(frozen=True)
class FreeBody(Body):
    """A body that moves freely."""

    qpos: int
    qvel: int

    @classmethod
    def of(cls, model: mujoco.MjModel, name: str) -> "FreeBody":
        """The body `name` of a scene."""
        joint = model.joint(name)
        return cls(int(joint.qposadr[0]), int(joint.dofadr[0]))

    def position(self, state: BatchState) -> Float64[ndarray, "num_envs 3"]:
        """In the world [m]; a view."""
        return state.qpos[:, self.qpos : self.qpos + 3]

    def quaternion(self, state: BatchState) -> Float64[ndarray, "num_envs 4"]:
        """In the world, wxyz; a view."""
        return state.qpos[:, self.qpos + 3 : self.qpos + 7]

    def velocity(self, state: BatchState) -> Float64[ndarray, "num_envs 3"]:
        """Linear, in the world [m/s]; a view."""
        return state.qvel[:, self.qvel : self.qvel + 3]

    def place(
        self,
        state: BatchState,
        env_ids: ndarray,
        position: Float64[ndarray, "selected 3"],
        yaw: Float64[ndarray, " selected"],
    ) -> None:
        """Put it somewhere, upright and at rest."""
        state.qpos[env_ids, self.qpos : self.qpos + 3] = position
        state.qpos[env_ids, self.qpos + 3 : self.qpos + 7] = quaternion_from_yaw(yaw)


@dataclass(frozen=True)
class FixedBody(Body):
    """A body that stands still, each episode elsewhere: in MuJoCo's words a mocap body."""

    mocap: int

    @classmethod
    def of(cls, model: mujoco.MjModel, name: str) -> "FixedBody":
        """The body `name` of a scene."""
        return cls(int(model.body(name).mocapid[0]))

    def position(self, state: BatchState) -> Float64[ndarray, "num_envs 3"]:
        """In the world [m]; a view."""
        return state.mocap_pos[:, self.mocap]

    def quaternion(self, state: BatchState) -> Float64[ndarray, "num_envs 4"]:
        """In the world, wxyz; a view."""
        return state.mocap_quat[:, self.mocap]

    def place(
        self,
        state: BatchState,
        env_ids: ndarray,
        position: Float64[ndarray, "selected 3"],
        yaw: Float64[ndarray, " selected"],
    ) -> None:
        """Put it somewhere, upright."""
        state.mocap_pos[env_ids, self.mocap] = position
        state.mocap_quat[env_ids, self.mocap] = quaternion_from_yaw(yaw)


def apart(
    unit: Float64[ndarray, "batch tries bodies 2"],
    center: tuple[float, float],
    half: float,
    distance: float,
    taken: Float64[ndarray, "batch taken 2"] | None = None,
) -> Float64[ndarray, "batch bodies 2"]:
    """Random places [m] in a square that keep their distance.

    One body after another takes its first try that is far enough from all before, or else the farthest one.

    Args:
        unit: Uniform random numbers in [0, 1).
        center: Centre of the square [m].
        half: Half-width of the square [m].
        distance: Wanted distance between any two [m].
        taken: Places [m] to keep away from as well.
    """
    tries = np.array(center) + half * (2.0 * unit - 1.0)
    before = np.empty((len(unit), 0, 2)) if taken is None else taken
    num_taken = before.shape[1]
    for body in range(unit.shape[2]):
        gaps = np.linalg.norm(tries[:, :, body, None] - before[:, None], axis=-1).min(axis=-1, initial=np.inf)
        best = np.minimum(gaps, distance).argmax(axis=1)
        before = np.concatenate([before, tries[np.arange(len(unit)), best, body][:, None]], axis=1)
    return before[:, num_taken:]

"""One environment as a world of Bullet: drones, floor and obstacles, built from the MuJoCo scene."""

from collections.abc import Sequence

import mujoco
import numpy as np
import pybullet
from jaxtyping import UInt8
from numpy import ndarray

from alula.core.errors import ConfigError
from alula.sims.quadcopters.crazyflie import CRAZYFLIE

Numbers = Sequence[float]
BASE = -1
"""Bullet's index of a body's only link."""
MAX_SPEED = 1e6
"""Bullet clamps velocity components to this [m/s, rad/s]; its default of 100 rad/s would be within reach."""
FIELD_OF_VIEW = 60.0
"""Vertical field of view of a drone's camera, in degrees."""


class BulletWorld:
    """A physics client of its own, so that worlds share nothing.

    Bullet keeps contact points and their forces from step to step. `place` makes it forget them, or a step would depend
    on more than the state. Its default damping is off.

    Args:
        model: The scene; its floor becomes an infinite plane at height zero.
        num_drones: Crazyflies.
    """

    def __init__(self, model: mujoco.MjModel, num_drones: int) -> None:
        self.client = pybullet.connect(pybullet.DIRECT)
        if self.client < 0:
            raise ConfigError("Bullet cannot make another world; it has room for about a thousand environments")
        pybullet.setGravity(*model.opt.gravity.tolist(), self.client)
        pybullet.setTimeStep(model.opt.timestep, self.client)
        pybullet.setPhysicsEngineParameter(deterministicOverlappingPairs=1, physicsClientId=self.client)
        pybullet.createMultiBody(
            0.0,
            pybullet.createCollisionShape(pybullet.GEOM_PLANE, physicsClientId=self.client),
            physicsClientId=self.client,
        )
        self.drones = [self._add_drone() for _ in range(num_drones)]
        self._placed: list[Numbers] = []
        self.obstacles = {
            int(model.body_mocapid[body]): self._add_obstacle(model, geoms)
            for body, geoms in _colliding_geoms(model).items()
        }

    def _add_drone(self) -> int:
        shape = pybullet.createCollisionShape(
            pybullet.GEOM_CYLINDER,
            radius=CRAZYFLIE.collision_radius,
            height=CRAZYFLIE.collision_height,
            physicsClientId=self.client,
        )
        drone = pybullet.createMultiBody(CRAZYFLIE.mass, shape, physicsClientId=self.client)
        pybullet.changeDynamics(
            drone,
            BASE,
            localInertiaDiagonal=CRAZYFLIE.inertia,
            linearDamping=0.0,
            angularDamping=0.0,
            maxJointVelocity=MAX_SPEED,
            physicsClientId=self.client,
        )
        return drone

    def _add_obstacle(self, model: mujoco.MjModel, geoms: list[int]) -> int:
        """A body that moves only when it is put elsewhere."""
        sizes = model.geom_size[geoms]
        shape = pybullet.createCollisionShapeArray(
            shapeTypes=[_shape_type(model, geom) for geom in geoms],
            radii=sizes[:, 0].tolist(),
            halfExtents=sizes.tolist(),
            lengths=(2 * sizes[:, 1]).tolist(),
            collisionFramePositions=model.geom_pos[geoms].tolist(),
            collisionFrameOrientations=np.roll(model.geom_quat[geoms], -1, axis=1).tolist(),
            physicsClientId=self.client,
        )
        return pybullet.createMultiBody(0.0, shape, physicsClientId=self.client)

    def place(self, poses: Sequence[Numbers], velocities: Sequence[Numbers]) -> None:
        """Put every drone in a state: a row of `qpos` and `qvel`."""
        client = self.client
        self._placed = [pose[3:] for pose in poses]
        for drone, pose, velocity in zip(self.drones, poses, velocities, strict=True):
            quaternion = (*pose[4:], pose[3])
            xx, xy, xz, yx, yy, yz, zx, zy, zz = pybullet.getMatrixFromQuaternion(quaternion)
            x, y, z = velocity[3:]
            turning = (xx * x + xy * y + xz * z, yx * x + yy * y + yz * z, zx * x + zy * y + zz * z)
            pybullet.setCollisionFilterGroupMask(drone, BASE, 1, 1, client)  # drops contact points and pairs
            pybullet.resetBasePositionAndOrientation(drone, pose[:3], quaternion, client)
            pybullet.resetBaseVelocity(drone, velocity[:3], turning, client)

    def place_obstacle(self, mocap: int, pose: Numbers) -> None:
        """Put an obstacle at a position with a quaternion wxyz."""
        quaternion = (*pose[4:], pose[3])
        pybullet.resetBasePositionAndOrientation(self.obstacles[mocap], pose[:3], quaternion, self.client)

    def step(self, forces: Sequence[Numbers], torques: Sequence[Numbers]) -> None:
        """One physics step under forces [N] and torques [N m] in the drones' frames."""
        client = self.client
        for drone, force, torque in zip(self.drones, forces, torques, strict=True):
            pybullet.applyExternalForce(drone, BASE, force, (0.0, 0.0, 0.0), pybullet.LINK_FRAME, client)
            pybullet.applyExternalTorque(drone, BASE, torque, pybullet.LINK_FRAME, client)
        pybullet.stepSimulation(client)

    def read(self) -> list[tuple[float, ...]]:
        """State of every drone: position, quaternion wxyz, velocity in the world, angular velocity in the body.

        Of the two quaternions for an attitude it is the one that is nearer to where `place` put the drone.
        """
        client = self.client
        states = []
        for drone, (a, b, c, d) in zip(self.drones, self._placed, strict=True):
            position, quaternion = pybullet.getBasePositionAndOrientation(drone, client)
            velocity, (x, y, z) = pybullet.getBaseVelocity(drone, client)
            xx, xy, xz, yx, yy, yz, zx, zy, zz = pybullet.getMatrixFromQuaternion(quaternion)
            turning = (xx * x + yx * y + zx * z, xy * x + yy * y + zy * z, xz * x + yz * y + zz * z)
            i, j, k, real = quaternion
            if a * real + b * i + c * j + d * k < 0:
                i, j, k, real = -i, -j, -k, -real
            states.append((*position, real, i, j, k, *velocity, *turning))
        return states

    def picture(self, drone: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        """What a camera in a drone's nose sees, by Bullet's software renderer, upright in the body frame."""
        position, quaternion = pybullet.getBasePositionAndOrientation(self.drones[drone], self.client)
        axes = np.reshape(pybullet.getMatrixFromQuaternion(quaternion), (3, 3)).T
        eye = position + CRAZYFLIE.arm_length * axes[0]
        view = pybullet.computeViewMatrix(eye.tolist(), (eye + axes[0]).tolist(), axes[2].tolist())
        projection = pybullet.computeProjectionMatrixFOV(FIELD_OF_VIEW, width / height, 0.02, 100.0)
        image = pybullet.getCameraImage(
            width, height, view, projection, renderer=pybullet.ER_TINY_RENDERER, physicsClientId=self.client
        )
        return np.reshape(image[2], (height, width, 4))[..., :3].astype(np.uint8)

    def close(self) -> None:
        """Free the world."""
        pybullet.disconnect(self.client)


def _colliding_geoms(model: mujoco.MjModel) -> dict[int, list[int]]:
    """Colliding geoms of every mocap body that has some."""
    by_body: dict[int, list[int]] = {}
    for geom in np.flatnonzero(
        (model.geom_contype | model.geom_conaffinity) & (model.body_mocapid[model.geom_bodyid] >= 0)
    ):
        by_body.setdefault(int(model.geom_bodyid[geom]), []).append(int(geom))
    return by_body


def _shape_type(model: mujoco.MjModel, geom: int) -> int:
    shapes = {
        mujoco.mjtGeom.mjGEOM_SPHERE: pybullet.GEOM_SPHERE,
        mujoco.mjtGeom.mjGEOM_BOX: pybullet.GEOM_BOX,
        mujoco.mjtGeom.mjGEOM_CAPSULE: pybullet.GEOM_CAPSULE,
        mujoco.mjtGeom.mjGEOM_CYLINDER: pybullet.GEOM_CYLINDER,
    }
    kind = mujoco.mjtGeom(model.geom_type[geom])
    if kind not in shapes:
        raise ConfigError(
            f"geom {model.geom(geom).name!r} is a {kind.name}; "
            "obstacles in Bullet may be spheres, boxes, capsules and cylinders"
        )
    return shapes[kind]

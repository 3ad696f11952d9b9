"""A tabletop with the Panda of `pybullet_data` in Bullet: other inertias, meshes, contacts and servos for the same task.

The state has the layout of the MuJoCo scene, so task, policy and dataset need not know; what a policy learned in one
simulator can be tried in the other. Bullet knows no batches: Python steps one world after the other.
"""

from collections.abc import Mapping

import mujoco
import numpy as np
import pybullet
import pybullet_data
from jaxtyping import Bool
from numpy import ndarray

from alula.core.errors import ConfigError
from alula.sims.array_engine import ArrayEngine
from alula.sims.robots.robot import PAD_FRICTION, Robot

URDF = "franka_panda/panda.urdf"
ARM_JOINTS = tuple(f"panda_joint{index}" for index in range(1, 8))
FINGER_JOINTS = ("panda_finger_joint1", "panda_finger_joint2")
"""Along +y and -y of the hand, as `left` and `right` here."""
GEAR_STIFFNESS, GEAR_FORCE = 0.1, 100.0
"""Share of the fingers' difference removed per physics step, and the force that may take [N]: our choice."""
BASE = -1
"""Bullet's index of a body's first link."""


class BulletTabletop(ArrayEngine):
    """One Panda over a table with free boxes, a Bullet world per environment.

    A step is a pure function of the state: contacts are forgotten and all joints and bodies put in place before it.

    Args:
        model: The MuJoCo scene: arm, fingers, then free bodies made of boxes.
        robot: The arm in it.
        num_envs: Number of environments.
        substeps: Physics steps per control step.
        extras: Task-owned arrays by name.

    Raises:
        ConfigError: the arm is not a Panda, or Bullet has no room for so many worlds.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        robot: Robot,
        num_envs: int,
        substeps: int,
        extras: Mapping[str, tuple[int, ...]],
    ) -> None:
        _check(model, robot)
        super().__init__(model, num_envs, model.nu, substeps, extras)
        self._worlds = [_World(model, robot) for _ in range(num_envs)]

    def _move(self) -> Bool[ndarray, " num_envs"]:
        state = self.state
        rows = zip(self._worlds, state.qpos.tolist(), state.qvel.tolist(), state.ctrl.tolist(), strict=True)
        for world, qpos, qvel, ctrl in rows:
            world.place(qpos, qvel)
            world.step(ctrl, self.substeps)
        numbers = np.array([world.read() for world in self._worlds])
        qpos, qvel = numbers[:, : self.model.nq], numbers[:, self.model.nq :]
        for start in range(9, self.model.nq, 7):
            # Bullet may return the opposite quaternion, which is the same attitude.
            part = slice(start + 3, start + 7)
            signs = np.copysign(1.0, np.einsum("ei,ei->e", qpos[:, part], state.qpos[:, part]))
            qpos[:, part] *= signs[:, None]
        state.qpos[:], state.qvel[:] = qpos, qvel
        return np.zeros(self.num_envs, dtype=bool)

    def close(self) -> None:
        """Free the worlds."""
        for world in self._worlds:
            world.close()


def _check(model: mujoco.MjModel, robot: Robot) -> None:
    if robot.name != "panda":
        raise ConfigError(f"task.engine=bullet has only the panda, not the {robot.name}; use task.engine=mujoco")
    free = model.jnt_type == mujoco.mjtJoint.mjJNT_FREE
    collides = (model.geom_contype | model.geom_conaffinity) > 0
    own = collides & (model.body_dofnum[model.geom_bodyid] == 6)
    fixed = collides & (model.body_mocapid[model.geom_bodyid] >= 0)
    servos = model.actuator_biastype != mujoco.mjtBias.mjBIAS_NONE
    boxes = (model.geom_type[own] == mujoco.mjtGeom.mjGEOM_BOX).all()
    if len(free) - free.sum() != 9 or not boxes or fixed.any() or not servos.all():
        raise ConfigError(
            "task.engine=bullet knows one arm with position servos and free boxes, and this task needs more; "
            "use task.engine=mujoco"
        )


class _World:
    """One environment: a physics client of its own, so that worlds share nothing."""

    def __init__(self, model: mujoco.MjModel, robot: Robot) -> None:
        self.client = client = pybullet.connect(pybullet.DIRECT)
        if client < 0:
            raise ConfigError("Bullet cannot make another world; it has room for about a thousand environments")
        pybullet.setAdditionalSearchPath(pybullet_data.getDataPath(), client)
        pybullet.setGravity(*model.opt.gravity.tolist(), client)
        pybullet.setTimeStep(model.opt.timestep, client)
        pybullet.setPhysicsEngineParameter(deterministicOverlappingPairs=1, physicsClientId=client)
        plane = pybullet.createCollisionShape(pybullet.GEOM_PLANE, physicsClientId=client)
        self.table = pybullet.createMultiBody(0.0, plane, physicsClientId=client)
        friction = float(model.geom("table").friction[0])
        pybullet.changeDynamics(self.table, BASE, lateralFriction=friction, physicsClientId=client)
        self.arm = pybullet.loadURDF(URDF, useFixedBase=True, physicsClientId=client)
        indices = {
            pybullet.getJointInfo(self.arm, joint, client)[1].decode(): joint
            for joint in range(pybullet.getNumJoints(self.arm, client))
        }
        self.joints = [indices[name] for name in (*ARM_JOINTS, *FINGER_JOINTS)]
        self.forces = [link.torque for link in robot.links] + [robot.gripper.force] * 2
        self.links = list(range(BASE, len(indices)))
        for finger in self.joints[7:]:
            pybullet.changeDynamics(
                self.arm, finger, lateralFriction=PAD_FRICTION, spinningFriction=0.02, physicsClientId=client
            )
        left, right = self.joints[7:]
        # Two pressed fingers with motors of their own would let what they hold drift from one side to the other.
        gear = pybullet.createConstraint(
            self.arm,
            left,
            self.arm,
            right,
            pybullet.JOINT_GEAR,
            (1, 0, 0),
            (0, 0, 0),
            (0, 0, 0),
            physicsClientId=client,
        )
        pybullet.changeConstraint(gear, gearRatio=-1, erp=GEAR_STIFFNESS, maxForce=GEAR_FORCE, physicsClientId=client)
        self.things = [self._add_thing(model, body) for body in range(model.nbody) if model.body_dofnum[body] == 6]

    def _add_thing(self, model: mujoco.MjModel, body: int) -> int:
        """A free body with the boxes, mass and inertia of the scene's."""
        geoms = [geom for geom in range(model.ngeom) if model.geom_bodyid[geom] == body]
        shape = pybullet.createCollisionShapeArray(
            shapeTypes=[pybullet.GEOM_BOX] * len(geoms),
            halfExtents=model.geom_size[geoms].tolist(),
            collisionFramePositions=model.geom_pos[geoms].tolist(),
            collisionFrameOrientations=np.roll(model.geom_quat[geoms], -1, axis=1).tolist(),
            physicsClientId=self.client,
        )
        thing: int = pybullet.createMultiBody(float(model.body_mass[body]), shape, physicsClientId=self.client)
        pybullet.changeDynamics(
            thing,
            BASE,
            lateralFriction=float(model.geom_friction[geoms[0], 0]),
            localInertiaDiagonal=model.body_inertia[body].tolist(),
            linearDamping=0.0,
            angularDamping=0.0,
            physicsClientId=self.client,
        )
        return thing

    def place(self, qpos: list[float], qvel: list[float]) -> None:
        """Put arm, fingers and things in a state."""
        client = self.client
        for link in self.links:
            pybullet.setCollisionFilterGroupMask(self.arm, link, 1, 1, client)  # drops contact points and pairs
        for index, joint in enumerate(self.joints):
            pybullet.resetJointState(self.arm, joint, qpos[index], qvel[index], client)
        for index, thing in enumerate(self.things):
            x, y, z, *quaternion = qpos[9 + 7 * index : 16 + 7 * index]
            linear, turning = qvel[9 + 6 * index : 12 + 6 * index], qvel[12 + 6 * index : 15 + 6 * index]
            w, *vector = quaternion
            xyzw = (*vector, w)
            rotation = np.reshape(pybullet.getMatrixFromQuaternion(xyzw), (3, 3))
            pybullet.setCollisionFilterGroupMask(thing, BASE, 1, 1, client)
            pybullet.resetBasePositionAndOrientation(thing, (x, y, z), xyzw, client)
            pybullet.resetBaseVelocity(thing, linear, (rotation @ turning).tolist(), client)

    def step(self, targets: list[float], substeps: int) -> None:
        """Physics under servos that go for joint positions [rad, m]."""
        pybullet.setJointMotorControlArray(
            self.arm,
            self.joints,
            pybullet.POSITION_CONTROL,
            targetPositions=targets,
            forces=self.forces,
            physicsClientId=self.client,
        )
        for _ in range(substeps):
            pybullet.stepSimulation(self.client)

    def read(self) -> list[float]:
        """Positions, then velocities, in the layout of the scene."""
        client = self.client
        joints = pybullet.getJointStates(self.arm, self.joints, client)
        positions, velocities = [joint[0] for joint in joints], [joint[1] for joint in joints]
        for thing in self.things:
            position, xyzw = pybullet.getBasePositionAndOrientation(thing, client)
            linear, turning = pybullet.getBaseVelocity(thing, client)
            rotation = np.reshape(pybullet.getMatrixFromQuaternion(xyzw), (3, 3))
            positions += [*position, xyzw[3], *xyzw[:3]]
            velocities += [*linear, *(rotation.T @ turning).tolist()]
        return positions + velocities

    def close(self) -> None:
        """Free the world."""
        pybullet.disconnect(self.client)

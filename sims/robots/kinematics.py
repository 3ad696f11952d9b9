"""Forward and differential kinematics of a serial arm for a whole batch of joint positions."""

from dataclasses import dataclass

import mujoco
import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

Rows = Float64[ndarray, "batch joints"]


@dataclass
class ChainPose:
    """Where the tool is, and how it moves with each joint."""

    position: Float64[ndarray, "batch 3"]
    """Tool position in the world [m]."""
    rotation: Float64[ndarray, "batch 3 3"]
    """Tool axes in the world, as columns."""
    jacobian: Float64[ndarray, "batch 6 joints"]
    """Linear [m/rad], then angular [rad/rad] velocity of the tool in the world per joint velocity."""


class SerialChain:
    """A chain of hinges that turn about their body's z axis, read from a compiled model.

    Args:
        model: Model that holds the arm, first in `qpos`.
        joint_names: Hinges from base to tool.
        tool_site: Site at the tool's tip.
    """

    def __init__(self, model: mujoco.MjModel, joint_names: tuple[str, ...], tool_site: str) -> None:
        bodies = [int(model.joint(name).bodyid[0]) for name in joint_names]
        self.offsets, self.rotations = [], []
        parent = 0
        for body in bodies:
            position, rotation = _fixed_transform(model, parent, body)
            self.offsets.append(position)
            self.rotations.append(rotation)
            parent = body
        site = model.site(tool_site)
        position, rotation = _fixed_transform(model, parent, int(site.bodyid[0]))
        self.offsets.append(position + rotation @ site.pos)
        self.rotations.append(rotation @ _matrix(site.quat))

    def forward(self, qpos: Float64[ndarray, "batch joints"]) -> ChainPose:
        """Tool pose and Jacobian at joint positions `qpos` [rad]."""
        batch, joints = qpos.shape
        cos, sin = np.cos(qpos), np.sin(qpos)
        position = np.zeros((batch, 3))
        rotation = np.broadcast_to(np.eye(3), (batch, 3, 3))
        origins = np.empty((batch, joints, 3))
        axes = np.empty((batch, joints, 3))
        for joint in range(joints):
            position = position + rotation @ self.offsets[joint]
            fixed = rotation @ self.rotations[joint]
            origins[:, joint], axes[:, joint] = position, fixed[:, :, 2]
            c, s = cos[:, joint, None], sin[:, joint, None]
            rotation = np.empty((batch, 3, 3))
            rotation[:, :, 0] = c * fixed[:, :, 0] + s * fixed[:, :, 1]
            rotation[:, :, 1] = c * fixed[:, :, 1] - s * fixed[:, :, 0]
            rotation[:, :, 2] = fixed[:, :, 2]
        position = position + rotation @ self.offsets[joints]
        rotation = rotation @ self.rotations[joints]
        arms = position[:, None] - origins
        jacobian = np.empty((batch, 6, joints))
        for row, (y, z) in enumerate(((1, 2), (2, 0), (0, 1))):
            jacobian[:, row] = axes[:, :, y] * arms[:, :, z] - axes[:, :, z] * arms[:, :, y]
            jacobian[:, 3 + row] = axes[:, :, row]
        return ChainPose(position, rotation, jacobian)


def damped_least_squares(
    jacobian: Float64[ndarray, "batch 6 joints"],
    twist: Float64[ndarray, "batch 6"],
    posture: Float64[ndarray, "batch joints"],
    damping: float,
) -> Float64[ndarray, "batch joints"]:
    """Joint step [rad] that makes the tool step `twist`, and `posture` as far as that leaves freedom.

    Damped least squares (Wampler 1986) with `posture` projected onto the null space of the task.
    """
    transposed = jacobian.transpose(0, 2, 1)
    gram = jacobian @ transposed
    gram[:, range(6), range(6)] += damping**2
    remaining = twist - np.einsum("bij,bj->bi", jacobian, posture)
    return posture + np.einsum("bji,bj->bi", jacobian, np.linalg.solve(gram, remaining[:, :, None])[:, :, 0])


def _matrix(quaternion: Float[ndarray, "4"]) -> Float64[ndarray, "3 3"]:
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def _fixed_transform(model: mujoco.MjModel, ancestor: int, body: int) -> tuple[Float64[ndarray, "3"], ndarray]:
    """Pose of `body` in `ancestor` with every joint between them at zero."""
    position, rotation = np.zeros(3), np.eye(3)
    while body != ancestor:
        turn = _matrix(model.body_quat[body])
        position, rotation = model.body_pos[body] + turn @ position, turn @ rotation
        body = int(model.body_parentid[body])
    return position, rotation

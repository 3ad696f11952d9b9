"""Forward and differential kinematics of a serial arm for a whole batch of joint positions."""

from dataclasses import dataclass

import mujoco
import numpy as np
from jaxtyping import Float, Float64, Int64
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

    def rows(self, chosen: Int64[ndarray, " selected"]) -> "ChainPose":
        """Only the chosen rows."""
        return ChainPose(self.position[chosen], self.rotation[chosen], self.jacobian[chosen])


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
            self.offsets.append(_snapped(position))
            self.rotations.append(_snapped(rotation))
            parent = body
        site = model.site(tool_site)
        position, rotation = _fixed_transform(model, parent, int(site.bodyid[0]))
        self.offsets.append(_snapped(position + rotation @ site.pos))
        self.rotations.append(_snapped(rotation @ _matrix(site.quat)))

    def forward(self, qpos: Float64[ndarray, "batch joints"]) -> ChainPose:
        """Tool pose and Jacobian at joint positions `qpos` [rad]."""
        batch, joints = qpos.shape
        angles = np.ascontiguousarray(qpos.T)
        cos, sin = np.cos(angles), np.sin(angles)
        # Vectors are stored as (3, batch), a rotation as its three columns: every operation runs over contiguous memory.
        columns = tuple(np.repeat(axis[:, None], batch, axis=1) for axis in np.eye(3))
        position = np.zeros((3, batch))
        origins = np.empty((3, joints, batch))
        axes = np.empty((3, joints, batch))
        for joint in range(joints):
            position = position + _combine(columns, self.offsets[joint])
            fixed_x, fixed_y, fixed_z = (_combine(columns, column) for column in self.rotations[joint].T)
            origins[:, joint], axes[:, joint] = position, fixed_z
            c, s = cos[joint], sin[joint]
            columns = (c * fixed_x + s * fixed_y, c * fixed_y - s * fixed_x, fixed_z)
        position = position + _combine(columns, self.offsets[joints])
        rotation = np.empty((batch, 3, 3))
        for index, column in enumerate(self.rotations[joints].T):
            rotation[:, :, index] = _combine(columns, column).T
        arms = position[:, None] - origins
        jacobian = np.empty((batch, 6, joints))
        for row, (y, z) in enumerate(((1, 2), (2, 0), (0, 1))):
            jacobian[:, row] = (axes[y] * arms[z] - axes[z] * arms[y]).T
            jacobian[:, 3 + row] = axes[row].T
        return ChainPose(np.ascontiguousarray(position.T), rotation, jacobian)


def damped_least_squares(
    jacobian: Float64[ndarray, "batch 6 joints"],
    twist: Float64[ndarray, "batch 6"],
    posture: Float64[ndarray, "batch joints"],
    damping: float,
) -> Float64[ndarray, "batch joints"]:
    """Joint step [rad] that makes the tool step `twist`, and `posture` as far as that leaves freedom.

    Damped least squares (Wampler 1986) with `posture` projected onto the null space of the task.
    """
    gram = jacobian @ np.ascontiguousarray(jacobian.transpose(0, 2, 1))  # five times faster than with a view
    gram[:, range(6), range(6)] += damping**2
    remaining = twist - np.einsum("bij,bj->bi", jacobian, posture)
    return posture + np.einsum("bji,bj->bi", jacobian, np.linalg.solve(gram, remaining[:, :, None])[:, :, 0])


def yaw_of(rotation: Float64[ndarray, "batch 3 3"]) -> Float64[ndarray, " batch"]:
    """Yaw [rad] of a tool that points down."""
    return np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])


def upright_error(
    rotation: Float64[ndarray, "batch 3 3"], yaw: Float64[ndarray, " batch"]
) -> Float64[ndarray, "batch 3"]:
    """Small rotation [rad, world axes] from `rotation` to the tool pointing down at `yaw`."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    (xx, xy, xz), (yx, yy, yz), (zx, zy, _) = np.moveaxis(rotation, 0, 2)
    # Half the sum of (column of `rotation`) x (column wanted); wanted are (c, s, 0), (s, -c, 0) and (0, 0, -1).
    error = np.empty((len(yaw), 3))
    error[:, 0] = zy * cos - zx * sin - yz
    error[:, 1] = zx * cos + zy * sin + xz
    error[:, 2] = (xx * sin - yx * cos) - (xy * cos + yy * sin)
    error *= 0.5
    return error


def _combine(
    columns: tuple[Float64[ndarray, "3 batch"], ...], weights: Float64[ndarray, "3"]
) -> Float64[ndarray, "3 batch"]:
    """Weighted sum of a rotation's columns; published kinematics are full of zeros and ones, which cost nothing."""
    terms = [
        column if weight == 1.0 else weight * column for column, weight in zip(columns, weights, strict=True) if weight
    ]
    return sum(terms[1:], start=terms[0]) if terms else np.zeros_like(columns[0])


def _matrix(quaternion: Float[ndarray, "4"]) -> Float64[ndarray, "3 3"]:
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def _snapped(values: ndarray) -> ndarray:
    """Without the rounding errors of quarter turns."""
    whole = np.round(values)
    return np.where(np.abs(values - whole) < 1e-12, whole, values)


def _fixed_transform(model: mujoco.MjModel, ancestor: int, body: int) -> tuple[Float64[ndarray, "3"], ndarray]:
    """Pose of `body` in `ancestor` with every joint between them at zero."""
    position, rotation = np.zeros(3), np.eye(3)
    while body != ancestor:
        turn = _matrix(model.body_quat[body])
        position, rotation = model.body_pos[body] + turn @ position, turn @ rotation
        body = int(model.body_parentid[body])
    return position, rotation

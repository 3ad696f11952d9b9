"""Where peg and socket are, true or as measured."""

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.core.geometry import rotate_by_yaw, wrap_angle
from alula.sims.engine import BatchState


def yaw_of(rotation: Float64[ndarray, "batch 3 3"]) -> Float64[ndarray, " batch"]:
    """Yaw [rad] of a tool that points down."""
    return np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])


def upright_error(
    rotation: Float64[ndarray, "batch 3 3"], yaw: Float64[ndarray, " batch"]
) -> Float64[ndarray, "batch 3"]:
    """Small rotation [rad, world axes] from `rotation` to the tool pointing down at `yaw`."""
    cos, sin, zero = np.cos(yaw), np.sin(yaw), np.zeros_like(yaw)
    wanted = np.empty_like(rotation)
    wanted[:, :, 0] = np.stack([cos, sin, zero], axis=-1)
    wanted[:, :, 1] = np.stack([sin, -cos, zero], axis=-1)
    wanted[:, :, 2] = (0.0, 0.0, -1.0)
    a, b = rotation, wanted
    return 0.5 * np.stack(
        [
            (a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1]).sum(-1),
            (a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2]).sum(-1),
            (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum(-1),
        ],
        axis=-1,
    )


def socket_pose(
    state: BatchState, measured: bool
) -> tuple[Float64[ndarray, "num_envs 3"], Float64[ndarray, " num_envs"]]:
    """Position [m] and yaw [rad] of the socket, true or as measured."""
    position, yaw = state.mocap_pos[:, 0], state.extras["socket_yaw"][:, 0]
    if not measured:
        return position, yaw
    offset = state.extras["offset"]
    position = position.copy()
    position[:, :2] += offset[:, :2]
    return position, yaw + offset[:, 2]


def relative_pose(
    state: BatchState, measured: bool
) -> tuple[Float64[ndarray, "num_envs 3"], Float64[ndarray, " num_envs"]]:
    """Tip position [m] and yaw [rad] in the frame of the socket, true or as measured."""
    position, yaw = socket_pose(state, measured)
    relative = rotate_by_yaw(state.extras["tip_position"] - position, -yaw)
    return relative, wrap_angle(yaw_of(state.extras["tip_rotation"]) - yaw)

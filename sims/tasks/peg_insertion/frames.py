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
    cos, sin = np.cos(yaw), np.sin(yaw)
    (xx, xy, xz), (yx, yy, yz), (zx, zy, _) = np.moveaxis(rotation, 0, 2)
    # Half the sum of (column of `rotation`) x (column wanted); wanted are (c, s, 0), (s, -c, 0) and (0, 0, -1).
    error = np.empty((len(yaw), 3))
    error[:, 0] = zy * cos - zx * sin - yz
    error[:, 1] = zx * cos + zy * sin + xz
    error[:, 2] = (xx * sin - yx * cos) - (xy * cos + yy * sin)
    error *= 0.5
    return error


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

"""Where peg and socket are, true or as measured."""

from jaxtyping import Float64
from numpy import ndarray

from alula.core.geometry import rotate_by_yaw, wrap_angle
from alula.sims.engine import BatchState
from alula.sims.robots.kinematics import yaw_of


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
    relative = rotate_by_yaw(state.extras["tool_position"] - position, -yaw)
    return relative, wrap_angle(yaw_of(state.extras["tool_rotation"]) - yaw)

"""Insert a square peg, held by an arm, into a socket whose pose is random and may be mis-measured."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64
from numpy import ndarray

from alula.core.geometry import quaternion_from_yaw
from alula.core.seeding import BatchRng, box_muller
from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec
from alula.sims.engine import BatchState
from alula.sims.robots.control import ArmControl, ToolMotion
from alula.sims.robots.kinematics import yaw_of
from alula.sims.robots.registry import find_robot
from alula.sims.task import Task
from alula.sims.tasks.peg_insertion.config import PegInsertionConfig
from alula.sims.tasks.peg_insertion.expert import PegExpert
from alula.sims.tasks.peg_insertion.frames import relative_pose, socket_pose
from alula.sims.tasks.peg_insertion.limits import MAX_STEP, MAX_TURN
from alula.sims.tasks.peg_insertion.model import HOLE_DEPTH, build_model

SOCKET_CENTER = (0.5, 0.0)
SOCKET_RANGE = 0.08
"""Half-width of the square of socket positions [m]."""
SOCKET_YAW_RANGE = 0.5
"""Largest socket yaw, either way [rad]."""
START_RANGE = 0.06
"""Half-width of the square of initial tip positions [m]."""
START_HEIGHT = (0.05, 0.11)
"""Range of initial tip heights above the table [m]."""
START_YAW_RANGE = 0.2
"""Largest initial tip yaw, either way [rad]."""
NUM_STARTS = 4096
"""Initial arm postures are drawn from this many, solved once, instead of by inverse kinematics at every reset."""
SUCCESS_DEPTH = 0.018
"""Depth of the tip below the hole's edge that counts [m]."""
SUCCESS_YAW = 0.1
"""Largest yaw error that counts [rad]."""
MOTION = ToolMotion(
    step=MAX_STEP, turn=MAX_TURN, lead_low=(-0.01, -0.01, -0.005), lead_high=(0.01, 0.01, 0.01), lead_yaw=0.1
)
"""The command may run ahead of the tool by 10 mm, but only 5 mm downwards: this bounds the force when pressing."""

OBSERVATION = SpaceSpec(
    (
        FieldSpec(
            name="observation.state",
            shape=(20,),
            element_names=(
                *("tip_x", "tip_y", "tip_z", "yaw"),
                *("velocity_x", "velocity_y", "velocity_z", "yaw_rate"),
                *("tilt_x", "tilt_y"),
                *("force_x", "force_y", "force_z"),
                *("torque_x", "torque_y", "torque_z"),
                *("lead_x", "lead_y", "lead_z", "lead_yaw"),
            ),
            units=(
                *("m",) * 3,
                "rad",
                *("m/s",) * 3,
                "rad/s",
                "1",
                "1",
                *("N",) * 3,
                *("N m",) * 3,
                *("m",) * 3,
                "rad",
            ),
            resolution=(*(0.0,) * 4, *(0.02,) * 3, 0.2, 0.01, 0.01, *(5.0,) * 3, *(0.1,) * 3, *(0.002,) * 3, 0.02),
        ),
        FieldSpec(
            name="observation.environment_state",
            shape=(8,),
            element_names=("socket_x", "socket_y", "socket_z", "socket_yaw", "to_x", "to_y", "to_z", "to_yaw"),
            units=("m", "m", "m", "rad", "m", "m", "m", "rad"),
            resolution=(*(0.0,) * 4, 0.003, 0.003, 0.02, 0.1),
        ),
    )
)


class PegInsertion(Task):
    """20 mm square peg, 25 mm deep socket, 20 Hz; reward 1 and the end once the peg is 18 mm deep.

    Actions displace the commanded tool pose: x, y, z [m] and yaw [rad] in the world, tilt held at zero. The command
    stays near the tool, so that pressing against something builds up a bounded force.
    """

    substeps = 20
    camera = "closeup"
    observation = OBSERVATION

    def __init__(self, config: PegInsertionConfig) -> None:
        self.config = config
        self.randomization = config.randomization
        robot = find_robot(config.robot)
        self.model = build_model(robot, config.clearance)
        self.max_episode_steps = config.max_episode_steps
        self.arm = ArmControl(self.model, robot, ControlMode.END_EFFECTOR_POSE_DELTA, tool_site="tip", motion=MOTION)
        self.extras = self.arm.extras | {"socket_yaw": (1,), "offset": (3,)}
        self.action = SpaceSpec(
            (
                FieldSpec(
                    name="action",
                    shape=(4,),
                    element_names=tuple(self.arm.elements.names),
                    units=tuple(self.arm.elements.units),
                    low=tuple(self.arm.elements.low),
                    high=tuple(self.arm.elements.high),
                    control_mode=self.arm.mode,
                    rate=self.control_rate,
                ),
            )
        )
        self.starts = self._solve_starts()
        self.start_poses = self.arm.chain.forward(self.starts)

    def _solve_starts(self) -> Float64[ndarray, "starts joints"]:
        """Arm postures whose tips fill the start region, by inverse kinematics from the home posture."""
        rng, row = BatchRng.from_seeds(range(NUM_STARTS)), np.arange(NUM_STARTS)
        x = SOCKET_CENTER[0] + rng.uniform(row, -START_RANGE, START_RANGE, 1)
        y = SOCKET_CENTER[1] + rng.uniform(row, -START_RANGE, START_RANGE, 1)
        z = rng.uniform(row, *START_HEIGHT, 1)
        yaw = rng.uniform(row, -START_YAW_RANGE, START_YAW_RANGE, 1)[:, 0]
        return self.arm.postures(np.concatenate([x, y, z], axis=1), yaw)

    def reset(self, state: BatchState, env_ids: Int64[ndarray, " selected"], rng: BatchRng) -> None:
        """Draw socket pose, measurement error and initial posture."""
        unit = rng.uniform(env_ids, 0.0, 1.0, 10)  # one draw of all, because each call costs
        start = (NUM_STARTS * unit[:, 0]).astype(np.int64)
        self.arm.start(state, env_ids, self.starts[start], self.start_poses.rows(start))
        position = np.array(SOCKET_CENTER) + (2 * SOCKET_RANGE * unit[:, 1:3] - SOCKET_RANGE)
        yaw = 2 * SOCKET_YAW_RANGE * unit[:, 3] - SOCKET_YAW_RANGE
        state.mocap_pos[env_ids, 0, :2] = position
        state.mocap_pos[env_ids, 0, 2] = HOLE_DEPTH
        state.mocap_quat[env_ids, 0] = quaternion_from_yaw(yaw)
        state.extras["socket_yaw"][env_ids, 0] = yaw
        state.extras["offset"][env_ids, :2] = box_muller(unit[:, 4:8], self.config.offset_std)
        state.extras["offset"][env_ids, 2:] = box_muller(unit[:, 8:], self.config.offset_yaw_std)

    def forward(self, state: BatchState) -> None:
        """Tool pose and Jacobian, fresh from the joint positions."""
        self.arm.forward(state)

    def control(self, state: BatchState, action: Float[ndarray, "num_envs 4"]) -> None:
        """Move the commanded tool pose by `action`, and the joint targets to where inverse kinematics puts it."""
        self.arm.command(state, action)

    def observe(self, state: BatchState) -> dict[str, Float32[ndarray, "num_envs field"]]:
        """Tool pose, velocity, mean wrench at the tip and lead; the socket as measured, and the peg relative to it."""
        rotation = state.extras["tool_rotation"]
        velocity = np.einsum("bij,bj->bi", state.extras["jacobian"], state.qvel)
        wrench = np.einsum("nsw->nw", state.sensors) / self.substeps  # the mean, five times faster
        own = np.empty((len(velocity), 20), dtype=np.float32)
        own[:, :3] = state.extras["tool_position"]
        own[:, 3] = yaw_of(rotation)
        own[:, 4:7] = velocity[:, :3]
        own[:, 7] = velocity[:, 5]
        own[:, 8:10] = rotation[:, :2, 2]
        own[:, 10:16] = wrench
        own[:, 16:19] = state.extras["target"] - state.extras["tool_position"]
        own[:, 19] = state.extras["target_yaw"][:, 0] - own[:, 3]
        environment = np.empty((len(velocity), 8), dtype=np.float32)
        environment[:, :3], environment[:, 3] = socket_pose(state, measured=True)
        environment[:, 4:7], environment[:, 7] = relative_pose(state, measured=True)
        return {"observation.state": own, "observation.environment_state": environment}

    def tracked(self, state: BatchState) -> dict[str, Float[ndarray, "num_envs 7"]]:
        """The socket where it is measured to be."""
        position, yaw = socket_pose(state, measured=True)
        return {"socket": np.concatenate([position, quaternion_from_yaw(yaw)], axis=1)}

    def place(self, state: BatchState, poses: Mapping[str, Float[ndarray, "num_envs 7"]]) -> None:
        """See `Task.place`; what is measured counts as true."""
        super().place(state, poses)
        w, x, y, z = state.mocap_quat[:, 0].T
        state.extras["socket_yaw"][:, 0] = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        state.extras["offset"][:] = 0.0

    def success(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """Deep enough, and inside the hole rather than beside the socket, in the true socket frame."""
        position, yaw = relative_pose(state, measured=False)
        lateral = np.abs(position[:, :2]).max(axis=1)
        inside = lateral < 2 * self.config.clearance
        return (position[:, 2] < -SUCCESS_DEPTH) & inside & (np.abs(yaw) < SUCCESS_YAW)

    def expert(self, noise: float, seed: int) -> PegExpert:
        """See `PegExpert`."""
        return PegExpert(noise, seed, self.control_rate)

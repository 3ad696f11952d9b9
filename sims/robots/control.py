"""From actions to joint commands of one arm: the action modes, and the tool's motion they are about."""

from dataclasses import dataclass, field

import mujoco
import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

from alula.core.geometry import wrap_angle
from alula.core.spaces import ControlMode
from alula.sims.engine import BatchState
from alula.sims.robots.kinematics import ChainPose, SerialChain, damped_least_squares, upright_error, yaw_of
from alula.sims.robots.robot import Robot, Vector

POSTURE_GAIN = 0.05
"""Share of the way back to the home posture that the arm's free joint motion takes per control step."""
IK_DAMPING = 0.02
MAX_IK_STEP = 1.3
"""Largest joint displacement per iteration of the inverse kinematics [rad]; longer ones leave the linear range."""
MAX_JOINT_STEP = 0.1
"""Largest commanded joint displacement per control step [rad]."""
JOINT_LEAD = 0.2
"""How far a joint command may be ahead of the joint [rad]."""
BEYOND = 0.15
"""How far absolute tool commands may lie outside the workspace [m]."""
CEILING = 0.5
"""Highest absolute tool command [m]."""
MODES = (
    ControlMode.END_EFFECTOR_POSE_DELTA,
    ControlMode.END_EFFECTOR_POSE_ABSOLUTE,
    ControlMode.JOINT_POSITION_DELTA,
    ControlMode.JOINT_POSITION_ABSOLUTE,
    ControlMode.TORQUE,
)


@dataclass(frozen=True)
class ToolMotion:
    """How fast a tool may be commanded to move."""

    step: float = 0.02
    """Largest commanded displacement per control step, per axis [m]."""
    turn: float = 0.15
    """Largest commanded turn about the vertical per control step [rad]."""
    lead_low: Vector = (-0.03, -0.03, -0.03)
    lead_high: Vector = (0.03, 0.03, 0.03)
    """How far the commanded position may be ahead of the tool [m]: bounds speed, and force when pressing."""
    lead_yaw: float = 0.2
    """The same for the commanded yaw [rad]."""


@dataclass
class Elements:
    """Names, units and bounds of one arm's part of the action."""

    names: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    def add(self, name: str, unit: str, low: float, high: float) -> None:
        """Append one element."""
        self.names.append(name)
        self.units.append(unit)
        self.low.append(float(low))
        self.high.append(float(high))


class ArmControl:
    """One arm of a scene that was added by `add_arm`.

    Tool commands are x, y, z [m] and yaw [rad] in the world with the tool pointing down; with a gripper, the last
    element of every action is its opening, 0 closed to 1 open. What it keeps per environment is in `extras`:
    tool pose and Jacobian, fresh from the joint positions, and the commanded tool pose.

    Args:
        model: The compiled scene.
        robot: The arm.
        mode: What an action commands.
        tool_site: Site at the tool's tip.
        prefix: The arm's prefix in the scene.
        motion: Bounds of tool commands.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        robot: Robot,
        mode: ControlMode,
        tool_site: str = "tool",
        prefix: str = "",
        motion: ToolMotion = ToolMotion(),
    ) -> None:
        self.robot, self.mode, self.prefix, self.motion = robot, mode, prefix, motion
        names, count = robot.joint_names(prefix), len(robot.links)
        self.tool_site = prefix + tool_site
        self.chain = SerialChain(model, names, self.tool_site)
        joint, servo = model.joint(names[0]), model.actuator(f"{prefix}servo1")
        self.qpos = slice(int(joint.qposadr[0]), int(joint.qposadr[0]) + count)
        self.qvel = slice(int(joint.dofadr[0]), int(joint.dofadr[0]) + count)
        self.ctrl = slice(int(servo.id), int(servo.id) + count)
        self.low = np.array([link.low for link in robot.links])
        self.high = np.array([link.high for link in robot.links])
        self.home = np.array(robot.home)
        self.fingers = [
            (int(model.joint(prefix + side).qposadr[0]), int(model.actuator(prefix + side).id))
            for side in ("left", "right")
            if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_ACTUATOR, prefix + side) >= 0
        ]
        self.elements = self._elements()
        self.lead_low, self.lead_high = np.array(motion.lead_low), np.array(motion.lead_high)

    @property
    def extras(self) -> dict[str, tuple[int, ...]]:
        """What the arm keeps per environment."""
        shapes = {"tool_position": (3,), "tool_rotation": (3, 3), "jacobian": (6, len(self.home))}
        shapes |= {"target": (3,), "target_yaw": (1,)}
        return {self.prefix + name: shape for name, shape in shapes.items()}

    def _elements(self) -> Elements:
        elements, motion, links = Elements(), self.motion, self.robot.links
        x, y, half = self.robot.workspace
        match self.mode:
            case ControlMode.END_EFFECTOR_POSE_DELTA:
                for axis in "xyz":
                    elements.add(f"{self.prefix}step_{axis}", "m", -motion.step, motion.step)
                elements.add(f"{self.prefix}turn", "rad", -motion.turn, motion.turn)
            case ControlMode.END_EFFECTOR_POSE_ABSOLUTE:
                reach = half + BEYOND
                for axis, center in (("x", x), ("y", y)):
                    elements.add(self.prefix + axis, "m", center - reach, center + reach)
                elements.add(f"{self.prefix}z", "m", 0.0, CEILING)
                elements.add(f"{self.prefix}yaw", "rad", -np.pi, np.pi)
            case ControlMode.JOINT_POSITION_DELTA:
                for name in self.robot.joint_names(self.prefix):
                    elements.add(f"{name}_step", "rad", -MAX_JOINT_STEP, MAX_JOINT_STEP)
            case ControlMode.JOINT_POSITION_ABSOLUTE:
                for name, link in zip(self.robot.joint_names(self.prefix), links, strict=True):
                    elements.add(name, "rad", link.low, link.high)
            case _:
                for name, link in zip(self.robot.joint_names(self.prefix), links, strict=True):
                    elements.add(f"{name}_torque", "N m", -link.torque, link.torque)
        if self.fingers:
            elements.add(f"{self.prefix}opening", "1", 0.0, 1.0)
        return elements

    def command(self, state: BatchState, action: Float[ndarray, "num_envs action"]) -> None:
        """Write one control step's actuator commands into `state.ctrl`."""
        match self.mode:
            case ControlMode.END_EFFECTOR_POSE_DELTA:
                wanted = state.extras[self.prefix + "target"] + action[:, :3]
                self._towards(state, wanted, state.extras[self.prefix + "target_yaw"][:, 0] + action[:, 3])
            case ControlMode.END_EFFECTOR_POSE_ABSOLUTE:
                self._towards(state, action[:, :3], action[:, 3])
            case ControlMode.JOINT_POSITION_DELTA:
                joints = state.qpos[:, self.qpos]
                step = np.clip(state.ctrl[:, self.ctrl] + action[:, : len(self.home)] - joints, -JOINT_LEAD, JOINT_LEAD)
                state.ctrl[:, self.ctrl] = np.clip(joints + step, self.low, self.high)
            case _:
                state.ctrl[:, self.ctrl] = action[:, : len(self.home)]
        for _, finger in self.fingers:
            state.ctrl[:, finger] = self.robot.gripper.stroke * action[:, -1]

    def _towards(
        self, state: BatchState, position: Float[ndarray, "num_envs 3"], yaw: Float[ndarray, " num_envs"]
    ) -> None:
        """Command the tool pose, or as much of the way as the leads allow."""
        tool, rotation = state.extras[self.prefix + "tool_position"], state.extras[self.prefix + "tool_rotation"]
        lead = np.clip(position - tool, self.lead_low, self.lead_high)
        present = yaw_of(rotation)
        lead_yaw = np.clip(self._turn(yaw - present), -self.motion.lead_yaw, self.motion.lead_yaw)
        state.extras[self.prefix + "target"][:] = tool + lead
        state.extras[self.prefix + "target_yaw"][:, 0] = present + lead_yaw
        state.ctrl[:, self.ctrl] = self._joint_targets(state, lead, lead_yaw)

    def _joint_targets(
        self, state: BatchState, lead: Float64[ndarray, "num_envs 3"], lead_yaw: Float64[ndarray, " num_envs"]
    ) -> Float64[ndarray, "num_envs joints"]:
        """Joint positions [rad] whose tool is further by `lead` [m] and `lead_yaw` [rad], upright."""
        rotation, joints = state.extras[self.prefix + "tool_rotation"], state.qpos[:, self.qpos]
        twist = np.concatenate([lead, upright_error(rotation, yaw_of(rotation) + lead_yaw)], axis=1)
        posture = POSTURE_GAIN * (self.home - joints)
        step = damped_least_squares(state.extras[self.prefix + "jacobian"], twist, posture, IK_DAMPING)
        return np.clip(joints + step, self.low, self.high)

    def _turn(self, angle: Float64[ndarray, " num_envs"]) -> Float64[ndarray, " num_envs"]:
        """The same turn the shorter way round; one that is short already keeps its bits."""
        return np.where(np.abs(angle) > np.pi, wrap_angle(angle), angle)

    def toward(
        self,
        state: BatchState,
        position: Float64[ndarray, "num_envs 3"],
        yaw: Float64[ndarray, " num_envs"],
        opening: Float64[ndarray, " num_envs"],
    ) -> Float64[ndarray, "num_envs action"]:
        """The action, in this mode, that brings the tool nearer to a pose: what experts command."""
        target, target_yaw = state.extras[self.prefix + "target"], state.extras[self.prefix + "target_yaw"][:, 0]
        match self.mode:
            case ControlMode.END_EFFECTOR_POSE_DELTA:
                parts = [position - target, wrap_angle(yaw - target_yaw)[:, None]]
            case ControlMode.END_EFFECTOR_POSE_ABSOLUTE:
                parts = [position, wrap_angle(yaw)[:, None]]
            case _:
                step = np.clip(
                    position - state.extras[self.prefix + "tool_position"], -self.motion.step, self.motion.step
                )
                turn = wrap_angle(yaw - yaw_of(state.extras[self.prefix + "tool_rotation"]))
                wanted = self._joint_targets(state, step, np.clip(turn, -self.motion.turn, self.motion.turn))
                delta = self.mode == ControlMode.JOINT_POSITION_DELTA
                parts = [wanted - state.ctrl[:, self.ctrl] if delta else wanted]
        action = np.concatenate([*parts, opening[:, None]] if self.fingers else parts, axis=1)
        return np.clip(action, self.elements.low, self.elements.high)

    def postures(
        self, position: Float64[ndarray, "batch 3"], yaw: Float64[ndarray, " batch"]
    ) -> Float64[ndarray, "batch joints"]:
        """Joint positions [rad] whose tools are there and point down, by inverse kinematics from the home posture."""
        qpos = np.tile(self.home, (len(yaw), 1))
        for _ in range(30):
            pose = self.chain.forward(qpos)
            twist = np.concatenate([position - pose.position, upright_error(pose.rotation, yaw)], axis=1)
            step = damped_least_squares(pose.jacobian, twist, np.zeros_like(qpos), IK_DAMPING)
            qpos = qpos + np.clip(step, -MAX_IK_STEP, MAX_IK_STEP)
        return qpos

    def forward(self, state: BatchState) -> None:
        """Tool pose and Jacobian, fresh from the joint positions."""
        self._keep(state, slice(None), self.chain.forward(state.qpos[:, self.qpos]))

    def opening(self, state: BatchState) -> Float64[ndarray, " num_envs"]:
        """Distance between the fingers [m]."""
        (left, _), (right, _) = self.fingers
        opening: Float64[ndarray, " num_envs"] = state.qpos[:, left] + state.qpos[:, right]
        return opening

    def start(
        self, state: BatchState, env_ids: ndarray, joints: Float64[ndarray, "selected joints"], pose: ChainPose
    ) -> None:
        """Begin at rest in a posture, whose kinematics is `pose`, with the gripper open."""
        state.qpos[env_ids, self.qpos] = joints
        if self.mode != ControlMode.TORQUE:
            state.ctrl[env_ids, self.ctrl] = joints
        self._keep(state, env_ids, pose)
        state.extras[self.prefix + "target"][env_ids] = pose.position
        state.extras[self.prefix + "target_yaw"][env_ids, 0] = yaw_of(pose.rotation)
        for joint, actuator in self.fingers:
            state.qpos[env_ids, joint] = state.ctrl[env_ids, actuator] = self.robot.gripper.stroke

    def _keep(self, state: BatchState, rows: ndarray | slice, pose: ChainPose) -> None:
        state.extras[self.prefix + "tool_position"][rows] = pose.position
        state.extras[self.prefix + "tool_rotation"][rows] = pose.rotation
        state.extras[self.prefix + "jacobian"][rows] = pose.jacobian

"""Parameters of the tabletop tasks."""

from dataclasses import dataclass

from alula.core.errors import ConfigError, unknown_name
from alula.core.spaces import ControlMode

ROBOTS = ("panda", "so101", "ur5e", "viperx")
ACTION_MODES = tuple(
    mode.value
    for mode in (
        ControlMode.END_EFFECTOR_POSE_DELTA,
        ControlMode.END_EFFECTOR_POSE_ABSOLUTE,
        ControlMode.JOINT_POSITION_DELTA,
        ControlMode.JOINT_POSITION_ABSOLUTE,
        ControlMode.TORQUE,
    )
)


@dataclass
class TabletopConfig:
    """What all tabletop tasks can be told."""

    robot: str = "panda"
    """panda, so101, ur5e or viperx."""
    action_mode: str = "end_effector_pose_delta"
    """end_effector_pose_delta, end_effector_pose_absolute, joint_position_delta, joint_position_absolute or torque."""
    max_episode_steps: int = 150
    """Time limit in control steps of 1/20 s; with torques the same time takes ten times as many."""

    def __post_init__(self) -> None:
        """Check names and ranges."""
        if self.robot not in ROBOTS:
            raise ConfigError(unknown_name("robot", self.robot, ROBOTS))
        if self.action_mode not in ACTION_MODES:
            raise ConfigError(unknown_name("action mode", self.action_mode, ACTION_MODES))
        if self.max_episode_steps < 1:
            raise ConfigError(f"task.max_episode_steps is {self.max_episode_steps}; at least 1 is needed")


@dataclass
class ReachConfig(TabletopConfig):
    """Move the tool to a random point in the air."""

    max_episode_steps: int = 50


@dataclass
class LiftConfig(TabletopConfig):
    """Lift a cube off the table."""

    max_episode_steps: int = 100

"""Parameters of the tabletop tasks."""

from dataclasses import dataclass
from typing import ClassVar

from alula.core.errors import ConfigError, unknown_name
from alula.core.spaces import ControlMode
from alula.sims.config import TaskConfig
from alula.sims.tasks.tabletop.instructions import PARAPHRASES, TEMPLATE_NAMES

ROBOTS = ("panda", "so101", "ur5e", "viperx")
ENGINES = ("mujoco", "bullet")
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
class TabletopConfig(TaskConfig):
    """What all tabletop tasks can be told."""

    robots: ClassVar[tuple[str, ...]] = ROBOTS
    """Those whose arms and grippers the task suits."""
    robot: str = "panda"
    """panda, so101, ur5e or viperx."""
    action_mode: str = "end_effector_pose_delta"
    """end_effector_pose_delta, end_effector_pose_absolute, joint_position_delta, joint_position_absolute or torque."""
    engine: str = "mujoco"
    """mujoco, or bullet: the Panda of pybullet_data, for tasks whose things are boxes."""
    max_episode_steps: int = 150
    """Time limit in control steps of 1/20 s; with torques the same time takes ten times as many."""

    def __post_init__(self) -> None:
        """Check names and ranges."""
        super().__post_init__()
        if self.robot not in ROBOTS:
            raise ConfigError(unknown_name("robot", self.robot, ROBOTS))
        if self.robot not in self.robots:
            raise ConfigError(
                f"task.robot is {self.robot}, which is too small here; allowed are {', '.join(self.robots)}"
            )
        if self.engine not in ENGINES:
            raise ConfigError(unknown_name("engine", self.engine, ENGINES))
        if self.action_mode not in ACTION_MODES:
            raise ConfigError(unknown_name("action mode", self.action_mode, ACTION_MODES))


@dataclass
class ReachConfig(TabletopConfig):
    """Move the tool to a random point in the air."""

    max_episode_steps: int = 50


@dataclass
class LiftConfig(TabletopConfig):
    """Lift a cube off the table."""

    max_episode_steps: int = 100


@dataclass
class PickPlaceConfig(TabletopConfig):
    """Carry a cube to a marked place on the table."""


@dataclass
class StackConfig(TabletopConfig):
    """Put one cube on another."""


@dataclass
class TabletopLanguageConfig(TabletopConfig):
    """Do with coloured blocks what a sentence says."""

    paraphrases: str = "train"
    """Which wordings of the instructions are used: train or held_out."""
    template: str = ""
    """The only kind of instruction that is given; empty for all kinds."""

    def __post_init__(self) -> None:
        """Check the names."""
        super().__post_init__()
        if self.paraphrases not in PARAPHRASES:
            raise ConfigError(unknown_name("choice of paraphrases", self.paraphrases, PARAPHRASES))
        if self.template not in ("", *TEMPLATE_NAMES):
            raise ConfigError(unknown_name("template", self.template, TEMPLATE_NAMES))


@dataclass
class NutAssemblyConfig(TabletopConfig):
    """Put a square nut on a square peg."""

    clearance: float = 0.002
    """Gap between nut and peg on every side [m]."""

    def __post_init__(self) -> None:
        """Check the range."""
        super().__post_init__()
        if not 0.0005 <= self.clearance <= 0.005:
            raise ConfigError(f"task.clearance is {self.clearance} m; allowed are 0.0005 m to 0.005 m")


@dataclass
class DoorOpenConfig(TabletopConfig):
    """Open a hinged door by its handle."""

    robots = ("panda", "ur5e", "viperx")


@dataclass
class BimanualTransferConfig(TabletopConfig):
    """Hand a bar over from one arm to another."""

    robots = ("panda", "ur5e", "viperx")


@dataclass
class PushTConfig(TabletopConfig):
    """Push a T-shaped block to where it shall lie."""

    robots = ("panda", "ur5e", "viperx")
    start_range: float = 0.08
    """Largest initial distance of the T from its target along x and y [m]."""
    start_yaw_range: float = 3.15
    """Largest initial angle between the T and its target, either way [rad]."""
    coverage: float = 0.9
    """Share of the target that must be covered."""
    max_episode_steps: int = 300

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if not (0 <= self.start_range <= 0.1 and 0 <= self.start_yaw_range <= 3.15):
            raise ConfigError(
                f"task.start_range is {self.start_range} m and task.start_yaw_range {self.start_yaw_range} rad; "
                "allowed are 0 to 0.1 m and 0 to 3.15 rad"
            )
        if not 0.5 <= self.coverage <= 0.99:
            raise ConfigError(f"task.coverage is {self.coverage}; allowed are 0.5 to 0.99")

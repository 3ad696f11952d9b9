"""Parameters of PegInsertion."""

from dataclasses import dataclass

from alula.core.errors import ConfigError
from alula.sims.config import TaskConfig

ROBOTS = ("panda", "ur5e")
"""Arms that reach the whole workspace with the peg upright."""


@dataclass
class PegInsertionConfig(TaskConfig):
    """Insert a square peg into a socket whose pose is random, and may be mis-measured."""

    robot: str = "panda"
    """Arm: `panda` or `ur5e`. What policies see and command is the tool's, so they carry over."""
    clearance: float = 0.0005
    """Gap between peg and socket on every side [m]."""
    offset_std: float = 0.001
    """Standard deviation of the unobserved error of the measured socket position, in x and in y [m].

    One draw per episode, as a camera calibrated with this accuracy would give. The expert sees the true pose.
    """
    offset_yaw_std: float = 0.01
    """Standard deviation of the unobserved error of the measured socket yaw [rad]."""
    max_episode_steps: int = 120
    """Time limit in control steps of 1/20 s."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if self.robot not in ROBOTS:
            raise ConfigError(f"task.robot is '{self.robot}'; allowed are {', '.join(ROBOTS)}")
        if not 0.0001 <= self.clearance <= 0.005:
            raise ConfigError(f"task.clearance is {self.clearance} m; allowed are 0.0001 m to 0.005 m")
        if not (0 <= self.offset_std <= 0.01 and 0 <= self.offset_yaw_std <= 0.2):
            raise ConfigError(
                f"task.offset_std is {self.offset_std} m and task.offset_yaw_std {self.offset_yaw_std} rad; "
                "allowed are 0 to 0.01 m and 0 to 0.2 rad"
            )

"""Parameters of TwoRoutes."""

from dataclasses import dataclass

from alula.core.errors import ConfigError
from alula.sims.config import TaskConfig


@dataclass
class TwoRoutesConfig(TaskConfig):
    """Pass an obstacle on the left or on the right; both ways are equally good."""

    left_share: float = 0.5
    """Probability with which the expert chooses the left way in an episode."""
    max_episode_steps: int = 60
    """Time limit in control steps of 1/20 s."""

    def __post_init__(self) -> None:
        """Check the range."""
        super().__post_init__()
        if not 0.0 <= self.left_share <= 1.0:
            raise ConfigError(f"task.left_share is {self.left_share}; allowed is a probability, 0 to 1")

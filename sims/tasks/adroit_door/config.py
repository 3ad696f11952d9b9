"""Parameters of AdroitDoor."""

from dataclasses import dataclass

from alula.core.errors import ConfigError
from alula.sims.config import TaskConfig

REWARDS = ("sparse", "dense")


@dataclass
class AdroitDoorConfig(TaskConfig):
    """Open a latched door with the Adroit hand: Gymnasium-Robotics' AdroitHandDoor on the batched engine."""

    reward: str = "sparse"
    """`sparse`: 1 and the end on success. `dense`: Gymnasium-Robotics' shaped reward, which never terminates."""
    max_episode_steps: int = 400
    """Time limit in control steps of 1/100 s; the human demonstrations end after up to 300, some before success."""

    def __post_init__(self) -> None:
        """Check the choices."""
        super().__post_init__()
        if self.reward not in REWARDS:
            raise ConfigError(f"task.reward is '{self.reward}'; allowed are {' and '.join(REWARDS)}")

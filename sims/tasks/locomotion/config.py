"""Parameters of the locomotion tasks."""

from dataclasses import dataclass

from alula.core.errors import ConfigError
from alula.sims.config import TaskConfig


@dataclass
class LocomotionConfig(TaskConfig):
    """Travel as far as possible along x: a task of Gymnasium's MuJoCo suite, version 5, on the batched engine."""

    success_distance: float = 10.0
    """From this x position on an environment counts as successful [m]; neither reward nor episode take notice."""
    max_episode_steps: int = 1000
    """Time limit in control steps, as in Gymnasium."""

    def __post_init__(self) -> None:
        """Check the range."""
        super().__post_init__()
        if not self.success_distance > 0:
            raise ConfigError(f"task.success_distance is {self.success_distance} m; it must be above 0")


@dataclass
class HopperConfig(LocomotionConfig):
    """One leg, three motors; an episode lasts 8 s, in which 10 m are an average of 1.25 m/s."""


@dataclass
class Walker2dConfig(LocomotionConfig):
    """Two legs in a plane, six motors; an episode lasts 8 s, in which 10 m are an average of 1.25 m/s."""


@dataclass
class HalfCheetahConfig(LocomotionConfig):
    """A running torso in a plane, six motors; an episode lasts 50 s, in which 100 m are an average of 2 m/s."""

    success_distance: float = 100.0


@dataclass
class AntConfig(LocomotionConfig):
    """Four legs in space, eight motors; an episode lasts 50 s, in which 50 m are an average of 1 m/s."""

    success_distance: float = 50.0

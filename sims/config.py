"""What every task can be told."""

from dataclasses import dataclass, field, fields

from alula.core.errors import ConfigError


@dataclass
class Randomization:
    """How far each episode may differ from the model, drawn anew at every reset; by default not at all.

    The first four are half-widths of uniform factors around 1, drawn independently for every body, geom, joint and
    actuator: 0.2 means between 80 % and 120 %.
    """

    mass: float = 0.0
    """Of every body, with its inertia."""
    friction: float = 0.0
    """Of every geom's sliding friction."""
    damping: float = 0.0
    """Of every joint."""
    actuator_gain: float = 0.0
    """Of every actuator."""
    latency: int = 0
    """Largest delay of actions [control steps]; an episode has one between 0 and this. Its first action is
    repeated until the next one arrives."""
    observation_noise: float = 0.0
    """Standard deviation of the noise added to every observed number, in that number's own unit."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("mass", "friction", "damping", "actuator_gain"):
            width = getattr(self, name)
            if not 0.0 <= width <= 0.9:
                raise ConfigError(f"task.randomization.{name} is {width}; allowed are 0 to 0.9")
        if not 0 <= self.latency <= 50:
            raise ConfigError(f"task.randomization.latency is {self.latency} control steps; allowed are 0 to 50")
        if not self.observation_noise >= 0.0:
            raise ConfigError(f"task.randomization.observation_noise is {self.observation_noise}; allowed is 0 or more")

    @property
    def physics(self) -> dict[str, float]:
        """The half-widths that change the model, by name, where they are not zero."""
        names = [entry.name for entry in fields(self)][:4]
        return {name: getattr(self, name) for name in names if getattr(self, name) > 0}


@dataclass
class TaskConfig:
    """What every task can be told."""

    max_episode_steps: int = 100
    """Time limit in control steps."""
    randomization: Randomization = field(default_factory=Randomization)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.max_episode_steps < 1:
            raise ConfigError(f"task.max_episode_steps is {self.max_episode_steps}; at least 1 is needed")

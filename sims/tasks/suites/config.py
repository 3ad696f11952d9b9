"""Parameters of the adapted suites."""

from dataclasses import dataclass, field

from alula.core.errors import ConfigError, unknown_name
from alula.sims.config import TaskConfig

FETCH_TASKS = ("reach", "push", "slide", "pick_and_place")
KITCHEN_ELEMENTS = (
    "bottom burner",
    "top burner",
    "light switch",
    "slide cabinet",
    "hinge cabinet",
    "microwave",
    "kettle",
)
REWARDS = ("sparse", "dense")


def _require(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(unknown_name(name, value, allowed))


@dataclass
class FetchConfig(TaskConfig):
    """Reach, push, slide or lift with the Fetch arm: Gymnasium-Robotics' Fetch environments."""

    name: str = "pick_and_place"
    """Which of them: `reach`, `push`, `slide` or `pick_and_place`."""
    reward: str = "sparse"
    """`sparse`: 0 at the goal, else -1. `dense`: minus the distance to the goal [m]."""
    max_episode_steps: int = 50
    """Time limit in control steps of 1/25 s."""

    def __post_init__(self) -> None:
        """Check the choices."""
        super().__post_init__()
        _require("task.name", self.name, FETCH_TASKS)
        _require("task.reward", self.reward, REWARDS)


@dataclass
class FrankaKitchenConfig(TaskConfig):
    """Several chores with a Franka arm in a kitchen: Gymnasium-Robotics' FrankaKitchen."""

    chores: list[str] = field(default_factory=lambda: ["microwave", "kettle", "light switch", "slide cabinet"])
    """What is to be brought to its goal, in any order."""
    max_episode_steps: int = 280
    """Time limit in control steps of 1/12.5 s."""

    def __post_init__(self) -> None:
        """Check the choices."""
        super().__post_init__()
        for chore in self.chores:
            _require("entry of task.chores", chore, KITCHEN_ELEMENTS)
        if not self.chores or len(set(self.chores)) < len(self.chores):
            raise ConfigError(f"task.chores is {self.chores}; at least one is needed, and each once")


@dataclass
class MetaWorldConfig(TaskConfig):
    """One of the fifty tasks of Meta-World with a Sawyer arm, goals random and observed."""

    name: str = "pick-place-v3"
    """Meta-World's name of the task."""
    max_episode_steps: int = 500
    """Time limit in control steps of 1/80 s."""


@dataclass
class PushTGymConfig(TaskConfig):
    """Push a T over its mark: gym-pusht, the original in pixels and Chipmunk's physics (`push_t` is ours)."""

    max_episode_steps: int = 300
    """Time limit in control steps of 1/10 s."""


@dataclass
class RobosuiteConfig(TaskConfig):
    """A task of robosuite with one arm and its default controller."""

    name: str = "Lift"
    """robosuite's name of the task."""
    robot: str = "Panda"
    """robosuite's name of the arm."""
    reward: str = "sparse"
    """`sparse`: 1 in success. `dense`: robosuite's shaped reward."""
    max_episode_steps: int = 500
    """Time limit in control steps of 1/20 s."""

    def __post_init__(self) -> None:
        """Check the choices."""
        super().__post_init__()
        _require("task.reward", self.reward, REWARDS)


@dataclass
class HoverGpdConfig(TaskConfig):
    """Climb to one metre and hover there: gym-pybullet-drones' HoverAviary (`hover` is ours)."""

    start_range: float = 0.1
    """Largest distance of the start from the original's, which is always the same, along each axis [m]."""
    max_episode_steps: int = 240
    """Time limit in control steps of 1/30 s."""

    def __post_init__(self) -> None:
        """Check the range."""
        super().__post_init__()
        if not 0.0 <= self.start_range <= 0.5:
            raise ConfigError(f"task.start_range is {self.start_range} m; allowed are 0 to 0.5")

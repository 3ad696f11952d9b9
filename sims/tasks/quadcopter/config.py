"""Parameters of the quadcopter tasks."""

from dataclasses import dataclass, field

from alula.core.errors import ConfigError
from alula.sims.config import TaskConfig
from alula.sims.quadcopters.config import ENGINES, Aerodynamics

ACTION_MODES = ("position", "velocity", "attitude_thrust", "thrust_body_rate", "rotor_speed")
CONTROLLERS = ("pid", "geometric")


@dataclass
class QuadcopterConfig(TaskConfig):
    """What all quadcopter tasks share."""

    engine: str = "mujoco"
    """Physics: `mujoco`, `bullet` or `torch` (the analytic model: without contacts, fastest in large batches)."""
    aerodynamics: Aerodynamics = field(default_factory=Aerodynamics)
    """Effects beyond ideal thrust and propeller drag."""
    action_mode: str = "thrust_body_rate"
    """What an action commands: `position`, `velocity`, `attitude_thrust`, `thrust_body_rate` or `rotor_speed`."""
    controller: str = "pid"
    """Flight controller below the action: `pid`, or `geometric` (Lee et al. 2010)."""
    physics_rate: int = 500
    """Physics steps per second [Hz]."""
    control_rate: int = 100
    """Control steps per second [Hz]."""
    start_tilt: float = 0.1
    """Largest initial rotation about each axis, either way [rad]."""
    start_speed: float = 0.1
    """Largest initial velocity along each axis, either way [m/s]."""
    max_episode_steps: int = 500

    def __post_init__(self) -> None:
        """Check the choices and the ranges."""
        super().__post_init__()
        for name, allowed in (("engine", ENGINES), ("action_mode", ACTION_MODES), ("controller", CONTROLLERS)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"task.{name} is '{getattr(self, name)}'; allowed are {', '.join(allowed)}")
        if not 100 <= self.physics_rate <= 10_000:
            raise ConfigError(f"task.physics_rate is {self.physics_rate} Hz; allowed are 100 Hz to 10000 Hz")
        least = 1 if self.action_mode == "rotor_speed" else 50
        if not least <= self.control_rate <= self.physics_rate or self.physics_rate % self.control_rate:
            raise ConfigError(
                f"task.control_rate is {self.control_rate} Hz; allowed are divisors of task.physics_rate "
                f"({self.physics_rate} Hz) from {least} Hz; below 50 Hz a controller cannot hold body rates"
            )
        _check_range("start_tilt", self.start_tilt, 0.0, 1.0, "rad")
        _check_range("start_speed", self.start_speed, 0.0, 2.0, "m/s")


@dataclass
class HoverConfig(QuadcopterConfig):
    """Catch a Crazyflie that is thrown, and hold it at a target."""

    target_range: float = 0.4
    """Half the side of the cube of targets [m]; 0 for always the same target."""
    start_range: float = 0.5
    """Half the side of the cube of initial positions [m]."""
    start_tilt: float = 0.5
    start_speed: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        _check_range("target_range", self.target_range, 0.0, 0.6, "m")
        _check_range("start_range", self.start_range, 0.0, 0.6, "m")


@dataclass
class TrackConfig(QuadcopterConfig):
    """Follow a figure-eight for one round."""

    lap: float = 8.0
    """Duration of the round [s]."""
    size: float = 0.8
    """Half the length of the figure-eight [m]."""
    bound: float = 0.1
    """Largest root mean square of the position error over the round that counts as success [m]."""
    max_episode_steps: int = 850
    """Time limit in control steps; success needs the whole round."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        _check_range("lap", self.lap, 3.0, 60.0, "s")
        _check_range("size", self.size, 0.2, 1.5, "m")
        _check_range("bound", self.bound, 0.01, 1.0, "m")


@dataclass
class GatesConfig(QuadcopterConfig):
    """Fly through a random sequence of gates, in order."""

    num_gates: int = 4
    """Gates per episode."""
    opening: float = 0.4
    """Side of a gate's square opening [m]."""
    max_episode_steps: int = 1000

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if not 1 <= self.num_gates <= 10:
            raise ConfigError(f"task.num_gates is {self.num_gates}; allowed are 1 to 10")
        _check_range("opening", self.opening, 0.2, 1.0, "m")


@dataclass
class LandConfig(QuadcopterConfig):
    """Touch down softly on a pad."""

    pad_range: float = 0.5
    """Half the side of the square of pad positions [m]."""
    max_episode_steps: int = 800

    def __post_init__(self) -> None:
        """Check the range."""
        super().__post_init__()
        _check_range("pad_range", self.pad_range, 0.0, 1.0, "m")


@dataclass
class FormationConfig(QuadcopterConfig):
    """Change places between random formations without coming close to each other."""

    aerodynamics: Aerodynamics = field(default_factory=lambda: Aerodynamics(downwash=True))
    num_drones: int = 3
    """Crazyflies."""
    min_distance: float = 0.15
    """Distance between centres of drones below which they count as collided [m]."""
    max_episode_steps: int = 1000

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if not 2 <= self.num_drones <= 10:
            raise ConfigError(f"task.num_drones is {self.num_drones}; allowed are 2 to 10")
        _check_range("min_distance", self.min_distance, 0.1, 0.3, "m")


def _check_range(name: str, value: float, low: float, high: float, unit: str) -> None:
    if not low <= value <= high:
        raise ConfigError(f"task.{name} is {value} {unit}; allowed are {low} {unit} to {high} {unit}")

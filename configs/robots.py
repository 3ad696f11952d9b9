"""What the commands for robots can be told; the others are in `schemas.py`."""

from dataclasses import dataclass, field
from typing import Any

from alula.configs.checks import require_least, require_seed
from alula.core.errors import ConfigError, unknown_name


@dataclass
class ServeConfig:
    """Run a policy for robots that ask over the network."""

    checkpoint: str = ""
    """Checkpoint or run folder."""
    host: str = "127.0.0.1"
    """Address to listen at; by default only programs on this machine can ask."""
    port: int = 0
    """Port to listen at; 0 for any that is free."""
    token: str | None = None
    """What robots must know to be answered; without, one is made. Either is printed."""
    seed: int = 0
    """Of the policy's noise."""

    def __post_init__(self) -> None:
        """Check port, token and seed."""
        if not 0 <= self.port < 2**16:
            raise ConfigError(f"port is {self.port}; allowed are 0 to {2**16 - 1}")
        if self.token == "":
            raise ConfigError("token is empty; leave it out and one is made")
        require_seed(self.seed)


@dataclass
class DeployConfig:
    """Run a policy on a robot, or on its emulator, and record it."""

    checkpoint: str = ""
    """Checkpoint or run folder of the policy."""
    server: str | None = None
    """Instead: a policy server, as host:port."""
    token: str | None = None
    """What `alula serve` printed."""
    device: Any = None
    task: Any = None
    """What the policy does; default what it was trained on. If it learnt from recordings: the emulator's scene."""
    emulate: bool = False
    """Start the device's emulator, with the task's scene around it, instead of looking for a real one."""
    dry_run: bool = False
    """Send nothing: watch what the policy would do."""
    view: bool = False
    """Show the emulator's scene in a window."""
    episodes: int = 10
    """Episodes."""
    first_seed: int = 1_000_000
    """Emulator: seed of the first episode's scene; the others follow. Training never sees seeds of this range."""
    seconds: float | None = None
    """Time limit of an episode [s]; default the task's; needed where there is none."""
    start: list[float] | None = None
    """Real robot: where an episode begins, in the device's coordinates; default wherever it is."""
    box: list[float] | None = None
    """Arms: box that the tool never leaves, as x, y, z of its lowest and of its highest corner [m]."""
    tracker: str = "127.0.0.1:0"
    """Where the poses of things arrive, as host:port; see docs/hardware."""
    poses: str | None = None
    """File with poses of things that stand still."""
    cameras: list[str] = field(default_factory=list)
    """Cameras that the policy sees by, as NAME:KIND or NAME:KIND:SOURCE, like `[front:opencv:/dev/video0]`."""
    width: int | None = None
    """Of the cameras' pictures [pixel]; default what the policy saw."""
    height: int | None = None
    """Of the cameras' pictures [pixel]; default what the policy saw."""
    max_age: float = 0.2
    """Age of a picture [s] above which the policy is not asked."""
    mode: str | None = None
    """`synchronous` plans when nothing is left to do, `asynchronous` ahead of need, `real_time` so that plans agree;
    default `real_time` for policies that plan ahead, `synchronous` for those that decide anew at every step."""
    execute_steps: int | None = None
    """Actions that are executed of a plan; default as the policy was trained."""
    threshold: float = 0.5
    """asynchronous: share of a plan that is left when the next one is asked for."""
    ensemble: bool = False
    """asynchronous: average all plans that say something about a step."""
    blend: float | None = None
    """Share of a control step that the way from one wish to the next takes; default as the policy has learnt it.
    0: a jump as in simulation, which the governor shapes; 1: the whole step, as between recorded commands."""
    deadline: float = 1.0
    """Time after which a plan is of no use [s]."""
    policy_seed: int = 0
    """Of the policy's noise."""
    operator: str | None = None
    """Who may take over while the policy drives: `keyboard` or `gamepad`."""
    out: str | None = None
    """Dataset (.zarr) to record; default runs/deploy-DEVICE-TASK-NUMBER.zarr."""

    def __post_init__(self) -> None:
        """Check the counts."""
        if self.mode not in (None, *(modes := ("synchronous", "asynchronous", "real_time"))):
            raise ConfigError(unknown_name("mode", self.mode, modes))
        require_least(1, episodes=self.episodes)
        require_least(0, first_seed=self.first_seed, policy_seed=self.policy_seed, max_age=self.max_age)
        if self.blend is not None and not 0 <= self.blend <= 1:
            raise ConfigError(f"blend is {self.blend}; allowed is a share from 0 to 1")
        for name in ("seconds", "deadline"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e5:
                raise ConfigError(f"{name} is {value} s; it must be above 0")


@dataclass
class EmulateConfig:
    """Start a robot's emulator, which speaks its real protocol."""

    device: Any = None
    task: Any = None
    """The scene around it; default nothing in particular."""
    seed: int = 0
    """Of the scene, and of the chances of faults."""
    tracker: str | None = None
    """Send the poses of the scene's things there, as host:port."""
    faults: list[str] = field(default_factory=list)
    """What goes wrong, as KIND:TARGET:START:DURATION:PROBABILITY:VALUE, all but KIND optional; `alula list faults`."""
    view: bool = False
    """Show the scene in a window."""
    log: str | None = None
    """Folder for the log of every decoded command; default a temporary one."""

    def __post_init__(self) -> None:
        """Check the seed."""
        require_least(0, seed=self.seed)


@dataclass
class RecordConfig:
    """Teleoperate a device, and record demonstrations."""

    device: Any = None
    out: str = ""
    """Dataset to write (.zarr)."""
    source: str = "keyboard"
    """Who steers: keyboard, gamepad, leader (a second arm), hand (the arm itself, without power), or hold (nobody)."""
    leader: Any = None
    """A second arm that is led by hand, and that the device follows: choosing one is `source=leader`."""
    episodes: int = 10
    """Demonstrations to record."""
    seconds: float = 60.0
    """Longest time of one [s]; handing back (enter) ends it before."""
    rate: float = 20.0
    """Steps per second [Hz] of what is learnt from; everything else is kept at the device's own rate."""
    cameras: list[str] = field(default_factory=list)
    """Cameras to record, as NAME:KIND or NAME:KIND:SOURCE, like `[front:opencv:/dev/video0]`."""
    width: int = 640
    """Of the cameras' pictures [pixel]."""
    height: int = 480
    """Of the cameras' pictures [pixel]."""
    max_age: float = 0.2
    """Age of a picture [s] above which its step is left out."""
    instruction: str = ""
    """What is shown, in words."""
    emulate: bool = False
    """Start the device's emulator, and steer that."""
    overwrite: bool = False
    """Replace an existing dataset."""

    def __post_init__(self) -> None:
        """Check counts and times; who chooses a leader wants it to lead."""
        self.source = self.source if self.leader is None else "leader"
        require_least(1, episodes=self.episodes)
        require_least(0, seconds=self.seconds, max_age=self.max_age)
        require_least(1, rate=self.rate)


@dataclass
class ReplayConfig:
    """Play a recorded run once more, on a device or only to the governor."""

    data: str = ""
    """Dataset that `alula deploy` or `alula record` wrote."""
    episode: int = 0
    """Number of the episode, from 0 on."""
    device: Any = None
    check: bool = False
    """Move nothing: ask the governor what it was asked then, and compare its commands to the bit."""
    speed: float = 1.0
    """1 is as fast as recorded, 0.5 half as fast."""
    out: str | None = None
    """Dataset to record the replay in."""
    emulate: bool = False
    """Start the device's emulator, and replay on that."""
    overwrite: bool = False
    """Replace an existing dataset at `out`."""

    def __post_init__(self) -> None:
        """Check number and speed."""
        require_least(0, episode=self.episode)
        if not 0 < self.speed <= 1:
            raise ConfigError(f"speed is {self.speed}; allowed is more than 0 and at most 1, as it was recorded")


@dataclass
class CalibrateConfig:
    """Find out how an arm's servos are mounted, by moving it by hand."""

    device: Any = None
    out: str = ""
    """File to write (.json)."""
    overwrite: bool = False
    """Replace an existing file."""

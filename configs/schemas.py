"""What each command can be told: one dataclass a command; groups (`task`, `policy`, `algorithm`) have their own."""

from dataclasses import dataclass, field
from typing import Any

from alula.core.errors import ConfigError, unknown_name
from alula.training.config import EVALUATION_SEEDS, RUN_SEEDS, BCConfig


def _require(least: int, **values: float) -> None:
    for name, value in values.items():
        if not value >= least:  # Which nan fails as well.
            raise ConfigError(f"{name} is {value}; it must be at least {least}")


def _require_seed(seed: int) -> None:
    if not 0 <= seed < RUN_SEEDS:
        raise ConfigError(f"seed is {seed}; allowed are 0 to {RUN_SEEDS - 1}")


@dataclass
class EvaluationConfig:
    """How policies are scored."""

    episodes: int = 200
    """Episodes, each with its own seed."""
    first_seed: int = 1_000_000
    """Seed of the first episode; the others follow. Training never sees seeds of this range."""
    stochastic: bool = False
    """Draw every sampling step as in training, instead of following the deterministic path."""
    policy_seed: int = 0
    """Seed of the policy's own noise."""
    film: int = 24
    """Episodes kept for videos: of these the first successes and failures are drawn."""
    videos: int = 2
    """Videos drawn of successes, and of failures; 0 for none."""

    def __post_init__(self) -> None:
        """Check the counts."""
        _require(1, **{"evaluation.episodes": self.episodes})
        seeds = {"evaluation.first_seed": self.first_seed, "evaluation.policy_seed": self.policy_seed}
        if self.first_seed + self.episodes > EVALUATION_SEEDS:
            raise ConfigError(
                f"evaluation.first_seed is {self.first_seed}; seeds from {EVALUATION_SEEDS} on are for training"
            )
        _require(0, **seeds, **{"evaluation.film": self.film, "evaluation.videos": self.videos})


@dataclass
class DemoConfig:
    """Demonstrations, cloning, fine-tuning, evaluation and a report, in one go."""

    task: Any = None
    policy: Any = None
    algorithm: Any = None
    cloning: BCConfig = field(default_factory=BCConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    data: str | None = None
    """Recorded demonstrations (.zarr, or .npz to be imported); without, the task's expert demonstrates."""
    episodes: int = 100
    """Demonstrations to collect."""
    expert_noise: float = 0.4
    """Imperfection of the expert; 0 is its best."""
    seed: int = 0
    """Of everything random: another seed is another run."""
    run: str | None = None
    """Folder of results; default runs/demo-TASK-ALGORITHM-SEED."""
    resume: bool = False
    """Go on with what the folder already holds."""

    def __post_init__(self) -> None:
        """Check the counts."""
        _require(1, episodes=self.episodes)
        _require(0, expert_noise=self.expert_noise)
        _require_seed(self.seed)


@dataclass
class CollectConfig:
    """Run an expert or a policy and write a dataset."""

    task: Any = None
    """Where; default the checkpoint's task."""
    out: str = ""
    """Dataset to write (.zarr)."""
    checkpoint: str | None = None
    """Policy that acts; without, the task's expert."""
    episodes: int = 100
    """Episodes to record."""
    expert_noise: float = 0.4
    """Imperfection of the expert; 0 is its best."""
    only_success: bool = True
    """Keep successful episodes only."""
    stochastic: bool = False
    """Draw every sampling step of the policy."""
    seed: int = 0
    """Which episodes, and whatever is random in them."""
    overwrite: bool = False
    """Replace an existing dataset."""

    def __post_init__(self) -> None:
        """Check the counts."""
        _require(1, episodes=self.episodes)
        _require(0, expert_noise=self.expert_noise)
        _require_seed(self.seed)


@dataclass
class TrainConfig:
    """Behaviour cloning of any policy."""

    data: str = ""
    """Demonstrations (.zarr); other formats become one by `alula convert`."""
    policy: Any = None
    cloning: BCConfig = field(default_factory=BCConfig)
    fields: list[str] | None = None
    """Observation fields that the policy sees, as in `[observation.state,observation.images.top]`; default all."""
    held_out: float = 0.1
    """Share of the episodes never trained on but used to measure the action error, at least one; 0 for none."""
    seed: int = 0
    """Of everything random: another seed is another run."""
    run: str | None = None
    """Folder of results; default runs/train-DATASET-POLICY-SEED."""
    resume: bool = False
    """Go on from the folder's last checkpoint."""

    def __post_init__(self) -> None:
        """Check share and seed."""
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"held_out is {self.held_out}; it must be at least 0 and below 1")
        _require_seed(self.seed)


@dataclass
class FinetuneConfig:
    """RL from a cloned policy, or from scratch."""

    checkpoint: str = ""
    """Checkpoint or run folder of the cloned policy; without, `policy` learns `task` from scratch."""
    policy: Any = None
    algorithm: Any = None
    task: Any = None
    """Where; default the checkpoint's task."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    seed: int = 0
    """Of everything random: another seed is another run."""
    run: str | None = None
    """Folder of results; default runs/finetune-TASK-ALGORITHM-SEED."""
    resume: bool = False
    """Go on from the folder's last checkpoint."""

    def __post_init__(self) -> None:
        """Check the seed."""
        _require_seed(self.seed)


@dataclass
class EvaluateConfig:
    """Score one policy."""

    checkpoint: str = ""
    """Checkpoint or run folder."""
    task: Any = None
    """Where; default the checkpoint's task."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    out: str | None = None
    """Folder for evaluation/ and videos/; default the one given as checkpoint."""


@dataclass
class CompareConfig:
    """Score two policies on the same seeds."""

    first: str = ""
    """Checkpoint or run folder."""
    second: str = ""
    """Checkpoint or run folder."""
    task: Any = None
    """Where; default the first checkpoint's task."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


@dataclass
class ConvertConfig:
    """Turn a dataset of any format into one of another."""

    source: str = ""
    """Dataset to read; it is never changed."""
    target: str = ""
    """Dataset to write."""
    format: str | None = None
    """Of the target; default what its suffix says (.zarr, .hdf5). `alula list formats` shows all."""
    source_format: str | None = None
    """Of the source; default what its files say."""
    task: Any = None
    """For sources without names (npz): share out their columns as this task's fields."""
    rotations: list[str] = field(default_factory=list)
    """Rotations to rewrite on the way, as FIELD:START:FROM:TO, like action:3:axis_angle:rot6d."""
    video: bool | None = None
    """zarr, lerobot3 and lerobot21: store images as video, small but not exact; default exact."""
    modality: bool | None = None
    """lerobot21: add GR00T's modality.json."""
    frame: str | None = None
    """ulog: `ned` as recorded (default), or `enu` for x east, y north, z up."""
    plan_only: bool = False
    """Show what would be done, and stop."""
    strict: bool = False
    """Refuse where the plan names a loss; also --strict."""
    force: bool = False
    """Replace a dataset at the target; also --force."""
    verify: bool = True
    """Read the target back and compare every value."""


@dataclass
class InspectConfig:
    """What is in a dataset."""

    data: str = ""
    """Dataset, in any format of `alula list formats`."""
    reference: str | None = None
    """Dataset (.zarr) that quality and coverage are relative to, such as a replay of everything; default itself."""
    page: str | None = "NAME-inspect.html"
    """Where the page with plots and pictures goes; NAME is the dataset's. `null` for none."""
    rerun: str | None = None
    """Also write all of it for the viewer rerun, such as demonstrations.rrd; needs `pip install 'alula[rerun]'`."""

    def __post_init__(self) -> None:
        """Check that nothing but a page or a recording can be replaced."""
        for name, value, suffix in (("page", self.page, ".html"), ("rerun", self.rerun, ".rrd")):
            if value is not None and not value.endswith(suffix):
                raise ConfigError(f"{name}={value} must end with {suffix}, so that no other file is replaced")


@dataclass
class ListConfig:
    """What there is to choose from."""

    what: str = "all"
    """tasks, policies, algorithms, devices, faults, formats, or all."""


@dataclass
class BenchConfig:
    """Measure speed."""

    area: str = ""
    """sims, rl, datasets or hardware."""
    num_envs: int = 256
    """Environments in the batch."""
    repeats: int = 5
    """Interleaved measurements; medians are reported."""
    peers: str = ".peers"
    """Folder of what to compare with, as `make bench-peers` fills it; what is missing there is left out."""
    gym_pybullet_drones: str | None = None
    """Checkout of gym-pybullet-drones, which is in no package registry; without, a rate measured once is assumed."""
    diffusion_policy: str | None = None
    """Checkout of diffusion_policy, which is in no package registry; without, it is left out."""
    dataset_gb: float = 10.0
    """Size of the dataset that is generated to measure memory while sampling; 0 leaves that out."""
    devices: list[str] = field(default_factory=list)
    """hardware: devices to try with every fault; default all that have an emulator."""

    def __post_init__(self) -> None:
        """Check the counts."""
        _require(1, num_envs=self.num_envs, repeats=self.repeats)
        _require(0, dataset_gb=self.dataset_gb)


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
        _require_seed(self.seed)


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
    """What the policy does; default what it was trained on."""
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
    """Time limit of an episode [s]; default the task's."""
    start: list[float] | None = None
    """Real robot: where an episode begins, in the device's coordinates; default wherever it is."""
    box: list[float] | None = None
    """Arms: box that the tool never leaves, as x, y, z of its lowest and of its highest corner [m]."""
    tracker: str = "127.0.0.1:0"
    """Where the poses of things arrive, as host:port; see docs/hardware."""
    poses: str | None = None
    """File with poses of things that stand still."""
    mode: str = "synchronous"
    """`synchronous` plans when nothing is left to do, `asynchronous` ahead of need, `real_time` so that plans agree."""
    execute_steps: int | None = None
    """Actions that are executed of a plan; default as the policy was trained."""
    threshold: float = 0.5
    """asynchronous: share of a plan that is left when the next one is asked for."""
    ensemble: bool = False
    """asynchronous: average all plans that say something about a step."""
    blend: float = 0.0
    """Share of a control step that the way from one wish to the next takes; 0: a jump as in simulation, which the
    governor shapes; 1: the smoothest, and latest."""
    deadline: float = 1.0
    """Time after which a plan is of no use [s]."""
    policy_seed: int = 0
    """Of the policy's noise."""
    out: str | None = None
    """Dataset (.zarr) to record; default runs/deploy-DEVICE-TASK-NUMBER.zarr."""

    def __post_init__(self) -> None:
        """Check the counts."""
        if self.mode not in (modes := ("synchronous", "asynchronous", "real_time")):
            raise ConfigError(unknown_name("mode", self.mode, modes))
        _require(1, episodes=self.episodes)
        _require(0, first_seed=self.first_seed, policy_seed=self.policy_seed)
        if not 0 <= self.blend <= 1:
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
        _require(0, seed=self.seed)


@dataclass
class RecordConfig:
    """Teleoperate a device, and record demonstrations."""

    device: Any = None
    out: str = ""
    """Dataset to write (.zarr)."""
    source: str = "keyboard"
    """Who steers: keyboard, gamepad, or hold (nobody)."""
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
        """Check counts and times."""
        _require(1, episodes=self.episodes)
        _require(0, seconds=self.seconds, max_age=self.max_age)
        _require(1, rate=self.rate)


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
        _require(0, episode=self.episode)
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


@dataclass
class ReportConfig:
    """Write a run's report.html anew."""

    run: str = ""
    """Run folder."""


COMMANDS: dict[str, type[Any]] = {
    "demo": DemoConfig,
    "collect": CollectConfig,
    "train": TrainConfig,
    "finetune": FinetuneConfig,
    "evaluate": EvaluateConfig,
    "compare": CompareConfig,
    "convert": ConvertConfig,
    "inspect": InspectConfig,
    "list": ListConfig,
    "bench": BenchConfig,
    "record": RecordConfig,
    "replay": ReplayConfig,
    "report": ReportConfig,
    "deploy": DeployConfig,
    "calibrate": CalibrateConfig,
    "emulate": EmulateConfig,
    "serve": ServeConfig,
}
"""All commands: the name on the command line and its configuration."""

POSITIONAL: dict[str, tuple[str, ...]] = {
    "convert": ("source", "target"),
    "inspect": ("data",),
    "list": ("what",),
    "bench": ("area",),
    "replay": ("data",),
    "report": ("run",),
    "serve": ("checkpoint",),
    "evaluate": ("checkpoint",),
    "compare": ("first", "second"),
}
"""Settings that may be given as bare words, in this order."""

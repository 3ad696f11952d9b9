"""What each command can be told: one dataclass a command; groups (`task`, `policy`, `algorithm`) have their own."""

from dataclasses import dataclass, field
from typing import Any

from alula.configs.checks import require_least, require_seed
from alula.configs.robots import (
    CalibrateConfig,
    DeployConfig,
    EmulateConfig,
    RecordConfig,
    ReplayConfig,
    ServeConfig,
)
from alula.core.errors import ConfigError
from alula.training.config import EVALUATION_SEEDS, BCConfig


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
        require_least(1, **{"evaluation.episodes": self.episodes})
        seeds = {"evaluation.first_seed": self.first_seed, "evaluation.policy_seed": self.policy_seed}
        if self.first_seed + self.episodes > EVALUATION_SEEDS:
            raise ConfigError(
                f"evaluation.first_seed is {self.first_seed}; seeds from {EVALUATION_SEEDS} on are for training"
            )
        require_least(0, **seeds, **{"evaluation.film": self.film, "evaluation.videos": self.videos})


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
        require_least(1, episodes=self.episodes)
        require_least(0, expert_noise=self.expert_noise)
        require_seed(self.seed)


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
        require_least(1, episodes=self.episodes)
        require_least(0, expert_noise=self.expert_noise)
        require_seed(self.seed)


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
        require_seed(self.seed)


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
        require_seed(self.seed)


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
        require_least(1, num_envs=self.num_envs, repeats=self.repeats)
        require_least(0, dataset_gb=self.dataset_gb)


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

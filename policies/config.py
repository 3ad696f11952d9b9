"""Configuration of every policy; imports no torch, so that `--help` stays quick."""

from dataclasses import dataclass, field

from alula.core.errors import ConfigError

FIELDS = ("mlp", "unet1d")


@dataclass
class FieldConfig:
    """Network over a noisy action chunk."""

    kind: str = "mlp"
    """`mlp`: residual perceptron over the flat chunk. `unet1d`: convolutions along the horizon."""
    width: int = 256
    """Units per hidden layer (mlp), or channels of the finest level (unet1d)."""
    blocks: int = 2
    """Residual blocks (mlp), or levels of resolution (unet1d)."""

    def __post_init__(self) -> None:
        """Check the choices."""
        if self.kind not in FIELDS:
            raise ConfigError(f"field.kind is '{self.kind}'; allowed are {', '.join(FIELDS)}")
        if self.width < 1 or self.blocks < 0:
            raise ConfigError(f"field.width is {self.width} and field.blocks {self.blocks}; both must be positive")


@dataclass
class PolicyConfig:
    """What all chunked policies share."""

    horizon: int = 8
    """Steps predicted at once."""
    execute_steps: int = 8
    """Steps executed before planning anew."""
    field: FieldConfig = field(default_factory=FieldConfig)
    image_features: int = 64
    """What is made of each camera's picture (fields `observation.images.*`)."""
    image_size: int = 96
    """Pixels of the longer side to which larger pictures are shrunk before the network sees them."""
    language_features: int = 32
    """What is made of an instruction's embedding (field `observation.language_embedding`)."""

    def __post_init__(self) -> None:
        """Check horizon and sizes."""
        if not 1 <= self.execute_steps <= self.horizon:
            raise ConfigError(
                f"policy.execute_steps is {self.execute_steps}; it must lie in [1, horizon={self.horizon}]"
            )
        for name in ("image_features", "image_size", "language_features"):
            if getattr(self, name) < 1:
                raise ConfigError(f"policy.{name} is {getattr(self, name)}; it must be at least 1")


@dataclass
class DiffusionPolicyConfig(PolicyConfig):
    """Denoises action chunks (Chi et al. 2023, arXiv:2303.04137): DDPM training, DDIM or DDPM sampling."""

    denoising_steps: int = 20
    """Steps of the noise schedule that the network is trained on."""
    sampling_steps: int = 5
    """Steps used to act; fewer than `denoising_steps` skips through the schedule."""
    eta: float = 0.0
    """Share of DDPM's noise in a sampling step: 0 is DDIM's deterministic path, 1 is DDPM."""
    prediction: str = "epsilon"
    """What the network predicts: `epsilon` (the noise), `sample` (the clean chunk) or `v_prediction`."""
    std_floor: float = 0.0
    """Smallest standard deviation of a stochastic sampling step, in normalised action units; RL explores with it."""
    trainable_steps: int = 0
    """Last denoising steps that RL trains; earlier ones use a frozen copy of the network. 0: all of them."""

    def __post_init__(self) -> None:
        """Check the step counts."""
        super().__post_init__()
        if not 1 <= self.sampling_steps <= self.denoising_steps:
            raise ConfigError(
                f"policy.sampling_steps is {self.sampling_steps}; "
                f"it must lie in [1, denoising_steps={self.denoising_steps}]"
            )
        if not 0 <= self.trainable_steps <= self.sampling_steps:
            raise ConfigError(
                f"policy.trainable_steps is {self.trainable_steps}; "
                f"it must lie in [0, sampling_steps={self.sampling_steps}]"
            )
        if not (0 <= self.eta <= 1 and self.std_floor >= 0):
            raise ConfigError(f"policy.eta is {self.eta} (allowed 0 to 1), policy.std_floor {self.std_floor} (from 0)")
        if self.prediction not in ("epsilon", "sample", "v_prediction"):
            raise ConfigError(f"policy.prediction is '{self.prediction}'; allowed are epsilon, sample, v_prediction")


@dataclass
class GaussianPolicyConfig(PolicyConfig):
    """Normal distribution around a regressed chunk: a generative process of a single step."""

    initial_std: float = 0.1
    """Standard deviation before training, in normalised action units; RL learns it per action element."""
    predicts_std: bool = False
    """Let the standard deviation depend on the observation."""

    def __post_init__(self) -> None:
        """Check the spread."""
        super().__post_init__()
        if not self.initial_std > 0:
            raise ConfigError(f"policy.initial_std is {self.initial_std}; it must be positive")


@dataclass
class ResidualHeadConfig(GaussianPolicyConfig):
    """The small policy that corrects another one at every step."""

    horizon: int = 1
    execute_steps: int = 1
    field: FieldConfig = field(default_factory=lambda: FieldConfig(width=128, blocks=1))
    initial_std: float = 0.2
    scale: float = 0.5
    """Correction at residual 1, as a share of the action's normalised half-range."""

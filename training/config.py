"""Configuration of training and evaluation; imports no torch, so that `--help` stays quick."""

from dataclasses import dataclass, field

from alula.core.errors import ConfigError
from alula.policies.config import ResidualHeadConfig

RUN_SEEDS = 1000
"""Permitted seeds of a run are below this: each has a span of episode seeds of its own."""
EVALUATION_SEEDS = 100_000_000
"""Episode seeds of final evaluations are below this; everything else uses seeds from here on."""


@dataclass
class BCConfig:
    """Behaviour cloning."""

    steps: int = 3000
    """Gradient steps."""
    batch_size: int = 256
    """Windows per gradient step."""
    learning_rate: float = 1e-3
    """Of AdamW at its peak; cosine decay to a tenth."""
    warmup_steps: int = 100
    """Gradient steps of linear warm-up."""
    weight_decay: float = 1e-6
    """Of AdamW."""
    ema_decay: float = 0.995
    """Decay of the averaged weights, which are what is kept."""
    checkpoint_every: int = 1000
    """Gradient steps between checkpoints."""
    evaluate_every: int = 500
    """Gradient steps between measurements on held-out episodes, which are off the training clock; 0: at the end."""

    def __post_init__(self) -> None:
        """Check the counts."""
        if min(self.steps, self.batch_size, self.checkpoint_every) < 1:
            raise ConfigError(
                f"cloning.steps is {self.steps}, batch_size {self.batch_size}, checkpoint_every "
                f"{self.checkpoint_every}; all must be at least 1"
            )
        if self.evaluate_every < 0:
            raise ConfigError(f"cloning.evaluate_every is {self.evaluate_every}; it must be at least 0 (none)")


@dataclass
class PPOConfig:
    """Proximal policy optimisation on the traces of a generative policy: what all variants share."""

    total_steps: int = 1_200_000
    """Environment steps."""
    num_envs: int = 256
    """Environments in the batch."""
    rollout_steps: int = 64
    """Environment steps per environment between updates."""
    epochs: int = 5
    """Passes over each rollout."""
    minibatch: int = 4096
    """Decisions x trainable steps per gradient step."""
    joint_clip: float = 0.2
    """Trust region: permitted change of a decision's joint probability, 0.2 for 20 %."""
    first_step_clip_share: float = 1.0
    """Share of the clip that the noisiest trainable step gets; it grows exponentially to 1 at the last."""
    denoising_discount: float = 0.99
    """Weight of a denoising step's advantage per step still to come."""
    discount: float = 0.99
    """Per environment step."""
    gae_lambda: float = 0.95
    """Per decision."""
    actor_learning_rate: float = 3e-4
    """Of Adam."""
    actor_warmup: int = 50
    """Gradient steps over which the actor's rate grows linearly: Adam's first steps follow noise at full length."""
    critic_learning_rate: float = 1e-3
    """Of Adam."""
    critic_width: int = 128
    """Units per hidden layer of the value network."""
    critic_warmup: int = 2
    """First iterations that train the critic only."""
    max_grad_norm: float = 1.0
    """Of actor and critic, each on its own."""
    target_kl: float = 0.03
    """Joint KL per trainable step from which an iteration's remaining epochs are skipped."""
    evaluate_every: int = 8
    """Iterations between evaluations, which are off the training clock."""
    evaluation_episodes: int = 100
    """Episodes of each of them."""
    checkpoint_every: int = 5
    """Iterations between checkpoints."""

    def __post_init__(self) -> None:
        """Check counts and shares."""
        counts = ("total_steps", "num_envs", "rollout_steps", "epochs", "minibatch", "evaluate_every")
        for name in (*counts, "evaluation_episodes", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"algorithm.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("discount", "gae_lambda", "denoising_discount"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"algorithm.{name} is {getattr(self, name)}; it must lie in [0, 1]")
        if self.joint_clip <= 0:
            raise ConfigError(f"algorithm.joint_clip is {self.joint_clip}; it must be positive")


@dataclass
class ResidualPPOConfig(PPOConfig):
    """Residual PPO: a small Gaussian policy corrects the frozen base at every step (Ankile et al. 2024)."""

    head: ResidualHeadConfig = field(default_factory=ResidualHeadConfig)


@dataclass
class DPPOConfig(PPOConfig):
    """DPPO: the denoising steps of a diffusion policy are the actions (Ren et al. 2024, arXiv:2409.00588)."""

    total_steps: int = 500_000
    rollout_steps: int = 120
    minibatch: int = 8192
    joint_clip: float = 0.9
    target_kl: float = 0.2
    sampling_steps: int = 20
    """Steps of the chain while acting and training."""
    trainable_steps: int = 10
    """Last steps of the chain that are trained. 0: all of them."""
    evaluate_every: int = 3
    std_floor: float = 0.05
    """Smallest standard deviation of a step, in normalised action units."""


@dataclass
class GaussianPPOConfig(PPOConfig):
    """PPO on a Gaussian chunk policy: a chain of a single step."""

    rollout_steps: int = 120
    joint_clip: float = 0.9
    target_kl: float = 0.3


ALGORITHMS: dict[str, type[PPOConfig]] = {
    "residual_ppo": ResidualPPOConfig,
    "dppo": DPPOConfig,
    "gaussian_ppo": GaussianPPOConfig,
}
"""All algorithms of `finetune`: the name on the command line and its configuration."""

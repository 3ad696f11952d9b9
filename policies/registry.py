"""All policies: the name on the command line, its configuration, and how to build it."""

from typing import TYPE_CHECKING, Any

from alula.core.errors import ConfigError
from alula.core.spaces import SpaceSpec
from alula.policies.config import DiffusionPolicyConfig, GaussianPolicyConfig, PolicyConfig, ResidualHeadConfig

if TYPE_CHECKING:
    from alula.policies.policy import GenerativePolicy
    from alula.policies.transforms import ResidualPolicy

POLICIES: dict[str, type[PolicyConfig]] = {
    "diffusion": DiffusionPolicyConfig,
    "gaussian": GaussianPolicyConfig,
}


def make_policy(config: Any, observation: SpaceSpec, action: SpaceSpec) -> "GenerativePolicy":
    """Build the policy of a configuration, untrained; torch loads only now, so that `--help` stays quick."""
    from alula.policies.conditioners import make_conditioner
    from alula.policies.fields import make_field
    from alula.policies.fields.chunk import ChunkShape
    from alula.policies.policy import GenerativePolicy

    (action_field,) = action.values()
    conditioner = make_conditioner(observation, config)
    match config:
        case DiffusionPolicyConfig():
            from alula.policies.processes.diffusion import DiffusionProcess  # its library takes seconds to load

            process: Any = DiffusionProcess(config, action_field.size)
            timed = True
        case GaussianPolicyConfig():
            from alula.policies.processes.gaussian import GaussianProcess

            process = GaussianProcess(config.initial_std, action_field.size, config.predicts_std)
            timed = False
        case _:
            raise ConfigError(f"no policy has the configuration {type(config).__name__}")
    chunk = ChunkShape(config.horizon, action_field.size, process.prediction_size)
    field = make_field(config.field, chunk, conditioner.size, timed)
    policy = GenerativePolicy(config, observation, action, field, process, conditioner)
    trainable = getattr(config, "trainable_steps", 0)
    if trainable:
        policy.freeze_early_steps(trainable)
    return policy


def make_residual_policy(config: ResidualHeadConfig, base: "GenerativePolicy") -> "ResidualPolicy":
    """A correcting head on a frozen base; before training it acts exactly as the base."""
    from alula.policies.transforms import ResidualPolicy, head_action, head_observation

    head = make_policy(config, head_observation(base.observation, base.action), head_action(base.action))
    policy = ResidualPolicy(config, base, head)
    policy.start_from_base()
    return policy

"""How each fine-tuning algorithm starts from a cloned policy."""

import copy
from dataclasses import replace

import torch

from alula.core.errors import ConfigError
from alula.policies.conditioners import StateConditioner
from alula.policies.config import DiffusionPolicyConfig, GaussianPolicyConfig
from alula.policies.policy import GenerativePolicy, Policy
from alula.policies.registry import make_policy, make_residual_policy
from alula.sims.vector import TaskVectorEnv
from alula.training.config import DPPOConfig, GaussianPPOConfig, PPOConfig, ResidualPPOConfig
from alula.training.ppo import PPO
from alula.training.value import ValueModel


def prepare(config: PPOConfig, base: Policy, seed: int) -> Policy:
    """The policy that `config` trains, before its first update; `base` itself is left as it is.

    Raises:
        ConfigError: the algorithm does not fit the base policy.
    """
    if not isinstance(base, GenerativePolicy):
        raise ConfigError("fine-tuning starts from a cloned policy; this checkpoint is already a residual one")
    torch.manual_seed(seed)
    base = copy.deepcopy(base)
    match config:
        case ResidualPPOConfig():
            return make_residual_policy(config.head, base)
        case DPPOConfig():
            return _diffusion(config, base)
        case GaussianPPOConfig() if isinstance(base.config, GaussianPolicyConfig):
            return base
        case _:
            raise ConfigError(
                f"algorithm {type(config).__name__.removesuffix('Config')} does not fit a policy of type "
                f"{type(base.config).__name__.removesuffix('Config')}; use algorithm=residual_ppo, which fits all"
            )


def _diffusion(config: DPPOConfig, base: GenerativePolicy) -> GenerativePolicy:
    """The same weights, sampled by DDPM; steps before the trainable ones keep a frozen copy of the network."""
    if not isinstance(base.config, DiffusionPolicyConfig):
        raise ConfigError(
            "algorithm=dppo needs a diffusion policy, this one is "
            f"{type(base.config).__name__.removesuffix('Config')}; use algorithm=residual_ppo or gaussian_ppo"
        )
    settings = replace(
        base.config,
        sampling_steps=config.sampling_steps,
        trainable_steps=config.trainable_steps,
        eta=1.0,
        std_floor=config.std_floor,
    )
    policy = make_policy(settings, base.observation, base.action)
    policy.load_state_dict(base.state_dict(), strict=False)
    policy.freeze_early_steps(config.trainable_steps or config.sampling_steps)
    return policy


def make_trainer(config: PPOConfig, base: Policy, environments: TaskVectorEnv, seed: int) -> PPO:
    """Policy, critic and trainer of an algorithm, reproducible from `seed`."""
    policy = prepare(config, base, seed)
    conditioner = StateConditioner(base.observation)
    assert isinstance(base, GenerativePolicy)
    conditioner.load_state_dict(base.conditioner.state_dict())
    return PPO(policy, ValueModel(conditioner, config.critic_width), environments, config, seed)

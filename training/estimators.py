"""Advantages."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray


@dataclass
class Steps:
    """What `num_steps` environment steps of a batch gave, and where decisions were taken."""

    reward: Float[ndarray, "num_steps num_envs"]
    terminated: Bool[ndarray, "num_steps num_envs"]
    truncated: Bool[ndarray, "num_steps num_envs"]
    decided: Bool[ndarray, "num_steps num_envs"]
    """Where a chunk began; the steps until the next decision are its consequence."""
    value: Float[ndarray, "num_steps num_envs"]
    """V of the observation, read where `decided`."""
    final_value: Float[ndarray, "num_steps num_envs"]
    """V of the final observation, read where `truncated`."""
    next_value: Float[ndarray, " num_envs"]
    """V of the observation after the last step."""


def generalized_advantages(
    steps: Steps, discount: float, gae_lambda: float
) -> tuple[Float[ndarray, "num_steps num_envs"], Float[ndarray, "num_steps num_envs"]]:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438) over decisions of any length.

    A decision taken at step t and followed by the next one at t + n has the temporal difference
    sum_i discount^i r_{t+i} + discount^n V_{t+n} - V_t, and lambda decays from decision to decision. Termination
    ends the sum with 0, truncation with V of the final observation; nothing flows across either.

    Args:
        steps: In order of time.
        discount: Per environment step.
        gae_lambda: Per decision.

    Returns:
        Advantage and return target, meaningful where `decided`.
    """
    num_steps, num_envs = steps.reward.shape
    advantages = np.zeros((num_steps, num_envs))
    next_decided = np.ones(num_envs, dtype=bool)
    next_value = steps.next_value.astype(np.float64)
    next_advantage = np.zeros(num_envs)
    target = trace = np.zeros(num_envs)
    for t in reversed(range(num_steps)):
        ended = steps.terminated[t] | steps.truncated[t]
        onward = np.where(next_decided, next_value, target)
        onward = np.where(ended, np.where(steps.terminated[t], 0.0, steps.final_value[t]), onward)
        trace = discount * np.where(ended, 0.0, np.where(next_decided, gae_lambda * next_advantage, trace))
        target = steps.reward[t] + discount * onward
        advantages[t] = np.where(steps.decided[t], target - steps.value[t] + trace, 0.0)
        next_decided, next_value, next_advantage = steps.decided[t], steps.value[t], advantages[t]
    return advantages, advantages + steps.value


def normalized(advantages: Float[ndarray, " batch"]) -> Float[ndarray, " batch"]:
    """Zero mean and unit deviation; all zero where all are equal."""
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8)

"""Behaviour cloning of any generative policy."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int64
from numpy import ndarray
from torch import Generator

from alula.core.errors import ConfigError
from alula.core.transitions import Windows
from alula.policies.policy import GenerativePolicy
from alula.policies.transforms import ExponentialMovingAverage
from alula.training.checkpoint import Tree
from alula.training.config import BCConfig
from alula.training.optimization import load_optimizer, optimizer_state
from alula.training.rollouts import Clock

STEPS_PER_ITERATION = 100


class BehaviorCloning:
    """Supervised learning of demonstrated chunks; what is kept is the moving average of the weights.

    Args:
        policy: To be trained; its normalisers are already fitted.
        sample: Windows of the given indices.
        num_windows: Number of windows to choose from.
        config: Sizes and rates.
        seed: Of all randomness.

    Raises:
        ConfigError: part of the policy is frozen.
    """

    def __init__(
        self,
        policy: GenerativePolicy,
        sample: Callable[[Int64[ndarray, " batch"]], Windows],
        num_windows: int,
        config: BCConfig,
        seed: int,
    ) -> None:
        if policy.frozen_field is not None:
            raise ConfigError(
                "policy.trainable_steps is for fine-tuning: cloning would leave the frozen early steps untrained. "
                "Leave it 0 here, and set algorithm.trainable_steps when fine-tuning"
            )
        self.policy, self.sample, self.num_windows, self.config = policy, sample, num_windows, config
        self.total, self.checkpoint_interval = config.steps, config.checkpoint_every
        self.evaluation_interval = config.evaluate_every
        self.progress = 0
        self.clock = Clock()
        self.generator = Generator().manual_seed(seed)
        self.ema = ExponentialMovingAverage(policy, config.ema_decay)
        self.optimizer = torch.optim.AdamW(
            policy.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )

    def iterate(self) -> dict[str, float]:
        """Some gradient steps."""
        steps = min(STEPS_PER_ITERATION, self.total - self.progress)
        losses: list[torch.Tensor] = self.clock.measure("update", lambda: [self._gradient_step() for _ in range(steps)])
        return {"cloning/loss": float(torch.stack(losses).mean()), "cloning/learning_rate": self._learning_rate()}

    def _gradient_step(self) -> torch.Tensor:
        indices = torch.randint(self.num_windows, (self.config.batch_size,), generator=self.generator)
        loss = self.policy.loss(self.sample(indices.numpy()), self.generator)
        self.optimizer.param_groups[0]["lr"] = self._learning_rate()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.ema.update(self.policy)
        self.progress += 1
        return loss.detach()

    def _learning_rate(self) -> float:
        """Linear warm-up, then cosine decay to a tenth."""
        warmup = min(1.0, (self.progress + 1) / max(self.config.warmup_steps, 1))
        share = self.progress / self.total
        return self.config.learning_rate * warmup * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * share)))

    def trained_policy(self) -> GenerativePolicy:
        """A copy with the averaged weights."""
        policy = copy.deepcopy(self.policy)
        self.ema.copy_to(policy)
        return policy.eval()

    def state_dict(self) -> dict[str, Any]:
        """Weights, their average, optimiser and random numbers."""
        return {
            "progress": self.progress,
            "policy": self.policy.state_dict(),
            "ema": self.ema.average,
            "ema_updates": self.ema.updates,
            "optimizer": optimizer_state(self.optimizer),
            "generator": self.generator.get_state(),
            "seconds": self.clock.seconds,
        }

    def load_state_dict(self, state: Tree) -> None:
        """Inverse of `state_dict`."""
        self.progress = state["progress"]
        self.policy.load_state_dict(state["policy"])
        self.ema.average, self.ema.updates = dict(state["ema"]), state["ema_updates"]
        load_optimizer(self.optimizer, state["optimizer"])
        self.generator.set_state(state["generator"])
        self.clock.seconds = dict(state["seconds"])

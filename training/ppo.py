"""PPO on the traces of any policy: DPPO, Gaussian PPO and residual PPO are these lines with another policy."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy import ndarray
from torch import Generator, Tensor, nn

from alula.core.errors import ConfigError
from alula.core.executor import ChunkQueue
from alula.policies.conditioners import Observation
from alula.policies.policy import Decision, Policy, Trace
from alula.sims.vector import TaskVectorEnv
from alula.training.checkpoint import Tree
from alula.training.config import PPOConfig
from alula.training.estimators import Steps, generalized_advantages, normalized
from alula.training.objectives import (
    PolicyLoss,
    clip_schedule,
    denoising_weights,
    per_element_clip,
    ppo_loss,
    value_loss,
)
from alula.training.optimization import load_optimizer, optimizer_state
from alula.training.rollouts import Clock, PolicyActor, step
from alula.training.threads import single_threaded_networks
from alula.training.value import ValueModel


@dataclass
class Rollout:
    """Decisions of one iteration, flat, with their advantages and return targets."""

    observation: Observation
    trace: Trace
    advantage: Float[Tensor, " decision"]
    target: Float[Tensor, " decision"]


class PPO:
    """Collect with the present policy, estimate advantages, update; one object per training run.

    Args:
        policy: Its parameters with gradients are trained; everything else is part of the environment.
        value: Trained alongside.
        environments: With autoreset in the same step.
        config: Sizes and rates.
        seed: Of episodes and of all randomness.

    Raises:
        ConfigError: a rollout is too short for a decision.
    """

    def __init__(
        self, policy: Policy, value: ValueModel, environments: TaskVectorEnv, config: PPOConfig, seed: int
    ) -> None:
        if config.rollout_steps < policy.execute_steps:
            raise ConfigError(
                f"algorithm.rollout_steps is {config.rollout_steps}, fewer than the {policy.execute_steps} steps that "
                "the policy executes between decisions, so a rollout may hold none; raise it"
            )
        self.policy, self.value, self.environments, self.config = policy, value, environments, config
        self.total = config.total_steps
        self.progress = self.iteration = self.actor_updates = 0
        per_iteration = config.num_envs * config.rollout_steps
        self.checkpoint_interval = config.checkpoint_every * per_iteration
        self.evaluation_interval = config.evaluate_every * per_iteration
        self.clock = Clock()
        self.trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        self.actor_optimizer = torch.optim.Adam(self.trained, lr=config.actor_learning_rate, fused=True)
        self.critic_optimizer = torch.optim.Adam(value.layers.parameters(), lr=config.critic_learning_rate, fused=True)
        self.generator = Generator().manual_seed(seed)
        self.actor = PolicyActor.start(policy, config.num_envs, seed + 1, stochastic=True)
        self.observation, _ = environments.reset(seed=seed)
        environments.randomize_clocks(np.random.default_rng(seed))

    def iterate(self) -> dict[str, float]:
        """One rollout and its updates."""
        with single_threaded_networks():
            steps, decisions, finals, metrics = self._collect()
        rollout = self.clock.measure("update", self._estimate, steps, decisions, finals)
        losses = self.clock.measure("update", self._update, rollout)
        self.progress += self.config.num_envs * self.config.rollout_steps
        self.iteration += 1
        return metrics | losses

    def _collect(self) -> tuple[Steps, list[Decision], list[dict[str, ndarray]], dict[str, float]]:
        """What the present policy did; `finals` are the last observations of truncated episodes, in order."""
        num_steps, num_envs = self.config.rollout_steps, self.config.num_envs
        steps = Steps(
            reward=np.zeros((num_steps, num_envs)),
            terminated=np.zeros((num_steps, num_envs), dtype=bool),
            truncated=np.zeros((num_steps, num_envs), dtype=bool),
            decided=np.zeros((num_steps, num_envs), dtype=bool),
            value=np.zeros((num_steps, num_envs)),
            final_value=np.zeros((num_steps, num_envs)),
            next_value=np.zeros(num_envs),
        )
        decisions: list[Decision] = []
        finals: list[dict[str, ndarray]] = []
        ended = successes = 0
        for t in range(num_steps):
            transition, self.observation = step(self.environments, self.actor, self.observation, self.clock)
            if self.actor.decision is not None:
                decisions.append(self.actor.decision)
                steps.decided[t, self.actor.decision.env_ids] = True
            steps.reward[t], steps.terminated[t] = transition.reward, transition.terminated
            steps.truncated[t] = transition.truncated
            if transition.truncated.any():
                finals.append({name: rows[transition.truncated] for name, rows in transition.final_observation.items()})
            ended += int(transition.ended.sum())
            successes += int(transition.success[transition.ended].sum())
        metrics = {"rollout/reward_per_step": float(steps.reward.mean())}
        if ended:
            metrics["rollout/success"] = successes / ended
        return steps, decisions, finals, metrics

    def _estimate(self, steps: Steps, decisions: list[Decision], finals: list[dict[str, ndarray]]) -> Rollout:
        """Values of everything that happened, then advantages of the decisions."""
        observation = {
            name: torch.cat([decision.observation[name] for decision in decisions]) for name in decisions[0].observation
        }
        trace = Trace(
            torch.cat([decision.trace.noisy for decision in decisions]),
            torch.cat([decision.trace.steps for decision in decisions]),
            torch.cat([decision.trace.log_prob for decision in decisions]),
        )
        steps.value[steps.decided] = self.value.predict(observation).numpy()
        steps.next_value[:] = self.value.predict(_tensors(self.observation)).numpy()
        if finals:
            joined = {name: np.concatenate([part[name] for part in finals]) for name in finals[0]}
            steps.final_value[steps.truncated] = self.value.predict(_tensors(joined)).numpy()
        advantages, targets = generalized_advantages(steps, self.config.discount, self.config.gae_lambda)
        return Rollout(
            observation,
            trace,
            torch.from_numpy(normalized(advantages[steps.decided])).float(),
            torch.from_numpy(targets[steps.decided]).float(),
        )

    def _update(self, rollout: Rollout) -> dict[str, float]:
        """Epochs over all (decision, step) pairs for the actor and over all decisions for the critic."""
        config = self.config
        num_decisions, num_chain = rollout.trace.steps.shape
        minibatch = max(1, min(config.minibatch, num_decisions * num_chain))
        critic_only = self.iteration < config.critic_warmup
        clip = per_element_clip(config.joint_clip, self.policy.joint_size)
        clips = clip_schedule(config.first_step_clip_share * clip, clip, num_chain)
        weights = denoising_weights(config.denoising_discount, num_chain)
        reports: list[PolicyLoss] = []
        critic_losses: list[Tensor] = []
        actor_active = not critic_only
        for _ in range(config.epochs):
            order = torch.randperm(num_decisions * num_chain, generator=self.generator)
            for pairs in order.split(minibatch) if actor_active else ():
                rows, columns = pairs // num_chain, pairs % num_chain
                reports.append(self._actor_step(rollout, rows, columns, clips, weights))
                if reports[-1].kl > config.target_kl:
                    actor_active = False
                    break
            order = torch.randperm(num_decisions, generator=self.generator)
            for rows in order.split(max(1, minibatch // num_chain)):
                critic_losses.append(self._critic_step(rollout, rows))
        metrics = {"critic/loss": float(torch.stack(critic_losses).mean())}
        if reports:
            metrics |= {
                "actor/kl": float(np.mean([report.kl for report in reports])),
                "actor/clip_fraction": float(np.mean([report.clip_fraction for report in reports])),
                "actor/first_ratio_error": reports[0].ratio_error,
                "actor/updates": float(len(reports)),
            }
        return metrics

    def _actor_step(
        self,
        rollout: Rollout,
        rows: Int64[Tensor, " pair"],
        columns: Int64[Tensor, " pair"],
        clips: Float[Tensor, " step"],
        weights: Float[Tensor, " step"],
    ) -> PolicyLoss:
        trace = rollout.trace.select(rows, columns)
        seen = {name: values[rows] for name, values in rollout.observation.items()}
        result = ppo_loss(
            self.policy.log_prob(seen, trace)[:, 0],
            trace.log_prob[:, 0],
            rollout.advantage[rows] * weights[columns],
            clips[columns],
            self.policy.joint_size,
        )
        self.actor_updates += 1
        warm = min(1.0, self.actor_updates / max(1, self.config.actor_warmup))
        self.actor_optimizer.param_groups[0]["lr"] = warm * self.config.actor_learning_rate
        self.actor_optimizer.zero_grad()
        result.loss.backward()
        nn.utils.clip_grad_norm_(self.trained, self.config.max_grad_norm)
        self.actor_optimizer.step()
        return result

    def _critic_step(self, rollout: Rollout, rows: Int64[Tensor, " decision"]) -> Tensor:
        seen = {name: values[rows] for name, values in rollout.observation.items()}
        loss = value_loss(self.value(seen), rollout.target[rows])
        self.critic_optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.value.layers.parameters(), self.config.max_grad_norm)
        self.critic_optimizer.step()
        return loss.detach()

    def trained_policy(self) -> Policy:
        """The policy as it is now."""
        return copy.deepcopy(self.policy).eval()

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimisers, random numbers, environments and pending chunks."""
        memory = self.actor.memory
        return {
            "progress": self.progress,
            "iteration": self.iteration,
            "actor_updates": self.actor_updates,
            "policy": self.policy.state_dict(),
            "value": self.value.state_dict(),
            "actor_optimizer": optimizer_state(self.actor_optimizer),
            "critic_optimizer": optimizer_state(self.critic_optimizer),
            "generator": self.generator.get_state(),
            "noise": self.actor.generator.get_state(),
            "environments": self.environments.get_state(),
            "chunks": memory.chunks,
            "positions": memory.positions,
            "seconds": self.clock.seconds,
        }

    def load_state_dict(self, state: Tree) -> None:
        """Inverse of `state_dict`."""
        self.progress, self.iteration = state["progress"], state["iteration"]
        self.actor_updates = state["actor_updates"]
        self.policy.load_state_dict(state["policy"])
        self.value.load_state_dict(state["value"])
        load_optimizer(self.actor_optimizer, state["actor_optimizer"])
        load_optimizer(self.critic_optimizer, state["critic_optimizer"])
        self.generator.set_state(state["generator"])
        self.actor.generator.set_state(state["noise"])
        self.observation = self.environments.set_state(state["environments"])
        self.actor.memory = ChunkQueue(state["chunks"], state["positions"])
        self.clock.seconds = dict(state["seconds"])


def _tensors(observation: dict[str, ndarray]) -> Observation:
    return {name: torch.from_numpy(values) for name, values in observation.items()}

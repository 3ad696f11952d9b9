"""A policy in a batch of environments."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32
from numpy import ndarray
from torch import Generator

from alula.core.executor import ChunkQueue
from alula.core.transitions import Observation, Transition
from alula.policies.policy import Decision, Policy
from alula.sims.vector import TaskVectorEnv


@runtime_checkable
class Actor(Protocol):
    """Whoever chooses actions: a policy, an expert."""

    source: str

    def act(self, observation: Observation) -> Float32[ndarray, "num_envs action"]:
        """Actions of this step."""
        ...

    def reset(self, ended: ndarray) -> None:
        """Some episodes ended; the next observation begins new ones there."""
        ...


@dataclass
class PolicyActor:
    """A policy with its memory and its noise, for one batch of environments."""

    policy: Policy
    generator: Generator
    stochastic: bool
    memory: ChunkQueue
    source: str = "policy"
    decision: Decision | None = None
    """Of the last step."""

    @classmethod
    def start(cls, policy: Policy, num_envs: int, seed: int, stochastic: bool) -> "PolicyActor":
        """A fresh memory and noise seeded by `seed`."""
        return cls(policy, Generator().manual_seed(seed), stochastic, policy.memory(num_envs))

    def act(self, observation: Observation) -> Float32[ndarray, "num_envs action"]:
        """Actions of this step; `decision` says what was decided."""
        actions, self.memory, self.decision = self.policy.act(observation, self.memory, self.generator, self.stochastic)
        return actions

    def reset(self, ended: ndarray) -> None:
        """Forget the plans of ended episodes."""
        self.memory = self.policy.reset(self.memory, ended)


@dataclass
class ExpertActor:
    """A task's scripted expert; sees the true state of its environments."""

    expert: Any
    environments: TaskVectorEnv
    source: str = "expert"

    def act(self, observation: Observation) -> Float32[ndarray, "num_envs action"]:
        """Actions of this step."""
        del observation
        return self.expert.act(self.environments.engine.state).astype(np.float32)

    def reset(self, ended: ndarray) -> None:
        """Experts look at the state only."""


@dataclass
class Clock:
    """Seconds spent, by name."""

    seconds: dict[str, float] = field(default_factory=dict)

    def measure(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call `function` and add its duration to `name`."""
        start = time.monotonic()
        result = function(*arguments)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start
        return result

    @property
    def total(self) -> float:
        """Sum over all names [s]."""
        return sum(self.seconds.values())


def step(
    environments: TaskVectorEnv, actor: Actor, observation: Observation, clock: Clock
) -> tuple[Transition, Observation]:
    """One environment step of the whole batch.

    Returns:
        What happened, and the observation to act on next, which begins a new episode where one ended and the
        environments reset in the same step.
    """
    actions = clock.measure("sampling", actor.act, observation)
    following, reward, terminated, truncated, info = clock.measure("physics", environments.step, actions)
    transition = Transition(
        observation=observation,
        action=actions,
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        final_observation=info.get("final_obs", following),
        success=info["success"],
        source=actor.source,
    )
    if transition.ended.any():
        actor.reset(transition.ended)
    return transition, following

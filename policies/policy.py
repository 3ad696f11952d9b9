"""The policy: conditioner + field + process + normaliser, and what every policy offers to its users."""

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Float32, Int64
from numpy import ndarray
from torch import Generator, Tensor, nn

from alula.core.errors import ConfigError
from alula.core.executor import ChunkExecutor, ChunkQueue
from alula.core.normalizer import FieldStatistics, Normalizer
from alula.core.real_time import Committed
from alula.core.spaces import SpaceSpec
from alula.core.transitions import Windows
from alula.policies.conditioners import Observation, StateConditioner
from alula.policies.processes.process import Chunk, Guide, Process


@dataclass
class Trace:
    """What happened in the trainable steps of a chain, so that scoring needs no second convention."""

    noisy: Float[Tensor, "batch chain horizon action"]
    """Chunks before each step, and after the last: one more than there are steps."""
    steps: Int64[Tensor, "batch step"]
    """Index of each step in the process."""
    log_prob: Float[Tensor, "batch step"]
    """Joint log-density of each step's outcome when it was drawn."""

    def select(self, rows: Int64[Tensor, " selected"], columns: Int64[Tensor, " selected"]) -> "Trace":
        """One step of one chain per entry, as a trace of single steps."""
        pairs = torch.stack([self.noisy[rows, columns], self.noisy[rows, columns + 1]], dim=1)
        return Trace(pairs, self.steps[rows, columns][:, None], self.log_prob[rows, columns][:, None])


@dataclass
class Decision:
    """What a policy decided in one environment step, for the environments that had to decide."""

    env_ids: Int64[ndarray, " deciding"]
    observation: Observation
    """What the decision was based on."""
    trace: Trace


class Policy(nn.Module, ABC):
    """Acts on batches of observations; its memory is a value passed in and out."""

    observation: SpaceSpec
    action: SpaceSpec
    config: Any
    horizon: int = 1
    """Actions that `plan` gives."""

    @abstractmethod
    def memory(self, num_envs: int) -> ChunkQueue:
        """Memory at the start of episodes."""

    @abstractmethod
    def reset(self, memory: ChunkQueue, ended: Bool[ndarray, " num_envs"]) -> ChunkQueue:
        """Memory after the episodes of some environments ended; the others keep theirs."""

    @abstractmethod
    def act(
        self, observation: dict[str, ndarray], memory: ChunkQueue, generator: Generator, stochastic: bool
    ) -> tuple[Float32[ndarray, "num_envs action"], ChunkQueue, Decision | None]:
        """Actions of this environment step in the action field's units.

        Args:
            observation: One array per field, first axis the environment.
            memory: From `memory`, `reset` or the previous `act`.
            generator: Source of all randomness.
            stochastic: Sample every step of the chain (as RL trains it), or take its mean path.

        Returns:
            Actions, the memory after this step, and what was decided; None where every chunk is still pending.
        """

    def plan(
        self, observation: dict[str, ndarray], memory: ChunkQueue, generator: Generator, committed: Committed | None
    ) -> tuple[Float32[ndarray, "horizon action"], ChunkQueue]:
        """The next actions of one robot, deterministic, for whoever executes them on a clock of their own.

        By default a single one from `act`: policies that decide at every step must see what the robot sees then.

        Args:
            observation: One array per field, without an axis for the batch.
            memory: Of one environment, from `memory` or the previous `plan`.
            generator: Source of all randomness.
            committed: Actions that the plan should agree with.

        Returns:
            Actions from now on in the action field's units, and the memory after it.

        Raises:
            ConfigError: it cannot agree with anything.
        """
        if committed is not None:
            raise ConfigError(
                f"{type(self).__name__} decides anew at every step, so a plan of it cannot agree with committed "
                "actions; run it with mode=synchronous"
            )
        batch = {name: observation[name][None] for name in self.observation}
        actions, memory, _ = self.act(batch, memory, generator, stochastic=False)
        return actions, memory

    @abstractmethod
    def log_prob(self, observation: Observation, trace: Trace) -> Float[Tensor, "batch step"]:
        """Joint log-density, under the present parameters, of what `trace` recorded."""

    @property
    @abstractmethod
    def joint_size(self) -> int:
        """Number of action elements over which `log_prob` sums."""

    @property
    @abstractmethod
    def execute_steps(self) -> int:
        """Environment steps between decisions."""


class GenerativePolicy(Policy):
    """Generates action chunks from noise, conditioned on the observation.

    Sampling and scoring walk the same kernel, so the ratio of PPO is exactly 1 before the first update.

    Args:
        config: For the record and for checkpoints.
        observation: What it sees.
        action: What it commands: one field of shape (action,).
        field: Network (noisy chunk, time, features) → prediction.
        process: The mathematics.
        conditioner: Observation → features.
    """

    def __init__(
        self,
        config: Any,
        observation: SpaceSpec,
        action: SpaceSpec,
        field: nn.Module,
        process: Process,
        conditioner: StateConditioner,
    ) -> None:
        super().__init__()
        self.config, self.observation, self.action = config, observation, action
        (self.action_field,) = action.values()
        self.horizon, self._execute_steps = config.horizon, config.execute_steps
        self.conditioner, self.field, self.process = conditioner, field, process
        self.action_normalizer = Normalizer({self.action_field.name: self.action_field.shape})
        self.executor = ChunkExecutor(self._execute_steps, self.action_field.size)
        self.first_trainable = 0
        self.frozen_field: nn.Module | None = None

    def fit_normalizers(self, statistics: dict[str, FieldStatistics]) -> None:
        """Take the ranges of all fields from the demonstrations."""
        self.conditioner.normalizer.fit(statistics)
        self.action_normalizer.fit(statistics)

    def freeze_early_steps(self, trainable_steps: int) -> None:
        """Let RL train only the last steps of the chain; the earlier ones keep a copy of the field as it is now."""
        self.first_trainable = self.process.num_steps - trainable_steps
        if self.first_trainable > 0:
            self.frozen_field = copy.deepcopy(self.field).requires_grad_(False)

    @property
    def joint_size(self) -> int:
        """Executed steps times action elements."""
        return self._execute_steps * self.action_field.size

    @property
    def execute_steps(self) -> int:
        """Environment steps between decisions."""
        return self._execute_steps

    def memory(self, num_envs: int) -> ChunkQueue:
        """Empty queues."""
        return self.executor.empty(num_envs)

    def reset(self, memory: ChunkQueue, ended: Bool[ndarray, " num_envs"]) -> ChunkQueue:
        """Empty the queues of ended episodes."""
        return self.executor.reset(memory, ended)

    def act(
        self, observation: dict[str, ndarray], memory: ChunkQueue, generator: Generator, stochastic: bool
    ) -> tuple[Float32[ndarray, "num_envs action"], ChunkQueue, Decision | None]:
        """Next pending action of every environment; plans where none is pending."""
        decisions: list[Decision] = []

        def plan(env_ids: Int64[ndarray, " planning"]) -> Float32[ndarray, "planning horizon action"]:
            seen = {name: torch.from_numpy(observation[name][env_ids]) for name in self.observation}
            chunk, trace = self.sample(seen, generator, stochastic)
            decisions.append(Decision(env_ids, seen, trace))
            return chunk.numpy()

        actions, memory = self.executor.step(memory, plan)
        return actions, memory, decisions[0] if decisions else None

    def plan(
        self, observation: dict[str, ndarray], memory: ChunkQueue, generator: Generator, committed: Committed | None
    ) -> tuple[Float32[ndarray, "horizon action"], ChunkQueue]:
        """A whole chunk; whoever executes it remembers what is pending."""
        seen = {name: torch.from_numpy(observation[name][None]) for name in self.observation}
        guide = None if committed is None else self._guide(committed)
        chunk, _ = self.sample(seen, generator, stochastic=False, guide=guide)
        return chunk[0].numpy(), memory

    def _guide(self, committed: Committed) -> Guide:
        """Committed actions in normalised units; those beyond them are free."""
        steps = len(committed.actions)
        guide = Guide(torch.zeros(1, self.horizon, self.action_field.size), torch.zeros(1, self.horizon, 1))
        actions = torch.from_numpy(committed.actions)
        guide.chunk[0, :steps] = self.action_normalizer.normalize(self.action_field.name, actions)
        guide.weights[0, :steps, 0] = torch.from_numpy(committed.weights)
        return guide

    @torch.no_grad()
    def sample(
        self, observation: Observation, generator: Generator, stochastic: bool, guide: Guide | None = None
    ) -> tuple[Chunk, Trace]:
        """Chunks in the action field's units, and the trace of the trainable steps.

        With a guide the chunks agree with it as far as its weights say; such a trace is nothing to learn from.
        """
        features = self.conditioner(observation)
        batch = len(features)
        x = self.process.prior((batch, self.horizon, self.action_field.size), generator)
        chain, log_probs = [], []
        for index in range(self.process.num_steps):
            trainable = index >= self.first_trainable
            step = torch.full((batch,), index)
            field = self.field if trainable or self.frozen_field is None else self.frozen_field
            predict = partial(field, step=self.process.time(step), features=features)
            prediction = predict(x) if guide is None else self.process.guided(step, x, predict, guide)
            kernel = self.process.kernel(step, x, prediction, stochastic)
            if trainable:
                chain.append(x)
            if stochastic and self.process.is_stochastic(index):
                x = kernel.sample(generator)
                if trainable:
                    log_probs.append(self._joint(kernel.log_prob(x)))
            else:
                x = kernel.mean
        chunk = self.action_normalizer.unnormalize(self.action_field.name, x)
        steps = torch.arange(self.first_trainable, self.process.num_steps).expand(batch, -1)
        log_prob = torch.stack(log_probs, 1) if len(log_probs) == len(chain) else torch.full(steps.shape, torch.nan)
        return chunk, Trace(torch.stack([*chain, x], dim=1), steps, log_prob)

    def log_prob(self, observation: Observation, trace: Trace) -> Float[Tensor, "batch step"]:
        """Sum over executed steps and action elements, for each recorded step of the chain.

        Raises:
            ConfigError: a recorded step is deterministic and has no density.
        """
        batch, num_steps = trace.steps.shape
        steps = trace.steps.reshape(-1)
        if not all(self.process.is_stochastic(int(step)) for step in steps.unique()):
            raise ConfigError("a deterministic sampling step has no density to train; set a std_floor above 0")
        features = self.conditioner(observation).repeat_interleave(num_steps, dim=0)
        before, after = trace.noisy[:, :-1].flatten(0, 1), trace.noisy[:, 1:].flatten(0, 1)
        kernel = self.process.kernel(steps, before, self.field(before, self.process.time(steps), features), True)
        return self._joint(kernel.log_prob(after)).view(batch, num_steps)

    def _joint(self, log_prob: Chunk) -> Float[Tensor, " batch"]:
        return log_prob[:, : self._execute_steps].sum(dim=(1, 2))

    def loss(self, batch: Windows, generator: Generator) -> Float[Tensor, ""]:
        """Behaviour cloning: the process's error of the field's prediction, averaged over real steps."""
        seen = {name: torch.from_numpy(batch.observation[name]) for name in self.observation}
        observation = self.conditioner.augment(seen, generator)
        chunk = self.action_normalizer.normalize(self.action_field.name, torch.from_numpy(batch.actions))
        noisy, time, target = self.process.training_pair(chunk, generator)
        error = self.process.error(self.field(noisy, time, self.conditioner(observation)), target)
        return error.mean(dim=2)[torch.from_numpy(batch.mask)].mean()

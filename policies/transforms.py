"""Policy → policy: a residual on top of a frozen base, and an average over the training of the weights."""

import torch
from jaxtyping import Bool, Float, Float32
from numpy import ndarray
from torch import Generator, Tensor, nn

from alula.core.executor import ChunkQueue
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.policies.conditioners import Observation
from alula.policies.config import ResidualHeadConfig
from alula.policies.fields import zero_output
from alula.policies.policy import Decision, GenerativePolicy, Policy, Trace

BASE_ACTION = "base_action"
"""What the base wants to do, normalised: an extra observation of the residual head."""


def head_observation(observation: SpaceSpec, action: SpaceSpec) -> SpaceSpec:
    """What a residual head sees: the observation, and the base's normalised action."""
    (field,) = action.values()
    return SpaceSpec((*observation.values(), FieldSpec(name=BASE_ACTION, shape=field.shape)))


def head_action(action: SpaceSpec) -> SpaceSpec:
    """What a residual head commands: a correction in units of its scale."""
    (field,) = action.values()
    return SpaceSpec((FieldSpec(name="residual", shape=field.shape, rate=field.rate),))


class ResidualPolicy(Policy):
    """Corrects a frozen chunked policy at every step (Ankile et al. 2024, arXiv:2407.16677).

    The base plans chunks; the head sees the present observation and the base's present action and adds
    `scale` x residual, in normalised action units. A new head's mean is zero: the base, exactly.

    Args:
        config: Of the head.
        base: Frozen: its parameters and buffers never change.
        head: One-step policy over `head_observation` and `head_action`.
    """

    def __init__(self, config: ResidualHeadConfig, base: GenerativePolicy, head: GenerativePolicy) -> None:
        super().__init__()
        self.config = config
        self.observation, self.action = base.observation, base.action
        self.base = base.requires_grad_(False)
        self.head = head
        (action_field,) = self.action.values()
        for name, bound in zip(("low", "high"), action_field.bounds(), strict=True):
            self.register_buffer(name, torch.from_numpy(bound), persistent=False)

    def start_from_base(self) -> None:
        """Begin as the base: the head's correction has mean zero, and its observations the base's scaling."""
        zero_output(self.head.field)
        own, given = self.head.conditioner.normalizer, self.base.conditioner.normalizer
        for name in given.names:
            own.copy_field(name, given)

    @property
    def joint_size(self) -> int:
        """Action elements of one step."""
        return self.head.joint_size

    @property
    def execute_steps(self) -> int:
        """The head decides at every step."""
        return 1

    def memory(self, num_envs: int) -> ChunkQueue:
        """The base's."""
        return self.base.memory(num_envs)

    def reset(self, memory: ChunkQueue, ended: Bool[ndarray, " num_envs"]) -> ChunkQueue:
        """The base's."""
        return self.base.reset(memory, ended)

    def act(
        self, observation: dict[str, ndarray], memory: ChunkQueue, generator: Generator, stochastic: bool
    ) -> tuple[Float32[ndarray, "num_envs action"], ChunkQueue, Decision | None]:
        """Base action, along the base's deterministic path, plus correction; clipped once, to the action bounds."""
        base_actions, memory, _ = self.base.act(observation, memory, generator, stochastic=False)
        base_action = torch.from_numpy(base_actions)
        seen = {name: torch.from_numpy(observation[name]) for name in self.observation}
        normalizer, name = self.base.action_normalizer, self.base.action_field.name
        seen[BASE_ACTION] = normalizer.normalize(name, base_action)
        residual, trace = self.head.sample(seen, generator, stochastic)
        total = base_action + self.config.scale * normalizer.scale(name) * residual[:, 0]
        total = total.clamp(self.get_buffer("low"), self.get_buffer("high"))
        env_ids = torch.arange(len(base_action)).numpy()
        return total.numpy(), memory, Decision(env_ids, seen, trace)

    def log_prob(self, observation: Observation, trace: Trace) -> Float[Tensor, "batch step"]:
        """Of the correction; the base is part of the environment."""
        return self.head.log_prob(observation, trace)


class ExponentialMovingAverage:
    """Running average of a module's parameters: average <- decay * average + (1 - decay) * parameter.

    The decay warms up as (1 + n) / (10 + n), so that the first updates are not dragged by the initial weights.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.average = {name: value.detach().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the present parameters."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in module.named_parameters():
            self.average[name].lerp_(value, 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the module's parameters by their average."""
        for name, value in module.named_parameters():
            value.copy_(self.average[name])

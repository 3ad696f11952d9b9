"""What happened: one step of a batch of environments, and one recorded episode."""

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Bool, Float, Int64, Shaped
from numpy import ndarray

Observation = dict[str, Shaped[ndarray, "num_envs *field"]]
"""One array per observation field, first axis the environment."""


@dataclass
class Transition:
    """One step of every environment in a batch."""

    observation: Observation
    """What the policy saw before the step."""
    action: Float[ndarray, "num_envs action"]
    """What was executed, in the action field's units."""
    reward: Float[ndarray, " num_envs"]
    terminated: Bool[ndarray, " num_envs"]
    """The task itself ended (success, failure, divergence): the future is worth nothing."""
    truncated: Bool[ndarray, " num_envs"]
    """Only the clock ran out: the future is worth what the value function says of `final_observation`."""
    final_observation: Observation
    """What the step led to, before any reset. Equals the next observation where no episode ended."""
    success: Bool[ndarray, " num_envs"]
    source: str
    """Who acted: "expert", "policy", "teleoperation", "replay", ..."""

    @property
    def ended(self) -> Bool[ndarray, " num_envs"]:
        """Episodes that end with this step, for either reason."""
        return self.terminated | self.truncated


@dataclass
class Windows:
    """A batch for behaviour cloning; a window starts at a step of an episode and reaches `horizon` steps ahead."""

    observation: dict[str, Shaped[ndarray, "batch *field"]]
    """What was seen at the window's first step; with a history, [batch, history, *field] up to it, oldest first."""
    actions: Float[ndarray, "batch horizon action"]
    """What was done at that step and after, in the action field's units; behind the episode's end the last repeats."""
    mask: Bool[ndarray, "batch horizon"]
    """True where the action was recorded, False where it repeats the last one."""
    history_mask: Bool[ndarray, "batch history"] | None = None
    """True where the observation was recorded, False where it repeats the episode's first; None without a history."""
    source: Int64[ndarray, " batch"] | None = None
    """Of a mixture: the number of the dataset that each window comes from."""
    present: dict[str, Bool[ndarray, " batch"]] | None = None
    """Of a mixture, by observation field: False where a window's dataset lacks the field and zeros stand for it."""


@dataclass
class Episode:
    """One recorded episode: arrays of `length` steps and what is true of the whole.

    Keys follow LeRobot: `observation.*` and `action` are what was seen and then done at a step, `next.*` is what
    the step led to.
    """

    steps: dict[str, Shaped[ndarray, "length *field"]]
    metadata: dict[str, Any] = field(default_factory=dict)
    """Plain values for JSON: seed, success, source, initial state, instruction, ..."""
    streams: dict[str, dict[str, Shaped[ndarray, "_ ..."]]] = field(default_factory=dict)
    """Fields with a clock of their own, by the stream's name; each has a `timestamp`, int64 [ns], never falling."""

    @property
    def length(self) -> int:
        """Number of steps."""
        return len(next(iter(self.steps.values()))) if self.steps else 0

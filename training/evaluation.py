"""Scoring policies: distinct recorded seeds, intervals, paired comparison. Trainers, commands and reports ask here."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy import ndarray

from alula.policies.policy import Policy
from alula.sims.task import Task
from alula.sims.vector import TaskVectorEnv
from alula.training.rollouts import Clock, PolicyActor, step
from alula.training.threads import single_threaded_networks

Z95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""
BATCH = 256


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a success probability (Wilson 1927)."""
    share, z2 = successes / trials, Z95**2
    center = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return max(0.0, center - half), min(1.0, center + half)


@dataclass
class Evaluation:
    """One policy on one list of seeds."""

    seeds: list[int]
    success: list[bool]
    """Whether each episode ever reached the goal."""
    lengths: list[int]
    """Control steps until the end of each episode."""
    stochastic: bool
    """Every sampling step drawn as in training, or the chain's deterministic path."""
    policy_seed: int
    network_evaluations: float
    """Per decision."""
    latency_ms: float
    """Wall clock per decision at batch one."""
    filmed: list["Film"] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Share of successful episodes."""
        return sum(self.success) / len(self.success)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of `rate`."""
        return wilson_interval(sum(self.success), len(self.success))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        low, high = self.interval
        return {
            "success_rate": self.rate,
            "low": low,
            "high": high,
            "episodes": len(self.seeds),
            "mean_length": float(np.mean(self.lengths)),
            "stochastic": self.stochastic,
            "policy_seed": self.policy_seed,
            "network_evaluations": self.network_evaluations,
            "latency_ms": self.latency_ms,
            "seeds": self.seeds,
            "success": self.success,
            "lengths": self.lengths,
        }


@dataclass
class Film:
    """What is needed to draw one episode later: nothing is rendered while the policy is scored."""

    seed: int
    success: bool
    frames: list[tuple[ndarray, ...]]
    """qpos, qvel, mocap position and orientation of every step."""


def evaluate(
    policy: Policy,
    task: Task,
    seeds: Sequence[int],
    stochastic: bool = False,
    policy_seed: int = 0,
    film: int = 0,
) -> Evaluation:
    """Run one episode per seed.

    Args:
        policy: Last checkpoint, never the best of many.
        task: Where.
        seeds: One per episode, distinct.
        stochastic: See `Evaluation`.
        policy_seed: Of the policy's own noise.
        film: Number of episodes, the first ones, whose states are kept for videos.
    """
    if len(set(seeds)) != len(seeds):
        raise ValueError("evaluation seeds must be distinct")
    success: list[bool] = []
    lengths: list[int] = []
    films: list[Film] = []
    for start in range(0, len(seeds), BATCH):
        batch = list(seeds[start : start + BATCH])
        with single_threaded_networks():
            reached, taken, filmed = _episodes(policy, task, batch, stochastic, policy_seed + start, film - start)
        success += reached.tolist()
        lengths += taken.tolist()
        films += filmed
    evaluations, latency = _cost(policy, task, stochastic)
    return Evaluation(list(seeds), success, lengths, stochastic, policy_seed, evaluations, latency, films)


def _episodes(
    policy: Policy, task: Task, seeds: list[int], stochastic: bool, policy_seed: int, film: int
) -> tuple[ndarray, ndarray, list[Film]]:
    """One episode for each seed, all at once; ended environments idle until the last one ends."""
    environments = TaskVectorEnv(task, len(seeds), AutoresetMode.DISABLED)
    observation, _ = environments.reset(seed=seeds)
    actor = PolicyActor.start(policy, len(seeds), policy_seed, stochastic)
    success, running = np.zeros(len(seeds), dtype=bool), np.ones(len(seeds), dtype=bool)
    lengths = np.zeros(len(seeds), dtype=np.int64)
    films = [Film(seed, False, []) for seed in seeds[: max(0, film)]]
    while running.any():
        state = environments.engine.state
        for env, recording in enumerate(films):
            if running[env]:
                arrays = (state.qpos, state.qvel, state.mocap_pos, state.mocap_quat)
                recording.frames.append(tuple(array[env].copy() for array in arrays))
        transition, observation = step(environments, actor, observation, Clock())
        success |= transition.success & running
        lengths += running
        running &= ~transition.ended
    for env, recording in enumerate(films):
        recording.success = bool(success[env])
    environments.close()
    return success, lengths, films


def _cost(policy: Policy, task: Task, stochastic: bool, repeats: int = 20) -> tuple[float, float]:
    """Network evaluations and milliseconds per decision of a single robot."""
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    hooks = [module.register_forward_hook(count) for name, module in policy.named_modules() if _is_field(name)]
    observation = {name: np.zeros((1, *spec.shape), dtype=np.float32) for name, spec in task.observation.items()}
    actor = PolicyActor.start(policy, 1, 0, stochastic)
    actor.act(observation)
    per_decision = float(calls)
    durations = []
    for _ in range(repeats):
        actor.reset(np.array([True]))
        begin = time.perf_counter()
        actor.act(observation)
        durations.append(time.perf_counter() - begin)
    for hook in hooks:
        hook.remove()
    return per_decision, 1e3 * float(np.median(durations))


def _is_field(name: str) -> bool:
    return name.split(".")[-1] in ("field", "frozen_field")


@dataclass
class Comparison:
    """Two policies on the same seeds."""

    only_first: int
    """Episodes that only the first one solved."""
    only_second: int
    both: int
    neither: int
    p_value: float
    """Two-sided exact McNemar test: probability of so uneven a split if both were equally good."""
    difference: float
    """Success rate of the second minus the first."""
    low: float
    """95 % interval of the difference."""
    high: float


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Paired comparison; the interval is Wald's with half a pair added to each cell (Agresti & Min 2005).

    Raises:
        ValueError: the seeds differ.
    """
    if first.seeds != second.seeds:
        raise ValueError("paired comparison needs the same seeds in the same order")
    a, b = np.array(first.success), np.array(second.success)
    only_first, only_second = int((a & ~b).sum()), int((~a & b).sum())
    trials, discordant = len(a), only_first + only_second
    tail = sum(math.comb(discordant, k) for k in range(min(only_first, only_second) + 1)) / 2**discordant
    difference = (only_second - only_first) / trials
    # The added halves keep the interval honest for small counts.
    shifted = (only_second - only_first) / (trials + 2)
    variance = (discordant + 1) / (trials + 2) - shifted**2
    half = Z95 * math.sqrt(max(variance, 0.0) / (trials + 2))
    return Comparison(
        only_first,
        only_second,
        both=int((a & b).sum()),
        neither=int((~a & ~b).sum()),
        p_value=min(1.0, 2 * tail),
        difference=difference,
        low=max(-1.0, shifted - half),
        high=min(1.0, shifted + half),
    )

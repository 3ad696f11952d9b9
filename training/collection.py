"""Recording episodes of an expert or a policy."""

import math
from collections.abc import Callable

import numpy as np
from gymnasium.vector import AutoresetMode
from jaxtyping import Bool
from numpy import ndarray

from alula.core.errors import DatasetError
from alula.core.transitions import Episode, Transition
from alula.datasets.store import EpisodeStore
from alula.sims.task import Task
from alula.sims.vector import TaskVectorEnv
from alula.training.rollouts import Actor, Clock, step

BATCH = 128
MAX_TRIES = 20
"""Times as many batches as a perfect actor would need, after which collecting gives up."""


def collect(
    task: Task,
    make_actor: Callable[[TaskVectorEnv], Actor],
    store: EpisodeStore,
    episodes: int,
    first_seed: int,
    only_success: bool,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Record episodes until `store` holds `episodes`.

    Args:
        task: Where.
        make_actor: Whoever acts in a batch of environments.
        store: Open for appending.
        episodes: How many to have in the end.
        first_seed: Of the first episode; the others follow.
        only_success: Keep successful episodes only.
        report: Told after each batch how many there are, of how many.

    Returns:
        Number of episodes that were tried.

    Raises:
        DatasetError: too few episodes succeed.
    """
    if store.num_episodes >= episodes:
        return 0
    tried = 0
    environments = TaskVectorEnv(task, min(BATCH, 2 * episodes), AutoresetMode.DISABLED)
    for _ in range(MAX_TRIES * math.ceil(episodes / environments.num_envs)):
        seeds = range(first_seed + tried, first_seed + tried + environments.num_envs)
        recorded = _record(environments, make_actor(environments), list(seeds))
        tried += len(seeds)
        kept = [episode for episode in recorded if episode.metadata["success"] or not only_success]
        store.extend(kept[: episodes - store.num_episodes])
        report(store.num_episodes, episodes)
        if store.num_episodes >= episodes:
            environments.close()
            return tried
    environments.close()
    raise DatasetError(
        f"only {store.num_episodes} of {tried} episodes succeeded, {episodes} were asked for; lower expert_noise, "
        "use a better checkpoint, or keep failures too with only_success=false"
    )


def _record(environments: TaskVectorEnv, actor: Actor, seeds: list[int]) -> list[Episode]:
    """One episode per seed."""
    observation, _ = environments.reset(seed=seeds)
    transitions: list[Transition] = []
    running = np.ones(len(seeds), dtype=bool)
    lengths = np.zeros(len(seeds), dtype=np.int64)
    while running.any():
        transition, observation = step(environments, actor, observation, Clock())
        transitions.append(transition)
        lengths += running
        running &= ~transition.ended
    fields = {name: np.stack([t.observation[name] for t in transitions]) for name in transitions[0].observation}
    fields["action"] = np.stack([t.action for t in transitions])
    fields["next.reward"] = np.stack([t.reward for t in transitions])
    for name in ("terminated", "truncated", "success"):
        fields[f"next.{name}"] = np.stack([getattr(t, name) for t in transitions])
    return [
        _episode(fields, env, int(lengths[env]), seed, actor.source, fields["next.success"])
        for env, seed in enumerate(seeds)
    ]


def _episode(
    fields: dict[str, ndarray],
    env: int,
    length: int,
    seed: int,
    source: str,
    success: Bool[ndarray, "num_steps num_envs"],
) -> Episode:
    steps = {name: np.ascontiguousarray(values[:length, env]) for name, values in fields.items()}
    return Episode(steps, {"seed": seed, "source": source, "success": bool(success[:length, env].any())})

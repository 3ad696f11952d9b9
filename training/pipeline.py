"""The stages that commands put together: clone, fine-tune, score."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import torch
from gymnasium.vector import AutoresetMode

from alula.core.errors import AlulaError, DatasetError, unknown_name
from alula.core.normalizer import FieldStatistics
from alula.core.spaces import SpaceSpec
from alula.datasets.store import EpisodeStore
from alula.datasets.windows import WindowSampler
from alula.policies.config import PolicyConfig
from alula.policies.policy import GenerativePolicy, Policy
from alula.policies.registry import make_policy
from alula.sims.registry import TASKS, make_task, task_name
from alula.sims.task import Task
from alula.sims.vector import TaskVectorEnv
from alula.training.algorithms import make_trainer
from alula.training.bc import BehaviorCloning
from alula.training.checkpoint import Checkpoint, typed
from alula.training.config import BCConfig, PPOConfig
from alula.training.evaluation import evaluate
from alula.training.held_out import HeldOut, split_episodes, statistics_of, steps_of
from alula.training.loop import Progress, fit
from alula.training.run import Run
from alula.training.seeds import PROGRESS, TRAINING, first_seed

RANDOM_PLAY_ENVS, RANDOM_PLAY_STEPS = 64, 100
"""Size of the random play that tells an untrained policy the ranges of what it sees."""


def describe_task(config: Any) -> dict[str, Any]:
    """Name and parameters of a task, for datasets and checkpoints."""
    return {"name": task_name(config), "config": asdict(config)}


def task_of(checkpoint: Checkpoint, config: Any | None) -> tuple[Task, Any]:
    """The task to use a checkpoint in: `config` if given, else the one it was made on.

    Raises:
        AlulaError: the checkpoint names no known task, or sees and commands something else than the task does.
    """
    if config is None:
        if "name" not in checkpoint.task:
            raise AlulaError(
                "the checkpoint was trained on a recording that belongs to no simulated task, so it cannot be run "
                "here; how well it foretells held-out actions is in its run's report.html, and alula deploy runs it on "
                "the robot that was recorded. If a task has the same spaces, choose it with task=NAME"
            )
        name = checkpoint.task.get("name")
        if name not in TASKS:
            raise AlulaError(f"the checkpoint was made for no known task ({name}); choose one with task=NAME")
        config = typed(TASKS[name].config, checkpoint.task["config"])
    task = make_task(config)
    remedy = "Use a checkpoint that was trained on this task, or the checkpoint's own task"
    for mine, theirs in ((checkpoint.policy.observation, task.observation), (checkpoint.policy.action, task.action)):
        mine.require(theirs, "the checkpoint", f"task {task_name(config)}", remedy)
    return task, config


def clone(
    store: EpisodeStore,
    policy_config: PolicyConfig,
    config: BCConfig,
    seed: int,
    run: Run,
    report: Progress,
    *,
    fields: Sequence[str] | None = None,
    held_out: float = 0.0,
) -> GenerativePolicy:
    """Behaviour cloning of a dataset; what it says of held-out episodes is written to evaluation/held_out.json.

    Args:
        store: The demonstrations.
        policy_config: What is trained.
        config: How.
        seed: Of everything random, the choice of held-out episodes included.
        run: Where to log and save.
        report: Shows progress.
        fields: Observation fields that the policy sees; None for all.
        held_out: Share of the episodes that are kept back, at least one; 0 for none.

    Raises:
        DatasetError: the dataset holds no actions, a field that it does not have was asked for, or too few episodes.
    """
    torch.manual_seed(seed)
    policy = make_policy(policy_config, observed(store, fields), store.action)
    sampler = WindowSampler(store, policy_config.horizon, list(policy.observation))
    split = split_episodes(store, held_out, seed)
    steps = steps_of(store, split.training)
    found = statistics_of(store, [*policy.conditioner.names, "action"], steps)
    policy.fit_normalizers(found)
    trainer = BehaviorCloning(policy, lambda indices: sampler.sample(steps[indices]), len(steps), config, seed)
    if not len(split.held_out):
        fit(trainer, run, report=report)
    else:
        kept_back = HeldOut(store, sampler.sample, split.held_out, found["action"], seed)

        def score(policy: Policy) -> dict[str, float]:
            return {"held_out/error": kept_back.error(cast(GenerativePolicy, policy))}

        fit(trainer, run, score, report)
        run.write_json("evaluation/held_out", kept_back.measure(trainer.trained_policy()).to_dict())
    run.write_json("times", trainer.clock.seconds)
    return trainer.trained_policy()


def observed(store: EpisodeStore, fields: Sequence[str] | None) -> SpaceSpec:
    """What a policy sees of a dataset, in the dataset's order.

    Raises:
        DatasetError: there are no actions to learn, or a field does not exist.
    """
    if not store.action:
        raise DatasetError(f"dataset '{store.path}' holds no actions, so there is nothing to clone; choose another")
    for name in fields or ():
        if name not in store.observation:
            raise DatasetError(f"fields: {unknown_name('observation field', name, store.observation)}")
    chosen = tuple(field for field in store.observation.values() if fields is None or field.name in fields)
    if not chosen:
        raise DatasetError(f"no field is left to see; dataset '{store.path}' has {', '.join(store.observation)}")
    return SpaceSpec(chosen)


def untrained(task: Task, config: PolicyConfig, seed: int) -> GenerativePolicy:
    """A policy that knows no more than ranges: the actions' bounds, and what random actions make it see."""
    torch.manual_seed(seed)
    policy = make_policy(config, task.observation, task.action)
    environments = TaskVectorEnv(task, RANDOM_PLAY_ENVS, AutoresetMode.SAME_STEP)
    environments.reset(seed=first_seed(TRAINING, seed))
    low, high = task.action["action"].bounds()
    generator = np.random.default_rng(seed)
    seen = {name: FieldStatistics.empty(field.shape) for name, field in task.observation.items()}
    for _ in range(RANDOM_PLAY_STEPS):
        actions = generator.uniform(low, high, (RANDOM_PLAY_ENVS, *low.shape)).astype(np.float32)
        observation, *_ = environments.step(actions)
        seen = {name: known.merged(FieldStatistics.of(observation[name])) for name, known in seen.items()}
    environments.close()
    bounds = FieldStatistics.of(np.stack([low, high]))
    policy.fit_normalizers(seen | {"action": bounds})
    return policy


def finetune(
    base: Policy, task: Task, config: PPOConfig, seed: int, stochastic: bool, run: Run, report: Progress
) -> Policy:
    """RL fine-tuning of a cloned policy, evaluated as it goes on episodes of its own."""
    environments = TaskVectorEnv(task, config.num_envs, AutoresetMode.SAME_STEP)
    trainer = make_trainer(config, base, environments, first_seed(TRAINING, seed))
    start = first_seed(PROGRESS, seed)
    seeds = range(start, start + config.evaluation_episodes)

    def score(policy: Policy) -> dict[str, float]:
        result = evaluate(policy, task, seeds, stochastic)
        low, high = result.interval
        return {"evaluation/success": result.rate, "evaluation/low": low, "evaluation/high": high}

    policy = fit(trainer, run, score, report)
    run.write_json("times", trainer.clock.seconds)
    environments.close()
    return policy

"""`alula collect`: run an expert or a policy and write a dataset."""

from collections.abc import Callable
from typing import Any

from alula.commands.console import OUT, Result, print_results, progress
from alula.commands.inputs import expert_factory, required
from alula.configs.schemas import CollectConfig
from alula.core.errors import ConfigError
from alula.datasets.store import EpisodeStore
from alula.sims.registry import TASKS, make_task
from alula.sims.task import Task
from alula.sims.vector import TaskVectorEnv
from alula.training.checkpoint import load_policy
from alula.training.collection import collect
from alula.training.pipeline import describe_task, task_of
from alula.training.rollouts import Actor, PolicyActor
from alula.training.seeds import DEMONSTRATIONS, first_seed


def run(config: CollectConfig, as_json: bool) -> None:
    """Record until there are enough episodes."""
    path = required(config.out, "out", "demonstrations.zarr")
    task, task_config, make_actor = _policy(config) if config.checkpoint else _expert(config)
    source = config.checkpoint or f"scripted expert, imperfection {config.expert_noise}"
    metadata = {"task": describe_task(task_config), "source": source, "seed": config.seed}
    TaskVectorEnv(task).close()  # what its engine cannot do is refused before anything is written
    store = EpisodeStore.create(path, task.observation, task.action, metadata, overwrite=config.overwrite)
    with progress("collect") as report:
        tried = collect(
            task,
            make_actor,
            store,
            config.episodes,
            first_seed(DEMONSTRATIONS, config.seed),
            config.only_success,
            lambda done, total: report(done, total, {}),
        )
    OUT.print(f"{store.num_episodes} episodes with {store.num_steps} steps in {path}; {tried} were tried")
    if as_json:
        print_results("collect", [Result("episodes", store.num_episodes, "1"), Result("tried", tried, "1")])


def _expert(config: CollectConfig) -> tuple[Task, Any, Callable[[TaskVectorEnv], Actor]]:
    """The task's scripted demonstrator."""
    if config.task is None:
        raise ConfigError(f"task is missing; choose task=NAME with one of {', '.join(TASKS)}, or give checkpoint=...")
    task = make_task(config.task)
    return task, config.task, expert_factory(task, config.expert_noise, config.seed)


def _policy(config: CollectConfig) -> tuple[Task, Any, Callable[[TaskVectorEnv], Actor]]:
    """A trained policy, on its own task if none is named."""
    checkpoint = load_policy(config.checkpoint or "")
    task, task_config = task_of(checkpoint, config.task)

    def make_actor(environments: TaskVectorEnv) -> Actor:
        return PolicyActor.start(checkpoint.policy, environments.num_envs, config.seed, config.stochastic)

    return task, task_config, make_actor

"""`alula collect`: run an expert or a policy and write a dataset."""

from alula.commands.console import OUT, Result, print_results, progress
from alula.commands.inputs import expert_factory, required
from alula.configs.schemas import CollectConfig
from alula.datasets.store import EpisodeStore
from alula.policies.policy import Policy
from alula.sims.registry import make_task
from alula.sims.vector import TaskVectorEnv
from alula.training.checkpoint import load_policy
from alula.training.collection import collect
from alula.training.pipeline import describe_task, task_of
from alula.training.rollouts import Actor, PolicyActor
from alula.training.seeds import DEMONSTRATIONS, first_seed


def run(config: CollectConfig, as_json: bool) -> None:
    """Record until there are enough episodes."""
    path = required(config.out, "out", "demonstrations.zarr")
    if config.checkpoint:
        checkpoint = load_policy(config.checkpoint)
        task, _ = task_of(checkpoint, config.task)
        policy: Policy = checkpoint.policy
        source = "policy"

        def make_actor(environments: TaskVectorEnv) -> Actor:
            return PolicyActor.start(policy, environments.num_envs, config.seed, config.stochastic)
    else:
        task = make_task(config.task)
        make_actor = expert_factory(task, config.expert_noise, config.seed)  # type: ignore[assignment]
        source = "expert"
    metadata = {"task": describe_task(config.task), "source": source, "seed": config.seed}
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

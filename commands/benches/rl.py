"""Environment steps per second of whole RL training loops, against the environment alone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from gymnasium.vector import AutoresetMode

from alula.commands.benches.measure import interleaved, median, ratio
from alula.commands.console import Result
from alula.commands.inputs import expert_factory
from alula.configs.schemas import BenchConfig
from alula.datasets.store import EpisodeStore
from alula.policies.config import DiffusionPolicyConfig
from alula.policies.policy import Policy
from alula.sims.task import Task
from alula.sims.tasks.peg_insertion.config import PegInsertionConfig
from alula.sims.tasks.peg_insertion.task import PegInsertion
from alula.sims.vector import TaskVectorEnv
from alula.training.algorithms import make_trainer
from alula.training.collection import collect
from alula.training.config import BCConfig, DPPOConfig, PPOConfig, ResidualPPOConfig
from alula.training.pipeline import clone
from alula.training.ppo import PPO
from alula.training.rollouts import Clock, step
from alula.training.run import Run
from alula.training.seeds import DEMONSTRATIONS
from alula.training.threads import single_threaded_networks

CONTENDERS = (("residual_ppo", ResidualPPOConfig, 0.5), ("dppo", DPPOConfig, 0.25))
CLONING_STEPS = 1000
"""Enough for a policy that goes to the socket and touches it, which is what physics cost depends on."""


def bench_rl(config: BenchConfig) -> list[Result]:
    """One training iteration, and the same number of environment steps under the same policy's actions alone."""
    task = PegInsertion(PegInsertionConfig())
    base = _base(task)
    results = []
    for name, schema, bar in CONTENDERS:
        environments = TaskVectorEnv(task, config.num_envs, AutoresetMode.SAME_STEP)
        settings: PPOConfig = schema(num_envs=config.num_envs)
        trainer = make_trainer(settings, base, environments, seed=0)
        alone = TaskVectorEnv(task, config.num_envs, AutoresetMode.SAME_STEP)
        contenders = {"training": _iteration(trainer), "physics": _physics(trainer, alone, settings.rollout_steps)}
        rates = interleaved(contenders, config.repeats)
        results += [
            median(f"{name}_steps_per_s", rates["training"], "1/s"),
            median(f"{name}_environment_steps_per_s", rates["physics"], "1/s"),
            ratio(f"{name}_vs_physics", rates["training"], rates["physics"], "the environment alone", bar),
        ]
        environments.close()
        alone.close()
    return results


def _base(task: Task) -> Policy:
    """A briefly cloned policy."""
    with TemporaryDirectory() as folder:
        store = EpisodeStore.create(Path(folder) / "demonstrations.zarr", task.observation, task.action)
        collect(task, expert_factory(task, 0.4, 0), store, 100, DEMONSTRATIONS, only_success=True)
        with Run(Path(folder) / "run", {}, {}) as run:
            return clone(store, DiffusionPolicyConfig(), BCConfig(steps=CLONING_STEPS), 0, run, lambda *_: None)


def _iteration(trainer: PPO) -> Callable[[], Iterator[int]]:
    def work() -> Iterator[int]:
        before = trainer.progress
        trainer.iterate()
        yield trainer.progress - before

    return work


def _physics(trainer: PPO, environments: TaskVectorEnv, num_steps: int) -> Callable[[], Iterator[int]]:
    """Replay of what the trainer's policy does, recorded beforehand."""
    start = trainer.environments.get_state()
    observation, actions = trainer.observation, []
    with single_threaded_networks():
        for _ in range(num_steps):
            transition, observation = step(trainer.environments, trainer.actor, observation, Clock())
            actions.append(transition.action)
    trainer.observation = observation

    def work() -> Iterator[int]:
        environments.set_state(start)
        for action in actions:
            environments.step(np.asarray(action))
            yield environments.num_envs

    return work

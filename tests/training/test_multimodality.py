"""Cloning keeps what demonstrators do in two ways, and fine-tuning does not lose either without a reason."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from torch import Generator

from alula.core.transitions import Windows
from alula.policies.config import FieldConfig
from alula.policies.policy import GenerativePolicy, Policy
from alula.sims.task import Task
from alula.sims.vector import TaskVectorEnv
from alula.training.algorithms import make_trainer
from alula.training.bc import BehaviorCloning
from alula.training.config import BCConfig, PPOConfig

MakeBase = Callable[..., GenerativePolicy]
Tiny = Callable[..., PPOConfig]
DEMONSTRATED = 1.5
"""Both ways are demonstrated at plus and minus this; 1.2 is where the reward has its two tops."""


def cloned(make_base: MakeBase, task: Task) -> GenerativePolicy:
    """A diffusion policy of demonstrations that go either way, half and half."""
    policy = make_base(
        "diffusion", task, horizon=1, execute_steps=1, denoising_steps=10, sampling_steps=10,
        field=FieldConfig(width=64, blocks=1),
    )  # fmt: skip
    rng = np.random.default_rng(0)

    def sample(indices: np.ndarray) -> Windows:
        actions = rng.choice([-DEMONSTRATED, DEMONSTRATED], (len(indices), 1, 1))
        actions = (actions + 0.1 * rng.standard_normal(actions.shape)).astype(np.float32)
        observation = {"observation.state": rng.uniform(-1, 1, (len(indices), 1)).astype(np.float32)}
        return Windows(observation, actions, np.ones((len(indices), 1), dtype=bool))

    trainer = BehaviorCloning(policy, sample, 4096, BCConfig(steps=1500, warmup_steps=10), 0)
    while trainer.progress < trainer.total:
        trainer.iterate()
    return trainer.trained_policy()


def actions_of(policy: Policy, task: Task) -> np.ndarray:
    """A thousand sampled actions."""
    environments = TaskVectorEnv(task, 1000, AutoresetMode.DISABLED)
    observation, _ = environments.reset(seed=0)
    actions, _, _ = policy.act(observation, policy.memory(1000), Generator().manual_seed(0), stochastic=False)
    environments.close()
    return actions[:, 0]


def finetuned(tiny: Tiny, base: GenerativePolicy, task: Task, trainable_steps: int) -> Policy:
    """Thirty iterations of DPPO on the last steps of the chain."""
    settings: dict[str, Any] = {"num_envs": 128, "rollout_steps": 4, "minibatch": 512, "epochs": 4, "gae_lambda": 1.0}
    settings |= {"joint_clip": 0.2, "actor_learning_rate": 1e-3, "critic_learning_rate": 1e-2, "actor_warmup": 10}
    settings |= {"sampling_steps": 10, "trainable_steps": trainable_steps, "std_floor": 0.05}
    trainer = make_trainer(tiny("dppo", **settings), base, TaskVectorEnv(task, 128, AutoresetMode.SAME_STEP), 0)
    for _ in range(30):
        trainer.iterate()
    return trainer.trained_policy()


@pytest.mark.slow
def test_both_of_two_equal_modes_survive_cloning_and_fine_tuning(
    make_base: MakeBase, tiny: Tiny, task_of_kind: Callable[..., Task]
) -> None:
    """Each way keeps at least 35 % of the mass while both move to the reward's tops; a tilt moves mass with it.

    The late steps refine what the early ones chose; mass moves between the ways only if these are trained too.
    """
    task = task_of_kind("twin", 1)
    base = cloned(make_base, task)
    before = actions_of(base, task)
    after = actions_of(finetuned(tiny, base, task, trainable_steps=3), task)
    tilted = actions_of(finetuned(tiny, base, task_of_kind("tilted", 1), trainable_steps=10), task)
    for actions in (before, after):
        assert 0.35 <= (actions > 0).mean() <= 0.65
        assert (np.abs(actions) > 0.8).mean() > 0.8
    assert np.abs(np.abs(after) - 1.2).mean() < 0.5 * np.abs(np.abs(before) - 1.2).mean()
    assert (tilted > 0).mean() > (after > 0).mean() + 0.1

"""Complete environment steps per second, against the bare physics and against other simulators."""

from alula.commands.benches.locomotion import against_vector_environments
from alula.commands.benches.quadcopters import quadcopters
from alula.commands.benches.rollout import against_rollout
from alula.commands.console import Result
from alula.configs.schemas import BenchConfig

NUM_ENVS = 64
"""Environments where peers are measured too."""


def bench_sims(config: BenchConfig) -> list[Result]:
    """Arms against `mujoco.rollout`, locomotion against vector environments, quadcopters against their simulators."""
    return [
        *against_rollout("peg_insertion", config.num_envs, config.repeats, bar=0.85, rate=15_000),
        *against_rollout("pick_place", NUM_ENVS, config.repeats, bar=0.8),
        *against_vector_environments(NUM_ENVS, config),
        *quadcopters(config),
    ]

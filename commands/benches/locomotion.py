"""Locomotion: the same MuJoCo models and rewards as EnvPool's and Gymnasium's vector environments."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from alula.commands.benches.measure import interleaved, median, ratio
from alula.commands.benches.peer import Peer, interpreter
from alula.commands.console import Result
from alula.configs.schemas import BenchConfig
from alula.sims.registry import TASKS, make_task
from alula.sims.vector import TaskVectorEnv

TASK_BARS = {"hopper": ("Hopper-v5", 1.25), "half_cheetah": ("HalfCheetah-v5", 1.5)}
"""Gymnasium's name, and the bar against EnvPool."""
GYMNASIUM_BAR = 2.5
SLICES, STEPS = 10, 20
"""Turns per round, and control steps per turn."""


def against_vector_environments(num_envs: int, config: BenchConfig) -> list[Result]:
    """Random actions, autoreset included, against EnvPool and the better of Gymnasium's two vector environments."""
    results = []
    for task, (env_id, bar) in TASK_BARS.items():
        with ExitStack() as stack:
            environments = TaskVectorEnv(make_task(TASKS[task].config()), num_envs, AutoresetMode.SAME_STEP)
            stack.enter_context(closing(environments))
            contenders = {"ours": _ours(environments)}
            python = Path(sys.executable)
            peers: dict[str, tuple[Any, ...]] = {
                mode: (python, "gymnasium", env_id, num_envs, mode) for mode in ("sync", "async")
            }
            if envpool := interpreter(config.peers, "envpool"):
                peers["envpool"] = (envpool, "envpool", env_id, num_envs)
            for name, arguments in peers.items():
                peer = stack.enter_context(closing(Peer(*arguments)))
                contenders[name] = peer.rounds(SLICES, STEPS, STEPS * num_envs)
            rates = interleaved(contenders, config.repeats)
        name = task.replace("_", "")
        results.append(median(f"{name}_steps_per_s", rates["ours"], "1/s"))
        better = max("sync", "async", key=lambda mode: float(np.median(rates[mode])))
        against = f"Gymnasium, {better}"
        results.append(ratio(f"{name}_vs_gymnasium", rates["ours"], rates[better], against, GYMNASIUM_BAR))
        if "envpool" in rates:
            results.append(ratio(f"{name}_vs_envpool", rates["ours"], rates["envpool"], "EnvPool", bar))
    return results


def _ours(environments: TaskVectorEnv) -> Callable[[], Iterator[int]]:
    low, high = environments.task.action["action"].bounds()
    shape = (64, environments.num_envs, len(low))
    actions = np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)
    environments.reset(seed=0)

    def work() -> Iterator[int]:
        for _ in range(SLICES):
            for step in range(STEPS):
                environments.step(actions[step % len(actions)])
            yield STEPS * environments.num_envs

    return work

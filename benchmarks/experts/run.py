"""Success of every task's scripted expert at its best, on 100 distinct seeds each.

    python benchmarks/experts/run.py [TASK ...]

Without names, all tasks. The scores are kept in sims/experts.json, which `alula list tasks` shows.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from alula.core.errors import ConfigError
from alula.sims.registry import TASKS, make_task
from alula.sims.task import Task
from alula.sims.vector import TaskVectorEnv
from alula.training.evaluation import wilson_interval
from alula.training.provenance import commit, machine

EPISODES = 100
FIRST_SEED = 10_000
BAR = 0.95
RESULT = Path(__file__).parents[2] / "sims" / "experts.json"


def score(task: Task) -> int:
    """Number of episodes in which the expert succeeds."""
    environments = TaskVectorEnv(task, EPISODES, AutoresetMode.DISABLED)
    environments.reset(seed=FIRST_SEED)
    expert = task.expert(0.0, 0)
    reached, running = np.zeros(EPISODES, dtype=bool), np.ones(EPISODES, dtype=bool)
    while running.any():
        action = expert.act(environments.engine.state).astype(np.float32)
        _, _, terminated, truncated, info = environments.step(action)
        reached |= info["success"] & running
        running &= ~(terminated | truncated)
    environments.close()
    return int(reached.sum())


def main(names: list[str]) -> None:
    """Score, print a table, and keep it."""
    scores: dict[str, int | None] = {}
    print(f"{machine()}; commit {commit()}; {EPISODES} episodes from seed {FIRST_SEED}\n")
    print("| task | expert's success [95 %] | ok |\n|---|---|---|")
    for name in names or TASKS:
        try:
            scores[name] = found = score(make_task(TASKS[name].config()))
        except ConfigError as error:
            scores[name] = None
            print(f"| {name} | none: {error} | |", flush=True)
        else:
            low, high = wilson_interval(found, EPISODES)
            ok = "yes" if found >= BAR * EPISODES else "no"
            print(f"| {name} | {found / EPISODES:.2f} [{low:.2f}, {high:.2f}] | {ok} |", flush=True)
    known: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"successes": {}}
    kept: dict[str, Any] = {"commit": commit(), "episodes": EPISODES, "first_seed": FIRST_SEED}
    kept["successes"] = {name: count for name, count in (known["successes"] | scores).items() if name in TASKS}
    RESULT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Hovering learned from nothing on torch tensors, then flown in three simulators; prints a table.

    python benchmarks/hover/run.py [FOLDER]

Every row is `alula finetune`, 420,000 steps of PPO without demonstrations, and `alula evaluate` in each engine: 100
fresh starts, success being a second within 5 cm of the target without a break. Minutes are of training alone.
"""

import json
import subprocess
import sys
from pathlib import Path

from alula.training.evaluation import wilson_interval
from alula.training.provenance import commit, machine

SEEDS = (0, 1, 2)
EPISODES, FIRST_EVALUATION_SEED = 100, 4_000_000
FLIGHT = ("task=hover", "task.action_mode=attitude_thrust", "task.control_rate=50", "task.max_episode_steps=250")
ENGINES = ("torch", "mujoco", "bullet")
SUCCESS_BAR, MINUTES_BAR = 0.95, 2.0


def alula(*words: str) -> str:
    """Run a command; its last line."""
    done = subprocess.run([sys.executable, "-m", "alula.commands.main", *words], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout.strip().splitlines()[-1]


def main(folder: Path) -> None:
    """One line per training seed."""
    print(f"{machine()}; commit {commit()}; {EPISODES} starts from seed {FIRST_EVALUATION_SEED}\n")
    print(f"| seed | training min | {' | '.join(ENGINES)} | ok |\n|{'---|' * (3 + len(ENGINES))}")
    for seed in SEEDS:
        run = folder / f"seed-{seed}"
        alula("finetune", "task=hover", "policy=gaussian", "algorithm=gaussian_ppo", f"seed={seed}", f"run={run}")
        times = json.loads((run / "times.json").read_text(encoding="utf-8"))
        minutes, cells, ok = sum(times.values()) / 60, [], True
        for engine in ENGINES:
            settings = [f"evaluation.episodes={EPISODES}", f"evaluation.first_seed={FIRST_EVALUATION_SEED}"]
            words = [str(run), *FLIGHT, f"task.engine={engine}", *settings, "evaluation.videos=0", "--json"]
            rate = json.loads(alula("evaluate", *words))["results"][0]["value"]
            low, high = wilson_interval(round(rate * EPISODES), EPISODES)
            cells.append(f"{rate:.2f} [{low:.2f}, {high:.2f}]")
            ok = ok and rate >= SUCCESS_BAR
        ok = ok and minutes <= MINUTES_BAR
        print(f"| {seed} | {minutes:.2f} | {' | '.join(cells)} | {'yes' if ok else 'no'} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/hover"))

"""Demonstrations, cloning and evaluation through the library, without the command line.

python train_from_python.py FOLDER [--episodes 50] [--steps 2000]
"""

import argparse
from pathlib import Path

from alula.datasets.store import EpisodeStore
from alula.policies.config import DiffusionPolicyConfig
from alula.sims.registry import make_task
from alula.sims.tasks.peg_insertion.config import PegInsertionConfig
from alula.training.checkpoint import load_policy
from alula.training.collection import collect
from alula.training.config import BCConfig
from alula.training.evaluation import evaluate
from alula.training.pipeline import clone, describe_task
from alula.training.rollouts import ExpertActor
from alula.training.run import Run
from alula.training.seeds import DEMONSTRATIONS, first_seed

SEED = 0
EVALUATION_SEED = 1_000_000


def main() -> None:
    """Collect, clone, load what was saved, and score it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the dataset and the run go")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--steps", type=int, default=2000)
    arguments = parser.parse_args()

    config = PegInsertionConfig()
    task = make_task(config)
    about = describe_task(config)
    store = EpisodeStore.create(
        arguments.folder / "demonstrations.zarr", task.observation, task.action, {"task": about}
    )
    expert = task.expert(0.4, SEED)
    start = first_seed(DEMONSTRATIONS, SEED)
    collect(task, lambda environments: ExpertActor(expert, environments), store, arguments.episodes, start, True)
    print(f"{store.num_episodes} demonstrations with {store.num_steps} steps")

    with Run(arguments.folder / "cloned", {"seed": SEED, "steps": arguments.steps}, about) as run:
        clone(store, DiffusionPolicyConfig(), BCConfig(steps=arguments.steps), SEED, run, lambda *_: None)

    policy = load_policy(run.folder).policy
    result = evaluate(policy, task, range(EVALUATION_SEED, EVALUATION_SEED + 100))
    low, high = result.interval
    print(f"success {100 * result.rate:.0f} % [{100 * low:.0f}, {100 * high:.0f}]")


if __name__ == "__main__":
    main()

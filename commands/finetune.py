"""`alula finetune`: RL from a checkpoint, or from scratch."""

from pathlib import Path
from typing import Any

from alula.commands.console import OUT, Result, print_results, progress
from alula.commands.inputs import create_run, required
from alula.configs.compose import choice
from alula.configs.schemas import FinetuneConfig
from alula.policies.policy import Policy
from alula.sims.registry import make_task, task_name
from alula.sims.task import Task
from alula.training.checkpoint import load_policy, weights_hash
from alula.training.pipeline import describe_task, finetune, task_of, untrained
from alula.training.report import write_report
from alula.training.run import read_metrics


def _start(config: FinetuneConfig) -> tuple[Policy, Task, Any]:
    """The policy to begin with, and where it learns."""
    if config.checkpoint or config.policy is None or config.task is None:
        example = "runs/train-demonstrations-diffusion-0 (or both task and policy, to learn from scratch)"
        checkpoint = load_policy(required(config.checkpoint, "checkpoint", example))
        return checkpoint.policy, *task_of(checkpoint, config.task)
    task = make_task(config.task)
    return untrained(task, config.policy, config.seed), task, config.task


def run(config: FinetuneConfig, as_json: bool) -> None:
    """Train to the end; the last checkpoint counts."""
    base, task, task_config = _start(config)
    name = f"finetune-{task_name(task_config)}-{choice('algorithm', config.algorithm)}-{config.seed}"
    folder = Path(config.run or f"runs/{name}")
    about = describe_task(task_config)
    with create_run(folder, config, about, config.resume) as run, progress("fine-tune") as report:
        finetune(base, task, config.algorithm, config.seed, config.evaluation.stochastic, run, report)
    page = write_report(folder)
    last = read_metrics(folder)[-1]
    OUT.print(
        f"checkpoint {folder}  sha256 {weights_hash(folder)}  "
        f"success {last['evaluation/success']:.3f} [{last['evaluation/low']:.3f}, {last['evaluation/high']:.3f}]"
    )
    OUT.print(f"report {page}")
    if as_json:
        episodes = config.algorithm.evaluation_episodes
        values = (last["evaluation/success"], "share", last["evaluation/low"], last["evaluation/high"], episodes)
        print_results("finetune", [Result("progress_success", *values)])

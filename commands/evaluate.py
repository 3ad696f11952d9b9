"""`alula evaluate`: score one policy."""

from pathlib import Path

from alula.commands.console import OUT, Result, print_results
from alula.commands.inputs import required
from alula.configs.schemas import EvaluateConfig, EvaluationConfig
from alula.policies.policy import Policy
from alula.sims.task import Task
from alula.training.checkpoint import load_policy
from alula.training.evaluation import Evaluation, evaluate
from alula.training.pipeline import task_of
from alula.training.run import write_json
from alula.training.videos import require_pictures, write_films


def score(policy: Policy, task: Task, settings: EvaluationConfig) -> Evaluation:
    """Evaluate as the settings say, keeping films if videos are wanted."""
    seeds = range(settings.first_seed, settings.first_seed + settings.episodes)
    film = settings.film if settings.videos else 0
    return evaluate(policy, task, seeds, settings.stochastic, settings.policy_seed, film)


def show(name: str, result: Evaluation) -> None:
    """One line of a score."""
    low, high = result.interval
    mode = "stochastic" if result.stochastic else "deterministic"
    OUT.print(
        f"{name:<10} {100 * result.rate:5.1f} %  [{100 * low:.1f}, {100 * high:.1f}]  n={len(result.seeds)}  {mode}, "
        f"{result.network_evaluations:g} network evaluations, {result.latency_ms:.2f} ms per decision"
    )


def as_result(name: str, result: Evaluation) -> Result:
    """For machines."""
    return Result(name, result.rate, "share", *result.interval, runs=len(result.seeds))


def run(config: EvaluateConfig, as_json: bool) -> None:
    """Evaluate the last checkpoint."""
    path = required(config.checkpoint, "checkpoint", "runs/demo-peg_insertion-residual_ppo-0/finetuning")
    checkpoint = load_policy(path)
    task, _ = task_of(checkpoint, config.task)
    if config.evaluation.videos:
        require_pictures(task)
    result = score(checkpoint.policy, task, config.evaluation)
    folder = Path(config.out) if config.out else path
    write_json(folder / "evaluation/evaluation.json", result.to_dict())
    if config.evaluation.videos:
        write_films(task, result.filmed, folder / "videos", "evaluation", config.evaluation.videos)
    show("success", result)
    OUT.print(f"written    {folder}/evaluation/evaluation.json")
    if as_json:
        print_results("evaluate", [as_result("success", result)])

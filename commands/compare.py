"""`alula compare`: two policies on the same seeds."""

from alula.commands.console import OUT, Result, print_results
from alula.commands.evaluate import as_result, score, show
from alula.commands.inputs import required
from alula.configs.schemas import CompareConfig
from alula.training.checkpoint import load_policy
from alula.training.evaluation import compare
from alula.training.pipeline import task_of


def run(config: CompareConfig, as_json: bool) -> None:
    """Evaluate both, then compare episode by episode."""
    config.evaluation.videos = 0
    first = load_policy(required(config.first, "first", "runs/A/cloning"))
    second = load_policy(required(config.second, "second", "runs/A/finetuning"))
    task, task_config = task_of(first, config.task)
    task_of(second, task_config)
    scores = [score(checkpoint.policy, task, config.evaluation) for checkpoint in (first, second)]
    outcome = compare(*scores)
    for name, result in zip(("first", "second"), scores, strict=True):
        show(name, result)
    OUT.print(
        f"difference {100 * outcome.difference:+.1f} points [{100 * outcome.low:+.1f}, {100 * outcome.high:+.1f}]  "
        f"exact McNemar p = {outcome.p_value:.2g}  "
        f"(only first {outcome.only_first}, only second {outcome.only_second}, both {outcome.both}, "
        f"neither {outcome.neither})"
    )
    if as_json:
        difference = Result("difference", outcome.difference, "share", outcome.low, outcome.high, len(scores[0].seeds))
        print_results("compare", [as_result("first", scores[0]), as_result("second", scores[1]), difference])

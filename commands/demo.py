"""`alula demo`: demonstrations → cloning → fine-tuning → evaluation → report."""

import json
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from alula.commands.console import OUT, Result, print_results, progress
from alula.commands.evaluate import as_result, score, show
from alula.commands.inputs import create_run, expert_factory, open_demonstrations
from alula.configs.compose import choice, words_of
from alula.configs.schemas import DemoConfig
from alula.datasets.store import EpisodeStore
from alula.datasets.summary import summarize
from alula.policies.policy import Policy
from alula.policies.registry import make_policy
from alula.sims.registry import make_task, task_name
from alula.sims.task import Task
from alula.training.algorithms import prepare
from alula.training.collection import collect
from alula.training.evaluation import Evaluation, compare
from alula.training.loop import Interrupted, Progress
from alula.training.pipeline import clone, describe_task, finetune
from alula.training.provenance import commit, machine, versions
from alula.training.report import write_report
from alula.training.run import Run
from alula.training.seeds import DEMONSTRATIONS, first_seed
from alula.training.videos import require_pictures, write_films


def run(config: DemoConfig, as_json: bool) -> None:
    """Do all stages in one folder; finished stages are not repeated when resumed."""
    name, algorithm = task_name(config.task), choice("algorithm", config.algorithm)
    folder = Path(config.run or f"runs/demo-{name}-{algorithm}-{config.seed}")
    task = make_task(config.task)
    if config.evaluation.videos:
        require_pictures(task)
    prepare(config.algorithm, make_policy(config.policy, task.observation, task.action), config.seed)
    with create_run(folder, config, describe_task(config.task), config.resume) as whole:
        scores, minutes = _stages(config, task, whole)
    page = write_report(folder)
    _say(scores, minutes, page)
    if as_json:
        print_results("demo", _results(scores, minutes["total"]))


def _stages(config: DemoConfig, task: Task, whole: Run) -> tuple[dict[str, Evaluation], dict[str, float]]:
    """Everything but the report; scores by policy and minutes by stage."""
    spent = whole.folder / "minutes.json"  # What earlier sessions of a resumed demo took counts as well.
    minutes: dict[str, float] = json.loads(spent.read_text()) if spent.exists() else {}

    def book(stage: str, start: float) -> None:
        minutes[stage] = minutes.get(stage, 0.0) + (time.monotonic() - start) / 60
        whole.write_json("minutes", minutes)

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        start = time.monotonic()
        try:
            result = work()
        except (Interrupted, KeyboardInterrupt):
            book(stage, start)
            raise
        book(stage, start)
        return result

    store = timed("collect", lambda: _demonstrations(config, task, whole.folder))
    cloned, finetuned = _learn(config, task, store, whole.folder, timed)
    scores = timed("evaluate", lambda: _evaluate(config, task, cloned, finetuned, whole))
    minutes = {**minutes, "total": sum(minutes.values())}
    whole.write_json("summary", _summary(config, store, minutes))
    return scores, minutes


def _demonstrations(config: DemoConfig, task: Task, folder: Path) -> EpisodeStore:
    """Recorded ones, or the expert's."""
    if config.data is not None:
        return open_demonstrations(Path(config.data), task, folder)
    path = folder / "demonstrations.zarr"
    if path.exists() and EpisodeStore.open(path).num_episodes == config.episodes:
        return EpisodeStore.open(path)
    make_expert = expert_factory(task, config.expert_noise, config.seed)
    metadata = {"task": describe_task(config.task), "source": "expert", "expert_noise": config.expert_noise}
    # What an interrupted demo left incomplete is collected anew: it takes seconds.
    store = EpisodeStore.create(path, task.observation, task.action, metadata, overwrite=True)
    with progress("collect") as report:
        collect(
            task,
            make_expert,
            store,
            config.episodes,
            first_seed(DEMONSTRATIONS, config.seed),
            only_success=True,
            report=lambda done, total: report(done, total, {}),
        )
    return store


def _learn(
    config: DemoConfig, task: Task, store: EpisodeStore, folder: Path, timed: Callable[[str, Callable[[], Any]], Any]
) -> tuple[Policy, Policy]:
    """Cloned and fine-tuned policy."""

    def stage(name: str, title: str, work: Callable[[Run, Progress], Policy]) -> Policy:
        about = describe_task(config.task)
        with create_run(folder / name, config, about, config.resume) as inner, progress(title) as report:
            return work(inner, report)

    def cloning(run: Run, report: Progress) -> Policy:
        return clone(store, config.policy, config.cloning, config.seed, run, report)

    def finetuning(run: Run, report: Progress) -> Policy:
        return finetune(cloned, task, config.algorithm, config.seed, config.evaluation.stochastic, run, report)

    cloned = timed("clone", lambda: stage("cloning", "clone", cloning))
    return cloned, timed("finetune", lambda: stage("finetuning", "fine-tune", finetuning))


def _evaluate(config: DemoConfig, task: Task, cloned: Policy, finetuned: Policy, whole: Run) -> dict[str, Evaluation]:
    """Both policies on the same fresh seeds, with videos."""
    scores = {}
    for name, policy in (("cloned", cloned), ("finetuned", finetuned)):
        scores[name] = score(policy, task, config.evaluation)
        whole.write_json(f"evaluation/{name}", scores[name].to_dict())
        if config.evaluation.videos:
            write_films(task, scores[name].filmed, whole.folder / "videos", name, config.evaluation.videos)
    whole.write_json("evaluation/comparison", asdict(compare(scores["cloned"], scores["finetuned"])))
    return scores


def _summary(config: DemoConfig, store: EpisodeStore, minutes: dict[str, float]) -> dict[str, Any]:
    """What the report tells besides numbers that other files hold."""
    name = task_name(config.task)
    policy, algorithm = choice("policy", config.policy), choice("algorithm", config.algorithm)
    about = summarize(store)
    words = words_of("demo", replace(config, run=None, resume=False))
    source = config.data or f"scripted expert, imperfection {config.expert_noise}"
    return {
        "title": f"{name}: {policy} policy, cloned and fine-tuned by {algorithm}",
        "task": (type(config.task).__doc__ or "").strip(),
        "story": [
            f"{about['episodes']} demonstrations with {about['steps']} steps came from: {source}.",
            f"A {policy} policy was cloned from them in {config.cloning.steps:,} gradient steps; "
            "the moving average of its weights is kept.",
            f"{algorithm} fine-tuned it for {config.algorithm.total_steps:,} environment steps; "
            "the last checkpoint counts.",
            f"Both were then run on the same {config.evaluation.episodes} episodes with seeds from "
            f"{config.evaluation.first_seed:,}, which nothing before had seen.",
        ],
        "seed": config.seed,
        "machine": machine(),
        "commit": commit(),
        "versions": versions(),
        "commands": ["alula demo " + " ".join(shlex.quote(word) for word in words)],
        "minutes": minutes,
        "dataset": {
            "episodes": about["episodes"],
            "steps": about["steps"],
            "success_rate": about["success_rate"],
            "source": source,
        },
    }


def _say(scores: dict[str, Evaluation], minutes: dict[str, float], page: Path) -> None:
    for name, result in scores.items():
        show(name, result)
    OUT.print("minutes    " + "  ".join(f"{stage} {value:.2f}" for stage, value in minutes.items()))
    OUT.print(f"report     {page}")


def _results(scores: dict[str, Evaluation], minutes: float) -> list[Result]:
    return [
        as_result("bc_success", scores["cloned"]),
        as_result("finetuned_success", scores["finetuned"]),
        Result("minutes", minutes, "min"),
    ]

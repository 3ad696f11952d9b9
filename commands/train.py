"""`alula train`: behaviour cloning of any policy on any dataset."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from alula.commands.console import OUT, Result, print_results, progress
from alula.commands.inputs import create_run, required
from alula.configs.compose import choice, words_of
from alula.configs.schemas import TrainConfig
from alula.core.errors import DatasetError
from alula.datasets.commits import EPISODES_FILE
from alula.datasets.store import EpisodeStore
from alula.training.checkpoint import weights_hash
from alula.training.pipeline import clone
from alula.training.provenance import commit, machine, versions
from alula.training.report import write_report
from alula.training.run import read_metrics


def run(config: TrainConfig, as_json: bool) -> None:
    """Train to the end; the last checkpoint counts."""
    store = _open(required(config.data, "data", "demonstrations.zarr"))
    name = f"train-{Path(config.data).stem}-{choice('policy', config.policy)}-{config.seed}"
    folder = Path(config.run or f"runs/{name}")
    task = store.metadata.get("task")
    # A recording of others names its task in a word, or not at all; one of a device says which device that was.
    task = task if task and isinstance(task, dict) else _recorded_on(store)
    options: dict[str, Any] = {"fields": config.fields, "held_out": config.held_out}
    with create_run(folder, config, task, config.resume) as run, progress("clone") as report:
        clone(store, config.policy, config.cloning, config.seed, run, report, **options)
        run.write_json("summary", _summary(config, store))
    page = write_report(folder)
    loss = read_metrics(folder)[-1]["cloning/loss"]
    OUT.print(f"checkpoint {folder}  sha256 {weights_hash(folder)}  loss {loss:.4f}")
    results = [Result("cloning_loss", loss, "1"), *(_held_out(folder) if config.held_out else [])]
    OUT.print(f"report {page}")
    if as_json:
        print_results("train", results)


def _open(path: Path) -> EpisodeStore:
    """The dataset; a recording in another format is refused with the way to make it one."""
    if path.exists() and not (path / EPISODES_FILE).is_file():
        raise DatasetError(
            f"'{path}' is not an alula dataset. Convert it first: alula convert {path} demonstrations.zarr"
        )
    return EpisodeStore.open(path)


def _recorded_on(store: EpisodeStore) -> dict[str, Any]:
    """For checkpoints of policies without a task: the device, which is the only one that they can be run on."""
    device = store.metadata.get("device")
    return {"device": device} if isinstance(device, str) else {}


def _held_out(folder: Path) -> list[Result]:
    """Say how well the actions of held-out episodes are foretold."""
    found = json.loads((folder / "evaluation/held_out.json").read_text())
    episodes = len(found["episodes"])
    OUT.print(
        f"held-out   {found['error']:.3f} standard deviations of action error on {episodes} episodes with "
        f"{found['steps']} steps; the mean action's is {found['baseline']:.3f}"
    )
    values = {"held_out_error": found["error"], "held_out_baseline": found["baseline"]}
    return [Result(name, value, "std", runs=episodes) for name, value in values.items()]


def _summary(config: TrainConfig, store: EpisodeStore) -> dict[str, Any]:
    """What the report tells besides numbers that other files hold."""
    policy = choice("policy", config.policy)
    words = words_of("train", replace(config, run=None, resume=False))
    return {
        "title": f"{Path(config.data).stem}: {policy} policy, cloned",
        "story": [
            f"{store.num_episodes} demonstrations with {store.num_steps:,} steps came from: {config.data}.",
            f"A {policy} policy was cloned in {config.cloning.steps:,} gradient steps of {config.cloning.batch_size} "
            "windows; the moving average of its weights is kept.",
        ],
        "seed": config.seed,
        "machine": machine(),
        "commit": commit(),
        "versions": versions(),
        "commands": ["alula train " + " ".join(shlex.quote(word) for word in words)],
    }

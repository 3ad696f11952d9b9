"""`alula train`: behaviour cloning of any policy."""

from pathlib import Path

from alula.commands.console import OUT, Result, print_results, progress
from alula.commands.inputs import create_run, required
from alula.configs.compose import choice
from alula.configs.schemas import TrainConfig
from alula.datasets.store import EpisodeStore
from alula.training.checkpoint import weights_hash
from alula.training.pipeline import clone
from alula.training.report import write_report
from alula.training.run import read_metrics


def run(config: TrainConfig, as_json: bool) -> None:
    """Train to the end; the last checkpoint counts."""
    store = EpisodeStore.open(required(config.data, "data", "demonstrations.zarr"))
    name = f"train-{Path(config.data).stem}-{choice('policy', config.policy)}-{config.seed}"
    folder = Path(config.run or f"runs/{name}")
    task = store.metadata.get("task", {})
    with create_run(folder, config, task, config.resume) as run, progress("clone") as report:
        clone(store, config.policy, config.cloning, config.seed, run, report)
    page = write_report(folder)
    loss = read_metrics(folder)[-1]["cloning/loss"]
    OUT.print(f"checkpoint {folder}  sha256 {weights_hash(folder)}  loss {loss:.4f}")
    OUT.print(f"report {page}")
    if as_json:
        print_results("train", [Result("cloning_loss", loss, "1")])

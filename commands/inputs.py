"""What commands take in: datasets, experts, run folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from alula.configs.compose import plain
from alula.core.errors import ConfigError, DatasetError
from alula.datasets.conversion import Conversion
from alula.datasets.formats.native import Native
from alula.datasets.formats.npz import Npz
from alula.datasets.store import EpisodeStore
from alula.sims.task import Task
from alula.sims.vector import TaskVectorEnv
from alula.training.rollouts import ExpertActor
from alula.training.run import Run


def required(value: str, name: str, example: str) -> Path:
    """Path of a setting that has no default.

    Raises:
        ConfigError: it was not given.
    """
    if not value:
        raise ConfigError(f"{name} is missing; give for example {name}={example}")
    return Path(value).expanduser()


def create_run(folder: Path, config: Any, task: dict[str, Any], resume: bool) -> Run:
    """Run folder of a command's configuration, which is stored but for the wish to resume."""
    settings = plain(config)
    settings.pop("resume")
    return Run(folder, settings, task, resume)


def expert_factory(task: Task, noise: float, seed: int) -> Callable[[TaskVectorEnv], ExpertActor]:
    """Scripted experts for batches of environments."""
    expert = task.expert(noise, seed)
    return lambda environments: ExpertActor(expert, environments)


def open_demonstrations(path: Path, task: Task, folder: Path) -> EpisodeStore:
    """A dataset whose spaces are the task's; an npz is imported into `folder` first.

    Raises:
        DatasetError: nothing is there.
        SpecError: it was recorded in other spaces.
    """
    if not path.exists():
        raise DatasetError(f"no dataset at '{path}'; give a .zarr folder or a .npz file")
    if path.suffix == ".npz":
        imported = folder / f"{path.stem}.zarr"
        if not imported.exists():
            with Npz((task.observation, task.action)).open(path) as reader:
                Conversion(path, imported, reader, Native()).run()
        path = imported
    store = EpisodeStore.open(path)
    remedy = "Choose the task that the data was recorded on"
    store.observation.require(task.observation, "the dataset", "the task", remedy)
    store.action.require(task.action, "the dataset", "the task", remedy)
    return store

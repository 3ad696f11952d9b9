"""All tasks: the name on the command line, its configuration, and how to build it."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from alula.core.errors import ConfigError
from alula.sims.tasks.adroit_door.config import AdroitDoorConfig
from alula.sims.tasks.peg_insertion.config import PegInsertionConfig


@runtime_checkable
class TaskConfig(Protocol):
    """Configuration of any task: a dataclass with at least a time limit."""

    max_episode_steps: int


@dataclass(frozen=True)
class TaskEntry:
    """One line of the table."""

    config: type[Any]
    gymnasium_id: str


TASKS = {
    "peg_insertion": TaskEntry(PegInsertionConfig, "alula/PegInsertion-v0"),
    "adroit_door": TaskEntry(AdroitDoorConfig, "alula/AdroitDoor-v0"),
}


def make_task(config: Any) -> Any:
    """Build the task of a configuration; models load only now, so that `--help` stays quick."""
    match config:
        case PegInsertionConfig():
            from alula.sims.tasks.peg_insertion.task import PegInsertion

            return PegInsertion(config)
        case AdroitDoorConfig():
            from alula.sims.tasks.adroit_door.task import AdroitDoor

            return AdroitDoor(config)
        case _:
            raise ConfigError(f"no task has the configuration {type(config).__name__}")


def task_name(config: Any) -> str:
    """Name in the table of a configuration."""
    return next(name for name, entry in TASKS.items() if entry.config is type(config))

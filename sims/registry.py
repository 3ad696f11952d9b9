"""All tasks: the name on the command line, its configuration, and how to build it."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

from alula.core.errors import ConfigError
from alula.sims.tasks.adroit_door.config import AdroitDoorConfig
from alula.sims.tasks.peg_insertion.config import PegInsertionConfig
from alula.sims.tasks.tabletop.config import LiftConfig


@runtime_checkable
class TaskConfig(Protocol):
    """Configuration of any task: a dataclass with at least a time limit."""

    max_episode_steps: int


@dataclass(frozen=True)
class TaskEntry:
    """One line of the table."""

    config: type[Any]
    gymnasium_id: str
    task: str
    """Where the task's class is, as module:name below `alula.sims.tasks`; loaded when a task is made."""


TASKS = {
    "peg_insertion": TaskEntry(PegInsertionConfig, "alula/PegInsertion-v0", "peg_insertion.task:PegInsertion"),
    "lift": TaskEntry(LiftConfig, "alula/Lift-v0", "tabletop.lift:Lift"),
    "adroit_door": TaskEntry(AdroitDoorConfig, "alula/AdroitDoor-v0", "adroit_door.task:AdroitDoor"),
}


def make_task(config: Any) -> Any:
    """Build the task of a configuration; models load only now, so that `--help` stays quick.

    Raises:
        ConfigError: no task has such a configuration.
    """
    for entry in TASKS.values():
        if entry.config is type(config):
            module, name = entry.task.split(":")
            return getattr(import_module(f"alula.sims.tasks.{module}"), name)(config)
    raise ConfigError(f"no task has the configuration {type(config).__name__}")


def task_name(config: Any) -> str:
    """Name in the table of a configuration."""
    return next(name for name, entry in TASKS.items() if entry.config is type(config))

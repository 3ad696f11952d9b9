"""The tasks table, and Gymnasium's knowledge of it."""

import subprocess
import sys
from dataclasses import dataclass

import gymnasium
import pytest

import alula.sims
from alula.core.errors import ConfigError
from alula.sims.registration import register_envs
from alula.sims.registry import TASKS, TaskConfig, make_task, task_name


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_line_has_a_configuration_and_an_id(name: str) -> None:
    """The default configuration is valid, leads back to its name and has a time limit; Gymnasium knows the id."""
    config = TASKS[name].config()
    assert task_name(config) == name
    assert isinstance(config, TaskConfig)
    assert config.max_episode_steps > 0
    assert TASKS[name].gymnasium_id in gymnasium.registry


def test_names_and_ids_are_unique() -> None:
    """Two lines never share an id or a configuration."""
    assert len({entry.gymnasium_id for entry in TASKS.values()}) == len(TASKS)
    assert len({entry.config for entry in TASKS.values()}) == len(TASKS)


def test_registering_twice_changes_nothing() -> None:
    """Gymnasium warns of overwritten ids; a second import must not make it."""
    before = dict(gymnasium.registry)
    register_envs()
    assert dict(gymnasium.registry) == before
    assert alula.sims.__doc__


def test_a_foreign_configuration_is_refused() -> None:
    """By the name of its type."""

    @dataclass
    class Juggling:
        max_episode_steps: int = 1

    with pytest.raises(ConfigError, match="no task has the configuration Juggling"):
        make_task(Juggling())


def test_parameters_reach_the_configuration() -> None:
    """`gymnasium.make(id, clearance=...)` is checked as any configuration is."""
    with pytest.raises(ConfigError, match=r"task.clearance is 1.0 m; allowed are"):
        gymnasium.make("alula/PegInsertion-v0", clearance=1.0)


def test_importing_the_room_loads_no_physics() -> None:
    """`--help` and schemas import the table; MuJoCo and torch wait until an environment is made."""
    program = "import sys, alula.sims; print({'mujoco', 'torch', 'av'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

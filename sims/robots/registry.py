"""All arms by name."""

from alula.core.errors import ConfigError, unknown_name
from alula.sims.robots.panda.panda import PANDA
from alula.sims.robots.robot import Robot

ROBOTS = {robot.name: robot for robot in (PANDA,)}


def find_robot(name: str) -> Robot:
    """The arm of that name.

    Raises:
        ConfigError: there is none; the message lists the valid names.
    """
    if name not in ROBOTS:
        raise ConfigError(unknown_name("robot", name, ROBOTS))
    return ROBOTS[name]

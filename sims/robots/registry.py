"""All arms by name."""

from alula.core.errors import ConfigError, unknown_name
from alula.sims.robots.panda.panda import PANDA
from alula.sims.robots.robot import Robot
from alula.sims.robots.so101.so101 import SO101
from alula.sims.robots.ur5e.ur5e import UR5E
from alula.sims.robots.viperx.viperx import VIPERX

ROBOTS = {robot.name: robot for robot in (PANDA, SO101, UR5E, VIPERX)}


def find_robot(name: str) -> Robot:
    """The arm of that name.

    Raises:
        ConfigError: there is none; the message lists the valid names.
    """
    if name not in ROBOTS:
        raise ConfigError(unknown_name("robot", name, ROBOTS))
    return ROBOTS[name]

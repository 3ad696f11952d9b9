"""All tasks: the name on the command line, its configuration, and how to build it."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from alula.core.errors import ConfigError
from alula.sims.config import TaskConfig
from alula.sims.tasks.adroit_door.config import AdroitDoorConfig
from alula.sims.tasks.locomotion.config import AntConfig, HalfCheetahConfig, HopperConfig, Walker2dConfig
from alula.sims.tasks.peg_insertion.config import PegInsertionConfig
from alula.sims.tasks.quadcopter.config import (
    FormationConfig,
    GatesConfig,
    HoverConfig,
    LandConfig,
    TrackConfig,
)
from alula.sims.tasks.suites.config import (
    FetchConfig,
    FrankaKitchenConfig,
    HoverGpdConfig,
    MetaWorldConfig,
    PushTGymConfig,
    RobosuiteConfig,
)
from alula.sims.tasks.tabletop.config import (
    BimanualTransferConfig,
    DoorOpenConfig,
    LiftConfig,
    NutAssemblyConfig,
    PickPlaceConfig,
    PushTConfig,
    ReachConfig,
    StackConfig,
    TabletopLanguageConfig,
)
from alula.sims.tasks.two_routes.config import TwoRoutesConfig


@dataclass(frozen=True)
class TaskEntry:
    """One line of the table."""

    config: type[TaskConfig]
    gymnasium_id: str
    task: str
    """Where the task's class is, as module:name below `alula.sims.tasks`; loaded when a task is made."""


TASKS = {
    "peg_insertion": TaskEntry(PegInsertionConfig, "alula/PegInsertion-v0", "peg_insertion.task:PegInsertion"),
    "reach": TaskEntry(ReachConfig, "alula/Reach-v0", "tabletop.reach:Reach"),
    "lift": TaskEntry(LiftConfig, "alula/Lift-v0", "tabletop.lift:Lift"),
    "pick_place": TaskEntry(PickPlaceConfig, "alula/PickPlace-v0", "tabletop.pick_place:PickPlace"),
    "stack": TaskEntry(StackConfig, "alula/Stack-v0", "tabletop.stack:Stack"),
    "nut_assembly": TaskEntry(NutAssemblyConfig, "alula/NutAssembly-v0", "tabletop.nut_assembly:NutAssembly"),
    "door_open": TaskEntry(DoorOpenConfig, "alula/DoorOpen-v0", "tabletop.door_open:DoorOpen"),
    "bimanual_transfer": TaskEntry(
        BimanualTransferConfig, "alula/BimanualTransfer-v0", "tabletop.bimanual_transfer:BimanualTransfer"
    ),
    "push_t": TaskEntry(PushTConfig, "alula/PushT-v0", "tabletop.push_t:PushT"),
    "two_routes": TaskEntry(TwoRoutesConfig, "alula/TwoRoutes-v0", "two_routes.task:TwoRoutes"),
    "tabletop_language": TaskEntry(
        TabletopLanguageConfig, "alula/TabletopLanguage-v0", "tabletop.tabletop_language:TabletopLanguage"
    ),
    "hover": TaskEntry(HoverConfig, "alula/Hover-v0", "quadcopter.hover:Hover"),
    "track": TaskEntry(TrackConfig, "alula/Track-v0", "quadcopter.track:Track"),
    "gates": TaskEntry(GatesConfig, "alula/Gates-v0", "quadcopter.gates:Gates"),
    "land": TaskEntry(LandConfig, "alula/Land-v0", "quadcopter.land:Land"),
    "formation": TaskEntry(FormationConfig, "alula/Formation-v0", "quadcopter.formation:Formation"),
    "hopper": TaskEntry(HopperConfig, "alula/Hopper-v0", "locomotion.task:Hopper"),
    "walker2d": TaskEntry(Walker2dConfig, "alula/Walker2d-v0", "locomotion.task:Walker2d"),
    "half_cheetah": TaskEntry(HalfCheetahConfig, "alula/HalfCheetah-v0", "locomotion.task:HalfCheetah"),
    "ant": TaskEntry(AntConfig, "alula/Ant-v0", "locomotion.task:Ant"),
    "adroit_door": TaskEntry(AdroitDoorConfig, "alula/AdroitDoor-v0", "adroit_door.task:AdroitDoor"),
    "fetch": TaskEntry(FetchConfig, "alula/Fetch-v0", "suites.gymnasium_robotics:Fetch"),
    "franka_kitchen": TaskEntry(
        FrankaKitchenConfig, "alula/FrankaKitchen-v0", "suites.gymnasium_robotics:FrankaKitchen"
    ),
    "metaworld": TaskEntry(MetaWorldConfig, "alula/MetaWorld-v0", "suites.metaworld:MetaWorld"),
    "push_t_gym": TaskEntry(PushTGymConfig, "alula/PushTGym-v0", "suites.pusht:PushTGym"),
    "robosuite": TaskEntry(RobosuiteConfig, "alula/Robosuite-v0", "suites.robosuite:Robosuite"),
    "hover_gpd": TaskEntry(HoverGpdConfig, "alula/HoverGpd-v0", "suites.gym_pybullet_drones:HoverGpd"),
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

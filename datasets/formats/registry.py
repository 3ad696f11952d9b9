"""All dataset formats: the name on the command line, and where the format is."""

from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from typing import Any

from alula.core.errors import ConfigError, DatasetError, unknown_name
from alula.datasets.formats.format import Format


@dataclass(frozen=True)
class FormatEntry:
    """One line of the table."""

    format: str
    """Where its class is, as module:name below `alula.datasets.formats`; loaded when it is needed."""
    summary: str
    """What it is, on one line."""


FORMATS: dict[str, FormatEntry] = {
    "zarr": FormatEntry("native:Native", "alula's own store"),
    "npz": FormatEntry("npz:Npz", "NumPy archive: observation, action, reward, episode_ends; read only"),
    "robomimic": FormatEntry("robomimic:Robomimic", "robomimic HDF5"),
    "d4rl": FormatEntry("d4rl:D4rl", "D4RL-style HDF5: flat arrays with terminals and timeouts"),
    "minari": FormatEntry("minari:Minari", "Minari dataset folder (HDF5)"),
    "dppo": FormatEntry("dppo:Dppo", "DPPO's train.npz beside its normalization.npz"),
    "aloha": FormatEntry("aloha:Aloha", "ACT/ALOHA HDF5 episodes; read only"),
    "lerobot3": FormatEntry("lerobot3:LeRobot3", "LeRobotDataset 3.0"),
    "lerobot21": FormatEntry("lerobot21:LeRobot21", "LeRobotDataset 2.1 (reads 2.0 too)"),
    "dp_zarr": FormatEntry("dp_zarr:DiffusionPolicyZarr", "diffusion_policy replay buffer (zarr 2 layout)"),
    "rlds": FormatEntry("rlds:Rlds", "RLDS/TFDS folder of TFRecords, without TensorFlow"),
    "ulog": FormatEntry("ulog:ULog", "PX4 flight log; read only"),
    "mcap": FormatEntry("mcap:Mcap", "MCAP recording (ROS 2); read only"),
}


def get_format(name: str, **options: Any) -> Format:
    """The format of that name.

    Args:
        name: In the table.
        options: The format's own settings; those that are None keep their defaults.

    Raises:
        DatasetError: there is none; the message lists the valid names.
        ConfigError: the format has no such setting.
    """
    if name not in FORMATS:
        raise DatasetError(unknown_name("dataset format", name, FORMATS))
    module, class_name = FORMATS[name].format.split(":")
    chosen = getattr(import_module(f"alula.datasets.formats.{module}"), class_name)
    given = {key: value for key, value in options.items() if value is not None}
    known = [field.name for field in fields(chosen)] if is_dataclass(chosen) else []
    for key in given:
        if key not in known:
            raise ConfigError(
                f"format '{name}' has no setting '{key}'; it has {', '.join(known) or 'none'}: leave it out"
            )
    return chosen(**given)

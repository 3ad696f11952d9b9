"""From words on the command line to a typed configuration: Hydra composes, dataclasses type and check."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from functools import cache
from importlib.resources import files
from typing import Any, get_type_hints

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alula.configs.schemas import COMMANDS, POSITIONAL
from alula.core.errors import ConfigError, unknown_name
from alula.policies.config import DiffusionPolicyConfig
from alula.policies.registry import POLICIES
from alula.real_robot.devices.config import ServoArmConfig
from alula.real_robot.devices.registry import DEVICES
from alula.sims.registry import TASKS
from alula.training.config import ALGORITHMS

GROUPS: dict[str, dict[str, type[Any]]] = {
    "task": {name: entry.config for name, entry in TASKS.items()},
    "policy": dict(POLICIES),
    "algorithm": dict(ALGORITHMS),
    "device": {name: entry.config for name, entry in DEVICES.items()},
    "leader": {name: entry.config for name, entry in DEVICES.items() if issubclass(entry.config, ServoArmConfig)},
}
"""Settings that are chosen by name and then have settings of their own."""

Node = Any
"""A `DictConfig`, in signatures: it derives from typing.MutableMapping, which beartype finds old-fashioned."""


def compose_config(command: str, words: Sequence[str]) -> Any:
    """Typed configuration of a command.

    Args:
        command: Name in `COMMANDS`.
        words: `key=value`, `group=name`, or bare words for the command's positional settings.

    Raises:
        ConfigError: a key, name or value is not permitted; the message lists what is.
    """
    overrides = _named(command, words)
    _store_schemas()
    GlobalHydra.instance().clear()
    with initialize_config_module("alula.configs.presets", version_base="1.3"):
        try:
            chosen = [word for word in overrides if word.split("=")[0] in GROUPS]
            for word in chosen:
                _check_choice(command, *word.split("=", 1))
            composed = compose(command, overrides=chosen)
            if chosen != overrides:
                checked = [word if word in chosen else _checked(composed, *word.split("=", 1)) for word in overrides]
                composed = compose(command, overrides=checked)
            return OmegaConf.to_object(composed)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(_readable(error)) from error


def choice(group: str, config: Any) -> str:
    """Name of a group's chosen configuration."""
    return next(name for name, schema in GROUPS[group].items() if schema is type(config))


def plain(config: Any) -> dict[str, Any]:
    """Plain values of a command's configuration, with the names of its choices; for config.yaml."""
    values = asdict(config)
    for group in GROUPS:
        if values.get(group) is not None:
            values[group] = {"name": choice(group, getattr(config, group)), **values[group]}
    return values


def words_of(command: str, config: Any) -> list[str]:
    """The fewest words that compose `config` again: its choices, and every setting that is not their default."""
    values = plain(config)
    words = [f"{group}={values[group]['name']}" for group in GROUPS if values.get(group) is not None]
    usual, present = (OmegaConf.create(plain(some)) for some in (compose_config(command, words), config))
    for key in sorted(set(_leaves(present, ""))):
        value = OmegaConf.select(present, key)
        if value != OmegaConf.select(usual, key):
            words.append(f"{key}={_word(value)}")
    return words


def _word(value: Any) -> str:
    if isinstance(value, ListConfig):
        return f"[{','.join(_word(entry) for entry in value)}]"
    return "null" if value is None else str(value)


def _leaves(node: Node, prefix: str) -> Iterator[str]:
    for key in node:
        value = node[key]
        if isinstance(value, DictConfig):
            yield from _leaves(value, f"{prefix}{key!s}.")
        else:
            yield f"{prefix}{key!s}"


def _named(command: str, words: Sequence[str]) -> list[str]:
    """Every word as `key=value`."""
    positional = list(POSITIONAL.get(command, ()))
    overrides = []
    for word in words:
        if "=" in word:
            overrides.append(word)
        elif positional:
            overrides.append(f"{positional.pop(0)}={word}")
        else:
            raise ConfigError(f"'{word}' is not a setting; settings have the form key=value, see --help")
    return overrides


@cache
def _store_schemas() -> None:
    """Tell Hydra of every schema; once is enough."""
    store = ConfigStore.instance()
    for command, schema in COMMANDS.items():
        store.store(name=f"{command}_schema", node=schema)
    for group, choices in GROUPS.items():
        for name, config in choices.items():
            store.store(group=group, name=name, node=config)
    own = {entry.name for entry in files("alula.configs.presets").joinpath("policy").iterdir()}
    for name in (f"for_{task}" for task in TASKS):
        if f"{name}.yaml" not in own:
            store.store(group="policy", name=name, node=DiffusionPolicyConfig)


def _check_choice(command: str, group: str, name: str) -> None:
    settings = [field.name for field in fields(COMMANDS[command])]
    if group not in settings:
        raise ConfigError(unknown_name("setting", group, settings))
    if name not in GROUPS[group]:
        raise ConfigError(unknown_name(group, name, GROUPS[group]))


def _checked(config: Node, path: str, value: str) -> str:
    """The word that Hydra is told; what is a text is one as it stands, whatever Hydra's grammar would make of it."""
    _check_key(config, path)
    parent, _, key = path.rpartition(".")
    schema = OmegaConf.get_type(OmegaConf.select(config, parent) if parent else config)
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if get_type_hints(schema).get(key) in (str, str | None) and value != "null" and not quoted:
        escaped = re.sub(r"(\\*)('|$)", lambda match: 2 * match[1] + ("\\'" if match[2] else ""), value)
        return f"{path}='{escaped}'"
    try:
        read = OverridesParser.create().parse_override(f"{path}={value}").value()
    except HydraException as error:
        raise ConfigError(f"'{value}' cannot be read as a value of {path}: {_readable(error)}") from error
    if isinstance(read, list) and any(isinstance(entry, list | dict) for entry in read):
        raise ConfigError(f"{path} is {value}; allowed is a list of single values, like [a,b]")
    return f"{path}={value}"


def _check_key(config: Node, path: str) -> None:
    """Require that every part of a dotted key exists."""
    node: Any = config
    parts = path.split(".")
    for depth, part in enumerate(parts):
        if node is None:
            group = ".".join(parts[:depth])
            raise ConfigError(f"'{path}' needs a choice first: {group}=NAME with one of {', '.join(GROUPS[group])}")
        if not isinstance(node, DictConfig):
            raise ConfigError(f"'{'.'.join(parts[:depth])}' is a single value and has no setting '{part}'")
        if part not in node:
            prefix = "".join(f"{name}." for name in parts[:depth])
            raise ConfigError(unknown_name("setting", path, [f"{prefix}{key!s}" for key in node]))
        node = node[part]


def _readable(error: Exception) -> str:
    """The innermost reason, on one line."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next((line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")), "")
    return f"{key}: {lines[0]}" if key else lines[0]

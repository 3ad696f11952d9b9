"""Help texts, read from the configurations' own docstrings."""

import ast
import inspect
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import OmegaConf

from alula.configs.compose import GROUPS, compose_config
from alula.configs.schemas import COMMANDS


def overview() -> str:
    """All commands, a line each."""
    lines = ["alula COMMAND [group=name] [key=value ...] [--json] [--debug]", ""]
    lines += [f"  {name:<10}{_summary(schema)}" for name, schema in COMMANDS.items()]
    return "\n".join([*lines, "", "alula COMMAND --help lists the settings of a command."])


def command_usage(command: str, words: list[str]) -> str:
    """All settings of a command with their defaults, as chosen so far by `words`."""
    config = compose_config(command, words)
    lines = [f"alula {command}: {_summary(COMMANDS[command])}", ""]
    return "\n".join(lines + _settings(config, ""))


def _settings(config: Any, prefix: str) -> list[str]:
    lines = []
    documentation = _attribute_docs(type(config))
    for field in fields(config):
        value, name = getattr(config, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            choices = GROUPS.get(name)
            chosen = next((key for key, schema in choices.items() if schema is type(value)), "") if choices else ""
            about = f"  one of {', '.join(choices)}" if choices else ""
            lines += [f"  {name}={chosen}{about}" if chosen else f"  {name}:", *_settings(value, f"{name}.")]
        else:
            shown = "null" if value is None else OmegaConf.to_yaml({"v": value}).strip().removeprefix("v:").strip()
            choices = GROUPS.get(name)
            about = f"One of {', '.join(choices)}. " if choices else ""
            lines.append(f"  {f'{name}={shown}':<40} {about}{documentation.get(field.name, '')}".rstrip())
    return lines


def _summary(schema: type[Any]) -> str:
    return (inspect.getdoc(schema) or "").splitlines()[0]


def _attribute_docs(schema: type[Any]) -> dict[str, str]:
    """First line of the docstring below each field, bases included."""
    found: dict[str, str] = {}
    for owner in reversed([base for base in schema.__mro__ if is_dataclass(base)]):
        body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                found[field.target.id] = str(ast.literal_eval(text.value)).splitlines()[0]
    return found

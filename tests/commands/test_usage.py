"""Help texts: every setting, its default, and what it means."""

import re
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from alula.commands.main import main
from alula.configs.compose import GROUPS, compose_config
from alula.configs.schemas import COMMANDS

CHOICES = [(group, name) for group, names in GROUPS.items() for name in names]


def leaves(config: Any, prefix: str = "") -> list[str]:
    """Dotted names of all single values of a configuration."""
    found = []
    for field in fields(config):
        value = getattr(config, field.name)
        found += leaves(value, f"{prefix}{field.name}.") if is_dataclass(value) else [f"{prefix}{field.name}"]
    return found


def help_of(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, tuple[str, str]]:
    """Default and meaning of each setting that the help shows."""
    assert main([*words, "--help"]) == 0
    shown = {}
    for line in capsys.readouterr().out.splitlines():
        match = re.fullmatch(r"  ([\w.]+)=(\S*)\s*(.*)", line)
        if match:
            shown[match[1]] = (match[2], match[3])
    return shown


def unexplained(shown: dict[str, tuple[str, str]]) -> list[str]:
    """Settings without a docstring."""
    return [name for name, (_, meaning) in shown.items() if not meaning]


def command_with(group: str) -> str:
    """A command that has such a setting."""
    return next(command for command, schema in COMMANDS.items() if group in {field.name for field in fields(schema)})


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_every_setting(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A setting that help omits cannot be found, and one without a word about it cannot be used."""
    shown = help_of(capsys, command)
    assert set(leaves(compose_config(command, []))) <= set(shown)
    assert not unexplained(shown)


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_help_follows_the_choices(group: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With a choice on the command line, help lists and explains that choice's own settings."""
    shown = help_of(capsys, command := command_with(group), f"{group}={name}")
    assert shown[group][0] == name
    assert set(GROUPS[group]) <= set(re.split(r"[ ,]+", shown[group][1]))
    assert set(leaves(compose_config(command, [f"{group}={name}"]))) <= set(shown)
    assert not unexplained(shown)


def test_help_gives_defaults_and_the_words_of_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    """Own, nested and inherited settings alike; with what was chosen on the same line already applied."""
    shown = help_of(capsys, "train", "cloning.batch_size=32")
    assert shown["cloning.batch_size"] == ("32", "Windows per gradient step.")
    assert shown["policy.horizon"] == ("8", "Steps predicted at once.")
    assert shown["run"][0] == "null"
    assert shown["run"][1].startswith("Folder of results")


def test_help_of_a_mistaken_setting_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Help about something that does not exist says so."""
    assert main(["demo", "task=nonsense", "--help"]) == 1
    assert "unknown task 'nonsense'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_without_a_command_all_commands_are_listed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, with what it does; on standard output, since it was asked for."""
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert not err
    for name in COMMANDS:
        (line,) = [line for line in out.splitlines() if line.split()[:1] == [name]]
        assert len(line.split()) > 2

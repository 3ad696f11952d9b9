"""Who may import whom: the table of rooms, read from the source and never executed."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ROOMS = {"core", "datasets", "sims", "policies", "real_robot", "training", "configs", "commands"}
ALLOWED = {
    "core": set[str](),
    "datasets": {"core"},
    "sims": {"core"},
    "policies": {"core"},
    "real_robot": {"core"},
    "training": {"core", "datasets", "sims", "policies"},
    "configs": {"core"},
    "commands": ROOMS,
}
# Emulators borrow the simulators' plants; nothing else of their room may.
EMULATORS = "real_robot/emulators/"
# Schemas come from the configuration modules of the other rooms, which import nothing heavy.
CONFIG_MODULES = {"config", "registry"}
# `import datasets` is Hugging Face's; every other bare room name is a second copy of our module.
BARE_NAMES = ROOMS - {"datasets"}


def imported_modules(source: str, module: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and dotted path of everything a module imports, inside functions and by `import_module` too.

    `from package import name` yields `package.name`, since `name` may be a module.
    """
    package = module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield node.lineno, tuple(alias.name.split("."))
            case ast.ImportFrom(module=base, names=names, level=level):
                start = package[: len(package) - level + 1] if level else []
                for alias in names:
                    yield node.lineno, (*start, *(base.split(".") if base else []), alias.name)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, tuple(name.split("."))


def complaints(source: str, path: str) -> list[str]:
    """One line per import that the room of `path` (relative to the root, with `/`) may not make."""
    room = path.split("/")[0]
    allowed = {room, *ALLOWED[room], *({"sims"} if path.startswith(EMULATORS) else ())}
    module = ".".join(("alula", *path.removesuffix(".py").split("/")))
    found = []
    for line, parts in imported_modules(source, module):
        name = ".".join(parts)
        if parts[0] in BARE_NAMES:
            found.append(f"{path}:{line} imports {name}, which must be written alula.{name}")
        elif parts[0] != "alula" or len(parts) < 2:
            continue
        elif parts[1] not in ROOMS:
            found.append(f"{path}:{line} imports {name}, which is no room of alula")
        elif parts[1] not in allowed and not (room == "configs" and CONFIG_MODULES & set(parts[2:])):
            found.append(f"{path}:{line} imports {name}, which {room}/ may not")
    return sorted(found)


def sources(room: str) -> list[Path]:
    """Python files of a room."""
    return sorted((ROOT / room).rglob("*.py"))


def test_every_room_has_a_rule() -> None:
    """A new folder needs a row in ALLOWED before it needs anything else."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert set(tool["package-dir"].values()) == set(ALLOWED) == ROOMS


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_rooms_import_only_what_they_may(room: str) -> None:
    found = [
        complaint
        for path in sources(room)
        for complaint in complaints(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
    ]
    assert not found, "\n".join(found)


def test_rooms_hold_code() -> None:
    """Otherwise the rule above would hold of nothing."""
    assert sources("core")
    assert sources("sims")


BAD_LINES = [
    ("core/bad.py", "import alula.sims", "core/bad.py:1 imports alula.sims, which core/ may not"),
    ("core/bad.py", "from alula import policies", "core/bad.py:1 imports alula.policies, which core/ may not"),
    (
        "policies/flow/policy.py",
        "import torch\n\ndef make():\n    from alula.sims.registry import TASKS\n",
        "policies/flow/policy.py:4 imports alula.sims.registry.TASKS, which policies/ may not",
    ),
    (
        "sims/bad.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from alula.datasets.store import Store\n",
        "sims/bad.py:3 imports alula.datasets.store.Store, which sims/ may not",
    ),
    (
        "datasets/convert/bad.py",
        "from ...policies import registry",
        "datasets/convert/bad.py:1 imports alula.policies.registry, which datasets/ may not",
    ),
    (
        "datasets/bad.py",
        "import importlib\nimportlib.import_module('alula.training.bc')",
        "datasets/bad.py:2 imports alula.training.bc, which datasets/ may not",
    ),
    (
        "training/bad.py",
        "from alula.commands.main import main",
        "training/bad.py:1 imports alula.commands.main.main, which training/ may not",
    ),
    (
        "configs/bad.py",
        "from alula.sims.engine import Engine",
        "configs/bad.py:1 imports alula.sims.engine.Engine, which configs/ may not",
    ),
    ("sims/bad.py", "import core.errors", "sims/bad.py:1 imports core.errors, which must be written alula.core.errors"),
    ("sims/bad.py", "import alula.tools", "sims/bad.py:1 imports alula.tools, which is no room of alula"),
]


@pytest.mark.parametrize(("path", "source", "complaint"), BAD_LINES)
def test_a_forbidden_import_is_named_with_its_line(path: str, source: str, complaint: str) -> None:
    assert complaints(source, path) == [complaint]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("core/good.py", "import numpy\nfrom alula.core.errors import AlulaError"),
        ("datasets/good.py", "import datasets\nfrom alula.core import spaces"),
        ("training/good.py", "import alula.sims.registry\nfrom alula.policies.registry import POLICIES"),
        ("configs/good.py", "from alula.sims.tasks.peg_insertion.config import PegInsertionConfig"),
        ("configs/good.py", "from alula.policies import registry"),
        ("commands/good.py", "from alula.configs.schema import Train\nimport alula.training.bc"),
        ("policies/flow/good.py", "from . import field\nfrom ..process import flow"),
    ],
)
def test_permitted_imports_pass(path: str, source: str) -> None:
    assert complaints(source, path) == []

"""What README.md promises can be done: its Python runs, its commands compose, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from alula.commands.main import main
from alula.configs.compose import compose_config
from alula.configs.schemas import COMMANDS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [line for language, code in BLOCKS if language != "python" for line in code.splitlines()]
CALLS = [shlex.split(line, comments=True) for line in SHELL if line.startswith("alula ") and "COMMAND" not in line]
TARGETS = re.findall(r"^(?:make) ([\w-]+)", "\n".join(SHELL), flags=re.MULTILINE)
LINKS = [link for link in re.findall(r"\]\(([^)\s]+)\)", TEXT) if "://" not in link]
CHECKPOINT = re.compile(r'"runs/[^"]+"')
SMALL = (
    *("cloning.steps=2", "cloning.batch_size=4", "policy.field.width=8", "policy.field.blocks=1"),
    *("task=peg_insertion", "task.max_episode_steps=8", "episodes=2", "only_success=false"),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy, trained for two steps."""
    folder = tmp_path_factory.mktemp("readme")
    data = f"{folder}/demonstrations.zarr"
    cloning = [word for word in SMALL if word.startswith(("cloning", "policy"))]
    assert main(["collect", f"out={data}", *(word for word in SMALL if word not in cloning)]) == 0
    assert main(["train", f"data={data}", f"run={folder}/cloned", *cloning]) == 0
    return folder / "cloned"


def test_the_readme_holds_what_these_tests_look_for() -> None:
    """Else they would pass on an empty page."""
    assert len(PYTHON) >= 2
    assert {call[1] for call in CALLS} >= set(COMMANDS) - {"report"}
    assert "demo" in TARGETS
    assert LINKS
    assert any(CHECKPOINT.search(code) for code in PYTHON)


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_runs(code: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any folder, as it stands; only the checkpoint of a finished demo is another one here."""
    monkeypatch.chdir(tmp_path)
    code = CHECKPOINT.sub(repr(str(checkpoint)), code)
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_commands_compose(call: list[str]) -> None:
    """Every command exists, and takes the words and flags that are shown."""
    _, command, *words = call
    flags = {word for word in words if word.startswith("-")}
    assert flags <= {"--json", "--help"}
    config = compose_config(command, [word for word in words if word not in flags])
    assert type(config) is COMMANDS[command]


@pytest.mark.parametrize("target", TARGETS)
def test_make_targets_exist(target: str) -> None:
    """What is to be made can be made."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


@pytest.mark.parametrize("link", LINKS)
def test_relative_links_lead_somewhere(link: str) -> None:
    """Pictures and pages of this repository; a fragment is the anchor of a heading there."""
    name, _, anchor = link.partition("#")
    path = ROOT / name if name else ROOT / "README.md"
    assert path.exists()
    if anchor:
        headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_file_that_is_named_exists() -> None:
    """Paths in backticks that begin with one of the rooms, such as `policies/transforms.py`."""
    named = {name for name in re.findall(r"`((?:\w+/)+[\w.]*)`", TEXT) if (ROOT / name.split("/")[0]).is_dir()}
    assert named
    assert not [name for name in named if not (ROOT / name).exists()]

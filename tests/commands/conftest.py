"""The command line in the test's own process, and one tiny dataset and checkpoint to start from."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from alula.commands.main import main

SHORT = ("task=peg_insertion", "task.max_episode_steps=12")
TINY_CLONING = (
    *("cloning.steps=230", "cloning.batch_size=16", "cloning.checkpoint_every=100", "cloning.warmup_steps=5"),
    *("policy.field.width=16", "policy.field.blocks=1"),
)


@dataclass
class Outcome:
    """What a user sees of one command."""

    status: int
    out: str
    err: str

    @property
    def report(self) -> Any:
        """The object on the last line of standard output."""
        return json.loads(self.out.splitlines()[-1])

    @property
    def error(self) -> str:
        """The one line of a failure, free of a traceback and of progress bars."""
        assert self.status == 1, f"status {self.status}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.err
        (line,) = [line for line in self.err.splitlines() if not re.search(r"\d:\d\d:\d\d left ", line)]
        assert line.startswith("error: ")
        return line


@pytest.fixture
def alula(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`alula(*words)`: run a command."""

    def call(*words: Any) -> Outcome:
        capsys.readouterr()
        status = main([str(word) for word in words])
        return Outcome(status, *capsys.readouterr())

    return call


@pytest.fixture
def tiny_cloning() -> tuple[str, ...]:
    """Words that make cloning take a second."""
    return TINY_CLONING


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with demonstrations.zarr (three episodes of twelve steps) and a run `cloned` from them; read only."""
    folder = tmp_path_factory.mktemp("made")
    data = f"{folder}/demonstrations.zarr"
    assert main(["collect", *SHORT, f"out={data}", "episodes=3", "only_success=false"]) == 0
    assert main(["train", f"data={data}", f"run={folder}/cloned", *TINY_CLONING]) == 0
    return folder


@pytest.fixture
def workplace(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `made` to spoil, which is the working directory."""
    folder = tmp_path / "workplace"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    return folder

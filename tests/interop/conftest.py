"""Other stacks' own code, in environments of their own that `make interop` installs."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RunTheirs = Callable[..., None]


@pytest.fixture
def their_python() -> Callable[[str], Path]:
    """`their_python(peer)`: the peer's interpreter; where there is none, the test is skipped."""

    def find(peer: str) -> Path:
        python = ROOT / ".peers" / peer / "bin" / "python"
        if not python.exists():
            pytest.skip(f"no {python.relative_to(ROOT)}; `make interop` installs it")
        return python

    return find


@pytest.fixture
def run_theirs(their_python: Callable[[str], Path]) -> RunTheirs:
    """`run_theirs(peer, script, *arguments)`: run a script of `theirs/` with the peer's interpreter."""

    def run(peer: str, script: str, *arguments: object) -> None:
        words = [str(their_python(peer)), str(Path(__file__).parent / "theirs" / script), *map(str, arguments)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{script} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"

    return run

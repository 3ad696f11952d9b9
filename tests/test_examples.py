"""Every script in examples/ runs, in small, from any folder, and says what it found."""

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
# Script, arguments, and what it prints at the end.
CASES = [
    ("evaluate_own_policy.py", ["--episodes", "4"], r"\d of 4 episodes succeeded"),
    ("evaluate_own_policy.py", ["--episodes", "2", "--random"], r"0 of 2 episodes succeeded"),
    ("train_from_python.py", ["results", "--episodes", "2", "--steps", "4"], r"success \d+ % \[\d+, \d+\]"),
]


@pytest.mark.parametrize(("script", "arguments", "ending"), CASES)
def test_an_example_runs(
    script: str,
    arguments: list[str],
    ending: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As its own program, with arguments that make it quick."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    assert re.fullmatch(ending, capsys.readouterr().out.splitlines()[-1])


def test_every_example_is_run_and_short() -> None:
    """At most sixty lines, with a docstring that says what it shows."""
    scripts = {path.name: path.read_text() for path in EXAMPLES.glob("*.py")}
    assert set(scripts) == {script for script, _, _ in CASES}
    for name, text in scripts.items():
        assert len(text.splitlines()) <= 60, name
        assert text.startswith('"""'), name
        assert "\ndef main() -> None:" in text, name

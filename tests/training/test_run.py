"""Run folders: what they keep, what resuming drops, and what they refuse."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from alula.core.errors import AlulaError, CheckpointError
from alula.policies.policy import GenerativePolicy
from alula.sims.task import Task
from alula.training.checkpoint import load_policy
from alula.training.run import Run, read_metrics, write_json

CONFIG = {"seed": 1, "algorithm": {"name": "x", "epochs": 2}}


@pytest.fixture
def policy(make_base: Callable[..., GenerativePolicy], line: Task) -> GenerativePolicy:
    """Something to save."""
    return make_base("gaussian", line)


def test_configuration_metrics_and_task_are_kept(tmp_path: Path, policy: GenerativePolicy) -> None:
    """In the order they came, readable without us."""
    run = Run(tmp_path / "run", CONFIG, {"name": "line"})
    run.log(10, 1.23456, {"loss": 0.5})
    run.log(20, 2.0, {"loss": 0.25, "success": 1.0})
    run.save(20, policy, {"progress": 20}, {"seconds": 2.0})
    run.close()
    assert yaml.safe_load((run.folder / "config.yaml").read_text()) == CONFIG
    assert read_metrics(run.folder) == [
        {"step": 10, "seconds": 1.235, "loss": 0.5},
        {"step": 20, "seconds": 2.0, "loss": 0.25, "success": 1.0},
    ]
    found = load_policy(run.folder)
    assert found.task == {"name": "line"}
    assert found.metadata == {"step": 20, "seconds": 2.0}


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    """Without resume an existing run is refused, with both remedies, and left as it is."""
    Run(tmp_path / "run", CONFIG, {}).close()
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    with pytest.raises(CheckpointError, match=r"already holds a run.*resume=true.*run="):
        Run(tmp_path / "run", {"seed": 2}, {})
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before


def test_another_configuration_is_not_resumed(tmp_path: Path) -> None:
    """The same one is."""
    Run(tmp_path / "run", CONFIG, {}).close()
    Run(tmp_path / "run", CONFIG, {}, resume=True).close()
    with pytest.raises(CheckpointError, match="differs from the present configuration"):
        Run(tmp_path / "run", CONFIG | {"seed": 2}, {}, resume=True)


def test_resuming_a_fresh_folder_starts_anew(tmp_path: Path) -> None:
    """There is nothing to restore; metrics of a run that never saved are dropped."""
    run = Run(tmp_path / "run", CONFIG, {}, resume=True)
    assert run.restore() is None
    run.log(10, 1.0, {"loss": 1.0})
    run.close()
    again = Run(tmp_path / "run", CONFIG, {}, resume=True)
    assert again.restore() is None
    assert not again.metrics_path.exists()
    again.close()


def test_resuming_drops_what_came_after_the_checkpoint(tmp_path: Path, policy: GenerativePolicy) -> None:
    """Later lines, and one that a kill cut short, are gone; the earlier ones are the same bytes."""
    run = Run(tmp_path / "run", CONFIG, {})
    for step in (10, 20, 30):
        run.log(step, 1.0, {"loss": 1 / step})
        if step == 20:
            run.save(step, policy, {"progress": step, "nested": {"empty": {}}}, {})
    kept = run.metrics_path.read_text().splitlines()[:2]
    with run.metrics_path.open("a") as file:
        file.write('{"step": 40, "sec')
    run.close()
    again = Run(tmp_path / "run", CONFIG, {}, resume=True)
    assert again.restore() == {"progress": 20, "nested": {"empty": {}}}
    assert again.metrics_path.read_text().splitlines() == kept
    again.log(30, 1.0, {"loss": 0.0})
    assert [line["step"] for line in read_metrics(run.folder)] == [10, 20, 30]
    again.close()


def test_the_last_two_checkpoints_are_kept(tmp_path: Path, policy: GenerativePolicy) -> None:
    """By number of steps, so that one broken file loses little."""
    run = Run(tmp_path / "run", CONFIG, {})
    for step in (5, 10, 90, 100):
        run.save(step, policy, {"progress": step}, {})
    assert {path.name for path in (run.folder / "checkpoints").iterdir()} == {"step_90", "step_100"}
    run.close()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """The error names it."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"cannot write to '.*file/run'"):
        Run(tmp_path / "file" / "run", CONFIG, {})


def test_json_is_written_into_new_folders(tmp_path: Path) -> None:
    """And where that is impossible, the error names the file."""
    path = write_json(tmp_path / "deep" / "er" / "values.json", {"a": [1, 2]})
    assert json.loads(path.read_text()) == {"a": [1, 2]}
    with pytest.raises(AlulaError, match=r"cannot write '.*values\.json/more\.json'"):
        write_json(path / "more.json", 1)


def test_a_folder_without_metrics_is_no_run(tmp_path: Path) -> None:
    """The message says what to give instead."""
    with pytest.raises(AlulaError, match=r"holds no metrics\.jsonl"):
        read_metrics(tmp_path)

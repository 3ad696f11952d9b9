"""A run folder: configuration, metrics, checkpoints; everything a report or a resumption needs."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch.utils.tensorboard import SummaryWriter

from alula.core.errors import AlulaError, CheckpointError
from alula.policies.policy import Policy
from alula.training.checkpoint import Tree, atomic_folder, find_checkpoint, load_state, save_policy, save_state


class Run:
    """One training run in one folder.

    As a context manager it leaves nothing of a run that failed before it wrote anything.

    Args:
        folder: Created if missing.
        config: What the run was asked to do, plain values for YAML.
        task: Name and parameters of the task, for the checkpoints.
        resume: Go on where the folder's last checkpoint stands.

    Raises:
        CheckpointError: the folder cannot be written, already holds a run and `resume` is off, or `resume` is on and
            the run there had another configuration.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], task: Mapping[str, Any], resume: bool = False) -> None:
        self.folder, self.task = folder, dict(task)
        settings = folder / "config.yaml"
        if settings.exists() and not resume:
            raise CheckpointError(
                f"'{folder}' already holds a run. Go on with resume=true, or choose another folder with run=..."
            )
        text = yaml.safe_dump(dict(config), sort_keys=False)
        if settings.exists() and settings.read_text() != text:
            raise CheckpointError(
                f"'{settings}' differs from the present configuration; resume with the same settings, or choose "
                "another folder with run=..."
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            settings.write_text(text)
            self._tensorboard = SummaryWriter(str(folder / "tensorboard"))
        except OSError as error:
            raise CheckpointError(
                f"cannot write to '{folder}' ({error.strerror or error}). Choose another folder with run=..."
            ) from error

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.close()
        if error is not None and {path.name for path in self.folder.iterdir()} <= {"config.yaml", "tensorboard"}:
            shutil.rmtree(self.folder)

    @property
    def metrics_path(self) -> Path:
        """One JSON object per line: `step`, `seconds` of training, and whatever was measured there."""
        return self.folder / "metrics.jsonl"

    def log(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Append measurements.

        Args:
            step: Gradient steps (cloning) or environment steps (RL).
            seconds: Training time so far, evaluation excluded.
            metrics: By name.
        """
        with self.metrics_path.open("a") as file:
            file.write(json.dumps({"step": step, "seconds": round(seconds, 3), **metrics}) + "\n")
        for name, value in metrics.items():
            self._tensorboard.add_scalar(name, value, step)

    def save(self, step: int, policy: Policy, state: Tree, metadata: Mapping[str, Any]) -> None:
        """Write a checkpoint; of the earlier ones only the policies are kept, and of those only the one before."""
        checkpoints = self.folder / "checkpoints"
        with atomic_folder(checkpoints / f"step_{step}") as partial:
            save_policy(partial, policy, self.task, {"step": step, **metadata})
            save_state(partial, state)
        for old in sorted(checkpoints.glob("step_*"), key=lambda folder: int(folder.name[5:]))[:-2]:
            shutil.rmtree(old)

    def restore(self) -> dict[str, Any] | None:
        """Training state of the last checkpoint, or None in a fresh folder; later metrics are dropped."""
        try:
            folder = find_checkpoint(self.folder)
        except CheckpointError:
            self.metrics_path.unlink(missing_ok=True)
            return None
        step = int(folder.name.removeprefix("step_"))
        lines = self.metrics_path.read_text().splitlines() if self.metrics_path.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        self.metrics_path.write_text("".join(f"{line}\n" for line in kept))
        return load_state(folder)

    def write_json(self, name: str, value: Any) -> Path:
        """Write `name`.json in the run folder."""
        return write_json(self.folder / f"{name}.json", value)

    def close(self) -> None:
        """Flush TensorBoard."""
        self._tensorboard.close()


def write_json(path: Path, value: Any) -> Path:
    """Write a JSON file, creating folders.

    Raises:
        AlulaError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=2) + "\n")
    except OSError as error:
        raise AlulaError(f"cannot write '{path}' ({error.strerror or error}); choose another folder") from error
    return path


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """All measurements of a run, in order.

    Raises:
        AlulaError: the folder holds none.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        raise AlulaError(f"'{folder}' holds no metrics.jsonl; give the folder of a run")
    return [json.loads(line) for line in path.read_text().splitlines()]

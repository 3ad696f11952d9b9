"""Peg insertion learned three ways, three training seeds each; prints a table whose rows name their commands.

    python benchmarks/foundation/run.py [FOLDER]

Every row is one `alula demo`: demonstrations, cloning, fine-tuning, and 200 fresh evaluation episodes. Minutes are
training time without evaluation. Results go to FOLDER (default runs/foundation) and, as JSON, to results.json there.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alula.training.provenance import commit, machine
from alula.training.run import read_metrics

SEEDS = (0, 1, 2)
FIRST_EVALUATION_SEED = 3_000_000
EXACT = ("task.offset_std=0", "task.offset_yaw_std=0")


@dataclass(frozen=True)
class Method:
    """One row of the table, and the bars it has to reach."""

    name: str
    settings: tuple[str, ...]
    minutes: float
    """Most fine-tuning minutes."""
    steps: int | None = None
    """Most environment steps."""


METHODS = (
    Method(
        "residual PPO, exact socket pose",
        (*EXACT, "algorithm=residual_ppo", "algorithm.total_steps=589_824"),
        2.0,
        600_000,
    ),
    Method("DPPO, exact socket pose", (*EXACT, "algorithm=dppo"), 5.0),
    Method("residual PPO, hidden 1 mm offset", ("algorithm=residual_ppo",), 3.0),
)
SUCCESS_BAR = 0.95
CLONING_BAR = 0.5
"""Minutes."""
DIP_BAR = 0.10
RATIO_BAR = 1e-5


@dataclass
class Row:
    """What one run reached."""

    method: str
    seed: int
    cloned: float
    finetuned: float
    low: float
    high: float
    cloning_minutes: float
    minutes: float
    steps: int
    largest_dip: float
    """How far an evaluation during training fell below the base."""
    ratio_error: float
    """Largest |joint ratio - 1| at the first minibatch of any iteration."""
    ok: bool
    command: str


def measure(method: Method, seed: int, folder: Path) -> Row:
    """Run one demo in a process of its own and read its files."""
    run = folder / f"{method.name.replace(', ', '-').replace(' ', '_')}-{seed}"
    words = [
        *method.settings,
        f"seed={seed}",
        f"evaluation.first_seed={FIRST_EVALUATION_SEED}",
        "evaluation.videos=0",
    ]
    command = [str(Path(sys.executable).with_name("alula")), "demo", *words, f"run={run}"]
    if not (run / "report.html").exists():
        subprocess.run([*command, *(["resume=true"] if run.exists() else [])], check=True)
    return read(method, seed, run, "alula demo " + " ".join(words))


def read(method: Method, seed: int, run: Path, command: str) -> Row:
    """Row of a finished run."""
    scores: dict[str, Any] = {
        name: json.loads((run / f"evaluation/{name}.json").read_text()) for name in ("cloned", "finetuned")
    }
    metrics = read_metrics(run / "finetuning")
    curve = [line["evaluation/success"] for line in metrics if "evaluation/success" in line]
    minutes, steps = metrics[-1]["seconds"] / 60, int(metrics[-1]["step"])
    cloning_minutes = read_metrics(run / "cloning")[-1]["seconds"] / 60
    dip = max(curve[0] - value for value in curve)
    ratio = max(line.get("actor/first_ratio_error", 0.0) for line in metrics)
    success = scores["finetuned"]["success_rate"]
    ok = (
        success >= SUCCESS_BAR
        and minutes <= method.minutes
        and (method.steps is None or steps <= method.steps)
        and cloning_minutes <= CLONING_BAR
        and dip <= DIP_BAR
        and ratio <= RATIO_BAR
    )
    return Row(
        method.name, seed, scores["cloned"]["success_rate"], success, scores["finetuned"]["low"],
        scores["finetuned"]["high"], cloning_minutes, minutes, steps, dip, ratio, ok, command,
    )  # fmt: skip


def markdown(rows: list[Row]) -> str:
    """The table."""
    lines = [
        "| method | seed | cloned | fine-tuned [95 %] | cloning min | RL min | env steps | dip | ratio error | ok |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.method} | {row.seed} | {row.cloned:.3f} | {row.finetuned:.3f} [{row.low:.3f}, {row.high:.3f}] "
        f"| {row.cloning_minutes:.2f} | {row.minutes:.2f} | {row.steps:,} | {row.largest_dip:.2f} "
        f"| {row.ratio_error:.0e} | {'yes' if row.ok else 'no'} |"
        for row in rows
    ]
    return "\n".join([*lines, "", *(f"- {row.method}, seed {row.seed}: `{row.command}`" for row in rows)])


def main() -> None:
    """All methods, all seeds."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/foundation")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [measure(method, seed, folder) for method in METHODS for seed in SEEDS]
    about = {"machine": machine(), "commit": commit(), "evaluation_episodes": 200}
    (folder / "results.json").write_text(json.dumps(about | {"rows": [asdict(row) for row in rows]}, indent=2) + "\n")
    print(f"{machine()}; commit {commit()}; 200 evaluation episodes from seed {FIRST_EVALUATION_SEED}\n")
    print(markdown(rows))


if __name__ == "__main__":
    main()

"""Policies on emulated robots against the same policies in plain simulation, from the first demonstration on.

    python benchmarks/deployment/run.py [--folder runs/deployment] [--episodes 20]

Every line of the table is one `alula deploy … emulate=true`: the real protocol between two processes, in real time, so
the machine should have nothing else to do. Scenes are those of the first seeds with which `alula evaluate` scores 200
episodes in simulation. Policies that are in the folder already are used again. Results go to results.json there.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ALULA = (sys.executable, "-P", "-m", "alula.commands.main")
FIRST_SEED = 1_000_000
SIMULATED = 200
VELOCITY = "task.action_mode=velocity"
POLICIES: dict[str, list[list[str]]] = {
    "hover": [
        ["collect", "task=hover", VELOCITY, "episodes=100", "out={data}"],
        ["train", "data={data}", "policy=gaussian", "run={run}"],
    ],
    "gates": [
        ["collect", "task=gates", VELOCITY, "episodes=200", "out={data}"],
        ["train", "data={data}", "policy=gaussian", "run={run}"],
    ],
    "peg": [["demo", "task=peg_insertion", "run={run}", "evaluation.videos=0"]],
    "lift": [["demo", "task=lift", "task.robot=so101", "run={run}", "evaluation.videos=0"]],
}
"""How each policy is made."""
FORCE = "device.force_threshold=250"
FLIGHTS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("peg", "finetuning", "ur5e", ()),
    ("peg", "finetuning", "franka", (FORCE,)),
    ("lift", "finetuning", "so101", ()),
    ("hover", "", "crazyflie", ()),
    ("gates", "", "crazyflie", ("device.fence=4",)),
    ("hover", "", "px4", ()),
    ("gates", "", "px4", ("device.fence=4",)),
    ("peg", "cloning", "ur5e", ("device.lookahead=0.03", "device.gain=2000")),
)
"""Policy, its stage, device, further words. PegInsertion presses harder than the Franka's usual threshold permits, and
without reinforcement learning it does not bear the UR5e's usual lag."""


def alula(*words: str) -> Any:
    """Run a command; the object on its last line, where there is one."""
    print("alula", *words, flush=True)
    done = subprocess.run([*ALULA, *words], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if "--json" in words else None


def result(report: Any, name: str) -> Any:
    """A result of that name."""
    return next(entry for entry in report["results"] if entry["name"] == name)


def made(name: str, folder: Path) -> Path:
    """The policy's run folder."""
    run = folder / name
    if not run.exists():
        for words in POLICIES[name]:
            alula(*(word.format(run=run, data=folder / f"{name}.zarr") for word in words))
    return run


def line(folder: Path, episodes: int, name: str, stage: str, device: str, words: tuple[str, ...]) -> dict[str, Any]:
    """One policy on one device."""
    checkpoint = made(name, folder) / stage
    # The peg's policies know nothing of the arm that holds them: plain simulation is that of the device's arm.
    task = ("task=peg_insertion", "task.robot=ur5e") if (name, device) == ("peg", "ur5e") else ()
    seeds = (f"evaluation.episodes={SIMULATED}", f"evaluation.first_seed={FIRST_SEED}")
    plain = alula("evaluate", f"checkpoint={checkpoint}", *task, *seeds, "evaluation.videos=0", "--json")
    out = folder / f"{name}-{stage}-{device}.zarr"
    settings = (f"device={device}", *words, "emulate=true", f"episodes={episodes}", f"first_seed={FIRST_SEED}")
    subprocess.run(["rm", "-rf", str(out)], check=True)
    deployed = alula("deploy", f"checkpoint={checkpoint}", *settings, f"out={out}", "--json")
    kept = ("value", "low", "high", "runs")
    return {
        "policy": f"{name} {stage}".strip(),
        "device": device,
        "simulated": {key: result(plain, "success")[key] for key in kept},
        "deployed": {key: result(deployed, "success")[key] for key in kept},
        "missed_percent": result(deployed, "missed_percent")["value"],
        "lateness_p99_ms": result(deployed, "lateness_p99_ms")["value"],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=Path("runs/deployment"))
    parser.add_argument("--episodes", type=int, default=20)
    settings = parser.parse_args()
    settings.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for flight in FLIGHTS:
        try:
            rows.append(line(settings.folder, settings.episodes, *flight))
        except subprocess.CalledProcessError:
            print(f"{flight} did not come to an end", file=sys.stderr)
        (settings.folder / "results.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    for row in rows:
        simulated, deployed = row["simulated"], row["deployed"]
        interval = f"[{deployed['low']:.2f}, {deployed['high']:.2f}]"
        scores = (
            f"simulated {simulated['value']:.2f}  deployed {deployed['value']:.2f} {interval}  n={deployed['runs']}"
        )
        print(f"{row['policy']:<16} {row['device']:<10} {scores}  missed {row['missed_percent']:.2f} %")


if __name__ == "__main__":
    main()

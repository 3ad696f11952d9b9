"""Exit status and messages: whatever goes wrong, one readable line with a remedy, and nothing half-written."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from alula.commands.main import main
from alula.configs.schemas import COMMANDS
from alula.core.errors import CheckpointError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.datasets.formats.registry import FORMATS
from alula.datasets.store import EpisodeStore
from alula.policies.registry import POLICIES
from alula.real_robot.devices.registry import DEVICES
from alula.sims.registry import TASKS
from alula.training import evaluation
from alula.training.checkpoint import weights_hash
from alula.training.config import ALGORITHMS
from alula.training.run import Run

# Words, and what the message must hold; all of them before any work is done.
MISTAKES = {
    "unknown command": (["evalute"], ["'evalute'", "Did you mean 'evaluate'?", *COMMANDS]),
    "unknown flag": (["list", "--jsn"], ["'--jsn'", "Did you mean '--json'?", "--debug"]),
    "unknown flag alone": (["--jsn"], ["'--jsn'", "Did you mean '--json'?"]),
    "unknown task": (["collect", "out=x.zarr", "task=peg"], ["'peg'", "Did you mean 'peg_insertion'?", "adroit_door"]),
    "unknown policy": (["train", "policy=gausian"], ["'gausian'", "Did you mean 'gaussian'?", "diffusion"]),
    "unknown key": (["demo", "epsiodes=3"], ["'epsiodes'", "Did you mean 'episodes'?"]),
    "wrong type": (["demo", "episodes=few"], ["episodes", "'few'"]),
    "unknown list": (["list", "policys"], ["'policys'", "Did you mean 'policies'?", "tasks"]),
    "unknown bench": (["bench", "sim"], ["'sim'", "Did you mean 'sims'?", "rl"]),
    "no bench": (["bench"], ["area is missing", "area=sims"]),
    "collect where": (["collect", "task=peg_insertion"], ["out is missing", "out=demonstrations.zarr"]),
    "collect what": (["collect", "out=x.zarr"], ["task is missing", "peg_insertion", "checkpoint="]),
    "train on what": (["train"], ["data is missing", "data=demonstrations.zarr"]),
    "fine-tune what": (["finetune"], ["checkpoint is missing", "checkpoint="]),
    "evaluate what": (["evaluate"], ["checkpoint is missing", "checkpoint="]),
    "compare with what": (["compare", "cloned"], ["second is missing", "second="]),
    "inspect what": (["inspect"], ["data is missing", "data=demonstrations.zarr"]),
    "report on what": (["report"], ["run is missing", "run="]),
    "no dataset": (["train", "data=absent.zarr"], ["absent.zarr", "check the path"]),
    "no dataset to inspect": (["inspect", "absent.zarr"], ["absent.zarr", "check the path"]),
    "no demonstrations": (["demo", "data=absent.npz", "evaluation.videos=0"], ["absent.npz", ".zarr folder or a .npz"]),
    "a file to train on": (["train", "data=cloned/config.yaml"], ["not an alula dataset", "alula convert cloned"]),
    "a field that is not there": (
        ["train", "data=demonstrations.zarr", "fields=[observation.stat]", "run=new"],
        ["'observation.stat'", "Did you mean 'observation.state'?"],
    ),
    "nothing to see": (["train", "data=demonstrations.zarr", "fields=[]", "run=new"], ["no field", "observation."]),
    "a share beyond all": (["train", "data=demonstrations.zarr", "held_out=1.5"], ["held_out is 1.5", "below 1"]),
    "nothing left to learn from": (
        ["train", "data=demonstrations.zarr", "held_out=0.9", "run=new"],
        ["3 episodes", "held_out=0.9", "held_out=0"],
    ),
    "a run for a dataset": (["inspect", "cloned"], ["cloned", "none of the formats"]),
    "no checkpoint": (["evaluate", "absent"], ["no checkpoint at 'absent'", "run folder"]),
    "a dataset for a checkpoint": (["finetune", "checkpoint=demonstrations.zarr"], ["no checkpoint", "run folder"]),
    "no run": (["report", "absent"], ["'absent' holds no run"]),
    "a dataset is there": (
        ["collect", "task=peg_insertion", "out=demonstrations.zarr"],
        ["demonstrations.zarr", "exists already", "overwrite=true"],
    ),
    "something else is there": (
        ["collect", "task=peg_insertion", "out=cloned", "overwrite=true"],
        ["cloned", "not a dataset", "never replaced"],
    ),
    "a run is there": (["train", "data=demonstrations.zarr", "run=cloned"], ["already holds a run", "resume=true"]),
    "another run is there": (
        ["train", "data=demonstrations.zarr", "run=cloned", "resume=true", "cloning.steps=231"],
        ["config.yaml", "differs", "run="],
    ),
    "another task": (
        ["evaluate", "cloned", "task=adroit_door"],
        ["'observation.state'", "(20,) in the checkpoint", "(27,) in task adroit_door", "trained on this task"],
    ),
    "another algorithm": (
        ["finetune", "checkpoint=cloned", "algorithm=gaussian_ppo", "run=tuned"],
        ["GaussianPPO", "DiffusionPolicy", "algorithm=residual_ppo"],
    ),
    "an algorithm that does not fit the demo's policy": (
        ["demo", "policy=gaussian", "algorithm=dppo", "evaluation.videos=0"],
        ["dppo", "diffusion", "residual_ppo"],
    ),
    "below a file": (
        ["collect", "task=peg_insertion", "out=cloned/config.yaml/x.zarr"],
        ["config.yaml/x.zarr", "cannot create", "may write"],
    ),
    "a run below a file": (
        ["train", "data=demonstrations.zarr", "run=cloned/config.yaml/x"],
        ["cannot write", "config.yaml/x", "run="],
    ),
}


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file and its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON file."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def checkpoint_of(run: Path) -> Path:
    """Folder of the last checkpoint."""
    return max((run / "checkpoints").iterdir(), key=lambda path: int(path.name.removeprefix("step_")))


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_changes_nothing(name: str, alula: Any, workplace: Path) -> None:
    """Status 1, a message that names what is wrong and what would be right, and every file as it was."""
    words, parts = MISTAKES[name]
    before = snapshot(workplace)
    outcome = alula(*words)
    missing = [part for part in parts if part not in outcome.error]
    assert not missing, f"{outcome.error!r} lacks {missing}"
    assert not outcome.out
    assert snapshot(workplace) == before


def test_version(alula: Any) -> None:
    """The installed version alone, for scripts."""
    outcome = alula("--version")
    assert (outcome.status, outcome.out, outcome.err) == (0, f"{version('alula')}\n", "")


def test_results_go_to_standard_output_and_progress_to_standard_error(alula: Any, workplace: Path) -> None:
    """So that `alula ... > file` holds results only."""
    outcome = alula("collect", "task=peg_insertion", "task.max_episode_steps=3", "out=x.zarr", "episodes=1",
                    "only_success=false")  # fmt: skip
    assert outcome.status == 0
    assert "1 episodes with 3 steps in x.zarr" in outcome.out
    assert "collect" in outcome.err
    assert "━" not in outcome.out


def test_debug_gives_the_traceback(workplace: Path) -> None:
    """The error comes through as it was raised, with where and why."""
    with pytest.raises(CheckpointError, match="no checkpoint at 'absent'") as caught:
        main(["evaluate", "absent", "--debug"])
    assert any(entry.name == "find_checkpoint" for entry in caught.traceback)


def test_a_defect_is_called_one(alula: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What alula did not foresee is no fault of the user, and --debug is offered."""

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(evaluation.PolicyActor, "start", broken)
    outcome = alula("evaluate", "cloned", "evaluation.videos=0")
    assert outcome.status == 1
    assert outcome.err.startswith("internal error: ZeroDivisionError: division by zero\n")
    assert "--debug" in outcome.err
    with pytest.raises(ZeroDivisionError):
        main(["evaluate", "cloned", "evaluation.videos=0", "--debug"])


@pytest.mark.parametrize("damage", ["cut weights", "no weights", "cut description", "another format", "other sizes"])
def test_a_damaged_checkpoint_is_refused(damage: str, alula: Any, workplace: Path) -> None:
    """The message names the folder of the checkpoint; nothing is evaluated."""
    folder = checkpoint_of(workplace / "cloned")
    weights, description = folder / "policy.safetensors", folder / "policy.json"
    match damage:
        case "cut weights":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "no weights":
            weights.unlink()
        case "cut description":
            description.write_text(description.read_text()[:-100])
        case "another format":
            edit(description, lambda value: value.update(format=99))
        case "other sizes":
            edit(description, lambda value: value["policy"]["config"]["field"].update(width=17))
    outcome = alula("evaluate", "cloned", "evaluation.videos=0")
    assert folder.name in outcome.error
    assert [path.name for path in (workplace / "cloned" / "evaluation").iterdir()] == ["held_out.json"]


def test_what_an_engine_cannot_vary_is_refused_before_anything_is_written(alula: Any, workplace: Path) -> None:
    """The setting is named with the remedy, and no dataset is begun."""
    error = alula("collect", "task=hover", "task.engine=torch", "task.randomization.mass=0.2", "out=new.zarr").error
    assert "task.randomization asks for varied mass" in error
    assert "use an engine on MuJoCo" in error
    assert not (workplace / "new.zarr").exists()


def test_a_checkpoint_of_other_spaces_is_refused(alula: Any, workplace: Path) -> None:
    """The field that differs is named with both sides, even where the shapes agree."""

    def rename(value: Any) -> None:
        value["action"][0]["control_mode"] = "torque"

    edit(checkpoint_of(workplace / "cloned") / "policy.json", rename)
    for words in (["evaluate", "cloned"], ["finetune", "checkpoint=cloned", "run=tuned"]):
        error = alula(*words).error
        assert "'action'" in error
        assert "torque" in error
        assert "end_effector_pose_delta" in error
    assert not (workplace / "tuned").exists()


def test_a_checkpoint_of_no_known_task_needs_one(alula: Any, workplace: Path) -> None:
    """Its own task cannot be built here, so one must be chosen, and then it works."""

    def rename(value: Any) -> None:
        value["task"]["name"] = "somewhere_else"

    edit(checkpoint_of(workplace / "cloned") / "policy.json", rename)
    words = ("evaluate", "cloned", "evaluation.videos=0", "evaluation.episodes=2")
    error = alula(*words).error
    assert "somewhere_else" in error
    assert "task=" in error
    assert alula(*words, "task=peg_insertion", "task.max_episode_steps=3").status == 0


def test_an_empty_dataset_is_refused(alula: Any, workplace: Path) -> None:
    """Before a run folder is made."""
    space, action = SpaceSpec((FieldSpec("observation.state", (2,)),)), SpaceSpec((FieldSpec("action", (1,)),))
    EpisodeStore.create(workplace / "empty.zarr", space, action)
    error = alula("train", "data=empty.zarr", "run=new").error
    assert "empty.zarr" in error
    assert not (workplace / "new").exists()


@pytest.mark.parametrize("damage", ["description", "log", "array"])
def test_a_damaged_dataset_is_refused(damage: str, alula: Any, workplace: Path) -> None:
    """Training and inspection say which file; no run folder is left."""
    data = workplace / "demonstrations.zarr"
    match damage:
        case "description":
            (data / "zarr.json").write_text("{")
        case "log":
            (data / "episodes.jsonl").write_text("nonsense\n" + (data / "episodes.jsonl").read_text())
        case "array":
            for chunk in (data / "action").rglob("*"):
                if chunk.is_file() and chunk.name != "zarr.json":
                    chunk.write_bytes(b"\x00" * 10)
    for words in (["train", f"data={data.name}", "run=new"], ["inspect", data.name]):
        assert data.name in alula(*words).error
    assert not (workplace / "new").exists()


def test_a_dataset_of_other_spaces_is_refused(alula: Any, workplace: Path) -> None:
    """Demonstrations of one task cannot be used for another; the remedy is to choose the task."""
    words = ("demo", "task=adroit_door", "data=demonstrations.zarr", "evaluation.videos=0", "run=new")
    pytest.importorskip("gymnasium_robotics", reason="the door needs the extra `suites`")
    error = alula(*words).error
    assert "(20,) in the dataset" in error
    assert "(27,) in the task" in error
    assert not (workplace / "new").exists()


def test_an_actor_that_never_succeeds_is_given_up(alula: Any, workplace: Path) -> None:
    """Collecting ends with the counts and what to change."""
    words = ("collect", "task=peg_insertion", "task.max_episode_steps=2", "out=x.zarr", "episodes=1")
    error = alula(*words).error
    assert "only 0 of" in error
    assert "expert_noise" in error
    assert "only_success=false" in error


@pytest.mark.parametrize(
    "words", [["evaluate", "cloned"], ["demo", "run=new", "episodes=2"]], ids=lambda words: str(words[0])
)
def test_without_opengl_nothing_is_begun(
    words: list[str], alula: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would end in pictures says so at once; evaluation.videos=0 is offered, and works."""

    def no_context(*_: Any, **__: Any) -> None:
        raise ImportError("no EGL device")

    monkeypatch.setattr(mujoco, "Renderer", no_context)
    before = snapshot(workplace)
    error = alula(*words).error
    assert "cannot make an OpenGL context" in error
    assert "no EGL device" in error
    assert "evaluation.videos=0" in error
    assert snapshot(workplace) == before
    if words[0] == "evaluate":
        assert alula(*words, "evaluation.videos=0", "evaluation.episodes=2").status == 0


WITHOUT_EGL = """
import ctypes, sys
load = ctypes.CDLL.__init__
def refuse(self, name, *rest, **more):
    if name and "EGL" in str(name):
        raise OSError(f"{name}: cannot open shared object file")
    load(self, name, *rest, **more)
ctypes.CDLL.__init__ = refuse
from alula.commands.main import main
sys.exit(main(sys.argv[1:]))
"""


def run_without_egl(words: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """A command on a machine that has no libEGL and no display."""
    clean = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "DISPLAY")}
    command = [sys.executable, "-c", WITHOUT_EGL, *words]
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="EGL is Linux's way of drawing without a display")
def test_without_egl_everything_but_pictures_works(workplace: Path) -> None:
    """A machine that cannot draw can still train and score; asking for EGL there is answered with the remedy."""
    done = run_without_egl(["evaluate", "cloned", "evaluation.episodes=2", "evaluation.videos=0"])
    assert done.returncode == 0, done.stderr
    refused = run_without_egl(["list"], MUJOCO_GL="egl")
    assert refused.returncode == 1
    assert "libegl1" in refused.stderr
    assert "MUJOCO_GL=disabled" in refused.stderr
    assert "Traceback" not in refused.stderr


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C as soon as training has logged `step`, once."""
    log = Run.log

    def interrupted(self: Run, at: int, *rest: Any) -> None:
        log(self, at, *rest)
        if at == step:
            monkeypatch.setattr(Run, "log", log)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Run, "log", interrupted)


def test_ctrl_c_saves_and_resuming_ends_with_the_same_weights(
    alula: Any, workplace: Path, tiny_cloning: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 130 and a message that names resume=true; gone on, the result is that of an undisturbed run."""
    words = ("train", "data=demonstrations.zarr", "run=new", *tiny_cloning, "cloning.checkpoint_every=1000")
    interrupt_at(100, monkeypatch)
    stopped = alula(*words)
    assert stopped.status == 130
    assert "resume=true" in stopped.err
    assert "Traceback" not in stopped.err
    assert checkpoint_of(workplace / "new").name == "step_100"
    assert alula(*words, "resume=true").status == 0
    assert weights_hash(workplace / "new") == weights_hash(workplace / "cloned")


def test_ctrl_c_while_collecting_names_what_to_do(alula: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo can be resumed from its first stage on; other commands just end."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("alula.commands.demo.collect", interrupted)
    demo = alula("demo", "run=new", "evaluation.videos=0")
    assert demo.status == 130
    assert "resume=true" in demo.err
    monkeypatch.setattr("alula.commands.collect.collect", interrupted)
    collect = alula("collect", "task=peg_insertion", "out=x.zarr")
    assert (collect.status, collect.err.splitlines()[-1]) == (130, "interrupted")


def test_list_names_everything_that_can_be_chosen(alula: Any) -> None:
    """Each task, policy and algorithm by the name that the command line takes, with its Gymnasium id."""
    outcome = alula("list", "--json")
    counts = {result["name"]: result["value"] for result in outcome.report["results"]}
    groups = {"tasks": TASKS, "policies": POLICIES, "algorithms": ALGORITHMS, "formats": FORMATS, "devices": DEVICES}
    groups["faults"] = {name: entry for name, entry in DEVICES.items() if entry.emulator is not None}
    assert counts == {name: len(group) for name, group in groups.items()}
    names = {"peg_insertion", "adroit_door", "diffusion", "gaussian", "residual_ppo", "dppo", "gaussian_ppo"}
    assert names <= set(outcome.out.split())
    assert 'gymnasium.make("alula/PegInsertion-v0")' in outcome.out
    only = alula("list", "policies").out
    assert "gaussian" in only
    assert "dppo" not in only


def test_seeds_of_numpy_do_not_leak_between_commands(alula: Any, workplace: Path) -> None:
    """The same command gives the same dataset, whatever ran before it in the process."""
    words = ("collect", "task=peg_insertion", "task.max_episode_steps=5", "episodes=2", "only_success=false")
    assert alula(*words, "out=a.zarr").status == 0
    np.random.seed(1)  # noqa: NPY002 (a disturbance)
    assert alula(*words, "out=b.zarr").status == 0
    digests = [EpisodeStore.open(workplace / name).digests for name in ("a.zarr", "b.zarr")]
    assert digests[0] == digests[1]

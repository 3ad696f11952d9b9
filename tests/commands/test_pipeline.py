"""From demonstrations to a report, as a user would: every command once, from any working directory."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from alula.commands.main import main
from alula.configs.compose import compose_config
from alula.configs.schemas import EvaluationConfig
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.store import EpisodeStore
from alula.training.checkpoint import find_checkpoint, load_policy, weights_hash
from alula.training.run import Run, read_metrics

REPORT = {"area", "machine", "commit", "results"}
RESULT = {"name", "value", "unit", "low", "high", "runs", "peer", "bar", "ok"}
TINY_RL = (
    *("algorithm.num_envs=8", "algorithm.rollout_steps=8", "algorithm.total_steps=256", "algorithm.epochs=1"),
    *("algorithm.minibatch=32", "algorithm.critic_width=8", "algorithm.critic_warmup=1"),
    *("algorithm.evaluate_every=4", "algorithm.evaluation_episodes=2", "algorithm.checkpoint_every=1"),
)
TINY_DEMO = (
    *("episodes=4", "cloning.steps=20", "cloning.batch_size=16", "evaluation.episodes=4", "evaluation.videos=0"),
    *("policy.field.width=16", "policy.field.blocks=1"),
)


def results(report: Any, area: str) -> dict[str, Any]:
    """Results by name, after checking that the report has the agreed form."""
    assert set(report) == REPORT
    assert report["area"] == area
    assert all(set(result) == RESULT for result in report["results"])
    return {result["name"]: result for result in report["results"]}


def sha256_of(output: str) -> str:
    """The hash on the line that ends a training."""
    (line,) = [line for line in output.splitlines() if line.startswith("checkpoint ")]
    words = line.split()
    return words[words.index("sha256") + 1]


def files_of(folder: Path, *patterns: str) -> dict[str, bytes]:
    """Every matching file and its content."""
    found = [path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.parametrize("algorithm", ["residual_ppo", "dppo"])
def test_from_demonstrations_to_a_report(
    algorithm: str, alula: Any, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fine-tune, evaluate, compare and report, each from another directory, by absolute and by relative paths."""
    cloned, tuned = made / "cloned", tmp_path / "tuned"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    done = alula("finetune", f"checkpoint={cloned}", "run=tuned", f"algorithm={algorithm}", *TINY_RL, "--json")
    assert done.status == 0, done.err
    assert sha256_of(done.out) == weights_hash(tuned) != weights_hash(cloned)
    assert results(done.report, "finetune")["progress_success"]["runs"] == 2
    assert read_metrics(tuned)[-1]["step"] == 256

    monkeypatch.chdir(tmp_path / "elsewhere")
    few = ("evaluation.episodes=3", "evaluation.videos=0")
    done = alula("evaluate", "../tuned", *few, "out=scores", "--json")
    assert done.status == 0, done.err
    success = results(done.report, "evaluate")["success"]
    assert success["runs"] == 3
    assert 0 <= success["low"] <= success["value"] <= success["high"] <= 1
    assert Path("scores/evaluation/evaluation.json").is_file()

    monkeypatch.chdir("/")
    done = alula("compare", cloned, tuned, *few, "--json")
    assert done.status == 0, done.err
    scores = results(done.report, "compare")
    assert scores["difference"]["value"] == scores["second"]["value"] - scores["first"]["value"]
    assert scores["difference"]["runs"] == 3

    (tuned / "report.html").unlink()
    done = alula("report", tuned, "--json")
    assert done.status == 0, done.err
    assert results(done.report, "report") == {}
    assert "<html" in (tuned / "report.html").read_text()


def test_collecting_with_a_policy_gives_what_training_can_use(
    alula: Any, workplace: Path, tiny_cloning: tuple[str, ...]
) -> None:
    """A policy's episodes are a dataset like an expert's, on the checkpoint's own task, and inspection counts them."""
    words = ("collect", "checkpoint=cloned", "out=more.zarr", "episodes=3", "only_success=false", "--json")
    done = alula(*words)
    assert done.status == 0, done.err
    assert results(done.report, "collect")["episodes"]["value"] == 3
    assert EpisodeStore.open(workplace / "more.zarr").metadata["task"]["config"]["max_episode_steps"] == 12
    done = alula("inspect", "more.zarr", "--json")
    assert {name: result["value"] for name, result in results(done.report, "inspect").items()}.items() >= {
        ("episodes", 3),
        ("steps", 36),
    }
    done = alula("train", "data=more.zarr", "run=again", *tiny_cloning, "--json")
    assert done.status == 0, done.err
    assert results(done.report, "train")["cloning_loss"]["value"] > 0


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A converted recording that belongs to no task: four episodes with a camera, an instruction and a state."""
    rng = np.random.default_rng(0)
    fields = {"state": (2,), "images.top": (16, 16, 3), "language_embedding": (8,)}
    specs = [
        FieldSpec(f"observation.{name}", shape, "uint8" if "images" in name else "float32")
        for name, shape in fields.items()
    ]
    action = FieldSpec("action", (2,), units=("m",), rate=5.0)
    path = tmp_path / "recording.zarr"
    store = EpisodeStore.create(path, SpaceSpec(tuple(specs)), SpaceSpec((action,)), {"task": "Lift"})
    for length in (9, 6, 8, 7):
        steps = {field.name: rng.integers(0, 255, (length, *field.shape)).astype(field.dtype) for field in specs}
        steps |= {"action": rng.normal(size=(length, 2)).astype(np.float32), "next.reward": np.zeros(length)}
        flags = dict.fromkeys(("next.terminated", "next.truncated", "next.success"), np.zeros(length, dtype=bool))
        store.append(Episode(steps | flags, {"instruction": "pick it up"}))
    return path


@pytest.mark.parametrize("policy", ["gaussian", "diffusion"])
def test_a_recording_of_no_task_is_cloned_and_measured(policy: str, alula: Any, recording: Path) -> None:
    """From the command line alone to a report with the held-out error; evaluating it says why that cannot be."""
    run = recording.with_name("run")
    tiny = ("cloning.steps=20", "cloning.batch_size=4", "policy.field.width=16", "policy.image_features=8")
    words = ("train", f"data={recording}", f"policy={policy}", f"run={run}", *tiny, "--json")
    done = alula(*words)
    assert done.status == 0, done.err
    found = results(done.report, "train")
    measured = json.loads((run / "evaluation/held_out.json").read_text())
    assert found["held_out_error"]["value"] == measured["error"]
    assert found["held_out_baseline"]["value"] == measured["baseline"]
    assert found["held_out_error"]["runs"] == len(measured["episodes"]) == 1
    assert measured["rate"] == 5.0
    page = (run / "report.html").read_text()
    assert "action[1] [m]: recorded and predicted" in page
    error = alula("evaluate", run).error
    assert "belongs to no simulated task" in error
    assert "task=NAME" in error


def test_only_chosen_fields_are_seen(alula: Any, recording: Path) -> None:
    """The checkpoint describes them, in the dataset's order; the page repeats the command that made it."""
    run = recording.with_name("run")
    fields = "fields=[observation.language_embedding,observation.state]"
    words = ("train", f"data={recording}", "policy=gaussian", f"run={run}", "cloning.steps=5", fields, "held_out=0")
    done = alula(*words)
    assert done.status == 0, done.err
    seen = list(load_policy(run).policy.observation)
    assert seen == ["observation.state", "observation.language_embedding"]
    assert not (run / "evaluation").exists()
    (command,) = json.loads((run / "summary.json").read_text())["commands"]
    original = [word for word in words[1:] if not word.startswith("run=")]
    assert compose_config("train", shlex.split(command)[2:]) == compose_config("train", original)


def test_every_json_report_is_the_last_line(alula: Any, workplace: Path) -> None:
    """Machines read the last line of standard output, whatever people are told before."""
    for words in (["list", "formats"], ["inspect", "demonstrations.zarr"], ["report", "cloned"]):
        done = alula(*words, "--json")
        assert done.status == 0, done.err
        results(done.report, words[0])
        without = alula(*words)
        assert "{" not in without.out.splitlines()[-1]


def test_equal_seeds_give_equal_weights(alula: Any, workplace: Path, tiny_cloning: tuple[str, ...]) -> None:
    """Training again prints the same hash; another seed another one."""
    words = ("train", "data=demonstrations.zarr", *tiny_cloning)
    hashes = [sha256_of(alula(*words, f"run=r{run}", f"seed={seed}").out) for run, seed in enumerate((0, 0, 1))]
    assert hashes[0] == hashes[1] == weights_hash(workplace / "cloned")
    assert hashes[0] != hashes[2]


def test_the_run_folder_tells_what_was_asked(alula: Any, made: Path) -> None:
    """config.yaml holds every setting with the names of the choices, but not the wish to resume."""
    config = yaml.safe_load((made / "cloned" / "config.yaml").read_text())
    assert config["policy"]["name"] == "diffusion"
    assert config["policy"]["field"]["width"] == 16
    assert config["cloning"]["steps"] == 230
    assert "resume" not in config


DIES_AT_SAVE = """
import os, signal, sys
from alula.commands.main import main
from alula.training import run
save, saved = run.save_state, []
def killed(folder, state):
    if len(saved) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    saved.append(folder)
    save(folder, state)
run.save_state = killed
main(sys.argv[1:])
"""


def kill_in_second_save(words: Sequence[str]) -> None:
    """Run a command in a process of its own that is killed while it writes its second checkpoint."""
    done = subprocess.run([sys.executable, "-c", DIES_AT_SAVE, *words], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL


def test_killed_training_resumes_to_the_same_weights(
    alula: Any, workplace: Path, tiny_cloning: tuple[str, ...]
) -> None:
    """Not even SIGKILL in the middle of a checkpoint changes where cloning ends, or what its log says."""
    words = ("train", "data=demonstrations.zarr", "run=new", *tiny_cloning)
    kill_in_second_save(words)
    assert find_checkpoint(workplace / "new").name == "step_100"
    done = alula(*words, "resume=true")
    assert done.status == 0, done.err
    assert sha256_of(done.out) == weights_hash(workplace / "cloned")
    steps = [line["step"] for line in read_metrics(workplace / "new")]
    assert steps == [line["step"] for line in read_metrics(workplace / "cloned")]


def test_killed_fine_tuning_resumes_to_the_same_weights(alula: Any, workplace: Path) -> None:
    """Physics, episodes under way, noise and optimisers all go on where the last whole checkpoint stands."""
    words = ("finetune", "checkpoint=cloned", *TINY_RL)
    kill_in_second_save((*words, "run=killed"))
    assert find_checkpoint(workplace / "killed").name == "step_64"
    hashes = [
        sha256_of(alula(*words, "run=killed", "resume=true").out),
        sha256_of(alula(*words, "run=whole").out),
    ]
    assert hashes[0] == hashes[1]
    measured = [
        [{name: value for name, value in line.items() if name != "seconds"} for line in read_metrics(workplace / run)]
        for run in ("killed", "whole")
    ]
    assert measured[0] == measured[1]


@dataclass
class Demo:
    """A tiny demo that ran to its end."""

    run: Path
    words: list[str]
    """Its command."""
    report: Any
    """Its last line of standard output."""

    def words_in(self, folder: Path) -> list[str]:
        """The same demo somewhere else."""
        return [f"run={folder}" if word.startswith("run=") else word for word in self.words]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Made once; nothing may change its files."""
    run = tmp_path_factory.mktemp("demo") / "run"
    words = ["demo", f"run={run}", *TINY_DEMO, *TINY_RL, "--json"]
    out = StringIO()
    with redirect_stdout(out):
        assert main(words) == 0
    return Demo(run, words, json.loads(out.getvalue().splitlines()[-1]))


def test_the_demo_does_it_all(demo: Demo) -> None:
    """Scores before and after, the minutes, and one folder with everything that the page is made from."""
    scores = results(demo.report, "demo")
    assert list(scores) == ["bc_success", "finetuned_success", "minutes"]
    assert all(scores[name]["runs"] == 4 for name in ("bc_success", "finetuned_success"))
    assert 0 < scores["minutes"]["value"] < 10
    present = ("report.html", "summary.json", "config.yaml", "demonstrations.zarr/episodes.jsonl")
    scored = [f"evaluation/{name}.json" for name in ("cloned", "finetuned", "comparison")]
    missing = [name for name in (*present, *scored) if not (demo.run / name).is_file()]
    assert not missing
    assert weights_hash(demo.run / "cloning") != weights_hash(demo.run / "finetuning")
    assert not (demo.run / "videos").exists()


def test_a_finished_demo_is_not_repeated(alula: Any, demo: Demo) -> None:
    """resume=true gives the same scores from the same files; the minutes are those of the work, not of the look."""
    kept = ("*.safetensors", "metrics.jsonl", "episodes.jsonl", "config.yaml", "comparison.json")
    before = files_of(demo.run, *kept)
    first = yaml.safe_load((demo.run / "summary.json").read_text())["minutes"]
    done = alula(*demo.words, "resume=true")
    assert done.status == 0, done.err
    assert files_of(demo.run, *kept) == before
    assert results(done.report, "demo")["minutes"]["value"] >= first["total"]
    again = alula(*demo.words)
    assert "already holds a run" in again.error


def test_an_interrupted_demo_goes_on_in_the_stage_that_it_was_in(
    alula: Any, demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while fine-tuning and resumed, it ends with the weights of the demo that was left alone."""
    words = demo.words_in(tmp_path / "stopped")
    log = Run.log

    def interrupted(self: Run, step: int, *rest: Any) -> None:
        log(self, step, *rest)
        if step == 128:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Run, "log", interrupted)
    stopped = alula(*words)
    monkeypatch.setattr(Run, "log", log)
    assert stopped.status == 130
    assert "resume=true" in stopped.err
    assert alula(*words, "resume=true").status == 0
    for stage in ("cloning", "finetuning"):
        assert weights_hash(tmp_path / "stopped" / stage) == weights_hash(demo.run / stage)


def test_a_demo_killed_while_collecting_starts_over(alula: Any, demo: Demo, tmp_path: Path) -> None:
    """Too few demonstrations on disk are never taken for all of them."""
    whole = EpisodeStore.open(demo.run / "demonstrations.zarr")
    part = tmp_path / "run" / "demonstrations.zarr"
    store = EpisodeStore.create(part, whole.observation, whole.action, whole.metadata)
    store.append(whole.episode(2))
    assert alula(*demo.words_in(tmp_path / "run"), "resume=true").status == 0
    assert EpisodeStore.open(part).digests == whole.digests


def test_the_demo_films_what_it_scored(alula: Any, workplace: Path) -> None:
    """With videos=1 there is a film per policy and outcome, all are in the page; recorded data will do."""
    words = ("demo", "run=filmed", "data=demonstrations.zarr", *TINY_DEMO, *TINY_RL, "task.max_episode_steps=12",
             "evaluation.videos=1", "evaluation.film=1")  # fmt: skip
    done = alula(*words)
    assert done.status == 0, done.err
    films = sorted(path.name for path in (workplace / "filmed" / "videos").iterdir())
    seed = EvaluationConfig().first_seed
    assert films == [f"{name}_failure_seed{seed}.mp4" for name in ("cloned", "finetuned")]
    page = (workplace / "filmed" / "report.html").read_text()
    assert page.count("data:video/mp4;base64,") == len(films)


def test_the_report_repeats_the_demo_by_its_own_words(demo: Demo) -> None:
    """The command on the page composes the configuration that made the page."""
    (command,) = yaml.safe_load((demo.run / "summary.json").read_text())["commands"]
    program, name, *words = shlex.split(command)
    assert (program, name) == ("alula", "demo")
    original = [word for word in demo.words[1:] if not word.startswith(("run=", "--"))]
    assert compose_config("demo", words) == compose_config("demo", original)


def test_main_reads_the_process_arguments(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without arguments of its own, as the installed `alula` calls it, main takes those of the process."""
    monkeypatch.setattr(sys, "argv", ["alula", "list", "policies"])
    assert main() == 0
    assert "diffusion" in capsys.readouterr().out

"""Behaviour cloning: it fits, it averages, it resumes to the same bits, also after being killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alula.core.errors import AlulaError, ConfigError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.store import EpisodeStore
from alula.datasets.windows import WindowSampler
from alula.policies.config import FieldConfig, GaussianPolicyConfig
from alula.policies.policy import GenerativePolicy
from alula.policies.registry import POLICIES
from alula.training.bc import BehaviorCloning
from alula.training.checkpoint import load_policy, load_state, save_state, weights_hash
from alula.training.config import BCConfig
from alula.training.evaluation import evaluate
from alula.training.loop import Interrupted
from alula.training.pipeline import clone, task_of
from alula.training.run import Run, read_metrics

MakeDataset = Callable[..., EpisodeStore]
MakeBase = Callable[..., GenerativePolicy]
SMALL = {"horizon": 4, "execute_steps": 2}


def quick(**settings: Any) -> BCConfig:
    """Small batches and no warm-up."""
    return BCConfig(**{"batch_size": 32, "warmup_steps": 10, "learning_rate": 3e-3, **settings})


def silent(done: int, total: int, metrics: dict[str, float]) -> None:
    """No progress."""


def cloned(store: EpisodeStore, folder: Path, config: BCConfig, seed: int = 0, report: Any = silent) -> Run:
    """A finished cloning run of a Gaussian policy; goes on where the folder stands."""
    run = Run(folder, {"seed": seed}, {}, resume=True)
    clone(store, GaussianPolicyConfig(**SMALL, field=FieldConfig(width=8, blocks=1)), config, seed, run, report)
    run.close()
    return run


def trainer_of(store: EpisodeStore, policy: GenerativePolicy, config: BCConfig, seed: int = 0) -> BehaviorCloning:
    """Cloning of a policy on a dataset."""
    sampler = WindowSampler(store, policy.horizon)
    return BehaviorCloning(policy, sampler.sample, len(sampler), config, seed)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_cloning_fits_and_the_loss_falls(make_dataset: MakeDataset, make_base: MakeBase, line: Any, name: str) -> None:
    """Every policy of the table: the loss of the last iteration is well below that of the first."""
    trainer = trainer_of(make_dataset(), make_base(name, line), quick(steps=400))
    losses = []
    while trainer.progress < trainer.total:
        losses.append(trainer.iterate()["cloning/loss"])
    assert trainer.progress == 400
    assert losses[-1] < 0.6 * losses[0]


def test_the_cloned_line_expert_solves_the_line(make_dataset: MakeDataset, tmp_path: Path, line: Any) -> None:
    """The whole way: windows, normalisers, training, checkpoint, evaluation."""
    run = cloned(make_dataset(60), tmp_path / "run", quick(steps=600))
    policy = load_policy(run.folder).policy
    assert evaluate(policy, line, range(100)).rate > 0.9


def test_what_is_kept_is_the_average(make_dataset: MakeDataset, make_base: MakeBase, line: Any) -> None:
    """The trained policy holds the moving average, and asking for it leaves the training alone."""
    trainer = trainer_of(make_dataset(), make_base("gaussian", line), quick(steps=50))
    trainer.iterate()
    present = {name: value.detach().clone() for name, value in trainer.policy.named_parameters()}
    kept = dict(trainer.trained_policy().named_parameters())
    for name, average in trainer.ema.average.items():
        assert torch.equal(kept[name], average)
        assert torch.equal(dict(trainer.policy.named_parameters())[name], present[name])
    assert any(not torch.equal(kept[name], value) for name, value in present.items())


def test_the_learning_rate_warms_up_and_decays_to_a_tenth(
    make_dataset: MakeDataset, make_base: MakeBase, line: Any
) -> None:
    """Linear over the warm-up, then a cosine."""
    trainer = trainer_of(make_dataset(), make_base("gaussian", line), quick(steps=1000, learning_rate=1.0))
    rates = []
    for trainer.progress in range(1001):
        rates.append(trainer._learning_rate())
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10, rtol=1e-3)
    assert rates[500] == pytest.approx(0.55)
    assert rates[1000] == pytest.approx(0.1)
    assert (np.diff(rates[10:]) < 0).all()


def test_a_frozen_policy_cannot_be_cloned(make_dataset: MakeDataset, make_base: MakeBase, line: Any) -> None:
    """Its early steps would stay untrained; the message says where the setting belongs."""
    policy = make_base("diffusion", line, trainable_steps=1)
    with pytest.raises(ConfigError, match=r"algorithm\.trainable_steps"):
        trainer_of(make_dataset(), policy, quick())


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_resuming_continues_bit_for_bit(
    make_dataset: MakeDataset, make_base: MakeBase, line: Any, name: str, tmp_path: Path
) -> None:
    """One iteration, files, fresh objects and two more equal three in one go: weights, average, optimiser, noise."""
    store, config = make_dataset(), quick(steps=300)
    whole, first, second = (trainer_of(store, make_base(name, line), config) for _ in range(3))
    for _ in range(3):
        whole.iterate()
    first.iterate()
    save_state(tmp_path, first.state_dict())
    second.load_state_dict(load_state(tmp_path))
    for _ in range(2):
        second.iterate()
    for part in ("policy", "ema"):
        for key, value in whole.state_dict()[part].items():
            assert torch.equal(second.state_dict()[part][key], value), key
    assert torch.equal(second.generator.get_state(), whole.generator.get_state())
    for index, moments in whole.state_dict()["optimizer"].items():
        for key, value in moments.items():
            assert torch.equal(second.state_dict()["optimizer"][index][key], value)


def test_the_seed_decides_the_checkpoint(make_dataset: MakeDataset, tmp_path: Path) -> None:
    """Equal seeds, equal bytes; other seeds, others."""
    store = make_dataset()
    runs = [cloned(store, tmp_path / str(index), quick(steps=100), seed) for index, seed in enumerate((0, 0, 1))]
    hashes = [weights_hash(run.folder) for run in runs]
    assert hashes[0] == hashes[1] != hashes[2]


CAMERA = "observation.images.top"
SEEING = SpaceSpec((FieldSpec(CAMERA, (16, 16, 3), "uint8"), FieldSpec("observation.state", (1,))))
POINTING = SpaceSpec((FieldSpec("action", (2,)),))


@pytest.fixture
def pictures(tmp_path: Path) -> EpisodeStore:
    """A recording that belongs to no task: a bright square somewhere, and the action is where; the state is noise."""
    rng = np.random.default_rng(0)
    store = EpisodeStore.create(tmp_path / "pictures.zarr", SEEING, POINTING)
    for _ in range(20):
        corners = rng.integers(0, 13, (16, 2))
        images = rng.integers(0, 40, (16, 16, 16, 3)).astype(np.uint8)
        for image, (row, column) in zip(images, corners, strict=True):
            image[row : row + 4, column : column + 4] = (220, 180, 60)
        steps = {CAMERA: images, "observation.state": rng.normal(size=(16, 1)).astype(np.float32)}
        steps |= {"action": (corners / 6 - 1).astype(np.float32), "next.reward": np.zeros(16)}
        ends = dict.fromkeys(("next.terminated", "next.truncated", "next.success"), np.zeros(16, dtype=bool))
        store.append(Episode(steps | ends))
    return store


def cloned_from_pictures(
    store: EpisodeStore, folder: Path, steps: int, fields: list[str] | None = None, report: Any = silent
) -> Run:
    """A finished run of a policy of single steps; goes on where the folder stands."""
    config = GaussianPolicyConfig(horizon=1, execute_steps=1, field=FieldConfig(width=32, blocks=1), image_features=16)
    run = Run(folder, {}, {}, resume=True)
    settings = quick(steps=steps, checkpoint_every=100, evaluate_every=100)
    clone(store, config, settings, 0, run, report, fields=fields, held_out=0.2)
    run.close()
    return run


def test_where_to_go_is_learned_from_pictures(pictures: EpisodeStore, tmp_path: Path) -> None:
    """On episodes never seen the camera's policy is several times better than the mean action; noise alone is not."""
    errors = {}
    for fields in (None, ["observation.state"]):
        run = cloned_from_pictures(pictures, tmp_path / str(fields), 200, fields)
        measured = json.loads((run.folder / "evaluation/held_out.json").read_text())
        errors[fields is None] = measured["error"] / measured["baseline"]
    assert errors[True] < 0.2
    assert errors[False] > 0.8


def test_shifted_pictures_resume_bit_for_bit(pictures: EpisodeStore, tmp_path: Path) -> None:
    """What training varies at random is part of the state: stopped after 100 steps, the end is the same."""
    whole = cloned_from_pictures(pictures, tmp_path / "whole", 200)

    def stop(done: int, total: int, metrics: dict[str, float]) -> None:
        if done == 100:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        cloned_from_pictures(pictures, tmp_path / "cut", 200, report=stop)
    assert not (tmp_path / "cut" / "evaluation").exists()
    cut = cloned_from_pictures(pictures, tmp_path / "cut", 200)
    assert weights_hash(cut.folder) == weights_hash(whole.folder)
    for name in ("evaluation/held_out.json", "metrics.jsonl"):
        assert without_times(cut.folder / name) == without_times(whole.folder / name)


def without_times(path: Path) -> list[Any]:
    """Lines of a file of JSON lines or the one object of a file of JSON, without clock readings."""
    text = path.read_text()
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def test_a_policy_of_no_task_loads_and_says_so(pictures: EpisodeStore, tmp_path: Path) -> None:
    """Everything needed is in the checkpoint; only running it needs a task, and the error says that there is none."""
    run = cloned_from_pictures(pictures, tmp_path / "run", 100)
    loaded = load_policy(run.folder)
    assert loaded.policy.observation == SEEING
    memory = loaded.policy.memory(2)
    seen = {name: pictures.read(name, 0, 2) for name in SEEING}
    actions, _, _ = loaded.policy.act(seen, memory, torch.Generator().manual_seed(0), stochastic=False)
    assert actions.shape == (2, 2)
    with pytest.raises(AlulaError, match=r"belongs to no simulated task.*report\.html.*task=NAME"):
        task_of(loaded, None)


SCRIPT = """
import sys
from pathlib import Path
from alula.datasets.store import EpisodeStore
from alula.policies.config import FieldConfig, GaussianPolicyConfig
from alula.training.config import BCConfig
from alula.training.evaluation import evaluate
from alula.training.pipeline import clone, task_of
from alula.training.run import Run

run = Run(Path(sys.argv[2]), {"seed": 0}, {}, resume=True)
clone(
    EpisodeStore.open(Path(sys.argv[1])),
    GaussianPolicyConfig(horizon=4, execute_steps=2, field=FieldConfig(width=8, blocks=1)),
    BCConfig(batch_size=32, warmup_steps=10, learning_rate=3e-3, steps=1500, checkpoint_every=200),
    0,
    run,
    lambda done, total, metrics: print(done, flush=True),
)
"""


def start(store: EpisodeStore, folder: Path) -> subprocess.Popen[str]:
    """Cloning in another process, which tells the steps done, one line each."""
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(store.path), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": _path()})


def _path() -> str:
    return os.pathsep.join(entry for entry in sys.path if entry)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGKILL, id="SIGKILL"),
        pytest.param(signal.SIGINT, id="SIGINT", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, id="SIGTERM", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_process_goes_on_to_the_same_weights(
    make_dataset: MakeDataset, tmp_path: Path, number: signal.Signals
) -> None:
    """Killed between two checkpoints it repeats the steps since the last; asked to stop it saves. Same end."""
    store, config = make_dataset(), quick(steps=1500, checkpoint_every=200)
    whole = tmp_path / "whole"
    cloned(store, whole, config)
    cut = tmp_path / "cut"
    with start(store, cut) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 300:
                break
        process.send_signal(number)
        process.stdout.read()
        assert process.wait(60) != 0
    stopped = max(int(folder.name.removeprefix("step_")) for folder in (cut / "checkpoints").glob("step_*"))
    assert 200 <= stopped < 1500
    if number == signal.SIGKILL:
        assert stopped % 200 == 0
    done: list[int] = []
    cloned(store, cut, config, report=lambda step, total, metrics: done.append(step))
    assert done == list(range(stopped + 100, 1501, 100))
    assert weights_hash(cut) == weights_hash(whole)
    assert [line["step"] for line in read_metrics(cut)] == list(range(100, 1501, 100))

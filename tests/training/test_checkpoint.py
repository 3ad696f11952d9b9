"""Checkpoints: bit for bit, without pickle, never half written, and clear about what is wrong with them."""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from torch import Generator

from alula.core.errors import CheckpointError
from alula.policies.config import FIELDS, FieldConfig, ResidualHeadConfig
from alula.policies.policy import GenerativePolicy, Policy
from alula.policies.registry import POLICIES, make_residual_policy
from alula.sims.task import Task
from alula.training import checkpoint
from alula.training.checkpoint import (
    DESCRIPTION,
    STATE_TENSORS,
    STATE_VALUES,
    WEIGHTS,
    find_checkpoint,
    load_policy,
    load_state,
    save_policy,
    save_state,
    weights_hash,
)
from alula.training.run import Run

MakeBase = Callable[..., GenerativePolicy]
CASES = [(name, kind, residual) for name in sorted(POLICIES) for kind in FIELDS for residual in (False, True)]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}{'-residual' if case[2] else ''}")
def policy(request: pytest.FixtureRequest, make_base: MakeBase, line: Task) -> Policy:
    """Every policy with every field, alone and under a residual head, with weights like no fresh one."""
    name, kind, residual = request.param
    base = make_base(name, line, field=FieldConfig(kind, width=8, blocks=2))
    made: Policy = base
    if residual:
        made = make_residual_policy(ResidualHeadConfig(field=FieldConfig(width=8, blocks=1)), base)
    for value in made.state_dict().values():
        value.add_(0.1 * torch.randn(value.shape, generator=Generator().manual_seed(9)))
    return made


@pytest.fixture
def saved(tmp_path: Path, make_base: MakeBase, line: Task) -> Path:
    """A checkpoint of a diffusion policy with frozen early steps."""
    policy = make_base("diffusion", line, trainable_steps=1)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_policy(folder, policy, {"name": "line"}, {"step": 7})
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the description of a checkpoint."""
    values = json.loads((folder / DESCRIPTION).read_text())
    change(values)
    (folder / DESCRIPTION).write_text(json.dumps(values))


def test_a_loaded_policy_is_the_saved_one(policy: Policy, tmp_path: Path) -> None:
    """Weights, scaling, configuration, spaces and actions are equal to the bit."""
    save_policy(tmp_path, policy, {"name": "line", "config": {"x": 1}}, {"step": 3})
    found = load_policy(tmp_path)
    assert type(found.policy) is type(policy)
    assert found.task == {"name": "line", "config": {"x": 1}}
    assert found.metadata == {"step": 3}
    assert found.policy.config == policy.config
    assert found.policy.observation == policy.observation
    assert found.policy.action == policy.action
    assert not found.policy.training
    wanted = policy.state_dict()
    assert list(found.policy.state_dict()) == list(wanted)
    for name, value in found.policy.state_dict().items():
        assert value.numpy().tobytes() == wanted[name].numpy().tobytes(), name
    observation = {"observation.state": np.linspace(-2, 2, 9, dtype=np.float32)[:, None]}
    for stochastic in (False, True):
        actions = [
            each.act(observation, each.memory(9), Generator().manual_seed(0), stochastic)[0]
            for each in (policy, found.policy)
        ]
        assert actions[0].tobytes() == actions[1].tobytes()


def test_frozen_early_steps_survive(saved: Path, make_base: MakeBase, line: Task) -> None:
    """The copy that the early steps use is in the checkpoint, and only the trained steps are traced again."""
    policy = make_base("diffusion", line, trainable_steps=1)
    assert policy.frozen_field is not None
    with torch.no_grad():
        policy.field.output.bias.add_(1.0)
    save_policy(saved, policy, {}, {})
    found = load_policy(saved).policy
    assert isinstance(found, GenerativePolicy)
    assert found.first_trainable == policy.first_trainable == 1
    assert found.frozen_field is not None
    assert not torch.equal(found.frozen_field.output.bias, found.field.output.bias)
    assert torch.equal(found.frozen_field.output.bias, policy.frozen_field.output.bias)


def test_equal_hashes_mean_equal_weights(saved: Path, make_base: MakeBase, line: Task) -> None:
    """The hash is of the weights alone, and one changed bit changes it."""
    policy = make_base("diffusion", line, trainable_steps=1)
    before = weights_hash(saved)
    save_policy(saved, policy, {"other": "task"}, {"step": 8})
    assert weights_hash(saved) == before
    with torch.no_grad():
        policy.field.output.bias[0] += 1e-7
    save_policy(saved, policy, {}, {})
    assert weights_hash(saved) != before


def test_no_file_can_run_code(saved: Path) -> None:
    """Numbers are safetensors (a length and JSON in front), the rest is JSON."""
    save_state(saved, {"a": torch.ones(2), "b": {"c": np.arange(3)}, "d": 1})
    assert {path.name for path in saved.iterdir()} == {WEIGHTS, DESCRIPTION, STATE_TENSORS, STATE_VALUES}
    for path in saved.iterdir():
        content = path.read_bytes()
        if path.suffix == ".json":
            json.loads(content)
        else:
            size = int.from_bytes(content[:8], "little")
            assert isinstance(json.loads(content[8 : 8 + size]), dict)


def remove(name: str) -> Callable[[Path], None]:
    """Delete a file."""
    return lambda folder: (folder / name).unlink()


def cut(name: str) -> Callable[[Path], None]:
    """Keep the first half of a file."""

    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


def described(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Edit the description."""
    return lambda folder: edit(folder, change)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no weights": (remove(WEIGHTS), "corrupt"),
    "no description": (remove(DESCRIPTION), "no checkpoint at"),
    "cut weights": (cut(WEIGHTS), "corrupt"),
    "cut description": (cut(DESCRIPTION), "corrupt"),
    "garbage weights": (lambda folder: (folder / WEIGHTS).write_bytes(b"\x80\x04garbage"), "corrupt"),
    "a list": (lambda folder: (folder / DESCRIPTION).write_text("[1, 2]"), "corrupt"),
    "unknown policy": (described(lambda d: d["policy"].update(name="difusion")), "Did you mean 'diffusion'"),
    "other width": (described(lambda d: d["policy"]["config"]["field"].update(width=16)), "field.blocks.0.first.bias"),
    "other horizon": (described(lambda d: d["policy"]["config"].update(horizon=8)), "field.input.weight"),
    "other kind": (described(lambda d: d["policy"]["config"]["field"].update(kind="unet1d")), "do not fit"),
    "impossible kind": (described(lambda d: d["policy"]["config"]["field"].update(kind="cnn")), "field.kind is 'cnn'"),
    "impossible steps": (described(lambda d: d["policy"]["config"].update(sampling_steps=99)), "sampling_steps is 99"),
    "unknown setting": (described(lambda d: d["policy"]["config"].update(widht=3)), "widht"),
    "wrong type": (described(lambda d: d["policy"]["config"].update(horizon="long")), "horizon"),
    "no settings": (described(lambda d: d["policy"].pop("config")), "config"),
    "settings of no kind": (described(lambda d: d["policy"].update(config=[1])), "corrupt"),
    "unknown field property": (described(lambda d: d["action"][0].update(colour="red")), "colour"),
    "unknown control mode": (described(lambda d: d["action"][0].update(control_mode="magic")), "magic"),
    "nameless field": (described(lambda d: d["action"][0].pop("name")), "name"),
    "no task": (described(lambda d: d.pop("task")), "task"),
    "no metadata": (described(lambda d: d.pop("metadata")), "metadata"),
    "another format": (described(lambda d: d.update(format=999)), "format 999"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_is_named(saved: Path, damage: str) -> None:
    """Every damage is a CheckpointError that says which checkpoint and which part of it."""
    break_it, words = DAMAGES[damage]
    load_policy(saved)
    break_it(saved)
    with pytest.raises(CheckpointError) as caught:
        load_policy(saved)
    assert words in str(caught.value)
    assert str(saved) in str(caught.value) or damage == "unknown policy"


@pytest.mark.parametrize("name", [STATE_TENSORS, STATE_VALUES])
@pytest.mark.parametrize("damage", [remove, cut])
def test_a_broken_training_state_is_no_training_state(saved: Path, name: str, damage: Any) -> None:
    """Resuming from it says so, and what to do."""
    save_state(saved, {"a": torch.ones(200), "b": "text" * 20})
    load_state(saved)
    damage(name)(saved)
    with pytest.raises(CheckpointError, match="cannot resume"):
        load_state(saved)


LEAVES = st.one_of(
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
    st.text(max_size=5),
    st.sampled_from(["float32", "float64", "int64", "uint64", "uint8", "bool"]).map(
        lambda dtype: np.arange(6).reshape(2, 3).astype(dtype)
    ),
    st.sampled_from([torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool]).map(
        lambda dtype: torch.arange(4).to(dtype)
    ),
    st.just(torch.tensor(3.0)),
)
TREES = st.recursive(
    LEAVES, lambda children: st.dictionaries(st.text("abc.0_", min_size=1, max_size=4), children, max_size=3)
)


@given(st.dictionaries(st.text("abc.0_", min_size=1, max_size=4), TREES, max_size=4))
def test_any_training_state_comes_back(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any]) -> None:
    """Tensors, arrays and plain values in nested mappings, empty ones included, keep value, type and place."""
    folder = tmp_path_factory.mktemp("state")
    save_state(folder, tree)
    require_same(load_state(folder), tree)


def require_same(found: Any, wanted: Any) -> None:
    """Equal in kind, type and bits."""
    assert type(found) is type(wanted)
    if isinstance(wanted, dict):
        assert set(found) == set(wanted)
        for key in wanted:
            require_same(found[key], wanted[key])
    elif isinstance(wanted, np.ndarray | torch.Tensor):
        assert found.dtype == wanted.dtype
        assert found.shape == wanted.shape
        assert bool((found == wanted).all())
    else:
        assert found == wanted


def test_the_last_checkpoint_is_the_one_with_most_steps(tmp_path: Path) -> None:
    """By number, not by name; a folder that holds a policy is itself the checkpoint."""
    for step in (5, 40, 100):
        folder = tmp_path / "checkpoints" / f"step_{step}"
        folder.mkdir(parents=True)
        (folder / DESCRIPTION).touch()
    assert find_checkpoint(tmp_path).name == "step_100"
    assert find_checkpoint(tmp_path / "checkpoints" / "step_40").name == "step_40"
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        find_checkpoint(tmp_path / "elsewhere")


def failing(error: Exception) -> Callable[..., Any]:
    """A function that fails."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


FULL = OSError(28, "No space left on device")
REPLACE = os.replace


def replace_but_not_the_new(source: Path, target: Path) -> None:
    """Renames anything but what was just written."""
    if Path(source).name.endswith(".partial"):
        raise FULL
    REPLACE(source, target)


FAILURES = {
    "rename": (os, "replace", failing(FULL)),
    "last rename": (os, "replace", replace_but_not_the_new),
    "weights": (checkpoint, "save_file", failing(FULL)),
    "weights, as safetensors tells it": (checkpoint, "save_file", failing(SafetensorError("disk full"))),
    "description": (Path, "write_text", failing(FULL)),
}


@pytest.mark.parametrize("step", [10, 20])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_full_disk_leaves_the_previous_checkpoint(
    tmp_path: Path, make_base: MakeBase, line: Task, monkeypatch: pytest.MonkeyPatch, failure: str, step: int
) -> None:
    """Nothing half written is left, be it a new checkpoint (20) or one in the place of another (10)."""
    run = Run(tmp_path / "run", {}, {})
    policy = make_base("gaussian", line)
    run.save(10, policy, {"progress": 10}, {})
    before = weights_hash(run.folder)
    changed = copy.deepcopy(policy)
    with torch.no_grad():
        changed.field.output.bias.add_(1.0)
    with monkeypatch.context() as patch:
        patch.setattr(*FAILURES[failure])
        with pytest.raises(CheckpointError, match=rf"cannot write '.*step_{step}'.*run="):
            run.save(step, changed, {"progress": step}, {})
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == ["step_10"]
    assert weights_hash(run.folder) == before
    load_policy(run.folder)
    assert load_state(find_checkpoint(run.folder))["progress"] == 10
    run.save(step, changed, {"progress": step}, {})
    assert weights_hash(run.folder) != before
    run.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path, make_base: MakeBase, line: Task) -> None:
    """The error names the folder, and the earlier checkpoint still loads."""
    run = Run(tmp_path / "run", {}, {})
    policy = make_base("gaussian", line)
    run.save(10, policy, {}, {})
    checkpoints = run.folder / "checkpoints"
    checkpoints.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match="cannot write"):
            run.save(20, policy, {}, {})
        load_policy(run.folder)
        assert [path.name for path in checkpoints.iterdir()] == ["step_10"]
    finally:
        checkpoints.chmod(0o700)
    run.close()


def test_a_file_where_the_folder_should_be(tmp_path: Path, make_base: MakeBase, line: Task) -> None:
    """The same error, also for whom permissions do not stop."""
    run = Run(tmp_path / "run", {}, {})
    (run.folder / "checkpoints").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot write"):
        run.save(10, make_base("gaussian", line), {}, {})
    run.close()

"""robomimic's checkpoints: the network that its paper describes, opened without running anything.

That robomimic itself agrees is tested beside its own code, in `tests/interop`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alula.core.errors import CheckpointError
from alula.policies.robomimic import load_robomimic

Checkpoint = dict[str, Any]


def checkpoint() -> Checkpoint:
    """What robomimic 0.3 saves of a policy with one hidden layer of 4 units that sees 3 + 2 numbers."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "policy.nets.mlp._model.0.weight": (4, 5),
        "policy.nets.mlp._model.0.bias": (4,),
        "policy.nets.decoder.nets.action.weight": (2, 4),
        "policy.nets.decoder.nets.action.bias": (2,),
    }
    empty = {"low_dim": [], "rgb": [], "depth": [], "scan": []}
    config = {
        "algo": {"actor_layer_dims": [4], **{name: {"enabled": False} for name in ("gaussian", "gmm", "vae", "rnn")}},
        "observation": {"modalities": {"obs": {**empty, "low_dim": ["pos", "object"]}, "goal": empty}},
    }
    return {
        "model": {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()},
        "config": json.dumps(config),
        "algo_name": "bc",
        "env_metadata": {"env_name": "Lift", "type": 1, "env_kwargs": {}},
        "shape_metadata": {"ac_dim": 2, "all_shapes": {"object": [3], "pos": [2]}, "use_images": False},
    }


def saved(folder: Path, values: object) -> Path:
    path = folder / "model_epoch_1.pth"
    torch.save(values, path)
    return path


@pytest.mark.parametrize("normalize", [False, True])
def test_it_acts_as_the_formula_says(tmp_path: Path, normalize: bool) -> None:
    values = checkpoint()
    mean, std = np.zeros(5), np.ones(5)
    if normalize:
        mean, std = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([0.1, 0.2, 0.3, 0.4, 0.5])
        values["obs_normalization_stats"] = {
            "object": {"mean": [mean[:3].tolist()], "std": [std[:3].tolist()]},
            "pos": {"mean": [mean[3:].tolist()], "std": [std[3:].tolist()]},
        }
    policy = load_robomimic(saved(tmp_path, values))
    assert list(policy.observation) == ["observation.object", "observation.pos"]
    assert (policy.action["action"].low, policy.action["action"].high) == ((-1.0,), (1.0,))
    rng = np.random.default_rng(0)
    object_pose = rng.normal(scale=20, size=(6, 3)).astype(np.float32)  # far outside any range
    position = rng.normal(size=(6, 2)).astype(np.float32)
    weights = [values["model"][name].double().numpy() for name in values["model"]]
    seen = (np.concatenate([object_pose, position], axis=1) - mean) / std
    wanted = np.tanh(np.maximum(seen @ weights[0].T + weights[1], 0) @ weights[2].T + weights[3])
    observation = {"observation.object": object_pose, "observation.pos": position}
    got, _, _ = policy.act(observation, policy.memory(6), torch.Generator(), stochastic=False)
    assert got == pytest.approx(wanted, abs=1e-5)


def test_it_can_be_trained_on(tmp_path: Path) -> None:
    """A sampled action has a density, as PPO needs it, and its gradient reaches robomimic's weights."""
    policy = load_robomimic(saved(tmp_path, checkpoint()))
    observation = {name: np.ones((3, *field.shape), np.float32) for name, field in policy.observation.items()}
    _, _, decision = policy.act(observation, policy.memory(3), torch.Generator().manual_seed(0), stochastic=True)
    assert decision is not None
    log_prob = policy.log_prob(decision.observation, decision.trace)
    assert log_prob.detach() == pytest.approx(decision.trace.log_prob, abs=1e-5)
    log_prob.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in policy.field.parameters())


def switch_on(values: Checkpoint, name: str) -> None:
    config = json.loads(values["config"])
    config["algo"][name]["enabled"] = True
    values["config"] = json.dumps(config)


def see_pictures(values: Checkpoint) -> None:
    config = json.loads(values["config"])
    config["observation"]["modalities"]["obs"]["rgb"] = ["agentview_image"]
    values["config"] = json.dumps(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.update(algo_name="td3_bc"), "holds td3_bc"),
        (lambda values: values.pop("config"), "config"),
        (lambda values: values.update(config="{"), "not a checkpoint of robomimic"),
        (lambda values: values["model"].popitem(), "output.bias"),
        (lambda values: values["shape_metadata"].update(ac_dim=3), "size mismatch"),
        (lambda values: switch_on(values, "rnn"), "BC with rnn"),
        (see_pictures, "agentview_image"),
    ],
)
def test_other_checkpoints_are_refused(tmp_path: Path, change: Callable[[Checkpoint], object], message: str) -> None:
    values = checkpoint()
    change(values)
    with pytest.raises(CheckpointError, match=message):
        load_robomimic(saved(tmp_path, values))


class Trap:
    """An object whose unpickling writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


def test_nothing_in_a_checkpoint_runs(tmp_path: Path) -> None:
    path = saved(tmp_path, {**checkpoint(), "extra": Trap(tmp_path / "sprung")})
    with pytest.raises(CheckpointError, match="not opened for safety"):
        load_robomimic(path)
    assert not (tmp_path / "sprung").exists()


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path, checkpoint())
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="model_epoch_1"):
        load_robomimic(path)
    with pytest.raises(CheckpointError, match=r"absent\.pth"):
        load_robomimic(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="holds list"):
        load_robomimic(saved(tmp_path, [1, 2]))

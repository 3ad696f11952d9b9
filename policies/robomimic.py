"""Behaviour-cloning policies that robomimic trained, as policies of ours.

robomimic's BC (Mandlekar et al. 2021, arXiv:2108.03298) is a perceptron with ReLU over the observations behind each
other and tanh at its end; here it is the mean of a Gaussian process of one step, so it can be evaluated, corrected by a
residual and fine-tuned like any other. Its checkpoint is a pickle: torch's loader opens it that admits only tensors
and plain values, and runs no code.
"""

import json
import pickle  # noqa: TID251  only the name of the error that torch's safe loader raises
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from alula.core.errors import CheckpointError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.policies.conditioners import Observation, StateConditioner
from alula.policies.config import GaussianPolicyConfig
from alula.policies.policy import GenerativePolicy
from alula.policies.processes.gaussian import GaussianProcess

WEIGHTS = "policy.nets.mlp._model."
OUTPUT = "policy.nets.decoder.nets.action."
VARIANTS = ("gaussian", "gmm", "vae", "rnn", "transformer")
"""Other kinds of BC, which robomimic's configuration switches on."""


@dataclass
class RobomimicConfig(GaussianPolicyConfig):
    """A policy that robomimic trained: one action at a time."""

    horizon: int = 1
    execute_steps: int = 1
    layer_dims: list[int] = field(default_factory=list)
    """Units of each hidden layer."""


class RobomimicConditioner(StateConditioner):
    """Observations behind each other; neither clamped nor repeated on a finer scale, as robomimic does neither."""

    def forward(self, observation: Observation) -> Float[Tensor, "batch features"]:
        """Features of a batch of observations."""
        parts = [self.normalizer.normalize(name, observation[name].float()) for name in self.names]
        return torch.cat([part.flatten(1) for part in parts], dim=1)


class RobomimicField(nn.Module):
    """Perceptron with ReLU, and tanh at its end."""

    def __init__(self, features: int, layer_dims: list[int], action_size: int) -> None:
        super().__init__()
        sizes = [features, *layer_dims]
        hidden = [(nn.Linear(before, size), nn.ReLU()) for before, size in zip(sizes, layer_dims, strict=False)]
        self.hidden = nn.Sequential(*(layer for pair in hidden for layer in pair))
        self.output = nn.Linear(sizes[-1], action_size)

    def forward(
        self,
        noisy: Float[Tensor, "batch horizon action"],
        step: Float[Tensor, " batch"],
        features: Float[Tensor, "batch features"],
    ) -> Float[Tensor, "batch horizon action"]:
        """The action; the single step starts from nothing, so the noisy chunk is not read."""
        del noisy, step
        return torch.tanh(self.output(self.hidden(features)))[:, None]


def load_robomimic(path: Path) -> GenerativePolicy:
    """The policy of a checkpoint that robomimic wrote.

    Observations have the names that the robomimic converter gives them (`observation.<key>`), the action lies in
    [-1, 1], robomimic's convention.

    Args:
        path: `model_epoch_*.pth`.

    Raises:
        CheckpointError: it is no checkpoint of robomimic's, or of another kind than BC with numbers as observations.
    """
    checkpoint = _read(path)
    try:
        settings = json.loads(checkpoint["config"])
        observation, action = _spaces(checkpoint, settings, path)
        weights = {name: value for name, value in checkpoint["model"].items() if name.startswith((WEIGHTS, OUTPUT))}
        config = RobomimicConfig(layer_dims=list(settings["algo"]["actor_layer_dims"]))
        conditioner = RobomimicConditioner(observation)
        network = RobomimicField(conditioner.size, config.layer_dims, action["action"].size)
        network.load_state_dict(
            {
                name.replace(WEIGHTS, "hidden.").replace(OUTPUT, "output."): value.float()
                for name, value in weights.items()
            }
        )
        _fit(conditioner, checkpoint.get("obs_normalization_stats"))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"'{path}' is not a checkpoint of robomimic's BC ({type(error).__name__}: {error}); give the file "
            f"model_epoch_*.pth that its training wrote"
        ) from error
    process = GaussianProcess(config.initial_std, action["action"].size, config.predicts_std)
    return GenerativePolicy(config, observation, action, network, process, conditioner)


def _read(path: Path) -> dict[str, Any]:
    """What the pickle holds, if that is only tensors and plain values."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"cannot read '{path}': {error.strerror}; check the path") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(
            f"'{path}' is damaged, or holds objects that are not opened for safety ({str(error).splitlines()[0]}); "
            f"give a checkpoint that robomimic wrote"
        ) from error
    if not isinstance(checkpoint, Mapping) or checkpoint.get("algo_name") != "bc":
        found = checkpoint.get("algo_name") if isinstance(checkpoint, Mapping) else type(checkpoint).__name__
        raise CheckpointError(f"'{path}' holds {found}, but only policies of robomimic's algorithm 'bc' are read")
    return dict(checkpoint)


def _spaces(checkpoint: Mapping[str, Any], settings: Mapping[str, Any], path: Path) -> tuple[SpaceSpec, SpaceSpec]:
    """What the policy sees and commands."""
    switched_on = [name for name in VARIANTS if settings["algo"].get(name, {}).get("enabled")]
    modalities = settings["observation"]["modalities"]
    pictures = [key for kind, keys in modalities["obs"].items() if kind != "low_dim" for key in keys]
    goals = [key for keys in modalities["goal"].values() for key in keys]
    if switched_on or pictures or goals:
        raise CheckpointError(
            f"'{path}' is robomimic's BC with {', '.join([*switched_on, *pictures, *goals])}; read are plain BC "
            f"policies that see numbers"
        )
    shapes = checkpoint["shape_metadata"]
    # robomimic puts observations behind each other in the order of their shapes, not of the configuration.
    keys = [key for key in shapes["all_shapes"] if key in modalities["obs"]["low_dim"]]
    observation = SpaceSpec(tuple(FieldSpec(f"observation.{key}", tuple(shapes["all_shapes"][key])) for key in keys))
    return observation, SpaceSpec((FieldSpec("action", (shapes["ac_dim"],), low=(-1.0,), high=(1.0,)),))


def _fit(conditioner: RobomimicConditioner, statistics: Mapping[str, Mapping[str, Any]] | None) -> None:
    """Scale observations by robomimic's mean and standard deviation, where it did."""
    normalizer = conditioner.normalizer
    for index, name in enumerate(conditioner.names if statistics else ()):
        assert statistics is not None
        found = statistics[name.removeprefix("observation.")]
        for part, buffer in (("mean", "center"), ("std", "scale")):
            normalizer.get_buffer(f"{buffer}_{index}").copy_(torch.as_tensor(np.asarray(found[part])[0]))

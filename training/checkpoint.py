"""Policies and training states on disk: safetensors for numbers, JSON for the rest, nothing that can run code."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from alula.core.errors import CheckpointError, ConfigError, SpecError, unknown_name
from alula.core.spaces import SpaceSpec
from alula.policies.config import ResidualHeadConfig
from alula.policies.policy import GenerativePolicy, Policy
from alula.policies.registry import POLICIES, make_policy, make_residual_policy
from alula.policies.transforms import ResidualPolicy

FORMAT = 1
WEIGHTS, DESCRIPTION = "policy.safetensors", "policy.json"
STATE_TENSORS, STATE_VALUES = "training.safetensors", "training.json"
UNREADABLE = (OSError, ValueError, SafetensorError)
"""What reading a missing, cut or edited file raises."""
Tree = Mapping[str, Any]
"""Nested string-keyed mappings whose leaves are tensors, arrays or plain JSON values."""


@dataclass
class Checkpoint:
    """A policy as it was saved, and what it was made for."""

    policy: Policy
    task: dict[str, Any]
    """Name and parameters of the task that it was trained on."""
    metadata: dict[str, Any]


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A folder to fill that appears as `target` only once it is complete.

    Raises:
        CheckpointError: it cannot be written; `target` is as it was.
    """
    partial, replaced = (target.with_name(f".{target.name}.{state}") for state in ("partial", "replaced"))
    try:
        for leftover in (partial, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if target.exists():
            os.replace(target, replaced)
        try:
            os.replace(partial, target)
        except OSError:
            if replaced.exists():
                os.rename(replaced, target)
            raise
        shutil.rmtree(replaced, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"cannot write '{target}' ({reason}). Choose another folder with run=... or free the disk"
        ) from error


def save_policy(folder: Path, policy: Policy, task: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Write a policy with all that is needed to load it anywhere."""
    description = {
        "format": FORMAT,
        "alula": version("alula"),
        "policy": _describe(policy),
        "observation": policy.observation.to_list(),
        "action": policy.action.to_list(),
        "task": dict(task),
        "metadata": dict(metadata),
    }
    save_file({name: tensor.contiguous() for name, tensor in policy.state_dict().items()}, folder / WEIGHTS)
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")


def load_policy(path: str | Path) -> Checkpoint:
    """Read a policy from a checkpoint folder, or from a run folder's last checkpoint.

    Raises:
        CheckpointError: nothing is there, a file is corrupt, or weights and description do not fit.
    """
    folder = find_checkpoint(Path(path))
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        if description["format"] != FORMAT:
            raise ValueError(f"format {description['format']}, this version reads {FORMAT}")
        weights = load_file(folder / WEIGHTS)
        observation = SpaceSpec.from_list(description["observation"])
        action = SpaceSpec.from_list(description["action"])
        policy = _rebuild(description["policy"], observation, action)
        task, metadata = dict(description["task"]), dict(description["metadata"])
    except (*UNREADABLE, AttributeError, KeyError, TypeError, OmegaConfBaseException, ConfigError, SpecError) as error:
        raise CheckpointError(
            f"checkpoint '{folder}' is corrupt or from another version: {error}. Use an earlier checkpoint of the run"
        ) from error
    _load_weights(policy, weights, folder)
    return Checkpoint(policy.eval(), task, metadata)


def find_checkpoint(path: Path) -> Path:
    """The checkpoint folder that `path` means: itself, or the last one of the run there.

    Raises:
        CheckpointError: there is none.
    """
    if (path / DESCRIPTION).exists():
        return path
    steps = sorted(path.glob("checkpoints/step_*"), key=lambda folder: int(folder.name.removeprefix("step_")))
    if not steps:
        raise CheckpointError(
            f"no checkpoint at '{path}'. Give a folder that holds {DESCRIPTION}, or a run folder with checkpoints/"
        )
    return steps[-1]


def weights_hash(path: str | Path) -> str:
    """SHA-256 of the weights of a checkpoint: equal hashes, equal policies."""
    return hashlib.sha256((find_checkpoint(Path(path)) / WEIGHTS).read_bytes()).hexdigest()


def _describe(policy: Policy) -> dict[str, Any]:
    if isinstance(policy, ResidualPolicy):
        return {"name": "residual", "config": asdict(policy.config), "base": _describe(policy.base)}
    name = next(name for name, config in POLICIES.items() if config is type(policy.config))
    return {"name": name, "config": asdict(policy.config)}


def _rebuild(description: Mapping[str, Any], observation: SpaceSpec, action: SpaceSpec) -> Policy:
    name = description["name"]
    if name == "residual":
        base = _rebuild(description["base"], observation, action)
        if not isinstance(base, GenerativePolicy):
            raise CheckpointError("a residual policy stands on another residual policy, which is not supported")
        return make_residual_policy(typed(ResidualHeadConfig, description["config"]), base)
    if name not in POLICIES:
        raise CheckpointError(unknown_name("policy", name, POLICIES))
    return make_policy(typed(POLICIES[name], description["config"]), observation, action)


def typed(schema: type[Any], values: Mapping[str, Any]) -> Any:
    """Dataclass of plain values; unknown keys and wrong types are errors."""
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), dict(values)))


def _load_weights(policy: Policy, weights: Mapping[str, Tensor], folder: Path) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in policy.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"weights of '{folder}' do not fit their description in {len(wrong)} places, first '{name}': "
            f"expected {expected.get(name, 'nothing')}, found {found.get(name, 'nothing')}"
        )
    policy.load_state_dict(dict(weights))


def save_state(folder: Path, state: Tree) -> None:
    """Write a training state: see `Tree`."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for path, leaf in _leaves(state, ()):
        key = "/".join(path)
        if isinstance(leaf, Tensor):
            tensors[key] = leaf.detach().clone().contiguous()
        elif isinstance(leaf, np.ndarray):
            # safetensors knows no uint64; the bits are what matters.
            tensors[f"numpy:{leaf.dtype}:{key}"] = torch.from_numpy(_storable(leaf).copy())
        else:
            values[key] = leaf
    save_file(tensors, folder / STATE_TENSORS)
    (folder / STATE_VALUES).write_text(json.dumps(values) + "\n")


def load_state(folder: Path) -> dict[str, Any]:
    """Inverse of `save_state`.

    Raises:
        CheckpointError: the checkpoint holds no training state, or a corrupt one.
    """
    try:
        tensors = load_file(folder / STATE_TENSORS)
        values = json.loads((folder / STATE_VALUES).read_text())
    except UNREADABLE as error:
        raise CheckpointError(
            f"cannot resume from '{folder}': {error}. Start anew with another run=... folder"
        ) from error
    tree: dict[str, Any] = {}
    for name, tensor in tensors.items():
        if name.startswith("numpy:"):
            _, dtype, key = name.split(":", 2)
            _insert(tree, key, tensor.numpy().view(dtype))
        else:
            _insert(tree, name, tensor)
    for key, value in values.items():
        _insert(tree, key, value)
    return tree


def _storable(array: np.ndarray) -> np.ndarray:
    return array.view(np.int64) if array.dtype == np.uint64 else array


def _leaves(tree: Tree, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:  # An empty one is a leaf, or it would be lost.
            yield from _leaves(value, (*path, str(key)))
        else:
            yield (*path, str(key)), value


def _insert(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split("/")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = value

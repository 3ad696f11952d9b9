"""Optimiser states as trees of tensors, so that they are stored without pickle."""

from typing import Any

from torch.optim import Optimizer

from alula.training.checkpoint import Tree


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """Moments and counters of every parameter; hyperparameters come from the configuration."""
    return {str(index): values for index, values in optimizer.state_dict()["state"].items()}


def load_optimizer(optimizer: Optimizer, state: Tree) -> None:
    """Inverse of `optimizer_state`."""
    full = optimizer.state_dict()
    full["state"] = {int(index): values for index, values in state.items()}
    optimizer.load_state_dict(full)

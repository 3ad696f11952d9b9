"""A trained policy as whoever plans for one robot; in this process, in one of its own, or behind `alula serve`."""

import os
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray
from torch import Generator

from alula.core.errors import CheckpointError
from alula.core.real_time import Committed, agreement
from alula.policies.policy import Policy
from alula.real_robot.planning.planner import Description, Request, Think
from alula.training.checkpoint import Checkpoint, load_policy

BUILD = "alula.commands.inference:think"
"""Who builds the policy in a process of its own: `checkpoint` and `seed` are its arguments."""


class Thinker:
    """A policy with its memory and its noise, for one robot.

    Args:
        policy: May be shared, as long as one thinks at a time.
        seed: Of its noise.
    """

    def __init__(self, policy: Policy, seed: int) -> None:
        self.policy, self.generator = policy, Generator().manual_seed(seed)
        self._memory, self._last = policy.memory(1), -1

    def __call__(self, request: Request) -> Float32[ndarray, "horizon action"]:
        """The next actions."""
        if request.step <= self._last:
            self._memory = self.policy.memory(1)
        self._last = request.step
        actions, self._memory = self.policy.plan(
            dict(request.observation), self._memory, self.generator, request.committed
        )
        return actions


def describe_policy(checkpoint: Checkpoint) -> Description:
    """What whoever runs a checkpoint's policy must know.

    Raises:
        CheckpointError: it does not say how often it decides.
    """
    policy = checkpoint.policy
    (action,) = policy.action.values()
    if action.rate is None:
        raise CheckpointError(
            "the checkpoint does not say how many actions a second its policy was made for, so it cannot be run in "
            "real time; train it on a dataset whose action has a rate"
        )
    return Description(
        policy.observation, policy.action, action.rate, policy.horizon, policy.execute_steps, checkpoint.task
    )


def load_thinkers(checkpoint: str, seed: int) -> tuple[Callable[[], Think], Description]:
    """Who plans for each robot, all with the same network, which has been run once: first times are slow.

    Raises:
        CheckpointError: there is no such checkpoint, or it cannot be run in real time.
    """
    # One core is left to whoever keeps time.
    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) - 1)))
    loaded = load_policy(checkpoint)
    description = describe_policy(loaded)
    _warm_up(Thinker(loaded.policy, seed), description)
    return lambda: Thinker(loaded.policy, seed), description


def think(checkpoint: str, seed: int) -> tuple[Think, Description]:
    """Who plans for a single robot."""
    thinker, description = load_thinkers(checkpoint, seed)
    return thinker(), description


def _warm_up(thinker: Thinker, description: Description) -> None:
    """Plan once freely, and once in agreement with something where that is possible."""
    nothing = {name: np.zeros(field.shape, field.dtype) for name, field in description.observation.items()}
    actions = thinker(Request(0, nothing))
    if len(actions) > 1:
        thinker(Request(0, nothing, Committed(actions, agreement(1, len(actions)))))

"""What a planner is: asked for a chunk of actions, it answers when it is ready, and nobody waits for it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from alula.core.errors import AlulaError, SpecError
from alula.core.real_time import Committed
from alula.core.spaces import SpaceSpec


@dataclass(frozen=True)
class Request:
    """A question to the policy."""

    step: int
    """Control step of the observation; steps that start over begin a run, and what the policy remembers is gone."""
    observation: Mapping[str, Shaped[ndarray, "*field"]]
    """One array per field, without an axis for the batch."""
    committed: Committed | None = None
    """What the answer should agree with."""
    created_ns: int = field(default_factory=time.monotonic_ns)


@dataclass(frozen=True)
class Plan:
    """The answer, or why there is none."""

    request: Request
    chunk: Shaped[ndarray, "..."] | None
    """Supposed to be (horizon, action), in the action field's units; nothing of it is believed."""
    failure: str = ""
    """In words; empty where there is a chunk."""


Think = Callable[[Request], Shaped[ndarray, "..."]]
"""A policy that plans for one robot."""


@dataclass(frozen=True)
class Description:
    """What a policy is, for whoever wants to run it."""

    observation: SpaceSpec
    action: SpaceSpec
    rate: float
    """Control steps per second [Hz]."""
    horizon: int
    """Actions of a plan."""
    execute_steps: int
    """Actions that it was made to execute of each."""
    task: Mapping[str, Any]
    """Name and parameters of the task that it was trained on."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **vars(self),
            "observation": self.observation.to_list(),
            "action": self.action.to_list(),
            "task": dict(self.task),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Description":
        """Inverse of `to_dict`.

        Raises:
            ValueError: it is not one.
        """
        try:
            found = cls(
                observation=SpaceSpec.from_list(values["observation"]),
                action=SpaceSpec.from_list(values["action"]),
                rate=float(values["rate"]),
                horizon=int(values["horizon"]),
                execute_steps=int(values["execute_steps"]),
                task=dict(values["task"]),
            )
        except (KeyError, TypeError, AttributeError, OverflowError, AlulaError) as error:
            raise ValueError(f"no description of a policy: {error!r}") from error
        if not (0 < found.rate < float("inf") and 0 < found.execute_steps <= found.horizon):
            raise ValueError(
                f"no policy decides {found.rate} times a second and executes {found.execute_steps} of {found.horizon}"
            )
        return found

    def require(self, observation: Mapping[str, Shaped[ndarray, "*field"]]) -> None:
        """Require that an observation is one that the policy knows.

        Raises:
            SpecError: names the field and both sides.
        """
        for name, expected in self.observation.items():
            if name not in observation:
                raise SpecError(f"the policy sees '{name}', which is missing among {', '.join(observation)}")
            found = observation[name]
            if found.shape != expected.shape or found.dtype != expected.dtype:
                raise SpecError(
                    f"'{name}' is {found.dtype} {found.shape}, the policy sees {expected.dtype} {expected.shape}"
                )


@runtime_checkable
class Planner(Protocol):
    """A policy, wherever it runs; whatever happens to it comes back as words."""

    description: Description

    def request(self, request: Request) -> None:
        """Ask; returns at once. What was asked before and is not answered yet is given up."""
        ...

    def poll(self) -> Plan | None:
        """The answer to the last question, once; None while there is none. Returns at once and raises nothing.

        Past the deadline the answer is a failure.
        """
        ...

    def close(self) -> None:
        """Let go of the policy; doing it again changes nothing."""
        ...


def think_aloud(think: Think, request: Request) -> Plan:
    """Think, with whatever goes wrong as words."""
    try:
        return Plan(request, np.asarray(think(request)))
    except Exception as error:
        return Plan(request, None, f"the policy failed: {type(error).__name__}: {error}")

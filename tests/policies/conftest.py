"""Small spaces and every policy in small, for the tests of policies."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from alula.core.normalizer import FieldStatistics
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Windows
from alula.policies.config import FIELDS, FieldConfig
from alula.policies.policy import GenerativePolicy
from alula.policies.registry import POLICIES, make_policy

OBSERVATION = SpaceSpec(
    (
        FieldSpec("observation.state", (3,)),
        FieldSpec("observation.environment_state", (2,), resolution=(0.0, 0.01)),
    )
)
ACTION = SpaceSpec((FieldSpec("action", (2,), low=(-0.1, -2.0), high=(0.1, 2.0)),))
# What makes every step of a policy's chain stochastic, and the chain short.
STOCHASTIC: dict[str, dict[str, Any]] = {
    "diffusion": {"denoising_steps": 6, "sampling_steps": 6, "eta": 1.0, "std_floor": 0.1}
}
CASES = [(name, kind, {}) for name in sorted(POLICIES) for kind in FIELDS]
CASES += [("gaussian", kind, {"predicts_std": True}) for kind in FIELDS]

MakePolicy = Callable[..., GenerativePolicy]


def random_windows(count: int, horizon: int, seed: int = 0) -> Windows:
    """Windows whose actions fill the action space's range and whose last one is masked at its end."""
    rng = np.random.default_rng(seed)
    observation = {
        name: rng.uniform(-2, 2, (count, *field.shape)).astype(np.float32) for name, field in OBSERVATION.items()
    }
    low, high = ACTION["action"].bounds()
    mask = np.ones((count, horizon), dtype=bool)
    mask[-1, 1:] = False
    return Windows(observation, rng.uniform(low, high, (count, horizon, 2)).astype(np.float32), mask)


@pytest.fixture
def make() -> MakePolicy:
    """`make(name, kind, **settings)`: a small policy with stochastic steps, normalisers fitted, seeded weights."""

    def build(name: str, kind: str = "mlp", **settings: Any) -> GenerativePolicy:
        torch.manual_seed(0)
        sizes = {"horizon": 4, "execute_steps": 3, "field": FieldConfig(kind, width=16, blocks=2)}
        config = POLICIES[name](**{**sizes, **STOCHASTIC.get(name, {}), **settings})
        policy = make_policy(config, OBSERVATION, ACTION)
        batch = random_windows(50, 4)
        values = batch.observation | {"action": batch.actions.reshape(-1, 2)}
        policy.fit_normalizers({name: FieldStatistics.of(array) for name, array in values.items()})
        return policy

    return build


@pytest.fixture(params=CASES, ids=lambda case: "-".join((*case[:2], *case[2])))
def policy(request: pytest.FixtureRequest, make: MakePolicy) -> GenerativePolicy:
    """Every policy of the table with every field, all steps stochastic."""
    name, kind, settings = request.param
    return make(name, kind, **settings)


@pytest.fixture
def windows() -> Callable[..., Windows]:
    """`windows(count, horizon, seed)`: random demonstrations."""
    return random_windows


@pytest.fixture
def seen() -> Callable[[int], dict[str, Tensor]]:
    """`seen(batch)`: random observations as tensors."""

    def draw(batch: int) -> dict[str, Tensor]:
        return {name: torch.from_numpy(value) for name, value in random_windows(batch, 1, 7).observation.items()}

    return draw

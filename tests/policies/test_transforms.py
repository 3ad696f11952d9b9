"""Residual policies and the average of weights."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor, nn

from alula.policies.config import FIELDS, FieldConfig, ResidualHeadConfig
from alula.policies.policy import GenerativePolicy
from alula.policies.registry import POLICIES, make_residual_policy
from alula.policies.transforms import BASE_ACTION, ExponentialMovingAverage, ResidualPolicy
from alula.training.objectives import ppo_loss

Seen = Callable[[int], dict[str, Tensor]]
MakePolicy = Callable[..., GenerativePolicy]
ENVS = 64


def generator(seed: int = 0) -> Generator:
    """A seeded source of randomness."""
    return Generator().manual_seed(seed)


@pytest.fixture(params=[(name, kind) for name in sorted(POLICIES) for kind in FIELDS], ids="-".join)
def residual(request: pytest.FixtureRequest, make: MakePolicy) -> ResidualPolicy:
    """A fresh head on every policy."""
    name, kind = request.param
    return make_residual_policy(ResidualHeadConfig(field=FieldConfig(width=16, blocks=1)), make(name, kind))


def arrays(observation: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """As environments give them."""
    return {name: value.numpy() for name, value in observation.items()}


def bits(module: nn.Module) -> dict[str, bytes]:
    """Every parameter and buffer, those that are not saved included."""
    values = [*module.named_parameters(), *module.named_buffers()]
    return {name: value.detach().numpy().tobytes() for name, value in values}


def rows(space: Any) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the action field."""
    (field,) = space.values()
    return field.bounds()


def test_an_untrained_head_acts_as_the_base(residual: ResidualPolicy, seen: Seen) -> None:
    """Bit for bit within the action's bounds, through whole chunks, at the same draws of noise."""
    observation = arrays(seen(ENVS))
    mine, theirs = generator(), generator()
    memory, base_memory = residual.memory(ENVS), residual.base.memory(ENVS)
    for _ in range(7):
        actions, memory, _ = residual.act(observation, memory, mine, stochastic=False)
        wanted, base_memory, _ = residual.base.act(observation, base_memory, theirs, stochastic=False)
        np.testing.assert_array_equal(actions, np.clip(wanted, *rows(residual.action)))


def test_the_head_sees_what_the_base_wants(residual: ResidualPolicy, seen: Seen) -> None:
    """At every step, also between plans: the base's action of that step, normalised, beside the observation."""
    observation, memory = arrays(seen(ENVS)), residual.memory(ENVS)
    base_memory, random = residual.base.memory(ENVS), generator()
    for _ in range(4):
        before = random.get_state()
        _, memory, decision = residual.act(observation, memory, random, stochastic=True)
        again = generator()
        again.set_state(before)
        wanted, base_memory, _ = residual.base.act(observation, base_memory, again, stochastic=False)
        assert decision is not None
        assert decision.env_ids.tolist() == list(range(ENVS))
        expected = residual.base.action_normalizer.normalize("action", torch.from_numpy(wanted))
        assert torch.equal(decision.observation[BASE_ACTION], expected)
        for name, value in observation.items():
            np.testing.assert_array_equal(decision.observation[name].numpy(), value)


def test_the_sum_is_clipped_once_and_the_density_is_of_what_was_drawn(residual: ResidualPolicy, seen: Seen) -> None:
    """Action = clip(base + scale x half-range x residual); the trace keeps the residual from before the clip."""
    residual.head.process.log_std.data.fill_(0.4)
    observation = arrays(seen(ENVS))
    actions, _, decision = residual.act(observation, residual.memory(ENVS), generator(), stochastic=True)
    assert decision is not None
    normalizer = residual.base.action_normalizer
    base = normalizer.unnormalize("action", decision.observation[BASE_ACTION])
    drawn = decision.trace.noisy[:, -1, 0]
    total = (base + residual.config.scale * normalizer.scale("action") * drawn).numpy()
    low, high = rows(residual.action)
    np.testing.assert_allclose(actions, np.clip(total, low, high), rtol=1e-5, atol=1e-6)
    assert ((total < low) | (total > high)).any()
    found = residual.log_prob(decision.observation, decision.trace)
    torch.testing.assert_close(found, decision.trace.log_prob, rtol=1e-5, atol=1e-5)
    assert residual.joint_size == 2
    assert residual.execute_steps == 1


def test_training_the_head_leaves_the_base_alone(residual: ResidualPolicy, seen: Seen) -> None:
    """After updates every bit of the base is the same and no gradient reached it; the head has moved."""
    before, head = bits(residual.base), bits(residual.head)
    trained = [value for value in residual.parameters() if value.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-2)
    memory, random = residual.memory(ENVS), generator()
    for _ in range(5):
        _, memory, decision = residual.act(arrays(seen(ENVS)), memory, random, stochastic=True)
        assert decision is not None
        log_prob = residual.log_prob(decision.observation, decision.trace)[:, 0]
        advantage = torch.randn(ENVS, generator=random)
        result = ppo_loss(log_prob, decision.trace.log_prob[:, 0], advantage, torch.full((ENVS,), 0.1), 2)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
    assert bits(residual.base) == before
    assert bits(residual.head) != head
    assert all(value.grad is None and not value.requires_grad for value in residual.base.parameters())
    assert {id(value) for value in trained} == {id(value) for value in residual.head.parameters()}


def test_the_first_update_reaches_the_head(residual: ResidualPolicy, seen: Seen) -> None:
    """A head whose output starts at zero still learns: gradients enter its last layer and its spread."""
    _, _, decision = residual.act(arrays(seen(ENVS)), residual.memory(ENVS), generator(), stochastic=True)
    assert decision is not None
    residual.log_prob(decision.observation, decision.trace).sum().backward()
    assert residual.head.field.output.weight.grad.any()
    assert residual.head.process.log_std.grad.any()


def test_resetting_empties_the_ended_queues_only(residual: ResidualPolicy, seen: Seen) -> None:
    """The base plans anew where an episode ended, and goes on elsewhere."""
    memory = residual.memory(4)
    _, memory, _ = residual.act(arrays(seen(4)), memory, generator(), stochastic=False)
    ended = np.array([True, False, False, True])
    after = residual.reset(memory, ended)
    assert (after.positions[ended] == residual.base.execute_steps).all()
    np.testing.assert_array_equal(after.positions[~ended], memory.positions[~ended])
    np.testing.assert_array_equal(after.chunks, memory.chunks)


@given(values=st.lists(st.floats(-10, 10), min_size=1, max_size=60), decay=st.sampled_from([0.0, 0.5, 0.995]))
def test_the_average_has_its_closed_form(values: list[float], decay: float) -> None:
    """sum_i (1 - d_i) prod_{j > i} d_j p_i plus what is left of the start, with d_n = min(decay, (1+n)/(10+n))."""
    module = nn.Linear(1, 1, bias=False).double()
    module.weight.data.fill_(3.0)
    average = ExponentialMovingAverage(module, decay)
    decays = [min(decay, (1 + n) / (10 + n)) for n in range(1, len(values) + 1)]
    for value in values:
        module.weight.data.fill_(value)
        average.update(module)
    expected = 3.0 * np.prod(decays)
    for index, value in enumerate(values):
        expected += (1 - decays[index]) * np.prod(decays[index + 1 :]) * value
    target = copy.deepcopy(module)
    average.copy_to(target)
    assert target.weight.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert module.weight.item() == values[-1]

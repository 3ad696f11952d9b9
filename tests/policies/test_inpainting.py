"""Chunks that agree with what is executed already (real-time chunking, arXiv:2506.07339)."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from alula.core.errors import ConfigError
from alula.core.real_time import Committed, agreement
from alula.policies.config import DiffusionPolicyConfig, FieldConfig, ResidualHeadConfig
from alula.policies.policy import GenerativePolicy
from alula.policies.processes.diffusion import DiffusionProcess
from alula.policies.processes.process import Guide
from alula.policies.registry import make_residual_policy

Seen = Callable[[int], dict[str, Tensor]]
MakePolicy = Callable[..., GenerativePolicy]
BATCH, HORIZON, SIZE = 6, 4, 2


def generator(seed: int = 0) -> Generator:
    """A seeded source of randomness."""
    return Generator().manual_seed(seed)


def guide(*weights: float) -> Guide:
    """Random actions with one weight per step."""
    chunk = 1.8 * torch.rand(BATCH, len(weights), SIZE, generator=generator(5)) - 0.9
    return Guide(chunk, torch.tensor(weights)[None, :, None].expand(BATCH, -1, 1))


@pytest.mark.parametrize("stochastic", [False, True])
def test_a_guide_without_weight_changes_nothing(policy: GenerativePolicy, seen: Seen, stochastic: bool) -> None:
    """To the rounding of going through the denoised chunk."""
    free, _ = policy.sample(seen(BATCH), generator(), stochastic)
    guided, _ = policy.sample(seen(BATCH), generator(), stochastic, guide(0.0, 0.0, 0.0, 0.0))
    torch.testing.assert_close(guided, free, rtol=0, atol=2e-2)


def test_frozen_actions_come_out_as_they_went_in(policy: GenerativePolicy, seen: Seen) -> None:
    wanted = guide(1.0, 1.0, 0.4, 0.0)
    chunk, _ = policy.sample(seen(BATCH), generator(), False, wanted)
    found = policy.action_normalizer.normalize("action", chunk)
    torch.testing.assert_close(found[:, :2], wanted.chunk[:, :2], rtol=0, atol=1e-4)
    assert not torch.allclose(found[:, 3], wanted.chunk[:, 3], atol=0.05)


@pytest.mark.parametrize("predicts_std", [False, True])
def test_a_gaussian_blends_its_mean(make: MakePolicy, seen: Seen, predicts_std: bool) -> None:
    """Mean + weight (guide - mean), and the spread stays."""
    policy, wanted = make("gaussian", predicts_std=predicts_std), guide(1.0, 0.5, 0.25, 0.0)
    free, guided = (policy.sample(seen(BATCH), generator(), False, each)[0] for each in (None, wanted))
    free, guided = (policy.action_normalizer.normalize("action", chunk) for chunk in (free, guided))
    torch.testing.assert_close(guided, free + wanted.weights * (wanted.chunk - free))


def linear_step(weights: tuple[float, ...], step: int) -> tuple[Tensor, ...]:
    """Denoised chunk of a process with a known linear field, guided and not, and what the theory adds."""
    config = DiffusionPolicyConfig(horizon=HORIZON, execute_steps=1, prediction="sample", sampling_steps=5)
    process = DiffusionProcess(config, SIZE).double()
    jacobian = 0.1 * torch.randn(HORIZON * SIZE, HORIZON * SIZE, generator=generator(1), dtype=torch.float64)
    noisy = 0.3 * torch.randn(BATCH, HORIZON, SIZE, generator=generator(2), dtype=torch.float64)
    wanted = Guide(*(value.double() for value in vars(guide(*weights)).values()))

    def predict(x: Tensor) -> Tensor:
        return (x.flatten(1) @ jacobian.T).unflatten(1, (HORIZON, SIZE))

    index = torch.full((BATCH,), step)
    timestep = int(process.time(index)[0])
    signal, noise = (float(process.get_buffer(name)[timestep]) for name in ("signal", "noise"))
    free = predict(noisy)
    error = (wanted.weights * (wanted.chunk - free)).flatten(1)
    pull = (error @ jacobian).unflatten(1, (HORIZON, SIZE))
    return process.guided(index, noisy, predict, wanted), free, min(5.0 * noise, 1.0 / signal) * pull, wanted.weights


@pytest.mark.parametrize("step", range(5))
def test_free_actions_are_pulled_by_the_transposed_jacobian(step: int) -> None:
    """Weight min(5 noise, 1 / signal), which is the paper's in diffusion time; not the error itself, as with J = 1."""
    guided, free, pull, weights = linear_step((1.0, 0.5, 0.0, 0.0), step)
    torch.testing.assert_close(guided[:, 2:], (free + pull)[:, 2:].clamp(-1, 1), rtol=0, atol=1e-9)
    assert ((free + pull)[:, 2:].abs() < 1).float().mean() > 0.9
    assert pull[:, 2:].abs().max() > 1e-3
    assert (weights[:, 2:] == 0).all()


class TwoRoutes:
    """The best denoiser of chunks that are one of two routes, which mirror each other."""

    route = torch.stack([torch.linspace(0.3, 0.8, 8), torch.linspace(0.15, 0.6, 8)], dim=1)

    def __init__(self) -> None:
        config = DiffusionPolicyConfig(horizon=8, execute_steps=4, prediction="sample", sampling_steps=5)
        self.process = DiffusionProcess(config, SIZE)

    def sample(self, wanted: Guide | None, seed: int) -> Tensor:
        """200 chunks."""
        process = self.process
        x = process.prior((200, 8, SIZE), generator(seed))
        for index in range(process.num_steps):
            step = torch.full((200,), index)
            timestep = int(process.time(step)[0])
            ratio = process.get_buffer("signal")[timestep] / process.get_buffer("noise")[timestep] ** 2

            def predict(noisy: Tensor, ratio: Tensor = ratio) -> Tensor:
                share = torch.tanh(ratio * (noisy * self.route).sum(dim=(1, 2), keepdim=True))
                return share * self.route

            prediction = predict(x) if wanted is None else process.guided(step, x, predict, wanted)
            x = process.kernel(step, x, prediction, False).mean
        return x


def test_what_is_free_goes_where_the_frozen_part_leads() -> None:
    """Half of all free chunks take either route; with half of one frozen nine in ten go on with it, and no jump."""
    routes = TwoRoutes()
    free = routes.sample(None, 0)
    assert 0.35 < (free[:, -1, 0] > 0).float().mean() < 0.65
    wanted = Guide(torch.zeros(200, 8, SIZE), torch.zeros(200, 8, 1))
    wanted.chunk[:, :4], wanted.weights[:, :4, 0] = routes.route[:4], torch.from_numpy(agreement(4, 4)).float()
    guided = routes.sample(wanted, 0)
    assert (guided[:, -1, 0] > 0).float().mean() > 0.85
    jump = (guided[:, 4] - routes.route[3]).abs().amax(dim=1)
    assert jump.median() < 1.5 * (routes.route[4] - routes.route[3]).abs().max()


def test_a_plan_agrees_with_what_is_committed(make: MakePolicy, seen: Seen) -> None:
    """In the action's units, for a single robot; beyond what is committed it is free."""
    policy = make("diffusion", eta=0.0, std_floor=0.0)
    observation = {name: value[0].numpy() for name, value in seen(1).items()}
    memory = policy.memory(1)
    actions = policy.action_normalizer.unnormalize("action", guide(1.0, 1.0).chunk[0]).numpy()
    chunk, _ = policy.plan(observation, memory, generator(), Committed(actions, np.array([1.0, 0.5])))
    assert chunk.shape == (HORIZON, SIZE) == (policy.horizon, SIZE)
    np.testing.assert_allclose(chunk[0], actions[0], rtol=1e-3, atol=1e-4)
    free, _ = policy.plan(observation, memory, generator(), None)
    wanted, _ = policy.sample(seen(1), generator(), stochastic=False)
    np.testing.assert_array_equal(free, wanted[0].numpy())


def test_a_residual_policy_plans_single_actions_and_agrees_with_nothing(make: MakePolicy, seen: Seen) -> None:
    """Its plans are what `act` does, step by step; a guide is refused with what to do instead."""
    base = make("diffusion", eta=0.0, std_floor=0.0)
    policy = make_residual_policy(ResidualHeadConfig(field=FieldConfig(width=16, blocks=1)), base)
    batch = {name: value.numpy() for name, value in seen(1).items()}
    observation = {name: value[0] for name, value in batch.items()}
    mine, theirs = policy.memory(1), policy.memory(1)
    one, other = generator(), generator()
    for _ in range(5):
        chunk, mine = policy.plan(observation, mine, one, None)
        wanted, theirs, _ = policy.act(batch, theirs, other, stochastic=False)
        np.testing.assert_array_equal(chunk, wanted)
        assert chunk.shape == (policy.horizon, SIZE)
    with pytest.raises(ConfigError, match="mode=synchronous"):
        policy.plan(observation, mine, one, Committed(chunk, np.ones(1)))

"""Every policy with every field: sampling and scoring agree, queues are values, normalisers are inside."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Normal

from alula.core.errors import ConfigError
from alula.core.transitions import Windows
from alula.policies.config import FIELDS, FieldConfig
from alula.policies.fields import zero_output
from alula.policies.policy import GenerativePolicy, Trace
from alula.training.objectives import ppo_loss

Seen = Callable[[int], dict[str, Tensor]]
MakePolicy = Callable[..., GenerativePolicy]
MakeWindows = Callable[..., Windows]
BATCH = 6


def generator(seed: int = 0) -> Generator:
    """A seeded source of randomness."""
    return Generator().manual_seed(seed)


def in_double(policy: GenerativePolicy, observation: dict[str, Tensor]) -> tuple[GenerativePolicy, dict[str, Tensor]]:
    """Both in float64."""
    return policy.double(), {name: value.double() for name, value in observation.items()}


def arrays(observation: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """As environments give them."""
    return {name: value.numpy() for name, value in observation.items()}


def test_scoring_repeats_what_sampling_recorded(policy: GenerativePolicy, seen: Seen) -> None:
    """Each step scored alone, as it was sampled, is equal bit for bit; all at once to the rounding of float32."""
    observation = seen(BATCH)
    _, trace = policy.sample(observation, generator(), stochastic=True)
    rows = torch.arange(BATCH)
    for column in range(trace.steps.shape[1]):
        single = trace.select(rows, torch.full((BATCH,), column))
        assert torch.equal(policy.log_prob(observation, single)[:, 0], trace.log_prob[:, column])
    torch.testing.assert_close(policy.log_prob(observation, trace), trace.log_prob, rtol=1e-5, atol=1e-5)


def test_scoring_repeats_sampling_after_a_reload(policy: GenerativePolicy, seen: Seen, make: MakePolicy) -> None:
    """A fresh policy with the loaded state scores a trace exactly as the one that drew it."""
    observation = seen(BATCH)
    _, trace = policy.sample(observation, generator(), stochastic=True)
    fresh = copy.deepcopy(policy)
    for values in fresh.state_dict().values():
        values.mul_(1.5).add_(0.1)
    fresh.load_state_dict(policy.state_dict())
    assert torch.equal(fresh.log_prob(observation, trace), policy.log_prob(observation, trace))


def test_a_batch_is_as_good_as_single_rows(policy: GenerativePolicy, seen: Seen) -> None:
    """One observation at a time gives the log-densities of the batch."""
    observation = seen(BATCH)
    _, trace = policy.sample(observation, generator(), stochastic=True)
    for row in range(BATCH):
        alone = Trace(trace.noisy[row : row + 1], trace.steps[row : row + 1], trace.log_prob[row : row + 1])
        found = policy.log_prob({name: value[row : row + 1] for name, value in observation.items()}, alone)
        torch.testing.assert_close(found, alone.log_prob, rtol=1e-5, atol=1e-5)


def test_log_prob_is_the_normal_density_of_the_executed_steps(policy: GenerativePolicy, seen: Seen) -> None:
    """Recomputed with torch.distributions in float64: executed rows only, summed over rows and elements."""
    policy, observation = in_double(policy, seen(BATCH))
    _, trace = policy.sample(observation, generator(), stochastic=True)
    features = policy.conditioner(observation)
    expected = []
    for column in range(policy.process.num_steps):
        step, noisy = trace.steps[:, column], trace.noisy[:, column]
        kernel = policy.process.kernel(step, noisy, policy.field(noisy, policy.process.time(step), features), True)
        density = Normal(kernel.mean, kernel.std.expand_as(kernel.mean)).log_prob(trace.noisy[:, column + 1])
        expected.append(density[:, : policy.execute_steps].sum(dim=(1, 2)))
    torch.testing.assert_close(policy.log_prob(observation, trace), torch.stack(expected, 1), rtol=0, atol=1e-10)
    torch.testing.assert_close(trace.log_prob, torch.stack(expected, 1), rtol=0, atol=1e-10)
    assert policy.joint_size == 3 * 2


def test_actions_beyond_the_execution_do_not_count(policy: GenerativePolicy, seen: Seen) -> None:
    """The last planned row is never executed: its outcome leaves the density of a single step untouched."""
    observation = seen(BATCH)
    _, trace = policy.sample(observation, generator(), stochastic=True)
    before = policy.log_prob(observation, trace)
    trace.noisy[:, -1, policy.execute_steps :] += 1.0
    assert torch.equal(policy.log_prob(observation, trace), before)
    trace.noisy[:, -1, 0] += 1.0
    assert not torch.equal(policy.log_prob(observation, trace), before)


@pytest.mark.parametrize("settings", [{"eta": 0.0, "std_floor": 0.0}, {"eta": 1.0, "std_floor": 0.0}])
@pytest.mark.parametrize("kind", FIELDS)
def test_deterministic_steps_have_no_density(make: MakePolicy, seen: Seen, kind: str, settings: Any) -> None:
    """DDIM without noise, and DDPM whose last step has none, refuse to be scored; the remedy is named."""
    policy = make("diffusion", kind, **settings)
    _, trace = policy.sample(seen(BATCH), generator(), stochastic=True)
    assert trace.log_prob.isnan().all()
    with pytest.raises(ConfigError, match="std_floor"):
        policy.log_prob(seen(BATCH), trace)


@pytest.mark.parametrize("trainable", [1, 2, 6])
@pytest.mark.parametrize("kind", FIELDS)
def test_only_the_last_steps_are_trained(make: MakePolicy, seen: Seen, kind: str, trainable: int) -> None:
    """The trace holds just those, finite; an update moves the field and leaves the frozen copy alone."""
    policy, observation = make("diffusion", kind), seen(BATCH)
    before, _ = policy.sample(observation, generator(), stochastic=True)
    policy.freeze_early_steps(trainable)
    chunk, trace = policy.sample(observation, generator(), stochastic=True)
    assert torch.equal(chunk, before)
    assert trace.steps.tolist() == [list(range(6 - trainable, 6))] * BATCH
    assert trace.noisy.shape == (BATCH, trainable + 1, 4, 2)
    assert trace.log_prob.isfinite().all()
    kept = copy.deepcopy(policy.state_dict())
    optimizer = torch.optim.SGD([value for value in policy.parameters() if value.requires_grad], lr=0.1)
    policy.log_prob(observation, trace).sum().backward()
    optimizer.step()
    changed = {name for name, value in policy.state_dict().items() if not torch.equal(value, kept[name])}
    assert "field.output.weight" in changed
    assert not [name for name in changed if not name.startswith("field.")]
    assert (policy.frozen_field is None) == (trainable == 6)
    # The early part of the chain is the frozen copy's: what a chain of the original field passes through.
    _, after = policy.sample(observation, generator(), stochastic=True)
    assert torch.equal(after.noisy[:, 0], trace.noisy[:, 0])
    assert not torch.equal(after.noisy[:, -1], trace.noisy[:, -1])


def test_what_is_scored_was_not_clipped(policy: GenerativePolicy, seen: Seen) -> None:
    """The chunk is the chain's very end in the action's units, also beyond the range that was demonstrated."""
    observation = seen(200)
    chunk, trace = policy.sample(observation, generator(), stochastic=True)
    last = trace.noisy[:, -1]
    assert torch.equal(chunk, policy.action_normalizer.unnormalize("action", last))
    settings = policy.config
    if hasattr(settings, "std_floor"):
        assert last.abs().max() > 1.0


def test_the_normalizer_is_inside_the_policy(policy: GenerativePolicy, seen: Seen) -> None:
    """A prediction of zero is the middle of the demonstrated range, and one of 1 its upper end."""
    assert policy.action_normalizer.unnormalize("action", torch.ones(2)).tolist() == pytest.approx([0.1, 2.0], rel=0.1)
    shifted = copy.deepcopy(policy)
    shifted.action_normalizer.get_buffer("center_0").add_(5.0)
    chunks = [each.sample(seen(BATCH), generator(), stochastic=False)[0] for each in (policy, shifted)]
    torch.testing.assert_close(chunks[0] + 5.0, chunks[1])


def test_plans_only_where_nothing_is_pending(policy: GenerativePolicy, seen: Seen) -> None:
    """All decide first, nobody while chunks last, and after a reset just the ended ones; their actions alone change."""
    observation, random = arrays(seen(4)), generator()
    memory = policy.memory(4)
    taken = []
    for step in range(3):
        actions, memory, decision = policy.act(observation, memory, random, stochastic=True)
        taken.append(actions)
        assert (decision is not None) == (step == 0)
        if decision is not None:
            assert decision.env_ids.tolist() == [0, 1, 2, 3]
            chunk = policy.action_normalizer.unnormalize("action", decision.trace.noisy[:, -1]).numpy()
    np.testing.assert_array_equal(np.stack(taken, 1), chunk[:, :3])
    _, memory, _ = policy.act(observation, memory, random, stochastic=True)
    memory = policy.reset(memory, np.array([False, True, False, True]))
    pending = memory.chunks[[0, 2], memory.positions[[0, 2]]].copy()
    actions, memory, decision = policy.act(observation, memory, random, stochastic=True)
    assert decision is not None
    assert decision.env_ids.tolist() == [1, 3]
    for name, value in decision.observation.items():
        np.testing.assert_array_equal(value.numpy(), observation[name][[1, 3]])
    np.testing.assert_array_equal(actions[[0, 2]], pending)


def test_acting_leaves_the_memory_that_it_was_given(policy: GenerativePolicy, seen: Seen) -> None:
    """The same memory, observation and seed give the same step again, planning or not."""
    observation, memory = arrays(seen(4)), policy.memory(4)
    for _ in range(2):
        chunks, positions = memory.chunks.copy(), memory.positions.copy()
        first, following, _ = policy.act(observation, memory, generator(), stochastic=True)
        policy.reset(memory, np.ones(4, dtype=bool))
        np.testing.assert_array_equal(memory.chunks, chunks)
        np.testing.assert_array_equal(memory.positions, positions)
        second, _, _ = policy.act(observation, memory, generator(), stochastic=True)
        np.testing.assert_array_equal(first, second)
        memory = following


def test_the_mean_path_needs_no_noise_between_steps(policy: GenerativePolicy, seen: Seen) -> None:
    """Without noise a Gaussian ignores its generator, and diffusion depends on its first draw alone."""
    observation = seen(BATCH)
    first, second = (policy.sample(observation, generator(seed), stochastic=False)[0] for seed in (0, 1))
    assert torch.equal(first, second) == (policy.process.num_steps == 1)
    assert torch.equal(policy.sample(observation, generator(0), stochastic=False)[0], first)


def by_hand(mean: Tensor, std: Tensor, action: Tensor, old: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """PPO of a plain Gaussian policy, with the geometric-mean ratio over all its elements."""
    log_prob = Normal(mean, std.expand_as(mean)).log_prob(action).sum(dim=(1, 2))
    size = mean[0].numel()
    ratio = ((log_prob - old) / size).exp()
    return -size * torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


@pytest.mark.parametrize(
    ("name", "settings"),
    [("gaussian", {}), ("diffusion", {"sampling_steps": 1, "prediction": "sample", "std_floor": 0.3})],
)
@pytest.mark.parametrize("kind", FIELDS)
def test_a_chain_of_one_step_is_a_plain_gaussian_policy(
    make: MakePolicy, seen: Seen, kind: str, name: str, settings: Any
) -> None:
    """PPO's loss and gradients equal those written out for Normal(network, std), away from ratio 1 and clipped."""
    policy, observation = in_double(make(name, kind, execute_steps=4, **settings), seen(40))
    _, trace = policy.sample(observation, generator(), stochastic=True)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator(1), dtype=parameter.dtype))
    twin, advantage = copy.deepcopy(policy), torch.randn(40, generator=generator(2), dtype=torch.float64)
    clip = 0.02
    found = ppo_loss(
        policy.log_prob(observation, trace)[:, 0],
        trace.log_prob[:, 0],
        advantage,
        torch.full((40,), clip, dtype=torch.float64),
        8,
    )
    assert 0 < found.clip_fraction < 1
    time = torch.zeros(40, dtype=torch.float64) if name == "gaussian" else torch.full((40,), 5.0, dtype=torch.float64)
    mean = twin.field(trace.noisy[:, 0], time, twin.conditioner(observation))
    std = twin.process.log_std.exp() if name == "gaussian" else torch.tensor(0.3).double()
    if name == "diffusion":
        mean = mean.clamp(-1, 1)
    loss = by_hand(mean, std, trace.noisy[:, 1], trace.log_prob[:, 0], advantage, clip)
    torch.testing.assert_close(found.loss, loss, rtol=0, atol=1e-8)
    found.loss.backward()
    loss.backward()
    for mine, theirs in zip(policy.parameters(), twin.parameters(), strict=True):
        if theirs.grad is None:
            assert mine.grad is None
            continue
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=1e-8)


@pytest.mark.parametrize("predicts_std", [False, True])
@pytest.mark.parametrize("kind", FIELDS)
def test_padded_actions_do_not_matter(make: MakePolicy, windows: MakeWindows, kind: str, predicts_std: bool) -> None:
    """Whatever stands behind the end of an episode, loss and gradients are the same bits.

    Diffusion shows the network the whole noisy chunk, so only its target can ignore the padding: see below.
    """
    policy, batch = make("gaussian", kind, predicts_std=predicts_std), windows(16, 4)
    batch.mask[:8, 2:] = False
    results = []
    for filler in (0.0, 7.0):
        actions = np.where(batch.mask[:, :, None], batch.actions, np.float32(filler))
        policy.zero_grad()
        loss = policy.loss(Windows(batch.observation, actions, batch.mask), generator())
        loss.backward()
        results.append([loss.detach(), *(value.grad for value in policy.parameters() if value.grad is not None)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_loss_is_the_mean_over_real_steps(policy: GenerativePolicy, windows: MakeWindows) -> None:
    """Errors of padded steps are left out, and the sum is divided by the number of real ones."""
    batch = windows(5, 4)
    batch.mask[:] = np.arange(4) <= np.arange(5)[:, None]
    found = policy.loss(batch, generator())
    chunk = policy.action_normalizer.normalize("action", torch.from_numpy(batch.actions))
    noisy, time, target = policy.process.training_pair(chunk, generator())
    seen = {name: torch.from_numpy(value) for name, value in batch.observation.items()}
    error = policy.process.error(policy.field(noisy, time, policy.conditioner(seen)), target).mean(dim=2)
    real = [error[row, column] for row in range(5) for column in range(4) if column <= row]
    torch.testing.assert_close(found, torch.stack(real).mean())


def train(policy: GenerativePolicy, batch: Windows, steps: int, rate: float) -> float:
    """Mean loss of the last fifty full-batch Adam steps."""
    optimizer, random, losses = torch.optim.Adam(policy.parameters(), lr=rate), generator(), []
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss = policy.loss(batch, random)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return float(np.mean(losses[-50:]))


def test_cloning_64_windows_with_a_gaussian_leaves_nothing(make: MakePolicy, windows: MakeWindows) -> None:
    """The squared error of 64 arbitrary chunks falls below 1e-3."""
    policy = make("gaussian", field=_field(64))
    assert train(policy, windows(64, 4), 600, 5e-3) < 1e-3


@pytest.mark.parametrize(
    "prediction", ["epsilon", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sample", "v_prediction"))]
)
def test_cloning_64_windows_by_diffusion_gives_them_back(
    make: MakePolicy, windows: MakeWindows, prediction: str
) -> None:
    """The mean path ends within a fifth of the half-range of the demonstration on average; at first twice as far."""
    policy, batch = make("diffusion", field=_field(128), prediction=prediction), windows(64, 4)
    untrained = _distance(policy, batch)
    train(policy, repeated(batch, 4), 900, 4e-3)
    assert _distance(policy, batch) < 0.2 < 0.45 < untrained


def repeated(batch: Windows, times: int) -> Windows:
    """Every window several times, so that a gradient step sees it at several noise levels."""
    observation = {name: np.tile(value, (times, 1)) for name, value in batch.observation.items()}
    return Windows(observation, np.tile(batch.actions, (times, 1, 1)), np.tile(batch.mask, (times, 1)))


def _distance(policy: GenerativePolicy, batch: Windows) -> float:
    observation = {name: torch.from_numpy(value) for name, value in batch.observation.items()}
    chunk, _ = policy.sample(observation, generator(), stochastic=False)
    error = policy.action_normalizer.normalize("action", chunk)
    error = error - policy.action_normalizer.normalize("action", torch.from_numpy(batch.actions))
    return float(error.abs()[torch.from_numpy(batch.mask)].mean())


def _field(width: int) -> FieldConfig:
    return FieldConfig(width=width, blocks=2)


def test_every_policy_starts_from_zero_when_told_so(policy: GenerativePolicy, seen: Seen) -> None:
    """`zero_output` makes every prediction exactly zero, and lets gradients into the last layer."""
    zero_output(policy.field)
    noisy = torch.randn(BATCH, 4, 2, generator=generator())
    prediction = policy.field(noisy, torch.zeros(BATCH), policy.conditioner(seen(BATCH)))
    assert not prediction.any()
    prediction.sum().backward()
    assert policy.field.output.weight.grad.any()

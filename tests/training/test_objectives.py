"""Losses: golden schedules, and what the clipped surrogate's gradient is."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor
from torch.distributions import Normal

from alula.training.objectives import clip_schedule, denoising_weights, per_element_clip, ppo_loss, value_loss

CLIPS = [0.0010, 0.0012, 0.0014, 0.0018, 0.0023, 0.0030, 0.0040, 0.0054, 0.0073, 0.0100]


def test_clip_schedule_of_ten_steps() -> None:
    """DPPO's numbers for base 0.001 and coefficient 0.01."""
    assert clip_schedule(0.001, 0.01, 10).tolist() == pytest.approx(CLIPS, abs=5.1e-5)


@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_the_clip_is_finite_grows_and_ends_at_its_last_value(num_steps: int) -> None:
    """A single step has the full clip, not 0 / 0."""
    clips = clip_schedule(0.001, 0.01, num_steps)
    assert clips.shape == (num_steps,)
    assert clips.isfinite().all()
    assert clips[-1].item() == pytest.approx(0.01)
    assert (clips.diff() > 0).all()
    assert torch.allclose(clip_schedule(0.01, 0.01, num_steps), torch.tensor(0.01))


@given(discount=st.floats(0.1, 1.0), num_steps=st.integers(1, 20))
def test_denoising_weights_equal_the_loop(discount: float, num_steps: int) -> None:
    """discount^(steps still to come), 1 for the last step."""
    expected = [discount ** (num_steps - 1 - step) for step in range(num_steps)]
    assert denoising_weights(discount, num_steps).tolist() == pytest.approx(expected, rel=1e-5)


def test_denoising_weights_of_ten_steps() -> None:
    """0.99 over ten steps: from 0.914 to 1."""
    weights = denoising_weights(0.99, 10)
    assert weights[0].item() == pytest.approx(0.914, abs=5e-4)
    assert weights[-1].item() == 1.0


@given(joint=st.floats(0.01, 3.0), size=st.integers(1, 200))
def test_the_clip_of_an_element_is_the_root_of_the_joint_one(joint: float, size: int) -> None:
    """(1 + c)^D = 1 + joint; with a single element they are the same."""
    assert (1 + per_element_clip(joint, size)) ** size == pytest.approx(1 + joint, rel=1e-9)
    assert per_element_clip(joint, 1) == pytest.approx(joint, rel=1e-12)


@pytest.mark.parametrize(("size", "ratio"), [(4 * 3, 1.13), (4 * 6, 1.27), (4 * 7, 1.32), (8 * 14, 3.05)])
def test_the_joint_ratios_behind_a_clip_of_one_percent(size: int, ratio: float) -> None:
    """DPPO's 0.01 per element means these joint ratios for its chunks."""
    assert per_element_clip(ratio - 1, size) == pytest.approx(0.01, rel=0.03)


def batch(seed: int = 0, count: int = 200) -> tuple[Tensor, Tensor, Tensor]:
    """Log-densities now, then, and advantages."""
    random = Generator().manual_seed(seed)
    old, change, advantage = torch.randn(3, count, generator=random, dtype=torch.float64)
    return old + 0.3 * change, old, advantage


def plain_ppo(log_prob: Tensor, old: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Schulman et al. 2017, eq. 7."""
    ratio = (log_prob - old).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


def full(clip: float, count: int = 200) -> Tensor:
    """The same clip for all."""
    return torch.full((count,), clip, dtype=torch.float64)


def test_with_one_element_it_is_plain_ppo() -> None:
    """Loss and gradient are the same bits."""
    log_prob, old, advantage = batch()
    mine, theirs = (log_prob.clone().requires_grad_() for _ in range(2))
    found, expected = ppo_loss(mine, old, advantage, full(0.2), 1), plain_ppo(theirs, old, advantage, 0.2)
    found.loss.backward()
    expected.backward()
    assert torch.equal(found.loss, expected)
    assert mine.grad is not None
    assert theirs.grad is not None
    assert torch.equal(mine.grad, theirs.grad)


@given(seed=st.integers(0, 1000), size=st.integers(1, 64))
def test_at_ratio_one_the_gradient_is_the_policy_gradient(seed: int, size: int) -> None:
    """-mean(advantage x gradient of the joint log-density), whatever the number of elements."""
    _, old, advantage = batch(seed)
    log_prob = old.clone().requires_grad_()
    result = ppo_loss(log_prob, old, advantage, full(0.1), size)
    result.loss.backward()
    torch.testing.assert_close(log_prob.grad, -advantage / 200)
    assert (result.kl, result.ratio_error, result.clip_fraction) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("size", [1, 8])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_clipping_stops_gradients_just_where_it_should(size: int, sign: float) -> None:
    """Beyond the clip in the direction of the advantage nothing pulls; inside, and on the way back, something does."""
    clip = 0.1
    edge = size * torch.log(torch.tensor([1 + clip, 1 - clip], dtype=torch.float64))
    inside, outside = 0.9 * edge, 1.1 * edge
    log_prob = torch.cat([inside, outside]).requires_grad_()
    advantage = torch.full((4,), sign, dtype=torch.float64)
    result = ppo_loss(log_prob, torch.zeros(4, dtype=torch.float64), advantage, full(clip, 4), size)
    result.loss.backward()
    assert log_prob.grad is not None
    stopped = [False, False, sign > 0, sign < 0]
    assert (log_prob.grad == 0).tolist() == stopped
    assert result.clip_fraction == 0.5


def test_kl_and_ratio_are_those_of_the_joint_distribution() -> None:
    """Two Gaussians a known distance apart: the estimate approaches KL(old || new), and the error is the largest."""
    old, new = Normal(torch.zeros(3).double(), 1.0), Normal(torch.full((3,), 0.1).double(), 1.0)
    torch.manual_seed(0)
    action = old.sample((200_000,))
    before, now = (each.log_prob(action).sum(1) for each in (old, new))
    result = ppo_loss(now, before, torch.zeros(len(now)).double(), full(0.2, len(now)), 3)
    assert result.kl == pytest.approx(3 * 0.1**2 / 2, rel=0.02)
    assert result.ratio_error == pytest.approx(float(((now - before).exp() - 1).abs().max()))


def test_half_the_mean_squared_error() -> None:
    """0.5 x (1 + 9) / 2."""
    assert value_loss(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 0.0])).item() == 2.5

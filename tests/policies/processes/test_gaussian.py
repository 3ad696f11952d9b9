"""Gaussian process: one Normal step whose density is that of torch.distributions."""

import pytest
import torch
from torch import Generator
from torch.distributions import Normal

from alula.policies.processes.gaussian import LOG_STD_RANGE, GaussianProcess
from alula.policies.processes.process import Process, Step

SHAPE = (5, 4, 3)
STEP = torch.zeros(5, dtype=torch.long)


@pytest.mark.parametrize(
    ("mean", "std", "value", "expected"),
    [(0.0, 1.0, 0.0, -0.91893853), (1.0, 2.0, 3.0, -2.11208571), (0.0, 0.1, 0.3, -3.11635344)],
)
def test_log_density_of_a_step(mean: float, std: float, value: float, expected: float) -> None:
    """Golden values of the normal log-density."""
    found = Step(torch.full((1, 1, 1), mean), torch.full((1, 1, 1), std)).log_prob(torch.full((1, 1, 1), value))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_samples_have_the_mean_and_spread_of_the_step() -> None:
    """Over 200 000 draws, within five standard errors."""
    step = Step(torch.full((200_000, 1, 1), 0.3), torch.tensor([[[0.2]]]))
    drawn = step.sample(Generator().manual_seed(0))
    assert drawn.mean().item() == pytest.approx(0.3, abs=5 * 0.2 / 200_000**0.5)
    assert drawn.std().item() == pytest.approx(0.2, rel=5 / 400_000**0.5)


def test_the_learned_spread_is_per_action_element() -> None:
    """log_prob is Normal(prediction, exp(log_std))'s, and starts at the given spread."""
    process = GaussianProcess(0.2, 3, predicts_std=False).double()
    assert torch.allclose(process.log_std.exp(), torch.tensor(0.2, dtype=torch.float64))
    process.log_std.data = torch.tensor([-1.0, 0.0, 0.4], dtype=torch.float64)
    prediction, value = torch.randn(2, *SHAPE, dtype=torch.float64, generator=Generator().manual_seed(0))
    step = process.kernel(STEP, value, prediction, True)
    expected = Normal(prediction, process.log_std.exp().expand(SHAPE)).log_prob(value)
    torch.testing.assert_close(step.log_prob(value), expected, rtol=1e-14, atol=1e-12)
    torch.testing.assert_close(process.error(prediction, value), (prediction - value) ** 2)


def test_the_predicted_spread_is_relative_to_the_learned_one_and_bounded() -> None:
    """The second half of a prediction is added to log_std, and the sum kept within its range."""
    process = GaussianProcess(0.2, 3, predicts_std=True).double()
    assert process.prediction_size == 6
    prediction = 3 * torch.randn(5, 4, 6, dtype=torch.float64, generator=Generator().manual_seed(0))
    value = torch.randn(SHAPE, dtype=torch.float64, generator=Generator().manual_seed(1))
    std = (process.log_std + prediction[..., 3:]).clamp(*LOG_STD_RANGE).exp()
    expected = Normal(prediction[..., :3], std).log_prob(value)
    step = process.kernel(STEP, value, prediction, True)
    torch.testing.assert_close(step.log_prob(value), expected, rtol=1e-14, atol=1e-12)
    torch.testing.assert_close(process.error(prediction, value), -expected)
    assert step.std.min() >= torch.e ** LOG_STD_RANGE[0] * (1 - 1e-12)
    assert step.std.max() <= torch.e ** LOG_STD_RANGE[1] * (1 + 1e-12)


def test_acting_without_noise_takes_the_mean() -> None:
    """The deterministic kernel is the same mean with a spread of zero."""
    for predicts_std in (False, True):
        process = GaussianProcess(0.2, 3, predicts_std)
        prediction = torch.randn(5, 4, process.prediction_size, generator=Generator().manual_seed(0))
        step = process.kernel(STEP, torch.zeros(SHAPE), prediction, False)
        assert torch.equal(step.sample(Generator()), prediction[..., :3])


def test_it_is_a_process() -> None:
    """The protocol's members are all there, and the single step starts from nothing."""
    process = GaussianProcess(0.2, 3, False)
    assert isinstance(process, Process)
    assert process.num_steps == 1
    assert torch.equal(process.prior(SHAPE, Generator()), torch.zeros(SHAPE))

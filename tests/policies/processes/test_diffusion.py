"""Diffusion: the kernel is the one of diffusers' schedulers, step for step."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

from alula.policies.config import DiffusionPolicyConfig
from alula.policies.processes.diffusion import DiffusionProcess
from alula.policies.processes.process import Process

PREDICTIONS = ("epsilon", "sample", "v_prediction")
SHAPE = (7, 4, 3)
POSTERIOR_STDS = (
    *(0.0, 0.076, 0.123, 0.162, 0.195, 0.226, 0.255, 0.283, 0.311, 0.339),
    *(0.369, 0.401, 0.435, 0.474, 0.519, 0.573, 0.641, 0.731, 0.857, 0.996),
)
"""Of 20 squared-cosine steps, the last step of the chain first."""


def process(**settings: Any) -> DiffusionProcess:
    """A process of 20 training steps unless told otherwise."""
    return DiffusionProcess(DiffusionPolicyConfig(**{"denoising_steps": 20, **settings}), SHAPE[2])


def index(step: int) -> torch.Tensor:
    """The same step for the whole batch."""
    return torch.full(SHAPE[:1], step)


def require_equal_chains(ours: DiffusionProcess, scheduler: Any, stochastic: bool, **arguments: Any) -> None:
    """Both walk from the same noise, under the same arbitrary predictions and the same noise in between."""
    scheduler.set_timesteps(ours.num_steps)
    random = Generator().manual_seed(3)
    x = torch.randn(SHAPE, generator=random)
    for step, timestep in enumerate(scheduler.timesteps):
        assert torch.equal(ours.time(index(step)), torch.full(SHAPE[:1], float(timestep)))
        prediction = 1.5 * torch.randn(SHAPE, generator=random)
        theirs = scheduler.step(
            prediction, timestep, x, generator=Generator().manual_seed(step), **arguments
        ).prev_sample
        kernel = ours.kernel(index(step), x, prediction, stochastic)
        x = kernel.sample(Generator().manual_seed(step))
        torch.testing.assert_close(x, theirs, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [1, 2, 20, 100])
def test_with_eta_1_and_all_steps_the_kernel_is_the_ddpm_scheduler(steps: int, prediction: str) -> None:
    """Mean and noise of every step, the last one without noise included, equal DDPMScheduler's."""
    ours = process(denoising_steps=steps, sampling_steps=steps, eta=1.0, prediction=prediction)
    theirs = DDPMScheduler(steps, beta_schedule="squaredcos_cap_v2", prediction_type=prediction, clip_sample=True)
    require_equal_chains(ours, theirs, stochastic=True)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 4, 5, 20])
def test_with_skipped_steps_the_kernel_is_the_ddim_scheduler(steps: int, eta: float, prediction: str) -> None:
    """Trailing spacing, noise recomputed from the clipped denoised chunk, and the last step onto it."""
    ours = process(sampling_steps=steps, eta=eta, prediction=prediction)
    theirs = DDIMScheduler(
        20, beta_schedule="squaredcos_cap_v2", prediction_type=prediction, timestep_spacing="trailing"
    )
    require_equal_chains(ours, theirs, stochastic=True, eta=eta, use_clipped_model_output=True)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_deterministic_kernel_ignores_eta(prediction: str) -> None:
    """Acting without noise is DDIM with eta = 0, whatever eta training uses."""
    ours = process(sampling_steps=5, eta=1.0, std_floor=0.2, prediction=prediction)
    theirs = DDIMScheduler(
        20, beta_schedule="squaredcos_cap_v2", prediction_type=prediction, timestep_spacing="trailing"
    )
    require_equal_chains(ours, theirs, stochastic=False, eta=0.0, use_clipped_model_output=True)


def test_posterior_stds_of_twenty_steps() -> None:
    """Golden values of the squared-cosine schedule."""
    ours = process(sampling_steps=20, eta=1.0)
    found = [float(ours.kernel(torch.tensor([19 - t]), *2 * [torch.zeros(1, 1, 3)], True).std) for t in range(20)]
    np.testing.assert_allclose(found, POSTERIOR_STDS, atol=5.1e-4)
    assert [ours.is_stochastic(step) for step in range(20)] == [True] * 19 + [False]


@given(
    steps=st.integers(1, 20), eta=st.sampled_from([0.0, 0.5, 1.0]), floor=st.floats(0.01, 0.5), seed=st.integers(0, 9)
)
def test_the_floor_raises_small_stds_and_nothing_else(steps: int, eta: float, floor: float, seed: int) -> None:
    """Std is max(std, floor) and the mean is that of the kernel without a floor; then every step has a density."""
    plain, floored = (process(sampling_steps=steps, eta=eta, std_floor=value) for value in (0.0, floor))
    random = Generator().manual_seed(seed)
    x, prediction = torch.randn(SHAPE, generator=random), torch.randn(SHAPE, generator=random)
    for step in range(steps):
        a, b = (ours.kernel(index(step), x, prediction, True) for ours in (plain, floored))
        assert torch.equal(a.mean, b.mean)
        assert torch.equal(b.std, a.std.clamp(min=floor))
        assert floored.is_stochastic(step)
        assert plain.is_stochastic(step) == bool((a.std > 0).all())


@given(steps=st.integers(1, 20), prediction=st.sampled_from(PREDICTIONS), seed=st.integers(0, 99))
def test_the_exact_prediction_leads_to_the_chunk_in_any_number_of_steps(steps: int, prediction: str, seed: int) -> None:
    """Told the truth at every step, also with steps that do not divide the schedule, the chain ends on the chunk."""
    ours = process(sampling_steps=steps, prediction=prediction)
    random = Generator().manual_seed(seed)
    chunk = 2 * torch.rand(SHAPE, generator=random) - 1
    x = ours.prior(SHAPE, random)
    signals, noises = ours.get_buffer("signal"), ours.get_buffer("noise")
    for step in range(steps):
        t = int(ours.time(index(step))[0])
        noise = (x - signals[t] * chunk) / noises[t]
        truth = {"epsilon": noise, "sample": chunk, "v_prediction": signals[t] * noise - noises[t] * chunk}
        x = ours.kernel(index(step), x, truth[prediction], False).mean
    # epsilon is divided by a signal of 5e-5 at the noisiest step: float32 leaves a few thousandths of it.
    torch.testing.assert_close(x, chunk, atol=2e-2 if prediction == "epsilon" and steps == 1 else 1e-3, rtol=0)


def test_training_pairs_are_noised_as_the_scheduler_does() -> None:
    """The noisy chunk is add_noise of the target's noise at the told step; v is the scheduler's velocity."""
    scheduler = DDPMScheduler(20, beta_schedule="squaredcos_cap_v2")
    chunk = 2 * torch.rand((500, 4, 3), generator=Generator().manual_seed(0)) - 1
    noisy, time, noise = process(prediction="epsilon").training_pair(chunk, Generator().manual_seed(1))
    torch.testing.assert_close(noisy, scheduler.add_noise(chunk, noise, time.long()), rtol=1e-6, atol=1e-6)
    assert set(time.tolist()) == set(range(20))
    for prediction, wanted in (("sample", chunk), ("v_prediction", scheduler.get_velocity(chunk, noise, time.long()))):
        again, times, target = process(prediction=prediction).training_pair(chunk, Generator().manual_seed(1))
        assert torch.equal(again, noisy)
        assert torch.equal(times, time)
        torch.testing.assert_close(target, wanted, rtol=1e-6, atol=1e-6)


def test_it_is_a_process() -> None:
    """The protocol's members are all there."""
    assert isinstance(process(), Process)

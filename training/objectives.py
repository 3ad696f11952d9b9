"""Losses: pure functions of a batch."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


@dataclass
class PolicyLoss:
    """Loss and what to watch."""

    loss: Float[Tensor, ""]
    kl: float
    """Estimate of KL(old || new) of the joint distribution, mean of (ratio - 1) - log ratio (Schulman 2020)."""
    clip_fraction: float
    ratio_error: float
    """Largest |joint ratio - 1|; zero before the first update."""


def per_element_clip(joint_clip: float, joint_size: int) -> float:
    """Clip of the geometric-mean ratio whose joint ratio over `joint_size` elements is 1 + `joint_clip`."""
    return float((1.0 + joint_clip) ** (1.0 / joint_size) - 1.0)


def clip_schedule(first: float, last: float, num_steps: int) -> Float[Tensor, " step"]:
    """Clip of every trainable denoising step, growing exponentially from the noisiest to the last one.

    Ren et al. 2024 (DPPO, arXiv:2409.00588): first + (last - first)(e^{3t} - 1)/(e^3 - 1), t from 0 to 1.
    A single step gets `last`.
    """
    if num_steps == 1:
        return torch.tensor([last])
    t = torch.linspace(0.0, 1.0, num_steps)
    return first + (last - first) * (torch.exp(3.0 * t) - 1.0) / (torch.e**3 - 1.0)


def denoising_weights(discount: float, num_steps: int) -> Float[Tensor, " step"]:
    """Weight of every trainable step's advantage: noisier steps decided less, discount^(steps still to come)."""
    return discount ** torch.arange(num_steps - 1, -1, -1, dtype=torch.float32)


def ppo_loss(
    log_prob: Float[Tensor, " batch"],
    old_log_prob: Float[Tensor, " batch"],
    advantage: Float[Tensor, " batch"],
    clip: Float[Tensor, " batch"],
    joint_size: int,
) -> PolicyLoss:
    """Clipped surrogate (Schulman et al. 2017, arXiv:1707.06347) on single steps of generative chains.

    The ratio is the geometric mean over the `joint_size` elements of a decision, so that one clip is one trust
    region whatever the chunk's size; see `per_element_clip`.

    Args:
        log_prob: Joint log-density now.
        old_log_prob: Joint log-density when it was drawn.
        advantage: Already weighted by step.
        clip: Permitted deviation of the geometric-mean ratio from 1.
        joint_size: Elements summed in the log-densities.
    """
    log_ratio = log_prob - old_log_prob
    ratio = torch.exp(log_ratio / joint_size)
    clipped = ratio.clamp(1.0 - clip, 1.0 + clip)
    # The gradient of the geometric mean is 1 / joint_size of the joint one; undo that, so that sizes compare.
    loss = -joint_size * torch.minimum(ratio * advantage, clipped * advantage).mean()
    with torch.no_grad():
        joint = log_ratio.exp()
        return PolicyLoss(
            loss,
            kl=float((joint - 1.0 - log_ratio).mean()),
            clip_fraction=float(((ratio - 1.0).abs() > clip).float().mean()),
            ratio_error=float((joint - 1.0).abs().max()),
        )


def value_loss(value: Float[Tensor, " batch"], target: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Half the mean squared error."""
    return 0.5 * F.mse_loss(value, target)

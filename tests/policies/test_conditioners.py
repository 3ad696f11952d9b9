"""State conditioner: recorded range to [-1, 1], and elements with a resolution once more on their own scale."""

import math

import numpy as np
import pytest
import torch

from alula.core.normalizer import FieldStatistics
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.policies.conditioners import FINE_CLAMP, StateConditioner

SPACE = SpaceSpec(
    (
        FieldSpec("coarse", (2,)),
        FieldSpec("fine", (3,), resolution=(0.0, 0.001, 0.5)),
        FieldSpec("alike", (2,), resolution=(0.1,)),
    )
)


def fitted() -> StateConditioner:
    """Ranges: coarse -2..6, fine -1..1, alike 0..4."""
    conditioner = StateConditioner(SPACE)
    ranges = {"coarse": (-2.0, 6.0, 2), "fine": (-1.0, 1.0, 3), "alike": (0.0, 4.0, 2)}
    conditioner.normalizer.fit(
        {name: FieldStatistics.of(np.tile([[low], [high]], size)) for name, (low, high, size) in ranges.items()}
    )
    return conditioner


def test_features_by_hand() -> None:
    """All fields scaled in order, then tanh(value / resolution) of the elements that have one."""
    conditioner = fitted()
    observation = {
        "coarse": torch.tensor([[2.0, 6.0]]),
        "fine": torch.tensor([[0.5, 0.002, -0.25]]),
        "alike": torch.tensor([[1.0, 0.05]]),
    }
    expected = [0.0, 1.0, 0.5, 0.002, -0.25, -0.5, -0.975]
    expected += [math.tanh(2.0), math.tanh(-0.5), math.tanh(10.0), math.tanh(0.5)]
    assert conditioner.size == len(expected)
    assert conditioner(observation)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_outliers_are_clamped_but_stay_visible_on_the_fine_scale() -> None:
    """Far outside the recorded range the coarse feature stops; inside the resolution the fine one does not."""
    conditioner = fitted()
    observation = {"coarse": torch.full((1, 2), 1e6), "fine": torch.full((1, 3), -1e6), "alike": torch.zeros(1, 2)}
    features = conditioner(observation)[0]
    assert features[:5].tolist() == [FINE_CLAMP] * 2 + [-FINE_CLAMP] * 3
    assert features[7:9].tolist() == [-1.0, -1.0]


def test_double_precision_enters_as_single() -> None:
    """Some tasks observe in double precision; networks, and hence features, are of single precision."""
    conditioner = fitted()
    single = {
        "coarse": torch.tensor([[2.0, 6.0]]),
        "fine": torch.tensor([[0.5, 0.002, -0.25]]),
        "alike": torch.tensor([[1.0, 0.05]]),
    }
    features = conditioner({name: value.double() for name, value in single.items()})
    assert features.dtype == torch.float32
    assert torch.equal(features, conditioner(single))


def test_bytes_are_numbers() -> None:
    """A field of bytes, such as an instruction, gives the features of the same numbers."""
    conditioner = StateConditioner(SpaceSpec((FieldSpec("words", (3,), dtype="uint8"),)))
    conditioner.normalizer.fit({"words": FieldStatistics.of(np.array([[0.0, 0.0, 0.0], [200.0, 100.0, 255.0]]))})
    features = conditioner({"words": torch.tensor([[50, 100, 255]], dtype=torch.uint8)})
    assert features[0].tolist() == pytest.approx([-0.5, 1.0, 1.0])


def test_the_fine_scales_are_not_weights() -> None:
    """They come from the space, so that a checkpoint holds the fitted scaling alone."""
    assert all(name.startswith("normalizer.") for name in fitted().state_dict())
    assert not list(fitted().parameters())

"""Seeds: what is trained on, tuned on and scored on never meets."""

from itertools import pairwise

import pytest

from alula.core.errors import ConfigError
from alula.training.seeds import DEMONSTRATIONS, PROGRESS, SPAN, TRAINING, first_seed


def test_ranges_are_disjoint_for_a_thousand_run_seeds() -> None:
    """The spans of every purpose and run seed follow each other without overlap, above the final evaluations."""
    spans = sorted(
        (first_seed(purpose, seed), first_seed(purpose, seed) + SPAN)
        for purpose in (DEMONSTRATIONS, TRAINING, PROGRESS)
        for seed in range(1000)
    )
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert spans[0][0] == DEMONSTRATIONS
    assert len(set(spans)) == 3000


@pytest.mark.parametrize("seed", [-1, 1000])
def test_run_seeds_without_a_span_are_refused(seed: int) -> None:
    """They would reach into the range of another purpose."""
    with pytest.raises(ConfigError, match=f"seed is {seed}; allowed are 0 to 999"):
        first_seed(TRAINING, seed)

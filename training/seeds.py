"""Which seeds are for what: ranges that never meet, so that nothing is tuned or trained on what it is scored on."""

from alula.core.errors import ConfigError
from alula.training.config import EVALUATION_SEEDS, RUN_SEEDS

DEMONSTRATIONS = EVALUATION_SEEDS
"""First seed of the episodes that experts demonstrate."""
TRAINING = 200_000_000
"""First seed of the environments that RL trains in."""
PROGRESS = 300_000_000
"""First seed of the evaluations during training. Final evaluations use the seeds below all of these."""
SPAN = (TRAINING - DEMONSTRATIONS) // RUN_SEEDS
"""Seeds per run seed in each range."""


def first_seed(purpose: int, seed: int) -> int:
    """First episode seed of a run with this `seed`.

    Raises:
        ConfigError: the seed has no span of its own.
    """
    if not 0 <= seed < RUN_SEEDS:
        raise ConfigError(f"seed is {seed}; allowed are 0 to {RUN_SEEDS - 1}, so that training never meets evaluation")
    return purpose + seed * SPAN

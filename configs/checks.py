"""What several settings must keep."""

from alula.core.errors import ConfigError
from alula.training.config import RUN_SEEDS


def require_least(least: int, **values: float) -> None:
    """Require that no setting is smaller.

    Raises:
        ConfigError: names the setting.
    """
    for name, value in values.items():
        if not value >= least:  # Which nan fails as well.
            raise ConfigError(f"{name} is {value}; it must be at least {least}")


def require_seed(seed: int) -> None:
    """Require that a seed is one of a run.

    Raises:
        ConfigError: it is not.
    """
    if not 0 <= seed < RUN_SEEDS:
        raise ConfigError(f"seed is {seed}; allowed are 0 to {RUN_SEEDS - 1}")

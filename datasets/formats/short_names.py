"""The names that arrays bear in formats without LeRobot's prefixes."""

from collections import Counter
from collections.abc import Iterable

PREFIXES = ("observation.images.", "observation.", "next.")


def short_names(names: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """`observation.images.front` → `front`, `observation.state` → `state`.

    Where two would collide, they keep their full names, after `field.`.

    Args:
        names: Names of fields.
        taken: Short names that mean something else in the format.
    """
    short = {name: _short(name) for name in names}
    uses = Counter([*short.values(), *taken])
    return {name: nick if uses[nick] == 1 else f"field.{name}" for name, nick in short.items()}


def _short(name: str) -> str:
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name

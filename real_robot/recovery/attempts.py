"""Trying a skill until a verifier says that it has worked (Robot Utility Models, Etukuru et al. 2024)."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from alula.core.errors import ConfigError


@dataclass(frozen=True)
class Attempt:
    """How one try went; what a recorder keeps."""

    number: int
    """From 1 on."""
    verified: bool
    """Whether the verifier says that it has worked."""
    recovered: bool | None
    """Whether the recovery after it has worked; None where there was none."""
    seconds: float
    """Of the skill, the verification and the recovery."""


@dataclass(frozen=True)
class Outcome:
    """How all tries went."""

    attempts: tuple[Attempt, ...]

    @property
    def success(self) -> bool:
        """Whether the last one worked."""
        return self.attempts[-1].verified


def retry(skill: Callable[[], None], verify: Callable[[], bool], recover: Callable[[], bool], attempts: int) -> Outcome:
    """Run a skill; as long as it has not worked, recover and run it again.

    Whatever any of them raises ends it: a device that is not ready is no failed attempt.

    Args:
        skill: Runs to its end, as `ControlLoop.run` does.
        verify: Looks whether it has worked: a sensor, a classifier, a person.
        recover: Makes the next attempt possible; false where it cannot.
        attempts: Most that are made.

    Raises:
        ConfigError: there are no attempts.
    """
    if attempts < 1:
        raise ConfigError(f"attempts is {attempts}; at least 1 is needed")
    made = list[Attempt]()
    while True:
        begun = time.monotonic()
        skill()
        verified = verify()
        last = verified or len(made) + 1 == attempts
        recovered = None if last else recover()
        made.append(Attempt(len(made) + 1, verified, recovered, time.monotonic() - begun))
        if last or not recovered:
            return Outcome(tuple(made))

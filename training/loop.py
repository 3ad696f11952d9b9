"""The one training loop: iterate, log, evaluate, checkpoint; stop cleanly when asked to."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol, runtime_checkable

from alula.policies.policy import Policy
from alula.training.checkpoint import Tree
from alula.training.rollouts import Clock
from alula.training.run import Run

Progress = Callable[[int, int, dict[str, float]], None]
"""Told after each iteration: steps done, steps in all, latest metrics."""


@runtime_checkable
class Trainer(Protocol):
    """An algorithm in the midst of its work."""

    total: int
    """Steps in all, in the unit of `progress`."""
    progress: int
    """Steps done: gradient steps (cloning) or environment steps (RL)."""
    checkpoint_interval: int
    """Steps between checkpoints."""
    evaluation_interval: int
    """Steps between evaluations; 0 for none."""
    clock: Clock
    """Training time by part, evaluation excluded."""

    def iterate(self) -> dict[str, float]:
        """Do one iteration; returns what to log."""
        ...

    def trained_policy(self) -> Policy:
        """What to evaluate and keep."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the future of the training."""
        ...

    def load_state_dict(self, state: Tree) -> None:
        """Inverse of `state_dict`."""
        ...


class Interrupted(Exception):  # noqa: N818 (it is a wish, not an error)
    """The user asked to stop; everything is saved."""


class _StopSignal:
    """Turns the first Ctrl-C or termination signal into a wish, honoured after the running iteration."""

    def __init__(self) -> None:
        self.wanted = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "_StopSignal":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.wanted = True
        signal.signal(number, self._previous[signal.Signals(number)])

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def fit(
    trainer: Trainer,
    run: Run,
    evaluate: Callable[[Policy], dict[str, float]] | None = None,
    report: Progress = lambda done, total, metrics: None,
) -> Policy:
    """Train to the end, from the run's last checkpoint if it has one.

    Args:
        trainer: What to do.
        run: Where to log and save.
        evaluate: Scores the policy every `evaluation_interval` steps, off the training clock.
        report: Shows progress.

    Returns:
        The trained policy, which is also the run's last checkpoint.

    Raises:
        Interrupted: a signal asked to stop; the state after the last iteration is saved.
    """
    saved = run.restore()
    if saved is not None:
        trainer.load_state_dict(saved)
    elif evaluate is not None and trainer.evaluation_interval:
        run.log(0, 0.0, evaluate(trainer.trained_policy()))
    with _StopSignal() as stop:
        while trainer.progress < trainer.total:
            before = trainer.progress
            metrics = trainer.iterate()
            finished = trainer.progress >= trainer.total
            if evaluate is not None and (finished or _crossed(before, trainer.progress, trainer.evaluation_interval)):
                metrics |= evaluate(trainer.trained_policy())
            run.log(trainer.progress, trainer.clock.total, metrics)
            report(trainer.progress, trainer.total, metrics)
            if finished or stop.wanted or _crossed(before, trainer.progress, trainer.checkpoint_interval):
                policy = trainer.trained_policy()
                run.save(trainer.progress, policy, trainer.state_dict(), {"seconds": trainer.clock.total})
            if stop.wanted and not finished:
                raise Interrupted
    return trainer.trained_policy()


def _crossed(before: int, after: int, interval: int) -> bool:
    """Whether a multiple of `interval` lies in (before, after]."""
    return interval > 0 and after // interval > before // interval

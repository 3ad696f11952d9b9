"""Whoever puts the scene in order between episodes and says how one went: an emulator, or a person."""

import threading
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from rich.console import Console

from alula.core.errors import DeviceError
from alula.real_robot.emulators.emulation import Emulation
from alula.real_robot.priority import BESIDE, hurry

POLL_S = 0.05
"""Between two questions to an emulator how it stands [s]."""


@runtime_checkable
class Scene(Protocol):
    """What is around the robot, from one episode to the next."""

    unjudged: str | None
    """Why nobody says how an episode went; None where somebody does."""

    def reset(self, seed: int) -> list[float] | None:
        """Clear the scene; returns where the robot should begin, or None where it is already."""
        ...

    def begin(self, ended: Callable[[], None]) -> None:
        """Put everything in place; from now on `ended` may be called, from any thread, once the episode is decided."""
        ...

    def outcome(self) -> bool:
        """Whether the episode that is over was a success; False where nobody judges."""
        ...


class EmulatedScene:
    """An emulator's plant, which knows for itself when the task is done.

    Args:
        emulation: Running.
        approach: Whether the robot goes to the start of an episode; it cannot in a dry run.
        unjudged: Why it does not matter what the plant says of its task; None where it does.
    """

    def __init__(self, emulation: Emulation, approach: bool = True, unjudged: str | None = None) -> None:
        self.emulation, self.approach, self.unjudged = emulation, approach, unjudged
        self._over = threading.Event()
        self._watch: threading.Thread | None = None

    def reset(self, seed: int) -> list[float] | None:
        """See `Scene.reset`."""
        start = self.emulation.reset(seed)
        return start if self.approach else None

    def begin(self, ended: Callable[[], None]) -> None:
        """See `Scene.begin`."""
        self.emulation.ask(begin=True)
        self._over.clear()
        if self.unjudged is not None:
            return
        self._watch = threading.Thread(target=self._poll, args=(ended,), daemon=True)
        self._watch.start()

    def _poll(self, ended: Callable[[], None]) -> None:
        hurry(BESIDE)
        while not self._over.wait(POLL_S):
            outcome = self.emulation.ask(outcome=True)
            if outcome["success"] or outcome["crashed"]:
                ended()
                return

    def outcome(self) -> bool:
        """See `Scene.outcome`."""
        self._over.set()
        if self._watch is not None:
            self._watch.join()
        return self.unjudged is None and bool(self.emulation.ask(outcome=True)["success"])


class AttendedScene:
    """A person at the robot, who is asked.

    Args:
        console: Where to ask.
        start: Where the robot should begin; None: wherever it is.
        unjudged: Why the person is not asked how it went; None: they are.
    """

    def __init__(self, console: Console, start: list[float] | None, unjudged: str | None = None) -> None:
        self.console, self.start, self.unjudged = console, start, unjudged

    def reset(self, seed: int) -> list[float] | None:
        """See `Scene.reset`."""
        del seed
        where = "The robot is about to go to its start. " if self.start is not None else ""
        self._ask(f"{where}Put the scene in order, step back and press Enter: ")
        return self.start

    def begin(self, ended: Callable[[], None]) -> None:
        """Everything is in place already; the episode ends when its time is up, or by Ctrl-C."""

    def outcome(self) -> bool:
        """See `Scene.outcome`."""
        if self.unjudged is not None:
            return False
        return self._ask("Was it a success? [y/N] ").strip().lower().startswith("y")

    def _ask(self, question: str) -> str:
        """What the person says.

        Raises:
            DeviceError: nobody is there.
        """
        try:
            return self.console.input(question, markup=False)
        except EOFError:
            raise DeviceError(
                "a robot is not run without a person beside it: start this in a terminal, not with its input closed"
            ) from None

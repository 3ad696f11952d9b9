"""Calls of a vendor's library that may block, made so that nobody waits longer for them than they want."""

from collections.abc import Callable
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


class Aside:
    """Makes calls that may take for ever, and waits no longer for them than one wants.

    They run on threads that end with the program, one at a time.
    """

    def __init__(self) -> None:
        self._thread: Thread | None = None

    def __call__(self, call: Callable[[], T], seconds: float) -> T:
        """What the call returns, or raises.

        Raises:
            TimeoutError: it takes longer, or the one before still runs.
        """
        if self._thread is not None and self._thread.is_alive():
            raise TimeoutError("no answer")
        results, errors = list[T](), list[Exception]()

        def attempt() -> None:
            try:
                results.append(call())
            except Exception as error:
                errors.append(error)

        self._thread = Thread(target=attempt, daemon=True)
        self._thread.start()
        self._thread.join(seconds)
        if errors:
            raise errors[0]
        if not results:
            raise TimeoutError(f"no answer within {seconds:g} s")
        return results[0]

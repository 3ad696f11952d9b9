"""What planners in other processes have in common: a thread that asks and waits, so that the control loop does not."""

import threading
import time
from abc import ABC, abstractmethod

from alula.real_robot.planning.planner import Plan, Request
from alula.real_robot.priority import BESIDE, hurry


class Background(ABC):
    """Hands questions to a thread, one at a time; the newest goes first, and one that nobody waits for is left out.

    Args:
        deadline: Time after which an answer is of no use [s].
    """

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self._changed = threading.Condition()
        self._asked: Request | None = None
        """Whose answer is waited for."""
        self._next: Request | None = None
        """The same, until the thread takes it."""
        self._plan: Plan | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="planner", daemon=True)

    @abstractmethod
    def _exchange(self, request: Request) -> Plan:
        """Ask and wait; in the thread. Raises nothing."""

    def request(self, request: Request) -> None:
        """Ask; returns at once."""
        with self._changed:
            self._asked = self._next = request
            self._plan = None
            self._changed.notify()

    def poll(self) -> Plan | None:
        """The answer to the last question, once."""
        with self._changed:
            plan = self._plan
            if plan is None and self._asked is not None:
                waited = (time.monotonic_ns() - self._asked.created_ns) / 1e9
                if waited > self.deadline:
                    plan = Plan(self._asked, None, f"the policy gave no answer within {self.deadline:g} s")
            if plan is not None:
                self._asked = self._next = self._plan = None
            return plan

    def close(self) -> None:
        """End the thread with its next breath; doing it again changes nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _work(self) -> None:
        hurry(BESIDE)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._next is not None)
                if self._closed or self._next is None:
                    return
                request, self._next = self._next, None
            plan = self._exchange(request)
            with self._changed:
                if self._asked is request:
                    self._plan = plan

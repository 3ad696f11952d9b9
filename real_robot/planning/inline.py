"""A policy in the control loop's own process, which waits for it: for dry runs, and to test whatever executes plans."""

from alula.real_robot.planning.planner import Description, Plan, Request, Think, think_aloud


class InlinePlanner:
    """Thinks while it is asked; the answer is there with the next `poll`."""

    def __init__(self, think: Think, description: Description) -> None:
        self.description = description
        self._think = think
        self._plan: Plan | None = None

    def request(self, request: Request) -> None:
        """Ask, and wait for the answer."""
        self._plan = think_aloud(self._think, request)

    def poll(self) -> Plan | None:
        """The answer, once."""
        plan, self._plan = self._plan, None
        return plan

    def close(self) -> None:
        """There is nothing to let go of."""

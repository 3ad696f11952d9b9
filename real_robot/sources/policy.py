"""A policy as a source of wishes: plans are executed step by step on a fixed grid of the monotonic clock.

A wish is where the device should be at the end of a control step. The way from one wish to the next may be straight, so
that a device that is commanded more often than the policy decides moves on without stairs; or a jump, as in simulation,
which the governor shapes. Where no action is planned
for a step there is no wish, and the governor brakes.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float64, Shaped
from numpy import ndarray

from alula.core.errors import ActionError
from alula.core.real_time import ChunkBuffer, Execution
from alula.real_robot.contract import Intent, State
from alula.real_robot.planning.planner import Plan, Planner, Request

ROUNDING = 100
"""A period of the device that reaches into a control step by less than this part of itself belongs to the one before:
lengths are whole nanoseconds."""

AWAY_NS = 100_000_000
"""Time without being asked after which somebody else has been in charge [ns]: our choice; a loop that misses periods
misses fewer."""

Observe = Callable[[State], Mapping[str, Shaped[ndarray, "*field"]] | None]
"""What the policy sees in this state, one array per field; None where something of it is missing."""
Wish = Callable[[Float[ndarray, " action"], State], Float64[ndarray, " position"]]
"""Where the device should be at the end of the control step that an action begins."""


@dataclass
class PolicyStep:
    """What happened in a control step of the policy; what a recorder keeps."""

    step: int
    observation: Mapping[str, Shaped[ndarray, "*field"]] | None
    """At the beginning of the step."""
    latency_ns: int
    """From question to answer, of the newest plan; 0 before the first [ns]."""
    action: Float[ndarray, " action"] | None = None
    """What the policy wants; None where that was not known in time."""
    wish: Float64[ndarray, " position"] | None = None
    """The same as a position of the device."""
    created_ns: int = 0
    """When the wish was made [ns]."""


@dataclass
class Punctuality:
    """How well planning keeps up with executing."""

    latencies_ns: list[int] = field(default_factory=list)
    """Of every answer, from the question on."""
    late_plans: int = 0
    """Plans that came when none of their actions was left to execute."""
    starved_steps: int = 0
    """Control steps that passed without an action, those before the first answer left out."""
    failures: Counter[str] = field(default_factory=Counter)
    """What went wrong, in words, and how often."""


@dataclass(frozen=True)
class _Way:
    """From one wish to the next, in the time of the run [ns]."""

    start: Float64[ndarray, " position"]
    end: Float64[ndarray, " position"]
    since: int
    duration: int

    def at(self, time: int) -> Float64[ndarray, " position"]:
        share = (time - self.since) / self.duration
        return self.end if share >= 1 else self.start + max(share, 0.0) * (self.end - self.start)


class PolicySource:
    """Asks a planner for chunks, and says what their actions wish.

    Args:
        planner: The policy, wherever it runs.
        execution: How its chunks are executed.
        rate: Control steps per second [Hz].
        device_period_ns: Of the device: a command is where it should be at the end of its period [ns].
        observe: Called once at the beginning of every control step.
        wish: Called once for every action that is executed.
        blend: Share of a control step that the straight way to its wish takes, 0 for a jump.
        resume: Called when somebody else has been in charge, before the policy goes on.
    """

    def __init__(
        self,
        planner: Planner,
        execution: Execution,
        rate: float,
        device_period_ns: int,
        observe: Observe,
        wish: Wish,
        blend: float = 1.0,
        resume: Callable[[], None] = lambda: None,
    ) -> None:
        self.planner, self.period_ns, self.device_period_ns = planner, round(1e9 / rate), device_period_ns
        self._observe, self._wish, self._resume = observe, wish, resume
        self._blend_ns = max(1, round(blend * self.period_ns))
        self._execution, self._buffer = execution, ChunkBuffer(execution)
        self.records: list[PolicyStep] = []
        """One for every control step, the present one included; whoever keeps them elsewhere may empty it."""
        self.punctuality = Punctuality()
        self._asked_ns = 0
        """When it was last asked what it wishes [ns]."""
        self._start: int | None = None
        """When the first observation was complete, where the grid begins [ns]."""
        self._present: PolicyStep | None = None
        self._question: Request | None = None
        self._way: _Way | None = None
        """To the present wish; None where there is none."""

    def at(self, now_ns: int, state: State) -> Intent | None:
        """The wish of this moment on the way to that of the control step; None where there is none."""
        # Periods of the device are counted, so that one that begins late wishes what it would have wished in time.
        start = now_ns if self._start is None else self._start
        now = round((now_ns - start) / self.device_period_ns) * self.device_period_ns
        end = now + self.device_period_ns
        step = (end - self.device_period_ns // ROUNDING) // self.period_ns
        if now_ns - self._asked_ns > AWAY_NS and self._present is not None:
            self._start_anew()
        self._asked_ns = now_ns
        self._take(self.planner.poll(), step, now_ns)
        since = now
        if self._present is None or step != self._present.step:
            if not self._begin(step, now_ns, state):
                return None
            since = step * self.period_ns
        self._decide(since, now_ns, state)
        return None if self._way is None else Intent(self._way.at(end), now_ns, "policy")

    def _start_anew(self) -> None:
        """Whatever was planned, the device is elsewhere now."""
        self._buffer, self._question, self._way = ChunkBuffer(self._execution), None, None
        self._resume()

    def _begin(self, step: int, now_ns: int, state: State) -> bool:
        """Observe, and ask if it is time to; False before the first observation."""
        observation = self._observe(state)
        if self._start is None:
            if observation is None:
                return False
            self._start = now_ns
        latencies = self.punctuality.latencies_ns
        if self._present is not None and self._present.action is None and latencies:
            self.punctuality.starved_steps += 1
        if observation is not None and self._buffer.wants(step):
            self._question = Request(step, observation, self._buffer.ask(step), now_ns)
            self.planner.request(self._question)
            self._take(self.planner.poll(), step, now_ns)
        self._present = PolicyStep(step, observation, latencies[-1] if latencies else 0)
        self.records.append(self._present)
        return True

    def _take(self, plan: Plan | None, step: int, now_ns: int) -> None:
        """Note an answer that has arrived in this step."""
        if plan is None or plan.request is not self._question:
            return
        found = self.punctuality
        found.latencies_ns.append(now_ns - plan.request.created_ns)
        if plan.chunk is None:
            self._buffer.give_up()
            found.failures[plan.failure] += 1
            return
        try:
            found.late_plans += not self._buffer.take(plan.chunk, step)
        except ActionError as error:
            found.failures[str(error)] += 1

    def _decide(self, since: int, now_ns: int, state: State) -> None:
        """Take the action of this step, as soon as there is one, and no other in its place."""
        assert self._present is not None
        present = self._present
        if present.wish is not None:
            return
        present.action = self._buffer.action(present.step)
        if present.action is None:
            self._way = None
            return
        start = state.position if self._way is None else self._way.at(since)
        if not np.isfinite(start).all():
            start = state.position
        present.wish, present.created_ns = self._wish(present.action, state), now_ns
        self._way = _Way(start, present.wish, since, self._blend_ns)

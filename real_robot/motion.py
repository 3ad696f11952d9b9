"""Where commands are, and where they may go next so that no limit is ever broken.

The differences of the positions over one, two and three periods are velocity, acceleration and jerk, and from every
position there is a way to rest within all limits (`braking.py`). A wish that would leave no such way is not followed,
but what comes nearest is, and the way itself is always possible. So no wish, however wrong, breaks a limit.

Proof sketch: the braking curve starts half a period ahead of the last difference, so that its samples' differences are
averages of its own velocity, acceleration and jerk, which keep their limits.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from alula.real_robot.braking import Braking
from alula.real_robot.contract import Limits, Workspace

SHARES = np.linspace(1.0, 0.0, 65)[:-1, None] ** 2
"""How much of the way from what is certainly possible to what is wished is tried; finest near the certain."""
PARTS = 0.5 ** np.arange(1.0, 6.0)[:, None]
"""How much of what is possible is tried where all of it would leave the workspace."""
PLACES = 64
"""Into how many parts the way to rest is divided for the workspace."""
SPREAD = 1.0 - np.sqrt(1.0 - np.linspace(0.0, 1.0, PLACES + 1)[:, None])
ROUNDING = 1e-9
"""Relative excess that floating-point numbers may bring about."""

Elements = Float64[ndarray, " action"]
Candidates = Float64[ndarray, "candidates action"]
Choice = Bool[ndarray, "candidates action"]


@dataclass(frozen=True)
class _Step:
    """A position that may come next, and how to come to rest from there; or several."""

    position: Float64[ndarray, "*candidates action"]
    way: Braking
    certain: Bool[ndarray, "*candidates action"]
    """Elements that stay on the way to rest that they are on."""


class Motion:
    """The last command's position, velocity and acceleration, and the next position.

    Args:
        limits: Of the commands.
        rate: Commands per second [Hz].
        workspace: Where the device may be, beyond the limits; None: anywhere.
        start: Position at first, at rest; inside all limits and the workspace.
    """

    def __init__(self, limits: Limits, rate: float, workspace: Workspace | None, start: Elements) -> None:
        self.low, self.high = np.array(limits.low) + limits.margin, np.array(limits.high) - limits.margin
        self._velocity, self._acceleration, self._jerk = (
            np.array(getattr(limits, name)) for name in ("velocity", "acceleration", "jerk")
        )
        self._dt, self._workspace = 1.0 / rate, workspace
        self.position = np.array(start, dtype=np.float64)
        self.speed, self.push = np.zeros_like(self.position), np.zeros_like(self.position)
        """Velocity and acceleration of the last commands."""
        self._way, self._elapsed = self._rest_from(self.position), np.zeros_like(self.position)
        self._wished, self._pace = self.position, np.zeros_like(self.position)
        """The last wish, and its velocity since the one before."""
        self._on = np.zeros(len(self.position), dtype=bool)
        """Elements that were exactly where they were wished."""

    def brake(self) -> None:
        """Follow the certain way to rest."""
        self._on = np.zeros_like(self._on)
        self._elapsed = self._elapsed + self._dt
        self._move(self._way.at(self._elapsed))

    def follow(self, wish: Elements) -> tuple[bool, bool]:
        """Move as far towards the wish as is safe.

        Returns:
            Whether that is all the way, and whether nothing but the workspace stood in it.
        """
        target = _bounded(wish, self.low, self.high)
        certain = self._way.at(self._elapsed + self._dt)
        candidates = np.concatenate((target[None], certain + SHARES * (_bounded(target, *self._reach()) - certain)))
        ways = self._rest_from(candidates)
        safe, low, high = self._safe(candidates, ways)
        safe[0] &= (wish == target) & (self._on | self._joins(target))
        if not safe[0].all():
            safe[1:] &= self._short_of(self._aim(target), low[1:], high[1:])
        number = safe.argmax(axis=0)
        chosen = number, np.arange(len(number))
        # What is certain anyway is not to be doubted for a rounding error: a replay of it must stay on its way.
        anyway = target == certain
        following = self._step(candidates[chosen], ways.picked(number), ~safe[chosen] | anyway, certain)
        exactly = safe[0] | (anyway & (wish == target))
        free = self._leads_inside(following)
        self._pace, self._wished = (target - self._wished) / self._dt, target
        if not free:
            exactly, hindered = np.zeros_like(exactly), self._hindered(following, certain)
            if hindered is None:
                self.brake()
                return False, True
            following = hindered
        self._on, self._way = exactly, following.way
        self._elapsed = np.where(following.certain, self._elapsed + self._dt, 0.0)
        self._move(following.position)
        return bool(exactly.all()), not free

    def _move(self, position: Elements) -> None:
        velocity = (position - self.position) / self._dt
        self.push, self.speed, self.position = (velocity - self.speed) / self._dt, velocity, position

    def _step(
        self,
        position: Float64[ndarray, "*positions action"],
        way: Braking,
        prevented: Bool[ndarray, "*candidates action"],
        certain: Elements,
    ) -> _Step:
        """Such a position but for the elements that are prevented, for which there is only what is certain."""
        return _Step(np.where(prevented, certain, position), way.replaced(prevented, self._way), prevented)

    def _hindered(self, wanted: _Step, certain: Elements) -> _Step | None:
        """What of a step the workspace permits: of its elements those that may go alone, or less of all of them."""
        assert self._workspace is not None
        alone = self._step(wanted.position, wanted.way, wanted.certain | ~np.eye(len(certain), dtype=bool), certain)
        candidates = certain + PARTS * (wanted.position - certain)
        ways = self._rest_from(candidates)
        less = self._step(candidates, ways, wanted.certain | ~self._safe(candidates, ways)[0], certain)
        inside = self._workspace.inside(np.concatenate((less.way.end, alone.way.end)))
        together = self._step(wanted.position, wanted.way, wanted.certain | ~inside[len(PARTS) :], certain)
        most = inside[: len(PARTS)].argmax()
        part = _Step(less.position[most], less.way.candidate(int(most)), less.certain[most])
        return next((step for step in (together, part) if self._leads_inside(step)), None)

    def _leads_inside(self, step: _Step) -> bool:
        """Whether the device can go there and then come to rest without leaving the workspace."""
        if self._workspace is None:
            return True
        elapsed = np.where(step.certain, self._elapsed + self._dt, 0.0)
        left = np.maximum(step.way.duration - elapsed, 0.0).max()
        # Braking goes as the square of the time that is left, so that these are about equally far from each other.
        times = elapsed + left * SPREAD
        return self._workspace.free(np.concatenate((self.position[None], step.way.at(times))))

    def _joins(self, wish: Elements) -> Bool[ndarray, " action"]:
        """Elements that can go on with the wish once they are there, should it keep its present velocity.

        Otherwise a standing wish would be met at speed, and overshot again and again.
        """
        dt = self._dt
        velocity = (wish - self.position) / dt
        push, needed = (velocity - self.speed) / dt, ((wish - self._wished) / dt - velocity) / dt
        jolt = self._jerk * dt
        return (np.abs(needed) <= np.minimum(self._acceleration, jolt)) & (np.abs(needed - push) <= jolt)

    def _aim(self, target: Elements) -> Elements:
        """Where it may come to rest on the way to the target: there or, should that move, where it could itself stop.

        Otherwise it would stay behind a moving target by its braking distance. A target counts as moving while it keeps
        the limit of acceleration: the single steps of a slow source are none to run after.
        """
        velocity = (target - self._wished) / self._dt
        acceleration = (velocity - self._pace) / self._dt
        moving = np.abs(acceleration) <= self._acceleration
        velocity, acceleration = np.where(moving, velocity, 0.0), np.where(moving, acceleration, 0.0)
        return _bounded(self._rest(target, velocity, acceleration).end, self.low, self.high)

    def _short_of(self, aim: Elements, low: Candidates, high: Candidates) -> Choice:
        """Candidates whose way to rest, between these positions, does not lead past the aim."""
        room = ROUNDING * (np.abs(aim) + 1.0)
        return np.where(aim >= self.position, high <= np.maximum(aim, self.position) + room, low >= aim - room)

    def _rest_from(self, position: Float64[ndarray, "*candidates action"]) -> Braking:
        """The way to rest if this position comes next."""
        velocity = (position - self.position) / self._dt
        return self._rest(position, velocity, (velocity - self.speed) / self._dt)

    def _rest(
        self,
        position: Float64[ndarray, "*candidates action"],
        velocity: Float64[ndarray, "*candidates action"],
        acceleration: Float64[ndarray, "*candidates action"],
    ) -> Braking:
        """The way to rest after these differences, which were half a period ago."""
        ahead = velocity + 0.5 * self._dt * acceleration
        return Braking.start(position, ahead, acceleration, self._acceleration, self._jerk)

    def _reach(self) -> tuple[Elements, Elements]:
        """Next positions that the limits of velocity, acceleration and jerk leave."""
        dt = self._dt
        least = np.maximum(self.push - self._jerk * dt, -self._acceleration)
        most = np.minimum(self.push + self._jerk * dt, self._acceleration)
        slow = np.maximum(self.speed + least * dt, -self._velocity)
        fast = np.minimum(self.speed + most * dt, self._velocity)
        return self.position + slow * dt, self.position + fast * dt

    def _safe(self, candidates: Candidates, ways: Braking) -> tuple[Choice, Candidates, Candidates]:
        """Which may come next and lead to rest within limits, and the ends of their ways to rest."""
        nearest, farthest = self._reach()
        room = ROUNDING * (farthest - nearest)
        low, high = ways.extremes()
        safe = (candidates >= nearest - room) & (candidates <= farthest + room)
        safe &= (low >= self.low) & (high <= self.high) & (ways.top_speed() <= self._velocity)
        return safe, low, high


def _bounded(values: Elements, low: Elements, high: Elements) -> Elements:
    """What `np.clip` does, in a third of the time."""
    return np.minimum(np.maximum(values, low), high)

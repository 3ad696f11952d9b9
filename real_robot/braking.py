"""Coming to rest in the shortest time under limits of acceleration and jerk, in closed form."""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

Elements = Float64[ndarray, "*candidates action"]


@dataclass(frozen=True)
class Braking:
    """The time-optimal way from a velocity and an acceleration to rest, per element.

    Three phases of constant jerk: from the present acceleration to a deceleration, which is held, and back to zero.
    """

    position: Elements
    velocity: Elements
    acceleration: Elements
    jerk: Elements
    """Of the first phase; the last has the opposite."""
    first: Elements
    second: Elements
    third: Elements
    """Durations of the phases [s]."""

    @classmethod
    def start(
        cls,
        position: Elements,
        velocity: Elements,
        acceleration: Elements,
        most: Float64[ndarray, " action"],
        jerk: Float64[ndarray, " action"],
    ) -> "Braking":
        """The way from here.

        Args:
            position: Where it begins.
            velocity: Velocity there.
            acceleration: Acceleration there, at most `most`.
            most: Greatest acceleration.
            jerk: Greatest jerk.
        """
        # Where the velocity ends if the acceleration is merely taken back decides which way to brake.
        size = np.abs(acceleration)
        side = np.sign(velocity + acceleration * size / (2 * jerk))
        speed, push = side * velocity, side * acceleration
        gained = 0.5 * push**2
        held = np.minimum(np.sqrt(np.maximum(jerk * speed + gained, 0.0)), most)
        holding = np.maximum(speed + (gained - held**2) / jerk, 0.0) / np.maximum(held, np.finfo(float).tiny)
        # Without a side the acceleration is just taken back.
        still = side == 0
        first = np.where(still, size, np.maximum(push + held, 0.0)) / jerk
        sign = np.where(still, np.sign(acceleration), side)
        held = np.where(still, 0.0, held)
        return cls(position, velocity, acceleration, -sign * jerk, first, np.where(still, 0.0, holding), held / jerk)

    def replaced(self, chosen: Bool[ndarray, "*candidates action"], other: "Braking") -> "Braking":
        """The same but for the chosen elements, which are the other's."""
        return Braking(*(np.where(chosen, getattr(other, f.name), getattr(self, f.name)) for f in fields(self)))

    def picked(self, candidate: Int64[ndarray, " action"]) -> "Braking":
        """Of several candidates, for every element the one with this number."""
        chosen = candidate, np.arange(len(candidate))
        return Braking(*(getattr(self, f.name)[chosen] for f in fields(self)))

    def candidate(self, number: int) -> "Braking":
        """One of several candidates."""
        return Braking(*(getattr(self, f.name)[number] for f in fields(self)))

    def at(self, time: Elements) -> Elements:
        """Position after a time [s], which each element has of its own; at rest from the end on."""
        first = np.minimum(time, self.first)
        second = np.minimum(time - first, self.second)
        return self._after(first, second, np.minimum(time - first - second, self.third))

    def _after(self, first: Elements, second: Elements, third: Elements) -> Elements:
        """Position after so much of every phase [s]."""
        jerk, push = self.jerk, self.acceleration
        position = self.position + first * (self.velocity + first * (push / 2 + jerk * first / 6))
        speed, push = self.velocity + first * (push + jerk * first / 2), push + jerk * first
        position = position + second * (speed + second * push / 2)
        speed = speed + second * push
        return position + third * (speed + third * (push / 2 - jerk * third / 6))

    @property
    def duration(self) -> Elements:
        """Time to rest [s]."""
        return self.first + self.second + self.third

    @property
    def end(self) -> Elements:
        """Where it comes to rest."""
        return self._after(self.first, self.second, self.third)

    def extremes(self) -> tuple[Elements, Elements]:
        """Lowest and highest position on the way.

        The velocity changes sign at most once: in the first phase, where the acceleration points against it.
        """
        speed, push, jerk = self._braked()
        time = np.where(speed < 0, (push - np.sqrt(np.maximum(push**2 + 2 * jerk * speed, 0.0))) / jerk, 0.0)
        turning = self.position + time * (self.velocity + time * (self.acceleration / 2 + self.jerk * time / 6))
        end = self.end
        low, high = np.minimum(end, turning), np.maximum(end, turning)
        return np.minimum(low, self.position), np.maximum(high, self.position)

    def top_speed(self) -> Elements:
        """Greatest speed on the way."""
        speed, push, jerk = self._braked()
        return np.maximum(np.abs(speed), speed + np.maximum(push, 0.0) ** 2 / (2 * jerk))

    def _braked(self) -> tuple[Elements, Elements, Elements]:
        """Velocity and acceleration, positive in the direction that is braked, and the size of the jerk."""
        side = -np.sign(self.jerk)
        return side * self.velocity, side * self.acceleration, np.where(side == 0, 1.0, np.abs(self.jerk))

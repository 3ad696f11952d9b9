"""Coming to rest in the shortest time under limits of acceleration and jerk, in closed form."""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

Elements = Float64[ndarray, " action"]


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
    durations: Float64[ndarray, "3 action"]
    """Of the three phases [s]."""

    @classmethod
    def start(
        cls, position: Elements, velocity: Elements, acceleration: Elements, most: Elements, jerk: Elements
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
        side = np.sign(velocity + acceleration * np.abs(acceleration) / (2 * jerk))
        speed, push = side * velocity, side * acceleration
        peak = np.sqrt(np.maximum(jerk * speed + 0.5 * push**2, 0.0))
        held = np.minimum(peak, most)
        holding = np.maximum(speed + 0.5 * push**2 / jerk - held**2 / jerk, 0.0) / held.clip(np.finfo(float).tiny)
        # Without a side the acceleration is just taken back.
        first = np.where(side == 0, np.abs(acceleration) / jerk, np.maximum(push + held, 0.0) / jerk)
        sign = np.where(side == 0, -np.sign(acceleration), -side)
        last = np.where(side == 0, 0.0, held / jerk)
        durations = np.stack((first, np.where(side == 0, 0.0, holding), last))
        return cls(position, velocity, acceleration, sign * jerk, durations)

    def replaced(self, chosen: Bool[ndarray, " action"], other: "Braking") -> "Braking":
        """The same but for the chosen elements, which are the other's."""
        return Braking(*(np.where(chosen, getattr(other, f.name), getattr(self, f.name)) for f in fields(self)))

    def at(self, time: Elements) -> Elements:
        """Position after a time [s], which each element has of its own; at rest from the end on."""
        position, velocity, acceleration = self.position, self.velocity, self.acceleration
        left = time
        for duration, jerk in zip(self.durations, (self.jerk, 0.0 * self.jerk, -self.jerk), strict=True):
            step = np.minimum(left, duration)
            position = position + velocity * step + acceleration * step**2 / 2 + jerk * step**3 / 6
            velocity = velocity + acceleration * step + jerk * step**2 / 2
            acceleration = acceleration + jerk * step
            left = left - step
        return position

    @property
    def duration(self) -> Elements:
        """Time to rest [s]."""
        return self.durations.sum(axis=0)

    def extremes(self) -> tuple[Elements, Elements]:
        """Lowest and highest position on the way.

        The velocity changes sign at most once: only where the acceleration points against it at the start.
        """
        end = self.at(self.duration)
        turning = np.stack([self.position, end, *self._turning_points()])
        return turning.min(axis=0), turning.max(axis=0)

    def _turning_points(self) -> list[Elements]:
        """Positions where the velocity passes zero inside the first phase."""
        discriminant = self.acceleration**2 - 2 * self.jerk * self.velocity
        root = np.sqrt(np.maximum(discriminant, 0.0))
        found = []
        for sign in (-1.0, 1.0):
            time = (-self.acceleration + sign * root) / np.where(self.jerk == 0, 1.0, self.jerk)
            inside = (discriminant >= 0) & (time > 0) & (time < self.durations[0])
            time = np.where(inside, time, 0.0)
            found.append(
                self.position + self.velocity * time + self.acceleration * time**2 / 2 + self.jerk * time**3 / 6
            )
        return found

    def top_speed(self) -> Elements:
        """Greatest speed on the way."""
        time = np.clip(-self.acceleration / np.where(self.jerk == 0, 1.0, self.jerk), 0.0, self.durations[0])
        inside = self.velocity + self.acceleration * time + self.jerk * time**2 / 2
        return np.maximum(np.abs(self.velocity), np.abs(inside))

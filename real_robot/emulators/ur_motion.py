"""How an emulated UR controller moves its joints: servoj, speedj, movej and stopj, one control period at a time.

What Universal Robots' servoj really computes is not published. This one smooths the target with the lookahead time and
follows place and velocity of what comes out, like a critically damped spring whose stiffness is the gain. So it lags
behind a steady motion by the lookahead time: UMI (Chi et al. 2024) reckons with 0.1 s for a UR5 at 0.1 s. A real arm's
lag may differ.
"""

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

TICK_NS = 2_000_000
"""A control period: an e-Series robot has 500 in a second [ns]."""
TICK_S = TICK_NS / 1e9
TOP_SPEED = np.pi
"""Of every joint [rad/s]: data sheet of the UR5e, 180 degrees/s."""
TOP_ACCELERATION = 40.0
"""[rad/s^2]: our choice; not published."""
ARRIVED = 1e-6
"""Distance at which a movej is over [rad]: our choice."""

Joints = Float64[ndarray, "6"]


class Motion:
    """Commanded joints.

    Args:
        position: Where they begin [rad].
    """

    def __init__(self, position: Joints) -> None:
        self.position, self.velocity = position.copy(), np.zeros_like(position)
        self._smooth: Joints | None = None

    def servo(self, target: Joints, lookahead: float, gain: float) -> None:
        """One period of servoj.

        Args:
            target: [rad].
            lookahead: Time constant of the smoothing [s].
            gain: [1/s^2].
        """
        before = self.position if self._smooth is None else self._smooth
        smooth = before + (target - before) * (1 - np.exp(-TICK_S / lookahead))
        # Implicit in the damping, so that every gain is stable at this period.
        damping = 2 * np.sqrt(gain)
        pull = gain * TICK_S * (smooth - self.position) + damping * (smooth - before)
        velocity = (self.velocity + pull) / (1 + damping * TICK_S)
        self._change(velocity, TOP_ACCELERATION)
        self._smooth = smooth

    def speed(self, velocity: Joints, acceleration: float) -> None:
        """One period of speedj [rad/s, rad/s^2]."""
        self._change(velocity, acceleration)

    def stop(self, deceleration: float) -> bool:
        """One period of stopj [rad/s^2]; whether it has come to rest."""
        self._change(np.zeros_like(self.velocity), deceleration)
        return not self.velocity.any()

    def move(self, target: Joints, speed: float, acceleration: float) -> bool:
        """One period of movej, all joints together on a straight line [rad, rad/s, rad/s^2]; whether it is there."""
        way = target - self.position
        distance = float(np.abs(way).max())
        if distance < ARRIVED:
            self.position, self.velocity = target.copy(), np.zeros_like(target)
            return True
        # As fast as still lets it stop there, and never beyond.
        fastest = min(speed, float(np.sqrt(2 * acceleration * distance)), distance / TICK_S)
        present = float(np.abs(self.velocity).max())
        self._change(way / distance * min(fastest, present + acceleration * TICK_S), np.inf)
        return False

    def _change(self, velocity: Joints, acceleration: float) -> None:
        most = acceleration * TICK_S
        change = np.clip(velocity - self.velocity, -most, most)
        self.velocity = np.clip(self.velocity + change, -TOP_SPEED, TOP_SPEED)
        self.position = self.position + self.velocity * TICK_S
        self._smooth = None

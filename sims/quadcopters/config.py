"""What a user may choose about a quadcopter's physics."""

from dataclasses import dataclass

ENGINES = ("mujoco", "bullet", "torch")
"""Physics engines; all have the same state and agree on free flight."""


@dataclass
class Aerodynamics:
    """Effects beyond thrust and gravity; the formulas are in `sims/quadcopters/aerodynamics.py`."""

    drag: bool = False
    """Rotor drag against the motion through the air, in the body frame."""
    ground_effect: bool = False
    """More thrust near the floor."""
    downwash: bool = False
    """Drones push down those below them."""
    motor_lag: bool = True
    """Rotors follow their command as a first-order lag; otherwise at once."""

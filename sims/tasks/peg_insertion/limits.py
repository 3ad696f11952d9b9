"""Bounds of PegInsertion's action."""

MAX_STEP = 0.01
"""Largest commanded tool displacement per control step, per axis [m]."""
MAX_TURN = 0.1
"""Largest commanded tool turn about the vertical per control step [rad]."""

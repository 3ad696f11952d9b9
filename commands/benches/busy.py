"""A policy that only keeps its core busy, so that the control loop beside it can be timed."""

import time

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from alula.core.spaces import FieldSpec, SpaceSpec
from alula.real_robot.planning.planner import Description, Request, Think

HORIZON = 16
RATE = 20.0
"""Control steps per second of the policy [Hz]."""


def think(seconds: float, size: int) -> tuple[Think, Description]:
    """A policy that thinks for so long about every plan [s], and then stays near zero; `size` elements of an action."""
    fields = [FieldSpec(name, (size,)) for name in ("observation.state", "action")]
    about = Description(SpaceSpec((fields[0],)), SpaceSpec((fields[1],)), RATE, HORIZON, HORIZON, {})
    matrix = np.random.default_rng(0).standard_normal((256, 256))

    def plan(request: Request) -> Float32[ndarray, "horizon action"]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            matrix @ matrix
        steps = (request.step + np.arange(HORIZON)) / RATE
        return np.repeat(0.3 * np.sin(steps)[:, None], size, axis=1).astype(np.float32)

    return plan, about

"""What holds for all tests: off-screen rendering, and how hypothesis searches."""

import os
import sys

from hypothesis import settings

if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")  # Read when mujoco is imported; draws without a display.

# Machines differ in speed; continuous integration must not fail at random.
settings.register_profile("alula", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "alula")

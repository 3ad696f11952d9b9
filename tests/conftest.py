"""What holds for all tests: off-screen rendering, how hypothesis searches, and what a busy machine excuses."""

import gc
import os
import re
import sys
import threading
import time
import traceback

import pytest
from hypothesis import settings

if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")  # Read when mujoco is imported; draws without a display.

# Processes test side by side: with several threads each, they would mostly wait for each other's. Read by torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Machines differ in speed; continuous integration must not fail at random.
settings.register_profile("alula", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "alula")

PERIOD_S = 0.01
"""Between two looks at the clock [s]."""
STARVED_S = 0.05
"""Wait from which a machine has no time for a test in real time [s]."""
RERUNS = 4
"""Times that such a test is tried again; the summary counts them."""


class Watch(threading.Thread):
    """Notices for how long the machine keeps this process waiting."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.longest = 0.0
        """Since it was last forgotten [s]."""

    def run(self) -> None:
        while True:
            begin = time.monotonic()
            time.sleep(PERIOD_S)
            self.longest = max(self.longest, time.monotonic() - begin - PERIOD_S)


watch = Watch()


def may_be_excused(error: BaseException) -> bool:
    """Whether a test in real time failed while the machine was elsewhere. Broken limits are never excused."""
    time.sleep(5 * PERIOD_S)  # the watch may still wait for its turn
    where = "".join(traceback.format_tb(error.__traceback__))
    return watch.longest > STARVED_S and not re.search("violation|limit", where)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("real_time"):
            item.add_marker(pytest.mark.flaky(reruns=RERUNS, condition=may_be_excused))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if not gc.get_freeze_count():  # Thousands of tests are no garbage; a control loop unfreezes them.
        gc.freeze()
    if item.get_closest_marker("real_time"):
        if not watch.is_alive():
            watch.start()
        watch.longest = 0.0

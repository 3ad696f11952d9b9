"""Coming before other work on the host, where that is permitted."""

import os
from contextlib import suppress


def hurry(priority: int) -> None:
    """Make the calling thread, and those that it starts, real-time ones; nothing changes where that is forbidden.

    Args:
        priority: Among real-time threads, 1 to 99.
    """
    with suppress(OSError, AttributeError):  # not permitted, or not Linux
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))

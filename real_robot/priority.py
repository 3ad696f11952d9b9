"""Coming before other work: that of others on the host, where that is permitted, and the interpreter's own."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

EMULATOR, BESIDE, LOOP, DRIVER = 10, 15, 20, 80
"""Of an emulator, of threads beside the control loop, of the loop, and of a driver's own thread, among real-time
threads: our choice, all below the kernel's own. Threads beside the loop are among them because the loop waits for the
interpreter where one of them holds it: a plain one that others keep from running would keep the loop as well."""


def hurry(priority: int) -> None:
    """Make the calling thread, and those that it starts, real-time ones; nothing changes where that is forbidden.

    Args:
        priority: Among real-time threads, 1 to 99.
    """
    with suppress(OSError, AttributeError):  # not permitted, or not Linux
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))


@contextmanager
def hurrying(priority: int) -> Iterator[None]:
    """Make the calling thread, and those that it starts, real-time ones meanwhile; nothing changes where forbidden.

    Args:
        priority: Among real-time threads, 1 to 99.
    """
    if not hasattr(os, "sched_setscheduler"):  # not Linux
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    hurry(priority)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


@contextmanager
def without_pauses() -> Iterator[None]:
    """What exists now is not garbage meanwhile: beside torch, looking through it all takes a tenth of a second."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()

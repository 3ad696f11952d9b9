"""A thread comes before others for a while, as do those that it starts, and not afterwards."""

import os
import threading

import pytest

from alula.real_robot.priority import LOOP, hurry, hurrying


@pytest.fixture(autouse=True)
def permitted() -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(LOOP))
    except OSError:
        pytest.skip("real-time priorities are not permitted here")
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def policy() -> tuple[int, int]:
    """Of the calling thread: its kind and priority."""
    return os.sched_getscheduler(0), os.sched_getparam(0).sched_priority


def test_priority_lasts_as_long_as_it_is_asked_for() -> None:
    theirs = list[tuple[int, int]]()
    with hurrying(LOOP):
        thread = threading.Thread(target=lambda: theirs.append(policy()))
        thread.start()
        thread.join()
        assert policy() == (os.SCHED_FIFO, LOOP)
        hurry(LOOP + 1)
        assert policy() == (os.SCHED_FIFO, LOOP + 1)
    assert theirs == [(os.SCHED_FIFO, LOOP)]
    assert policy() == (os.SCHED_OTHER, 0)

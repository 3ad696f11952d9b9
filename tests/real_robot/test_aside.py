"""Calls that may block for ever."""

import threading

import pytest

from alula.real_robot.devices.aside import Aside


def test_calls_aside_are_waited_for_no_longer_than_wanted() -> None:
    aside, gate = Aside(), threading.Event()
    assert aside(lambda: 3, 1.0) == 3
    with pytest.raises(ZeroDivisionError):
        aside(lambda: 1 // 0, 1.0)
    with pytest.raises(TimeoutError, match=r"within 0.01 s"):
        aside(gate.wait, 0.01)
    with pytest.raises(TimeoutError, match="no answer"):
        aside(lambda: 3, 1.0)
    gate.set()

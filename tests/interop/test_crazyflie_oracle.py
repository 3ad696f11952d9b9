"""Bitcraze's own client flies our emulated Crazyflie: it speaks the protocol, not our driver's idea of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from alula.real_robot.emulators import crazyflie
from alula.real_robot.emulators.emulation import Emulation

pytestmark = pytest.mark.interop


def test_cflib_flies_our_emulator(tmp_path: Path, run_theirs: Callable[..., None]) -> None:
    with Emulation(crazyflie.__name__, tmp_path, {"limits": None, "scene": None}) as emulation:
        run_theirs("crazyflie", "crazyflie_fly.py", f"udp://{emulation.address}")
        states = [entry["event"] for entry in emulation.log() if "setpoint_age_s" in entry]
        assert states == ["ready", "flying", "grounded"]
        # As they were meant: its full states are rounded down to millimetres.
        goals = [entry["goals"] for entry in emulation.log() if entry["event"] == "command"]
        assert goals[-1]["0"] == pytest.approx(0.3)
        assert goals[-1]["3"] == pytest.approx(1.5708, abs=1e-3)
        assert len(goals) > 300
        # A second client finds it as the first did.
        run_theirs("crazyflie", "crazyflie_fly.py", f"udp://{emulation.address}")

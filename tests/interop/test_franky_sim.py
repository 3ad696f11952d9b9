"""franky-sim, somebody else's simulated Franka: the same bytes as our emulator's, and our driver moves it."""

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("franky", reason="franky-control is missing")

from alula.real_robot.contract import Intent, State
from alula.real_robot.devices.config import FrankaConfig
from alula.real_robot.devices.franka import Franka
from alula.real_robot.emulators import franka_wire as wire
from alula.real_robot.emulators.franka_wire import Mode, Telemetry
from alula.real_robot.loop import ControlLoop

pytestmark = [pytest.mark.interop, pytest.mark.real_time]
PEER = "franka"
ADDRESS = "127.201.33.7"
SIZES = {"q": 7, "dq": 7, "tau_J": 7, "q_d": 7, "dq_d": 7, "ddq_d": 7, "K_F_ext_hat_K": 6, "O_T_EE": 16}


def test_states_and_set_points_are_the_same_bytes(tmp_path: Path, run_theirs: Callable[..., None]) -> None:
    numbers = iter(1000 + np.arange(1, 1000) / 8)  # exact in single precision, and nowhere a default
    values = {name: tuple(float(next(numbers)) for _ in range(size)) for name, size in SIZES.items()}
    data = wire.COMMAND.pack(7, *range(1, 8), *range(8, 15), *[0.0] * 24, False, True, *[0.0] * 7, False)
    question, answer = tmp_path / "question.json", tmp_path / "answer.json"
    question.write_text(json.dumps({"state": values, "set_point": data.hex()}), encoding="utf-8")
    run_theirs(PEER, "franky_sim_read.py", question, answer)
    theirs = json.loads(answer.read_text(encoding="utf-8"))

    point = wire.read_set_point(data)
    assert [point.message_id, [*point.position], [*point.velocity], point.finished] == theirs["set_point"]

    ours = Telemetry(5, Mode.MOVE, wire.VELOCITIES + 1, *values.values(), frozenset(), frozenset(), 0.0).pack()
    packed = bytes.fromhex(theirs["state"])
    assert len(ours) == 8 + len(packed) == wire.STATE.size
    # What they leave at its default, and we fill in, is of no concern; what is given stands in the same places.
    mine, other = wire.STATE.unpack(ours), wire.STATE.unpack((5).to_bytes(8, "little") + packed)
    given = {number for some in values.values() for number in some}
    places = [place for place, number in enumerate(other) if number in given]
    assert len(places) == len(given)
    assert [mine[place] for place in places] == [other[place] for place in places]
    assert mine[-86:-84] == other[-86:-84] == (2, 0)
    assert mine[-2] == other[-2] == Mode.MOVE


class Aside:
    """Wants to be a little aside."""

    target: np.ndarray | None = None

    def at(self, now_ns: int, state: State) -> Intent:
        if self.target is None:
            self.target = state.position + 0.1
        return Intent(self.target, now_ns, "policy")


@pytest.fixture
def server(their_python: Callable[[str], Path]) -> Iterator[Any]:
    """Their robot, listening."""
    command = [their_python(PEER), "-m", "franky_sim.run_server", "--hostname", ADDRESS, "--simulator", "mujoco"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield _await(ADDRESS)
        finally:
            process.kill()


def test_our_driver_moves_their_robot(server: None) -> None:
    """Other code, other model, other controller."""
    device = Franka(FrankaConfig(address=ADDRESS, realtime=False))
    device.configure()
    before = device.read().position
    for _ in range(5):
        loop = ControlLoop(device, Aside())
        loop.run(1.5)
        if loop.governor.stopped == "the run is over":
            break
    time.sleep(1.0)
    after = device.read()
    device.close()
    assert loop.governor.stopped == "the run is over"
    assert after.faults == ()
    assert (after.position > before + 0.05).all()


def _await(host: str) -> None:
    """Wait until somebody listens there."""
    for _ in range(150):
        try:
            socket.create_connection((host, wire.PORT), timeout=1.0).close()
        except OSError:
            time.sleep(0.2)
        else:
            time.sleep(0.5)
            return
    raise AssertionError(f"nobody listens at {host}:{wire.PORT}")

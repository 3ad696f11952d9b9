"""How an emulator is started and asked: one JSON line at a time on its standard input and output.

    python -m alula.real_robot.emulators.NAME SETUP.json

It answers first with `{"address": ...}`, which is what a driver is told, and then every request with one line:

    {"reset": seed}     draw an episode, things out of the way      → {"start": [...]}
    {"begin": true}     put them where they belong                  → {}
    {"outcome": true}   how it went so far                          → {"success", "crashed", "commands", "violations"}
    {"fault": {...}}    let one more thing go wrong                 → {}
    {"clear": true}     let nothing go wrong any more               → {}

It ends when its standard input does. Setup of every emulator:

    log         file that gets a JSON line for every decoded command, with what breaks a limit
    limits      `rate` [Hz] and, per element of the action, `low`, `high`, `velocity`, `acceleration`, `jerk`; or null
    scene       {"task": name, "settings": {...}, "tracker": "host:port" or null, "view": false}
    faults      list of `Fault`
    seed        of their chances
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from alula.real_robot.emulators.faults import FaultPlan
from alula.real_robot.emulators.judge import Judge
from alula.real_robot.emulators.plant import Plant
from alula.real_robot.priority import EMULATOR, hurry


def read_setup() -> dict[str, Any]:
    """The setup that the command line names."""
    setup: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    return setup


class Console:
    """The emulator's side of the conversation; watch its `fileno` beside the wire.

    From now on the emulator comes before other work: a robot's clock waits for nobody.

    Args:
        address: What a driver is told.
        plant: The world.
        judge: The witness.
        faults: What goes wrong.
    """

    def __init__(self, address: str, plant: Plant, judge: Judge, faults: FaultPlan) -> None:
        self.plant, self.judge, self.faults = plant, judge, faults
        self._input = b""
        self.ended = False
        """Whether the emulator should end."""
        hurry(EMULATOR)
        self._say({"address": address})

    def fileno(self) -> int:
        """For `select`."""
        return sys.stdin.fileno()

    def answer(self) -> None:
        """Answer what has been asked; to be called when there is something to read."""
        data = os.read(self.fileno(), 65536)
        self.ended = not data
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            self._say(self._reply(json.loads(line)))

    def _reply(self, request: dict[str, Any]) -> dict[str, Any]:
        plant, judge = self.plant, self.judge
        match request:
            case {"reset": seed}:
                return {"start": plant.reset(seed)}
            case {"begin": _}:
                plant.begin()
                return {}
            case {"outcome": _}:
                counts = {"commands": judge.commands, "violations": judge.violations}
                return {"success": plant.succeeded, "crashed": plant.crashed, **counts}
            case {"fault": fault}:
                self.faults.add(fault)
                return {}
            case {"clear": _}:
                self.faults.clear()
                return {}
            case _:
                return {"error": f"unknown request {sorted(request)}"}

    def _say(self, line: dict[str, Any]) -> None:
        print(json.dumps(line), flush=True)

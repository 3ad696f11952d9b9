"""A policy in a process of its own, so that thinking never keeps the control loop waiting."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from alula.core.errors import DeviceError
from alula.real_robot.planning.background import Background
from alula.real_robot.planning.planner import Description, Plan, Request
from alula.real_robot.planning.wire import Link, answered, question

START_S = 120.0
"""Longest time that loading a policy may take [s]: our choice."""
END_S = 5.0
"""Time in which a process that has closed its link, or was killed, is expected to be gone [s]."""


class ProcessPlanner(Background):
    """Starts the policy's process, and is its only client. The process ends with this one, whatever ends it.

    Args:
        build: Who builds the policy there, as `module:function`, fixed in code; returns a `Think` and a `Description`.
        arguments: Of that function; plain values.
        deadline: Time after which an answer is of no use [s].

    Raises:
        DeviceError: the policy cannot be built.
    """

    def __init__(self, build: str, arguments: Mapping[str, Any], deadline: float) -> None:
        super().__init__(deadline)
        ours, theirs = socket.socketpair()
        worker = [sys.executable, "-P", "-m", "alula.real_robot.planning.worker"]
        # A session of its own: Ctrl-C is for the control loop, which brakes first. It ends when its input does.
        self.process = subprocess.Popen(
            [*worker, str(theirs.fileno()), build, json.dumps(dict(arguments))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        self._link = Link(ours)
        try:
            ours.settimeout(START_S)
            ready = self._link.receive()
            if "failure" in ready:
                raise DeviceError(f"the policy cannot be loaded: {ready['failure']}")
            self.description = Description.from_dict(ready)
            ours.settimeout(None)
        except (OSError, ValueError) as error:
            how = self._how_it_ended()
            self.close()
            raise DeviceError(f"the policy's process did not start: {error}; {how}") from error
        except BaseException:
            self.close()
            raise
        self._thread.start()

    def _exchange(self, request: Request) -> Plan:
        try:
            self._link.send(question(request, self.deadline))
            return answered(request, self._link.receive())
        except (OSError, ValueError):
            return Plan(request, None, f"the policy's process is lost: {self._how_it_ended()}")

    def _how_it_ended(self) -> str:
        try:
            status = self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            return "it has closed its link but runs on"
        return f"it was ended by {signal.Signals(-status).name}" if status < 0 else f"it ended with status {status}"

    def close(self) -> None:
        """End the process; doing it again changes nothing."""
        super().close()
        self._link.close()
        self.process.kill()
        self.process.wait(END_S)
        if self.process.stdin is not None:
            self.process.stdin.close()

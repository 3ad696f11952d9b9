"""An emulator's process, seen from whoever started it."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from alula.core.errors import DeviceError


class Emulation:
    """Starts an emulator and talks to its console; use it as a context.

    Args:
        module: Name of the emulator's module.
        folder: Gets the setup and the log.
        setup: See `console.py`; `log` is added.

    Raises:
        DeviceError: it does not start; the message carries what it said.
    """

    def __init__(self, module: str, folder: Path, setup: Mapping[str, Any]) -> None:
        self._log = folder / "commands.jsonl"
        path = folder / "setup.json"
        path.write_text(json.dumps({**setup, "log": str(self._log)}), encoding="utf-8")
        self._errors = (folder / "errors.txt").open("w+", encoding="utf-8")
        # A session of its own: Ctrl-C is for whoever drives the robot. It ends when its input does.
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )
        self.address: str = self._hear()["address"]
        """What the driver is told."""

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to one request."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self._complain()
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self._complain()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _complain(self) -> None:
        self.process.kill()
        self.process.wait()
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines()
        self.end()
        raise DeviceError(f"the emulator has ended by itself: {said[-1] if said else 'it said nothing'}")

    def reset(self, seed: int) -> list[float]:
        """Draw an episode; returns where the robot should begin."""
        start: list[float] = self.ask(reset=seed)["start"]
        return start

    def log(self) -> list[dict[str, Any]]:
        """What it has decoded; see `judge.py`."""
        lines = self._log.read_text(encoding="utf-8").splitlines(keepends=True) if self._log.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]  # it may be writing the last one

    def violations(self) -> Sequence[str]:
        """Everything that broke a limit."""
        return [line for entry in self.log() for line in entry["violations"]]

    def end(self) -> None:
        """Stop it; doing it again changes nothing."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            assert stream is not None
            with suppress(BrokenPipeError):  # a request that was not heard
                stream.close()

    def __enter__(self) -> "Emulation":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.end()

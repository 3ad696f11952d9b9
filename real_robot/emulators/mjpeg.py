"""A network camera made of software: JPEG pictures over HTTP, as most cheap IP cameras send them.

    python -m alula.real_robot.emulators.mjpeg SETUP.json

It answers first with `{"address": "http://..."}`, takes `{"fault": {...}}` while it runs, and ends when its standard
input does. Setup: `width`, `height`, `rate` [Hz], `faults` (list of `Fault`, counted in pictures) and `seed`.
Pictures are a `Pattern`, which shows when it was drawn: whoever reads that knows how old a picture truly is.

Faults: frozen (the same picture again and again), black, drop (not sent), late (sent `value` milliseconds after it was
drawn), ended (the connection is closed).
"""

import io
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alula.real_robot.cameras.synthetic import Pattern
from alula.real_robot.emulators.faults import FaultPlan

KINDS = ("frozen", "black", "drop", "late", "ended")
QUALITY = 85
"""Of the JPEG pictures, as webcams have it [%]."""
BOUNDARY = "picture"


class CameraEmulator:
    """Draws and encodes pictures, and lets them go wrong.

    Args:
        setup: See above.
    """

    def __init__(self, setup: dict[str, Any]) -> None:
        self.plan = FaultPlan(setup["faults"], KINDS, setup["seed"])
        self.plan.power()
        self._pattern = Pattern(setup["width"], setup["height"], setup["seed"])
        self._period_ns = round(1e9 / setup["rate"])

    def pictures(self) -> Iterator[bytes]:
        """JPEG files, each when it should be sent."""
        due, number, last = time.monotonic_ns(), 0, b""
        waiting = deque[tuple[int, bytes]]()
        while not self.plan.strikes("ended"):
            number, due = number + 1, due + self._period_ns
            time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
            now = time.monotonic_ns()
            if not (last and self.plan.strikes("frozen")):
                picture = self._pattern.draw(number, now)
                last = _encode(np.zeros_like(picture) if self.plan.strikes("black") else picture)
            late = self.plan.find("late")
            if not self.plan.strikes("drop"):
                waiting.append((now + round(1e6 * late.value) if late else now, last))
            self.plan.command()
            while waiting and waiting[0][0] <= now:
                yield waiting.popleft()[1]


def _encode(picture: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def serve(emulator: CameraEmulator) -> ThreadingHTTPServer:
    """Every client gets a stream of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Send pictures until the client has had enough."""
            self.send_response(200)
            self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
            self.end_headers()
            try:
                for jpeg in emulator.pictures():
                    head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
            except ConnectionError:
                self.close_connection = True

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main() -> None:
    """The emulator's process."""
    emulator = CameraEmulator(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    port = serve(emulator).server_address[1]
    print(json.dumps({"address": f"http://127.0.0.1:{port}/stream.mjpg"}), flush=True)
    for line in sys.stdin:
        emulator.plan.add(json.loads(line)["fault"])
        print("{}", flush=True)


if __name__ == "__main__":
    main()

"""Where the things around a robot are, as a tracking system says it: motion capture, markers before a camera.

A tracking system sends datagrams of JSON, `{"poses": {"socket": [x, y, z, qw, qx, qy, qz], ...}}`, positions in metres
and quaternions wxyz in the robot's world. Any language can send that in three lines, and the emulators do.
"""

import json
import math
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.core.errors import DeviceError

LARGEST = 65_536
"""Of a datagram [byte]."""
MAX_AGE_S = 0.2
"""After which a pose is not believed any more [s]: our choice, ten messages at the usual rate."""
UNIT = 1e-2
"""How far from 1 the norm of a quaternion may be."""

Pose = Float64[ndarray, "7"]


class Tracker:
    """Listens for poses; messages that make no sense are passed over.

    Args:
        names: Things that must be known.
        fixed: Poses that nobody sends, of things that stand still.
        address: Where to listen, as "host:port"; port 0 takes a free one.
        max_age_s: Age from which a pose is not believed any more [s].

    Raises:
        DeviceError: the address cannot be listened at.
    """

    def __init__(
        self,
        names: Sequence[str],
        fixed: dict[str, Pose] | None = None,
        address: str = "127.0.0.1:0",
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        self.names, self.max_age_s = tuple(names), max_age_s
        self._poses: dict[str, Pose] = dict(fixed or {})
        self._heard_ns = {name: math.inf for name in self._poses}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        host, _, port = address.rpartition(":")
        try:
            self._socket.bind((host, int(port)))
        except (OSError, ValueError, OverflowError) as error:
            self._socket.close()
            raise DeviceError(
                f"cannot listen for tracked poses at '{address}': {error}. Give host:port of this machine, with a port "
                "that no other program uses"
            ) from None

    @property
    def address(self) -> str:
        """Where it listens."""
        host, port = self._socket.getsockname()
        return f"{host}:{port}"

    def latest(self, now_ns: int) -> dict[str, Pose] | None:
        """The newest pose of everything; None where one is missing or too old, see `missing`."""
        self._listen()
        if self.missing(now_ns):
            return None
        return {name: self._poses[name] for name in self.names}

    def known(self) -> list[str]:
        """Things whose poses are believed at present."""
        self._listen()
        missing = self.missing(time.monotonic_ns())
        return [name for name in self.names if name not in missing]

    def missing(self, now_ns: int) -> list[str]:
        """Things that have not been heard of for too long, or never."""
        oldest = now_ns - self.max_age_s * 1e9
        return [name for name in self.names if self._heard_ns.get(name, -math.inf) < oldest]

    def _listen(self) -> None:
        while True:
            try:
                message = self._socket.recv(LARGEST)
            except BlockingIOError:
                return
            now = time.monotonic_ns()
            for name, pose in _poses(message).items():
                self._poses[name], self._heard_ns[name] = pose, now

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def read_poses(path: Path) -> dict[str, Pose]:
    """Poses of things that stand still, measured once: a file with the JSON of a message.

    Raises:
        DeviceError: it cannot be read, or holds no pose.
    """
    try:
        found = _poses(path.read_bytes())
    except OSError as error:
        raise DeviceError(f"cannot read the poses '{path}': {error.strerror}") from None
    if not found:
        raise DeviceError(
            f"'{path}' holds no pose; expected is "
            '{"poses": {"NAME": [x, y, z, qw, qx, qy, qz]}} with metres and unit quaternions'
        )
    return found


def _poses(message: bytes) -> dict[str, Pose]:
    """What of a message makes sense."""
    try:
        content = json.loads(message)["poses"]
        candidates = {str(name): np.array(values, dtype=np.float64) for name, values in content.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
    return {
        name: pose
        for name, pose in candidates.items()
        if pose.shape == (7,) and np.isfinite(pose).all() and abs(np.linalg.norm(pose[3:]) - 1.0) < UNIT
    }

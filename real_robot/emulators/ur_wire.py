"""Connections to an emulated UR, and its reading of RTDE: nothing of the driver's codec is used here."""

import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from alula.real_robot.emulators.faults import FaultPlan
from alula.real_robot.emulators.ur_motion import TICK_NS

RATE = round(1e9 / TICK_NS)
"""Control periods per second [Hz]."""
FORMATS = {
    **{"BOOL": "?", "UINT8": "B", "UINT32": "I", "UINT64": "Q", "INT32": "i", "DOUBLE": "d"},
    **{"VECTOR3D": "3d", "VECTOR6D": "6d", "VECTOR6INT32": "6i", "VECTOR6UINT32": "6I"},
}


def _table(**names: str) -> dict[str, str]:
    """Types by name, from names by type."""
    return {name: kind for kind, several in names.items() for name in several.split()}


OUTPUTS = _table(
    DOUBLE="timestamp speed_scaling target_speed_fraction payload actual_momentum actual_main_voltage "
    "actual_robot_voltage actual_robot_current actual_execution_time standard_analog_input0 standard_analog_input1 "
    "standard_analog_output0 standard_analog_output1",
    VECTOR3D="actual_tool_accelerometer payload_cog",
    VECTOR6D="target_q target_qd target_qdd target_current target_moment actual_q actual_qd actual_current "
    "joint_control_output actual_TCP_pose actual_TCP_speed actual_TCP_force target_TCP_pose target_TCP_speed "
    "joint_temperatures actual_joint_voltage ft_raw_wrench payload_inertia tcp_offset actual_qdd "
    "actual_current_as_torque",
    VECTOR6INT32="joint_mode",
    INT32="robot_mode safety_mode safety_status " + " ".join(f"output_int_register_{index}" for index in range(48)),
    UINT32="robot_status_bits safety_status_bits runtime_state output_bit_registers0_to_31 "
    "output_bit_registers32_to_63",
    UINT64="actual_digital_input_bits actual_digital_output_bits",
)
OUTPUTS |= {f"output_double_register_{index}": "DOUBLE" for index in range(48)}
"""Types of the variables that are sent; those that nobody computes are 0."""
INPUTS = _table(
    UINT32="speed_slider_mask input_bit_registers0_to_31 input_bit_registers32_to_63",
    UINT8="standard_digital_output_mask standard_digital_output configurable_digital_output_mask "
    "configurable_digital_output tool_digital_output_mask tool_digital_output standard_analog_output_mask "
    "standard_analog_output_type",
    DOUBLE="speed_slider_fraction standard_analog_output_0 standard_analog_output_1 "
    + " ".join(f"input_double_register_{index}" for index in range(48)),
    INT32=" ".join(f"input_int_register_{index}" for index in range(48)),
    VECTOR6D="external_force_torque",
)
"""Types of the variables that can be written."""


class Connection:
    """One client on one port; what is sent leaves when it is due, as far as the client takes it."""

    def __init__(self, connection: socket.socket, faults: FaultPlan) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket, self.faults, self.open = connection, faults, True
        self.incoming = b""
        self._outgoing: deque[tuple[int, bytes]] = deque()

    def fileno(self) -> int:
        """For `select`."""
        return self.socket.fileno()

    def receive(self) -> None:
        """Take what has come."""
        try:
            data = self.socket.recv(65536)
        except OSError:
            data = b""
        self.open = bool(data)
        self.incoming += data

    def send(self, data: bytes, after_ms: float = 0.0) -> None:
        """Send something, some time from now."""
        self._outgoing.append((time.monotonic_ns() + round(1e6 * after_ms), data))

    @property
    def waiting(self) -> int:
        """Pieces that have not left yet."""
        return len(self._outgoing)

    def flush(self) -> None:
        """Let go what is due."""
        now = time.monotonic_ns()
        while self.open and self._outgoing and self._outgoing[0][0] <= now:
            due, data = self._outgoing.popleft()
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.open = False
                return
            if sent < len(data):
                self._outgoing.appendleft((due, data[sent:]))
                return

    def close(self) -> None:
        """Let go of it."""
        self.socket.close()

    def reset(self) -> None:
        """Break the connection without a farewell."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.open = False


class RTDESession(Connection):
    """A client of the real-time data exchange.

    Args:
        connection: To it.
        faults: What goes wrong.
        owners: Who writes which input; each has one writer.
    """

    def __init__(self, connection: socket.socket, faults: FaultPlan, owners: dict[str, "RTDESession"]) -> None:
        super().__init__(connection, faults)
        self._owners = owners
        self._inputs: dict[int, tuple[list[str], struct.Struct]] = {}
        self._outputs: dict[int, tuple[list[str], struct.Struct, int]] = {}
        self._started, self._ticks = False, 0
        self._last: dict[str, Any] = {}

    def packages(self) -> Iterator[dict[str, float]]:
        """Answer what has come; yields the inputs that have been written.

        Raises:
            ValueError: this is no RTDE.
        """
        while len(self.incoming) >= 3:
            size, kind = struct.unpack_from(">HB", self.incoming)
            if size < 3 or chr(kind) not in "VvOISPU":
                raise ValueError(f"package of kind {kind} with {size} bytes")
            if len(self.incoming) < size:
                return
            payload, self.incoming = self.incoming[3:size], self.incoming[size:]
            if chr(kind) == "U":
                yield self._written(payload)
            else:
                self._reply(kind, self._answer(chr(kind), payload))

    def _reply(self, kind: int, payload: bytes) -> None:
        slow = self.faults.find("slow_handshake")
        self.send(struct.pack(">HB", len(payload) + 3, kind) + payload, slow.value if slow is not None else 0.0)

    def _written(self, payload: bytes) -> dict[str, float]:
        if not payload or payload[0] not in self._inputs:
            raise ValueError("data of a recipe that nobody asked for")
        names, form = self._inputs[payload[0]]
        if form.size != len(payload) - 1:
            raise ValueError(f"data of {len(payload)} bytes; the recipe has {form.size + 1}")
        # Vectors do not matter here: the names of their elements do not either.
        return dict(zip(names, form.unpack_from(payload, 1), strict=False))

    def _answer(self, kind: str, payload: bytes) -> bytes:
        match kind:
            case "V":
                (version,) = struct.unpack(">H", payload)
                return bytes([version <= 2 and not self.faults.strikes("old_protocol")])
            case "v":
                return struct.pack(">4I", 3 if self.faults.strikes("old_software") else 5, 12, 2, 1101534)
            case "O":
                (rate,) = struct.unpack_from(">d", payload)
                names, types, number = self._recipe(payload[8:], OUTPUTS, len(self._outputs) + 1)
                if number:
                    form = struct.Struct(">" + "".join(FORMATS[kind] for kind in types))
                    self._outputs[number] = names, form, max(1, round(RATE / rate))
            case "I":
                names, types, number = self._recipe(payload, INPUTS, len(self._inputs) + 1)
                if number:
                    self._inputs[number] = names, struct.Struct(">" + "".join(FORMATS[kind] for kind in types))
            case _:
                self._started = kind == "S"
                return b"\x01"
        return bytes([number]) + ",".join(types).encode()

    def _recipe(self, names: bytes, known: dict[str, str], number: int) -> tuple[list[str], list[str], int]:
        """Names, types, and the recipe's number: 0 if there cannot be one."""
        asked = names.decode().rstrip(",").split(",")
        types = [known.get(name, "NOT_FOUND") for name in asked]
        if known is INPUTS:
            taken = self.faults.strikes("registers_taken")
            foreign = [self._owners.get(name, self) is not self or taken for name in asked]
            types = ["IN_USE" if other else kind for other, kind in zip(foreign, types, strict=True)]
            if not any(foreign):
                self._owners |= dict.fromkeys(asked, self)
        return asked, types, number if all(kind in FORMATS for kind in types) else 0

    def close(self) -> None:
        """See `Connection.close`; what it wrote may be written by others."""
        super().close()
        for name in [name for name, owner in self._owners.items() if owner is self]:
            del self._owners[name]

    def say(self, message: str) -> None:
        """Tell the client something."""
        words = message.encode()[:255]
        self._reply(ord("M"), bytes([len(words)]) + words + b"\x06script\x01")

    def stream(self, measure: Callable[[], dict[str, Any]]) -> None:
        """Tell the client what is measured, if it is time."""
        self._ticks += 1
        if not self._started or self.waiting > RATE // 10:
            return
        for number, (names, form, every) in self._outputs.items():
            if self._ticks % every == 0 and not self.faults.strikes("drop"):
                values = self._last if self.faults.strikes("frozen") and self._last else measure()
                self._send(bytes([number]) + form.pack(*_flat(names, values)))
                self._last = values

    def _send(self, payload: bytes) -> None:
        data = bytearray(struct.pack(">HB", len(payload) + 3, ord("U")) + payload)
        late = self.faults.find("delay")
        after = late.value if late is not None else 0.0
        if self.faults.strikes("corrupt"):
            data[self.faults.chance.randrange(len(data))] ^= 1 << self.faults.chance.randrange(8)
        cut = self.faults.chance.randrange(1, len(data)) if self.faults.strikes("partial") else len(data)
        self.send(bytes(data[:cut]), after)
        if cut < len(data):
            self.send(bytes(data[cut:]), after + TICK_NS / 1e6)


def _flat(names: list[str], values: dict[str, Any]) -> Iterator[Any]:
    for name in names:
        value = values.get(name, 0)
        kind = FORMATS[OUTPUTS[name]]
        if len(kind) > 1:
            yield from value or [0] * int(kind[0])
        else:
            yield value

"""A Crazyflie made of software, on UDP: `python -m alula.real_robot.emulators.crazyflie SETUP.json`.

Its datagrams are those of Bitcraze's own simulations, so that their client connects, too. Nothing of the driver is
used here: this is a second reading of the protocol, so that a mistake in one shows against the other.

Setup beside what all emulators have (`console.py`):
    charge: Share of the battery's charge, default 1.
    clock_ms: What the stamps of log packets begin with [ms]; they return to 0 after 2^24.
    arms_itself: Whether it needs no arming, as a Crazyflie 2.1 as it is delivered; default false.
"""

import heapq
import math
import select
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alula.real_robot.emulators.console import Console, read_setup
from alula.real_robot.emulators.crazyflie_firmware import Firmware, Setpoint
from alula.real_robot.emulators.crazyflie_tables import Log, Parameters
from alula.real_robot.emulators.faults import FaultPlan
from alula.real_robot.emulators.judge import Judge
from alula.real_robot.emulators.plant import QuadcopterPlant

PORTS = range(19850, 19860)
"""Where Bitcraze's client looks for simulations."""
TICK_S = 0.002
"""Longest pause between two looks at the clock [s]."""
QUANTUM = (0.001, 0.001, 0.001, 0.004)
"""Of positions on the wire [m], and of a heading in a compressed quaternion [rad]."""
START_ROOM = 0.02
"""How far the first setpoint may be from where it is [m, rad]: what hovers moves a little until it arrives."""
MILLI = 1e-3
"""Of velocities and accelerations on the wire [m/s, m/s^2]."""
PROTOCOL_VERSION = 12
FAULTS = {
    "drop": "a packet is lost, either way",
    "duplicate": "a packet comes twice, either way",
    "reorder": "a packet is overtaken by those of the next `value` milliseconds, either way",
    "delay": "packets take `value` milliseconds, either way",
    "jitter": "packets take up to `value` milliseconds, each its own, either way",
    "corrupt": "a bit of a packet to the host is turned",
    "silence": "it hears, but says nothing",
    "deaf": "it says, but hears nothing",
    "slow_handshake": "answers to questions take `value` milliseconds",
    "wrong_version": "it speaks version `value` of the protocol",
    "frozen_stamp": "its log packets repeat themselves, stamp and all",
    "stamp_backwards": "its stamps are `value` milliseconds behind",
    "nan": "its position is not a number",
    "quaternion_sign": "its quaternion changes its sign all the time, which means nothing",
    "quaternion_length": "its quaternion is `value` times as long",
    "estimator_jump": "its estimate of x is off by `value` metres",
    "arming_denied": "it refuses to be armed",
    "battery_sag": "its battery's voltage is lower by `value` volts",
    "motor_failure": "motor `target` stops",
    "tumble": "it is turned on its back",
}


def prepare(config: Any, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Nothing is needed to emulate a Crazyflie: no setup of its own, and no change to its settings."""
    del config, folder
    return {}, {}


class Witness:
    """Tells the judge of setpoints as they come off the wire, before anything can go wrong with them.

    Args:
        judge: Told of every place that it is sent to.
        limits: See `Judge`; velocities and accelerations that go along are judged here, as they are finer than
            differences of places.
        firmware: Where it believes it is.
    """

    def __init__(self, judge: Judge, limits: Mapping[str, Any] | None, firmware: Firmware) -> None:
        self._judge, self._limits, self._firmware = judge, limits, firmware
        self._flowing = False
        """Whether one setpoint follows another."""
        self._yaw = 0.0
        self._pushed = np.zeros(4)
        """The last acceleration."""

    def see(self, setpoint: Setpoint) -> None:
        """A setpoint has come."""
        if setpoint.kind != "place":
            return
        goals, measured = setpoint.position.copy(), self._firmware.place
        before = self._yaw if self._flowing else measured[3]
        self._yaw = goals[3] = before + math.remainder(goals[3] - before, 2 * math.pi)
        if not self._flowing:
            here = (np.abs(goals - measured) <= START_ROOM).all()
            self._judge.start(dict(enumerate((goals if here else measured).tolist())))
            self._flowing, self._pushed = True, np.zeros(4)
        self._judge_motion(setpoint)
        motion = {"velocity": setpoint.velocity.tolist(), "acceleration": setpoint.acceleration.tolist()}
        self._judge.command(dict(enumerate(goals.tolist())), **motion)

    def see_end(self) -> None:
        """No more setpoints follow."""
        if self._flowing:
            self._judge.release(range(4))
        self._flowing = False

    def _judge_motion(self, setpoint: Setpoint) -> None:
        before, self._pushed = self._pushed, setpoint.acceleration
        if self._limits is None:
            return
        rate = self._limits["rate"]
        for name, values, room in (
            ("velocity", setpoint.velocity, MILLI),
            ("acceleration", setpoint.acceleration, MILLI),
            ("jerk", (setpoint.acceleration - before) * rate, MILLI * rate),
        ):
            allowed = np.array(self._limits[name])
            if (np.abs(values) > allowed + 1.001 * room).any():
                found = f"the {name} that goes along is {values.tolist()}; allowed are {allowed.tolist()}"
                self._judge.note("feedforward", violations=[found])


class Server:
    """The wire to one Crazyflie."""

    def __init__(self, setup: dict[str, Any]) -> None:
        scene = setup.get("scene") or {}
        task, settings = scene.get("task") or "hover", scene.get("settings") or {"action_mode": "velocity"}
        self.plant = QuadcopterPlant(task, settings, scene.get("tracker"), scene.get("view", False))
        self.faults = FaultPlan(setup.get("faults", []), FAULTS, setup.get("seed", 0))
        self.judge = Judge(Path(setup["log"]), setup.get("limits"), QUANTUM)
        charge, arms_itself = setup.get("charge", 1.0), setup.get("arms_itself", False)
        self.firmware = Firmware(self.plant, self.faults, self.judge.note, charge, arms_itself)
        self.witness = Witness(self.judge, setup.get("limits"), self.firmware)
        self.log = Log(self.firmware, self.faults, setup.get("clock_ms", 0))
        self.parameters = Parameters(self.firmware)
        self.socket = _bind()
        self._peer: tuple[str, int] | None = None
        self._waiting: list[tuple[int, int, bool, bytes]] = []
        """Packets on their way: when they arrive [ns], a running number, whether to the host, and their bytes."""
        self._count = 0

    @property
    def address(self) -> str:
        """host:port."""
        host, port = self.socket.getsockname()
        return f"{host}:{port}"

    def turn(self) -> None:
        """Do what is due."""
        now = time.monotonic_ns()
        self.firmware.advance(now)
        for data in self.log.due(now):
            self._carry(b"\x52" + data, outwards=True)
        while self._waiting and self._waiting[0][0] <= now:
            _, _, outwards, data = heapq.heappop(self._waiting)
            if outwards and self._peer is not None:
                self.socket.sendto(data, self._peer)
            elif not outwards:
                self._serve(data)

    def receive(self) -> None:
        """Take all datagrams that have come."""
        while True:
            try:
                data, self._peer = self.socket.recvfrom(64)
            except BlockingIOError:
                return
            if not 1 <= len(data) <= 31:
                continue
            if data[0] & 0xF3 == 0xF3:  # a null packet asks whether anybody is there
                self._carry(b"\xff", outwards=True)
                continue
            self._watch(data[0] & 0xF3, data[1:])
            self._carry(data, outwards=False)

    def _watch(self, header: int, data: bytes) -> None:
        """Note what the host sends, whether or not it arrives."""
        if header == 0x70 and (setpoint := decode_setpoint(data)) is not None:
            self.faults.command()
            self.witness.see(setpoint)
        elif header == 0x71:
            self.witness.see_end()

    def _carry(self, data: bytes, outwards: bool) -> None:
        """Put a packet on its way, past all that can go wrong."""
        faults, now = self.faults, time.monotonic_ns()
        if faults.strikes("drop") or faults.strikes("silence" if outwards else "deaf"):
            return
        if outwards and faults.strikes("corrupt"):
            turned = bytearray(data)
            turned[faults.chance.randrange(len(data))] ^= 1 << faults.chance.randrange(8)
            data = bytes(turned)
        late = 0.0
        answer = outwards and data[0] >> 4 not in (5, 15)
        for kind in ("delay", "reorder", *(("slow_handshake",) if answer else ())):
            late += fault.value if (fault := faults.find(kind)) else 0.0
        if jitter := faults.find("jitter"):
            late += faults.chance.uniform(0.0, jitter.value)
        for _ in range(2 if faults.strikes("duplicate") else 1):
            self._count += 1
            heapq.heappush(self._waiting, (now + round(1e6 * late), self._count, outwards, data))

    def _serve(self, packet: bytes) -> None:
        """Do what a packet asks for."""
        header, data = packet[0] & 0xF3, packet[1:]
        answer = self._answer(header, data)
        if answer is not None:
            self._carry(bytes((header,)) + answer[:30], outwards=True)

    def _answer(self, header: int, data: bytes) -> bytes | None:
        """Port and channel in one byte, then."""
        match header:
            case 0xF0:
                return data
            case 0xF1:
                return b"Bitcraze Crazyflie".ljust(30, b"\0")
            case 0xD1:
                return self._platform(data)
            case 0x50:
                return self.log.table(data)
            case 0x51:
                return self.log.control(data)
            case 0x20:
                return self.parameters.table(data)
            case 0x21:
                return self.parameters.read(data)
            case 0x22:
                return self.parameters.write(data)
            case 0x23:
                return self.parameters.write_by_name(data) if data[:1] == b"\0" else None
            case 0x40:
                return b"\x01\0" if data[:1] == b"\x01" else None
            case _:
                return self._command(header, data)

    def _platform(self, data: bytes) -> bytes:
        if data[0] == 0:
            wrong = self.faults.find("wrong_version")
            return struct.pack("<Bi", 0, int(wrong.value) if wrong else PROTOCOL_VERSION)
        return data[:1] + (b"emulated" if data[0] == 1 else b"C21")

    def _command(self, header: int, data: bytes) -> bytes | None:
        """What moves it, or stops it."""
        firmware = self.firmware
        match header, data[0] if data else None:
            case 0x70, _:
                if (setpoint := decode_setpoint(data)) is not None:
                    firmware.steer(setpoint)
            case 0x71, 0:
                firmware.end_setpoints()
            case 0x80, command:
                return data[:3].ljust(3, b"\0") + bytes((self._high_level(command, data[1:]),))
            case 0x91, 1:
                granted, armed = firmware.arm(bool(data[1]))
                return bytes((0x81, granted, armed))
            case 0x91, 2:
                well = firmware.recover()
                return bytes((0x82, well, well))
            case 0x91, 3:
                self.judge.note("emergency_stop")
                firmware.emergency_stop()
            case 0x91, 4:
                firmware.keep_alive()
            case 0x90, 0x0C:
                return b"\x8c" + struct.pack("<H", firmware.info)
        return None

    def _high_level(self, command: int | None, data: bytes) -> int:
        """A task for the high-level commander; returns 0 if it takes it."""
        firmware, same = self.firmware, math.nan
        if command == 3:
            firmware.stop_trajectory()
            return 0
        if command in (7, 8):
            height, yaw, keep, seconds = struct.unpack_from("<ff?f", data, 1)
            goal = np.array([same, same, height, same if keep else yaw])
            result = firmware.fly(goal, seconds, takeoff=command == 7, landing=command == 8)
        elif command == 12:
            relative, _, *place, seconds = struct.unpack_from("<BB5f", data, 1)
            goal = np.array(place) + (firmware.place if relative else 0.0)
            result = firmware.fly(goal, seconds)
        else:
            return 8  # no such command
        self.judge.note(
            {7: "takeoff", 8: "land", 12: "go_to"}[command], goal=goal.tolist(), result=result, seconds=seconds
        )
        return result


def decode_setpoint(data: bytes) -> Setpoint | None:
    """A setpoint of the generic port; None: of a kind that is not emulated, or none at all."""
    kind, rest = data[:1], data[1:]
    if kind == b"\x00":
        return Setpoint()
    if kind == b"\x06" and len(rest) == 28:
        numbers = struct.unpack("<9hI3h", rest)
        position, velocity, acceleration = (np.array(numbers[at : at + 3]) / 1000 for at in (0, 3, 6))
        place = np.append(position, _heading(numbers[9]))
        return Setpoint("place", place, np.append(velocity, numbers[12] / 1000), np.append(acceleration, 0.0))
    if kind not in (b"\x07", b"\x08", b"\x0a") or len(rest) != 16:
        return None
    one, two, three, four = struct.unpack("<4f", rest)
    if kind == b"\x07":
        return Setpoint("place", np.array([one, two, three, math.radians(four)]))
    if kind == b"\x08":
        return Setpoint("velocity", velocity=np.array([one, two, three, math.radians(four)]))
    return Setpoint("hover", np.array([0.0, 0.0, four, 0.0]), np.array([one, two, 0.0, math.radians(three)]))


def _heading(number: int) -> float:
    """Of a quaternion in 32 bits [rad]: which of x, y, z, w is greatest, then the others from the last on."""
    greatest, found = number >> 30, {}
    for index in (3, 2, 1, 0):
        if index != greatest:
            found[index] = (number & 0x1FF) / 511 / math.sqrt(2) * (-1 if number & 0x200 else 1)
            number >>= 10
    found[greatest] = math.sqrt(1 - sum(value * value for value in found.values()))
    x, y, z, w = (found[index] for index in range(4))
    return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def _bind() -> socket.socket:
    """A port where Bitcraze's client looks, or any where those are taken."""
    found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for port in (*PORTS, 0):
        try:
            found.bind(("127.0.0.1", port))
            break
        except OSError:
            continue
    found.setblocking(False)
    return found


def main() -> None:
    """Fly until the console ends."""
    server = Server(read_setup())
    console = Console(server.address, server.plant, server.judge, server.faults)
    while not console.ended:
        ready, _, _ = select.select([server.socket.fileno(), console.fileno()], [], [], TICK_S)
        if server.socket.fileno() in ready:
            server.receive()
        server.turn()
        if console.fileno() in ready:
            console.answer()


if __name__ == "__main__":
    main()

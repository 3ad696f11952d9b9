"""STS3215 servos made of software, on a pseudo-terminal: `python -m alula.real_robot.emulators.feetech SETUP.json`.

The first line that it prints is the port. It ends when its standard input does. Nothing of the driver is used here:
this is a second reading of the protocol, so that a mistake in one shows against the other.

Setup:
    log: File that gets a JSON line for every write of goals or torque, with what breaks a limit.
    servos: By number: `model`, `position` [count], `homing_offset` [count], each with a default.
    limits: `rate` [Hz] and, per servo, `low`, `high`, `velocity`, `acceleration`, `jerk` [count, s]; may be absent.
    faults: List of `Fault`. seed: Of their chances.
"""

import json
import math
import os
import pty
import random
import select
import struct
import sys
import time
import tty
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

PING, READ, WRITE, SYNC_READ, SYNC_WRITE, BROADCAST = 1, 2, 3, 0x82, 0x83, 0xFE
BYTE_NS = 10_000
"""Ten bits at a million per second."""
RETURN_DELAY_NS = 500_000
"""Pause of every servo before it replies: as it comes from the factory."""
LAG = 0.04
"""Time constant of a servo [s]."""
TOP_SPEED = 3072.0
"""[count/s]: 45 rev/min."""
MEMORY = 86
MODEL, MODE, HOMING, TORQUE, GOAL, TORQUE_LIMIT, PRESENT = 3, 33, 31, 40, 42, 48, 56
ROUNDING = (0, 1, 2, 4)
"""Counts by which rounding can change a position and its first, second and third difference."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong."""

    kind: str
    """silent (hears but says nothing), drop, corrupt, noise, overload, frozen (repeats itself), unplugged."""
    servo: int = 0
    """0: all."""
    start: int = 0
    """When: after so many writes of goals since torque first came on, so that it does not depend on the machine."""
    duration: float = math.inf
    """In writes of goals."""
    probability: float = 1.0
    """For every reply."""


class Servo:
    """Memory and motion of one servo."""

    def __init__(self, number: int, model: int = 777, position: int = 2048, homing_offset: int = 0) -> None:
        self.number, self.position, self.speed = number, float(position), 0.0
        self.memory = bytearray(MEMORY)
        struct.pack_into("<H", self.memory, MODEL, model)
        self.memory[5] = number
        struct.pack_into("<H", self.memory, HOMING, abs(homing_offset) | (0x800 if homing_offset < 0 else 0))
        struct.pack_into("<H", self.memory, TORQUE_LIMIT, 1000)
        struct.pack_into("<H", self.memory, GOAL, position)

    @property
    def goal(self) -> int:
        """[count]."""
        return int(struct.unpack_from("<H", self.memory, GOAL)[0])

    @property
    def torque_limit(self) -> int:
        """Share of the stall torque [0.1 %]."""
        return int(struct.unpack_from("<H", self.memory, TORQUE_LIMIT)[0])

    @property
    def powered(self) -> bool:
        """Whether torque is on."""
        return self.memory[TORQUE] == 1

    def move(self, seconds: float) -> None:
        """Let time pass."""
        way = (self.goal - self.position) * (1 - math.exp(-seconds / LAG)) if self.powered else 0.0
        way = max(-TOP_SPEED * seconds, min(TOP_SPEED * seconds, way))
        self.position += way
        self.speed = way / seconds if seconds > 0 else 0.0

    def measure(self) -> None:
        """Put position, velocity, load, voltage and temperature into the memory."""
        speed, load = round(self.speed), round(0.1 * self.speed)
        signed = [abs(speed) | (0x8000 if speed < 0 else 0), min(abs(load), 1000) | (0x400 if load < 0 else 0)]
        struct.pack_into("<HHHBB", self.memory, PRESENT, round(self.position), *signed, 120, 30)


class Decoder:
    """Takes the stream apart, byte by byte; frames with a wrong checksum are dropped."""

    def __init__(self) -> None:
        self._frame = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Number, instruction and parameters of every frame that is complete."""
        for byte in data:
            frame = self._frame
            frame.append(byte)
            if (len(frame) <= 2 and byte != 0xFF) or (len(frame) == 3 and byte == 0xFF):
                frame.clear()
            elif len(frame) > 4 and len(frame) == frame[3] + 4:
                if (sum(frame[2:]) & 0xFF) == 0xFF:
                    yield frame[2], frame[4], bytes(frame[5:-1])
                frame.clear()


class Judge:
    """Writes down all goals and what they break; differences are those of one goal after the other."""

    def __init__(self, log: Path, limits: dict[str, Any] | None) -> None:
        self._log, self._limits = log.open("a", buffering=1, encoding="utf-8"), limits
        self._past: dict[int, deque[int]] = {}

    def note(self, event: str, servos: list[Servo]) -> None:
        """Tell of servos whose goal or torque has been written."""
        found = [line for servo in servos if servo.powered for line in self._violations(event, servo)]
        for servo in servos:
            if not servo.powered:
                self._past.pop(servo.number, None)
        values = {
            "goals": {servo.number: servo.goal for servo in servos},
            "positions": {servo.number: servo.position for servo in servos},
            "torque": {servo.number: int(servo.powered) for servo in servos},
            "torque_limits": {
                servo.number: struct.unpack_from("<H", servo.memory, TORQUE_LIMIT)[0] for servo in servos
            },
        }
        line = {"time_ns": time.monotonic_ns(), "event": event, **values, "violations": found}
        self._log.write(json.dumps(line) + "\n")

    def _violations(self, event: str, servo: Servo) -> Iterator[str]:
        if event == "torque" and servo.number not in self._past:
            self._past[servo.number] = deque([servo.goal] * 4, maxlen=4)
            if abs(servo.goal - servo.position) > 1:
                yield f"servo {servo.number} is at {servo.position} when torque comes on, its goal {servo.goal}"
        if event != "goals" or self._limits is None:
            return
        past, index, rate = self._past[servo.number], servo.number - 1, self._limits["rate"]
        past.appendleft(servo.goal)
        if not self._limits["low"][index] - 1 <= servo.goal <= self._limits["high"][index] + 1:
            yield f"servo {servo.number} is sent to {servo.goal}"
        differences = list(past)
        for order, name in enumerate(("velocity", "acceleration", "jerk"), start=1):
            differences = [new - old for new, old in pairwise(differences)]
            if abs(differences[0]) > self._limits[name][index] / rate**order + ROUNDING[order]:
                yield f"servo {servo.number} has a {name} of {differences[0] * rate**order}"


class Emulator:
    """Servos, and the wire to them."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self.servos = {int(number): Servo(int(number), **values) for number, values in setup["servos"].items()}
        self.faults = [Fault(**values) for values in setup.get("faults", [])]
        self.chance = random.Random(setup.get("seed", 0))
        self.judge, self.decoder = Judge(Path(setup["log"]), setup.get("limits")), Decoder()
        self.outgoing: deque[tuple[int, bytes]] = deque()
        """Replies and when their last byte arrives [ns]."""
        self._frozen: dict[int, bytes] = {}
        self._wire_free = self._time = time.monotonic_ns()
        self._goals: int | None = None
        """Writes of goals since torque first came on."""

    def failing(self, kind: str, servo: int = 0) -> bool:
        """Whether this goes wrong now."""
        since = math.nan if self._goals is None else self._goals
        return any(
            fault.kind == kind
            and fault.servo in (0, servo)
            and fault.start <= since < fault.start + fault.duration
            and self.chance.random() < fault.probability
            for fault in self.faults
        )

    def advance(self) -> None:
        """Let the time pass that has passed."""
        now = time.monotonic_ns()
        for servo in self.servos.values():
            servo.move((now - self._time) / 1e9)
            servo.measure()
        self._time = now

    def receive(self, data: bytes) -> None:
        """Do what these bytes ask for."""
        for number, instruction, parameters in self.decoder.feed(data):
            self._wire_free = max(self._wire_free, time.monotonic_ns()) + (len(parameters) + 6) * BYTE_NS
            if instruction == SYNC_READ:
                for each in parameters[2:]:
                    # Whoever comes after a silent one goes on waiting for its reply.
                    if not self._reply(each, self._piece(each, *parameters[:2])):
                        break
            elif instruction == SYNC_WRITE:
                address, size = parameters[:2]
                pieces = [parameters[at : at + size + 1] for at in range(2, len(parameters), size + 1)]
                self._store(address, {piece[0]: piece[1:] for piece in pieces})
            elif instruction == WRITE:
                self._store(parameters[0], {number: parameters[1:]})
                self._reply(number, b"")
            elif instruction in (PING, READ):
                self._reply(number, self._piece(number, *parameters) if instruction == READ else b"")

    def _piece(self, number: int, address: int, size: int) -> bytes:
        servo = self.servos.get(number)
        if servo is None:
            return b""
        if self.failing("frozen", number):
            return self._frozen.setdefault(number, bytes(servo.memory))[address : address + size]
        return bytes(servo.memory[address : address + size])

    def _store(self, address: int, data: dict[int, bytes]) -> None:
        written = [self.servos[number] for number in data if number in self.servos]
        for servo in written:
            servo.memory[address : address + len(data[servo.number])] = data[servo.number]
        if self._goals is not None:
            self._goals += address == GOAL
        elif any(servo.powered for servo in written):
            self._goals = 0
        if address in (TORQUE, GOAL):
            self.judge.note("torque" if address == TORQUE else "goals", written)

    def _reply(self, number: int, data: bytes) -> bool:
        """Put an answer on the wire; whether there is one."""
        if number not in self.servos or self.failing("silent", number) or self.failing("drop", number):
            return False
        body = bytes((number, len(data) + 2, 32 if self.failing("overload", number) else 0)) + data
        reply = bytearray(b"\xff\xff" + body + bytes((0xFF - (sum(body) & 0xFF),)))
        if self.failing("corrupt", number):
            reply[self.chance.randrange(len(reply))] ^= 1 << self.chance.randrange(8)
        if self.failing("noise", number):
            reply[:0] = self.chance.randbytes(self.chance.randrange(1, 8))
        self._wire_free += RETURN_DELAY_NS + len(reply) * BYTE_NS
        self.outgoing.append((self._wire_free, bytes(reply)))
        return True


def serve(emulator: Emulator, master: int) -> None:
    """Answer until standard input ends, or the plug is pulled."""
    while not emulator.failing("unplugged"):
        wait = min(0.01, (emulator.outgoing[0][0] - time.monotonic_ns()) / 1e9 if emulator.outgoing else 1.0)
        ready, _, _ = select.select([master, sys.stdin], [], [], max(wait, 0.0))
        emulator.advance()
        if master in ready:
            emulator.receive(os.read(master, 4096))
        if sys.stdin in ready and not os.read(sys.stdin.fileno(), 4096):
            return
        while emulator.outgoing and emulator.outgoing[0][0] <= time.monotonic_ns():
            os.write(master, emulator.outgoing.popleft()[1])


def main() -> None:
    """Open a port and serve it."""
    emulator = Emulator(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    master, slave = pty.openpty()
    tty.setraw(slave)
    print(os.ttyname(slave), flush=True)
    serve(emulator, master)


if __name__ == "__main__":
    main()

"""A bus of servos made of software, whatever they speak: the wire, what goes wrong on it, and the arm that they move.

The wire's time is that of its bytes and of the pauses before replies; a servo that is asked after a silent
one goes on waiting, as real ones do. The first servos move the joints of a simulated arm, another its gripper.

Setup beside that of `console.py`:

    servos      by number: `element` of the action that it moves (of several the first decides), `homing_offset`
                [count], and what else is in its memory
    gripper     angles of its servo [rad] at which the simulated gripper is closed and open

Request beside those of `console.py`:

    {"hand": [angles]}  somebody moves the joints that have no power [rad]      → {}
"""

import math
import os
import pty
import select
import time
import tty
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.real_robot.emulators.console import Console
from alula.real_robot.emulators.faults import FaultPlan
from alula.real_robot.emulators.judge import Judge
from alula.real_robot.emulators.plant import ArmPlant
from alula.real_robot.emulators.servos import Language, Request, Servo

COUNT = 2 * math.pi / 4096
"""[rad]"""
TOP_SPEED = 3072 * COUNT
"""Of a servo [rad/s]: 45 rev/min."""
HAND_SPEED = 1.0
"""Of somebody who moves a joint without power [rad/s]."""
WRONG = 20
"""What the first byte of a wrong model or firmware is."""
TICK_S = 0.01
"""Longest time between two looks at the world."""


class ServoBus:
    """Servos, the wire to them, and the arm.

    Args:
        setup: See the module.
        language: What they speak.
        servos: All of them.
        kinds: Faults that can happen.
    """

    def __init__(
        self, setup: Mapping[str, Any], language: Language, servos: Iterable[Servo], kinds: Iterable[str]
    ) -> None:
        scene = setup["scene"] or {}
        task = {"task": scene["task"], "settings": scene["settings"]} if scene.get("task") else setup["default_scene"]
        self.plant = ArmPlant(**task, tracker=scene.get("tracker"), view=scene.get("view", False))
        self.plant.powered = True  # each servo's own power is looked at here
        self.language, self.servos = language, {servo.number: servo for servo in servos}
        self.closed, self.open = setup["gripper"]
        self.faults = FaultPlan(setup["faults"], kinds, setup["seed"])
        elements = len(self.angles())
        self.judge = Judge(Path(setup["log"]), setup["limits"], [COUNT] * elements)
        self.leaders = dict[int, Servo]()
        """Servos that decide where an element goes: of several the first."""
        for servo in self.servos.values():
            self.leaders.setdefault(servo.element, servo)
        self.outgoing: deque[tuple[int, bytes]] = deque()
        """Replies and when their last byte arrives [ns]."""
        self.heard_ns = self._wire_free = self._time_ns = time.monotonic_ns()
        self._target, self._rest, self._hand = self.angles(), self.angles(), self.angles()
        """Where the servos' drives pull to, where those without power are, and where a hand moves them to [rad]."""

    def angles(self) -> Float64[ndarray, " elements"]:
        """Of the servos with a joint [rad]."""
        return np.append(self.plant.position, self.closed + self.plant.opening * (self.open - self.closed))

    def jump(self, servo: Servo) -> float:
        """How far its encoder is off [rad]."""
        fault = self.faults.find("encoder_jump", servo.number)
        return (fault.value or math.pi) if fault is not None else 0.0

    def counts(self, servo: Servo, angle: float) -> int:
        """What it says at an angle."""
        return servo.zero + round(angle / COUNT)

    def angle(self, servo: Servo) -> float:
        """Where it is sent [rad]."""
        return (servo.goal - servo.zero) * COUNT

    def advance(self) -> None:
        """Let the time pass that has passed."""
        now = time.monotonic_ns()
        angles = self.angles()
        for element, servo in self.leaders.items():
            self._drive(element, servo, angles, (now - self._time_ns) / 1e9)
        gripper = (self._target[-1] - self.closed) / (self.open - self.closed)
        self.plant.command(self._target[:-1], float(np.clip(gripper, 0.0, 1.0)))
        self.plant.advance(now)
        after = self.angles()
        seconds = max((now - self._time_ns) / 1e9, 1e-6)
        self._time_ns = now
        for servo in self.servos.values():
            element = servo.element
            angle, speed = float(after[element]), float((after - angles)[element]) / seconds
            if element < len(after) - 1:
                speed = float(self.plant.velocity[element])
            pull = float(np.clip(10.0 * (self._target[element] - angle), -1.0, 1.0)) if servo.powered else 0.0
            servo.measure(self.counts(servo, angle + self.jump(servo)), speed, pull)

    def _drive(self, element: int, servo: Servo, angles: Float64[ndarray, " elements"], seconds: float) -> None:
        """Move a drive's target."""
        if servo.pulls and not self.faults.strikes("stripped", servo.number):
            if not self.faults.strikes("stuck", servo.number):
                way = self.angle(servo) - self.jump(servo) - self._target[element]
                self._target[element] += float(np.clip(way, -TOP_SPEED * seconds, TOP_SPEED * seconds))
            self._rest[element] = self._hand[element] = angles[element]
        else:
            way = self._hand[element] - self._rest[element]
            self._rest[element] += float(np.clip(way, -HAND_SPEED * seconds, HAND_SPEED * seconds))
            self._target[element] = self._rest[element]

    def push(self, angles: Sequence[float]) -> None:
        """Let a hand move the joints without power there [rad]."""
        self._hand[:] = angles

    def receive(self, data: bytes) -> None:
        """Do what these bytes ask for."""
        if self.faults.strikes("echo"):
            self.outgoing.append((time.monotonic_ns(), self.faults.chance.randbytes(len(data))))
            return
        for request in self.language.feed(data):
            now = self.heard_ns = time.monotonic_ns()
            self._wire_free = max(self._wire_free, now) + request.length * self.language.BYTE_NS
            if request.kind == "write":
                self._store(request)
            for number in request.servos if request.answered else ():
                # Whoever comes after a silent one goes on waiting for its reply.
                if not self._answer(number, request):
                    break

    def _store(self, request: Request) -> None:
        """Write memory, and tell the judge what that means."""
        pulled = {element: servo.pulls for element, servo in self.leaders.items()}
        stopped = {servo.number for servo in self.servos.values() if servo.stopped}
        written = set()
        for number, data in request.data.items():
            for servo in self.servos.values():
                if servo.obeys(number):
                    servo.store(request.address, data)
                    written.add(servo.number)
        first, end = next(iter(self.servos.values())), request.address + max(map(len, request.data.values()))
        leaders = {element: servo for element, servo in self.leaders.items() if servo.number in written}
        self._power(leaders, pulled, request.address <= first.TORQUE < end)
        if request.address <= first.GOAL < end and leaders:
            taken = {element: self.angle(servo) for element, servo in leaders.items() if servo.number not in stopped}
            if any(servo.powered for servo in leaders.values()):
                self.judge.command(taken)
                self.faults.command()
            else:
                self.judge.note("goals", goals=taken)

    def _power(self, leaders: Mapping[int, Servo], pulled: Mapping[int, bool], torque: bool) -> None:
        """Memory has been written: what comes on must stay where it is.

        Args:
            leaders: The servos, by element.
            pulled: Whether they did before.
            torque: Whether it was the torque that has been written.
        """
        on = {element: servo for element, servo in leaders.items() if servo.pulls and (torque or not pulled[element])}
        if on:
            angles = self.angles()
            self.judge.start({e: self.angle(servo) if pulled[e] else float(angles[e]) for e, servo in on.items()})
            self.faults.power()
            for element in on:
                if not pulled[element]:
                    self._target[element] = angles[element]
        if on and torque:
            self.judge.command({element: self.angle(servo) for element, servo in on.items()})
        self._release([element for element, servo in leaders.items() if pulled[element] and not servo.pulls])

    def _release(self, elements: Sequence[int]) -> None:
        if elements:
            self.judge.release(elements)

    def watch(self) -> None:
        """Let the servos' watchdogs look; and those restart whose supply sags."""
        silent_ns = time.monotonic_ns() - self.heard_ns
        for servo in self.servos.values():
            pulled = servo.pulls
            servo.watch(math.inf if self.faults.strikes("watchdog", servo.number) else silent_ns)
            if servo.powered and self.faults.strikes("torque_loss", servo.number):
                servo.restart()
            if pulled and not servo.pulls and servo is self.leaders[servo.element]:
                self._release([servo.element])

    def _answer(self, number: int, request: Request) -> bool:
        """Put an answer on the wire; whether there is one."""
        servo, faults = self.servos.get(number), self.faults
        if servo is None or faults.strikes("silent", number) or faults.strikes("drop", number):
            return False
        match request.kind:
            case "ping":
                data = self.language.pong(self._memory(servo))
            case "read":
                data = self._memory(servo)[request.address : request.address + request.size]
            case "write":
                data = b""
        alerts: set[str] = {kind for kind in ("overload", "overheat", "voltage") if faults.strikes(kind, number)}
        reply = bytearray(self.language.reply(servo, alerts, data))
        if faults.strikes("duplicate", number):  # the other's begins a little later
            reply = bytearray(a & b for a, b in zip(reply[1:] + b"\xff", reply, strict=True))
        if faults.strikes("corrupt", number):
            reply[faults.chance.randrange(len(reply))] ^= 1 << faults.chance.randrange(8)
        if faults.strikes("noise", number):
            reply[:0] = faults.chance.randbytes(faults.chance.randrange(1, 8))
        late = faults.find("late", number)
        self._wire_free += round(1e6 * late.value) if late is not None else 0
        self._wire_free += servo.delay_ns + len(reply) * self.language.BYTE_NS
        self.outgoing.append((self._wire_free, bytes(reply)))
        return True

    def _memory(self, servo: Servo) -> bytes:
        if not self.faults.strikes("frozen", servo.number):
            servo.frozen = None
        elif servo.frozen is None:
            servo.frozen = bytes(servo.memory)
        memory = bytearray(servo.frozen or servo.memory)
        for kind, address in servo.IDENTITY.items():
            if self.faults.strikes(kind, servo.number):
                memory[address] = WRONG
        return bytes(memory)


class _Console(Console):
    """Knows the request `hand`, too."""

    def __init__(self, address: str, bus: ServoBus) -> None:
        self._bus = bus
        super().__init__(address, bus.plant, bus.judge, bus.faults)

    def _reply(self, request: dict[str, Any]) -> dict[str, Any]:
        if "hand" in request:
            self._bus.push(request["hand"])
            return {}
        return super()._reply(request)


def serve(bus: ServoBus) -> None:
    """Open a port, and answer there and on the console until standard input ends."""
    port: int | None
    port, slave = pty.openpty()
    tty.setraw(slave)
    console = _Console(os.ttyname(slave), bus)
    while not console.ended:
        wait = min(TICK_S, (bus.outgoing[0][0] - time.monotonic_ns()) / 1e9 if bus.outgoing else TICK_S)
        watched: list[Any] = [console] if port is None else [console, port]
        ready, _, _ = select.select(watched, [], [], max(wait, 0.0))
        bus.advance()
        if port in ready and port is not None:
            bus.receive(os.read(port, 4096))
        bus.watch()
        if console in ready:
            console.answer()
        if port is not None and bus.faults.strikes("unplugged"):
            os.close(port)
            port = None
        while bus.outgoing and bus.outgoing[0][0] <= time.monotonic_ns():
            reply = bus.outgoing.popleft()[1]
            if port is not None:
                os.write(port, reply)

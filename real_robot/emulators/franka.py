"""A Franka Research 3 made of software, to which genuine libfranka clients connect.

Started as `console.py` says. The address is one of 127.0.0.0/8, because the port is always 1337. Every set point of the
1 kHz stream is judged: its position by the driver's limits, its velocity, acceleration and jerk by the robot's own.

A real robot gives its client a millisecond for an answer. This one's clock stands still for up to `patience_ms` for
each answer, since hosts without a real-time kernel and with other work would otherwise be stopped all the time: 20
missed answers are 20 ms of its own time, and at most 20 times `patience_ms` of the host's.

Particular to this setup:
    patience_ms: How long an answer is waited for [ms].
    model: What the robot's description calls itself. version: Of its server.
"""

import random
import select
import socket
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from alula.real_robot.emulators import franka_wire as wire
from alula.real_robot.emulators.console import Console, read_setup
from alula.real_robot.emulators.faults import FaultPlan
from alula.real_robot.emulators.franka_robot import FrankaRobot
from alula.real_robot.emulators.franka_wire import Command, Mode, MoveStatus, SetPoint, Stream
from alula.real_robot.emulators.judge import Judge
from alula.real_robot.emulators.plant import ArmPlant

FAULTS = {
    "drop": "a datagram with a state is lost, and with it the answer",
    "deaf": "a datagram with a set point is lost; after 20 in a row the robot stops by itself",
    "late": "states arrive `value` milliseconds late",
    "silent": "no states any more, while the connection stands",
    "frozen": "the same state again and again: its stamp does not rise",
    "reset": "the robot closes the connection",
    "mute": "the robot accepts the connection, but never answers",
    "nan": "measured joint positions are not numbers",
    "jump": "the measured position of joint `target` is wrong by `value` radians",
    "reflex": "the robot believes that it has collided and stops",
    "user_stop": "somebody presses the user stop; it stays pressed",
    "guiding": "somebody guides the robot by hand; it takes no motion",
}
"""What can go wrong. `start` and `duration` count periods of 10 ms with a motion."""
PERIOD = 10
"""Milliseconds of motion that count as one command of the plan of faults: a control period of the driver."""
PATIENCE_MS = 20.0
"""[ms]: our choice, more than a loaded host is usually late."""
MOST_LATE_NS = 100_000_000
"""Lateness that is made up for at most [ns]: our choice."""
TICK_NS = 1_000_000


def prepare(config: Any, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What this emulator's setup and its driver's settings need beyond the usual."""
    return {"patience_ms": PATIENCE_MS, "model": "fr3", "version": wire.VERSION}, {"realtime": False}


class Session:
    """The connection to one client."""

    def __init__(self, client: socket.socket, host: str) -> None:
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tcp, self.host, self.stream = client, client.getpeername()[0], Stream()
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((host, 0))
        self.udp.setblocking(False)
        self.port: int | None = None
        """Where states go; None before the client has said so."""
        self.motion: int | None = None
        """Number of the request whose end the client waits for."""

    def say(self, message: bytes) -> None:
        """Answer; a client that is gone is noticed elsewhere."""
        with suppress(OSError):
            self.tcp.sendall(message)

    def close(self) -> None:
        """Let go."""
        self.tcp.close()
        self.udp.close()


class Emulator:
    """The robot, and its wire."""

    def __init__(self, setup: dict[str, Any]) -> None:
        plant = _plant(setup.get("scene") or {})
        self.robot = FrankaRobot(plant)
        limits = setup.get("limits") or {"low": wire.LOW, "high": wire.HIGH}
        self._low, self._high = np.array(limits["low"]), np.array(limits["high"])
        self.judge = Judge(Path(setup["log"]), None, (0.0,) * wire.JOINTS)
        self.faults = FaultPlan(setup.get("faults", []), FAULTS, setup.get("seed", 0))
        self.model, self.version = setup.get("model", "fr3"), setup.get("version", wire.VERSION)
        self.patience_ns = round(1e6 * setup.get("patience_ms", PATIENCE_MS))
        self.door, self.host = _listen()
        self.console = Console(self.host, plant, self.judge, self.faults)
        self.session: Session | None = None
        self._answer: SetPoint | None = None
        self._awaited = False
        """Whether an answer can still come."""
        self._outgoing: deque[tuple[int, bytes]] = deque()
        """States on their way, and when they arrive by the robot's clock [ms]."""
        self._frozen: bytes | None = None
        """The last state that was a new one."""
        self._moves = 0

    def serve(self) -> None:
        """Tick until the console ends."""
        due = time.monotonic_ns()
        while not self.console.ended:
            self._tick()
            due += TICK_NS
            latest = due
            if self._awaited:
                latest = time.monotonic_ns() + self.patience_ns
            self._listen_until(due, latest)
            if time.monotonic_ns() - due > MOST_LATE_NS:
                due = time.monotonic_ns()

    def _tick(self) -> None:
        """A millisecond of the robot's: what has come in, what is done, what is said."""
        robot, faults = self.robot, self.faults
        if robot.mode is Mode.MOVE:
            self._move()
        hands = {"user_stop": Mode.USER_STOPPED, "guiding": Mode.GUIDING}
        robot.interrupt(next((mode for kind, mode in hands.items() if faults.strikes(kind)), None))
        if robot.mode is Mode.MOVE and faults.strikes("reflex"):
            robot.reflex("joint_reflex")
            self.faults.command()  # time that would have passed: with a duration of 1 it is over now
        if self.session is not None and faults.strikes("reset"):
            self._hang_up()
        robot.tick()
        self._awaited = False
        if self.session is not None:
            self._speak(self.session)

    def _move(self) -> None:
        """Follow the client's answer, or do without."""
        answer, self._answer = self._answer, None
        self._moves += 1
        if self._moves % PERIOD == 0:
            self.faults.command()
        if answer is None:
            self.robot.miss()
            if self.robot.mode is not Mode.MOVE:
                self.judge.note("watchdog")
        elif answer.finished:
            self.robot.end(MoveStatus.SUCCESS)
        else:
            breaches = self.robot.follow(answer)
            goals = self.robot.desired
            found = [f"{answer} is a {breach}" for breach in breaches]
            for joint in np.flatnonzero((goals < self._low) | (goals > self._high)).tolist():
                allowed = f"{self._low[joint]} to {self._high[joint]}"
                found.append(f"element {joint} is sent to {goals[joint]}; allowed are {allowed}")
            self.judge.commands += 1
            self.judge.note("command", found, goals=dict(enumerate(goals.tolist())), clock=answer.message_id)

    def _speak(self, session: Session) -> None:
        """Send the state, and the end of a motion after it has shown in the state."""
        robot, faults = self.robot, self.faults
        telemetry = robot.telemetry()
        if faults.strikes("nan"):
            telemetry.position = (float("nan"),) * wire.JOINTS
        jumps = [faults.find("jump", joint) for joint in range(1, 1 + wire.JOINTS)]
        wrong = [0.0 if jump is None else jump.value for jump in jumps]
        telemetry.position = tuple(np.add(telemetry.position, wrong).tolist())
        newest = telemetry.pack()
        if self._frozen is None or not faults.strikes("frozen"):
            self._frozen = newest
        late = faults.find("late")
        due = robot.clock + (0 if late is None else round(late.value))
        self._outgoing.append((due, self._frozen))
        while self._outgoing and self._outgoing[0][0] <= robot.clock:
            _, state = self._outgoing.popleft()
            if session.port is not None and not faults.strikes("silent") and not faults.strikes("drop"):
                session.udp.sendto(state, (session.host, session.port))
                self._awaited = robot.mode is Mode.MOVE and state is newest
        if robot.ended is not None and session.motion is not None:
            session.say(wire.reply(Command.MOVE, session.motion, robot.ended))
            session.motion, robot.ended = None, None

    def _listen_until(self, due: int, latest: int) -> None:
        """Hear the client and the console until `due`, or until the client's answer is there, or `latest`."""
        while True:
            now = time.monotonic_ns()
            end = latest if self._awaited else due
            if now >= end and now >= due:
                return
            heard: list[Any] = [self.console, self.door]
            if self.session is not None:
                heard += [self.session.tcp, self.session.udp]
            ready, _, _ = select.select(heard, [], [], max(end - now, due - now, 0) / 1e9)
            if self.console in ready:
                self.console.answer()
                if self.console.ended:
                    return
            if self.session is not None and self.session.udp in ready:
                self._take(self.session)
            if self.session is not None and self.session.tcp in ready:
                self._hear(self.session)
            elif self.door in ready:  # only once it is clear that no client has just gone
                self._welcome()

    def _welcome(self) -> None:
        client, _ = self.door.accept()
        if self.session is not None:
            client.close()  # one client at a time
            return
        self.session = Session(client, self.host)

    def _hear(self, session: Session) -> None:
        """What the client says over TCP."""
        try:
            data = session.tcp.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._hang_up()
            return
        if not self.faults.strikes("mute"):
            for command, number, content in session.stream.feed(data):
                self._obey(session, command, number, content)

    def _hang_up(self) -> None:
        """The connection is gone; a robot in motion will miss its client's answers."""
        assert self.session is not None
        self.session.close()
        self.session, self._answer, self._awaited = None, None, False
        self._outgoing.clear()

    def _take(self, session: Session) -> None:
        """What the client says by UDP."""
        answer = wire.read_set_point(session.udp.recv(wire.COMMAND.size + 1))
        if self.faults.strikes("deaf"):
            self._awaited = False
        elif answer.message_id == self.robot.clock:
            self._answer, self._awaited = answer, False

    def _obey(self, session: Session, command: Command, number: int, content: bytes) -> None:
        """Do what is asked for, and answer."""
        robot = self.robot
        match command:
            case Command.CONNECT:
                version, port = wire.CONNECT.unpack_from(content)
                session.say(wire.connected(number, version, self.version))
                session.port = port
            case Command.GET_MODEL:
                session.say(wire.reply(command, number, 0, wire.description(self.model).encode()))
            case Command.MOVE:
                controller, generator = wire.MOVE.unpack_from(content)
                known = controller == wire.JOINT_IMPEDANCE and generator in (wire.POSITIONS, wire.VELOCITIES)
                status = robot.start(generator) if known else MoveStatus.INVALID
                session.say(wire.reply(command, number, status))
                if status is MoveStatus.STARTED:
                    session.motion, self._answer = number, None
                    self.faults.power()
                    self.judge.note("start", positions=robot.desired.tolist())
            case Command.STOP_MOVE:
                session.say(wire.reply(command, number, 0))
                robot.end(MoveStatus.PREEMPTED)
            case Command.RECOVER:
                session.say(wire.reply(command, number, 0 if robot.recover() else wire.NOT_RECOVERED))
            case Command.SET_COLLISION_BEHAVIOR:
                robot.thresholds = np.array(wire.COLLISION.unpack_from(content)[-6:])
                session.say(wire.reply(command, number, 0))
            case _:
                session.say(wire.reply(command, number, 0))


def _plant(scene: Mapping[str, Any]) -> ArmPlant:
    """A scene with a Panda, whose joints get the ranges of an FR3."""
    task = scene.get("task")
    settings = scene.get("settings") or {} if task else {"robot": "panda"}
    plant = ArmPlant(task or "reach", settings, scene.get("tracker"), scene.get("view", False))
    arm, model, ranges = plant.arm, plant.task.model, np.column_stack([wire.LOW, wire.HIGH])
    model.jnt_range[np.isin(model.jnt_qposadr, range(arm.qpos.start, arm.qpos.stop))] = ranges
    model.actuator_ctrlrange[arm.ctrl] = ranges
    arm.low, arm.high = ranges.T
    return plant


def _listen() -> tuple[socket.socket, str]:
    """A loopback address of its own; there are so many that a drawn one is free."""
    host = f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}"
    return socket.create_server((host, wire.PORT)), host


def main() -> None:
    """Be a robot."""
    emulator = Emulator(read_setup())
    emulator.serve()


if __name__ == "__main__":
    main()

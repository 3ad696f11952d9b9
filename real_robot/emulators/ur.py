"""A UR5e made of software, on three TCP ports: `python -m alula.real_robot.emulators.ur SETUP.json`.

Dashboard, script and real-time data exchange, as a controller with PolyScope 5.12 has them. It runs two programs, see
`ur_programs.py`. The joints are those of a simulated task. Setup beyond what `console.py` says:

    payload     what the robot believes to carry [kg]; 0 by default
    host        address to listen at; 127.0.0.1 by default
    ports       dashboard, script, RTDE; any free ones by default
"""

import select
import socket
import time
from pathlib import Path
from typing import Any

from alula.real_robot.devices.config import UR5eConfig
from alula.real_robot.emulators.console import Console, read_setup
from alula.real_robot.emulators.faults import FaultPlan
from alula.real_robot.emulators.judge import Judge
from alula.real_robot.emulators.plant import ArmPlant
from alula.real_robot.emulators.ur_controller import NORMAL, ROBOT_MODES, RUNNING, SAFETY_STATES, Robot
from alula.real_robot.emulators.ur_motion import TICK_NS
from alula.real_robot.emulators.ur_wire import Connection, RTDESession

FAULTS = {
    "protective_stop": "the safety system stops the arm and pauses the program",
    "emergency_stop": "somebody presses the red button: the program ends, the motors lose power",
    "powered_off": "the motors lose power, the brakes hold the arm",
    "local_control": "somebody takes control at the pendant: the program ends, later ones are ignored",
    "script_killed": "the program ends",
    "script_ignored": "programs that are sent do not start",
    "frozen": "the same values, with the same time, again and again",
    "drop": "values are not sent",
    "delay": "values come late; `value` [ms]",
    "half_open": "all connections stay open, but nothing passes any more",
    "reset": "all connections are broken",
    "partial": "values come in two pieces",
    "corrupt": "a bit of the values, or of what surrounds them, is wrong",
    "slow_handshake": "requests are answered late; `value` [ms]",
    "old_protocol": "the robot does not know the protocol's version",
    "old_software": "the controller has PolyScope 3",
    "other_model": "it is a UR10",
    "registers_taken": "somebody else writes the registers",
    "stuck_joint": "a joint (`target`) does not move",
    "encoder_jump": "a joint (`target`) is measured elsewhere; `value` [rad]",
    "nan": "the position of a joint (`target`) is not a number",
}
MOST_LATE = 4
"""Control periods that are made up for at most; on a host that is later than that the arm slows down."""
ROUNDING = 1e-12
"""Relative excess of double precision."""
SCENE = {"task": "reach", "settings": {"robot": "ur5e"}}
"""Where nobody asks for another."""


def prepare(config: UR5eConfig, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Setup for a robot with these settings, and what of these must be changed for it."""
    return {"payload": config.tool_mass}, {"address": "127.0.0.1"}


class Controller:
    """The ports of a robot.

    Args:
        robot: Behind them.
        host: Address to listen at.
        ports: Dashboard, script, RTDE; 0 for any free one.
    """

    def __init__(self, robot: Robot, host: str, ports: tuple[int, int, int]) -> None:
        self.robot, self.faults = robot, robot.faults
        self.listeners = [socket.create_server((host, port)) for port in ports]
        self.connections: list[list[Connection]] = [[], [], []]
        """By port: dashboard, script, RTDE."""
        self._owners: dict[str, RTDESession] = {}

    @property
    def address(self) -> str:
        """What a driver is told."""
        host = self.listeners[0].getsockname()[0]
        return f"{host}:{','.join(str(listener.getsockname()[1]) for listener in self.listeners)}"

    def serve(self, console: Console) -> None:
        """Answer and move until the console ends."""
        due = time.monotonic_ns()
        while not console.ended:
            silent = self.faults.strikes("half_open")
            clients = [] if silent else [client for group in self.connections for client in group]
            wait = max(0.0, (due - time.monotonic_ns()) / 1e9)
            sources: list[Any] = [console, *self.listeners, *clients]
            ready, _, _ = select.select(sources, [], [], wait)
            for source in ready:
                if source is console:
                    console.answer()
                elif source in self.listeners:
                    self._greet(self.listeners.index(source))
                else:
                    source.receive()
            self._answer()
            due = max(due, time.monotonic_ns() - MOST_LATE * TICK_NS)
            while due <= time.monotonic_ns():
                self.robot.tick(due)
                self._stream()
                due += TICK_NS
            if not silent:
                self._flush()

    def _greet(self, port: int) -> None:
        connection, _ = self.listeners[port].accept()
        session = (
            RTDESession(connection, self.faults, self._owners) if port == 2 else Connection(connection, self.faults)
        )
        self.connections[port].append(session)
        if port == 0:
            session.send(b"Connected: Universal Robots Dashboard Server\n")

    def _answer(self) -> None:
        """Everything that has come."""
        for client in self.connections[0]:
            *lines, client.incoming = client.incoming.split(b"\n")
            for line in lines:
                slow = self.faults.find("slow_handshake")
                reply = self._dashboard(line.decode("utf-8", "replace").strip())
                client.send(reply.encode() + b"\n", slow.value if slow is not None else 0.0)
        for client in self.connections[1]:
            # A program ends with a line "end" that is not indented.
            if client.incoming.endswith(b"\nend\n"):
                self.robot.load(client.incoming.decode("utf-8", "replace"))
                client.incoming = b""
        for client in self.connections[2]:
            assert isinstance(client, RTDESession)
            try:
                for values in client.packages():
                    self.robot.receive(values)
            except ValueError as error:
                self.robot.judge.note("garbage", error=str(error))
                client.open = False

    def _dashboard(self, command: str) -> str:
        robot, faults = self.robot, self.faults
        match command:
            case "PolyscopeVersion":
                return f"URSoftware {'3.15.8' if faults.strikes('old_software') else '5.12.2'}.1101534 (Mar 25 2022)"
            case "get robot model":
                return "UR10" if faults.strikes("other_model") else "UR5"
            case "get serial number":
                return "20225500001"
            case "robotmode":
                return f"Robotmode: {ROBOT_MODES[robot.mode]}"
            case "safetystatus":
                return f"Safetystatus: {SAFETY_STATES[robot.safety]}"
            case "is in remote control":
                return str(robot.remote).lower()
            case "stop":
                robot.end_program("dashboard")
                return "Stopped"
            case "power off":
                robot.power_off()
                return "Powering off"
            case "brake release":
                robot.mode, robot.safety = RUNNING, NORMAL
                return "Brake releasing"
            case "unlock protective stop":
                robot.unlock()
                return "Protective stop releasing"
            case _:
                return f"could not understand: '{command}'"

    def _stream(self) -> None:
        messages, self.robot.messages = self.robot.messages, []
        for client in self.connections[2]:
            assert isinstance(client, RTDESession)
            for message in messages:
                client.say(message)
            client.stream(self.robot.values)

    def _flush(self) -> None:
        broken = self.robot.once("reset")
        for group in self.connections:
            for client in list(group):
                client.flush()
                if broken:
                    client.reset()
                if not client.open:
                    client.close()
                    group.remove(client)


def main() -> None:
    """Open the ports and serve them."""
    setup = read_setup()
    judge = Judge(Path(setup["log"]), setup.get("limits"), [0.0] * 6, relative=ROUNDING)
    faults = FaultPlan(setup.get("faults", ()), FAULTS, setup.get("seed", 0))
    scene = setup.get("scene") or {}
    if not scene.get("task"):
        scene = {**scene, **SCENE}
    plant = ArmPlant(scene["task"], scene.get("settings", {}), scene.get("tracker"), scene.get("view", False))
    robot = Robot(plant, judge, faults, setup.get("payload", 0.0))
    controller = Controller(robot, setup.get("host", "127.0.0.1"), setup.get("ports", (0, 0, 0)))
    controller.serve(Console(controller.address, plant, judge, faults))


if __name__ == "__main__":
    main()

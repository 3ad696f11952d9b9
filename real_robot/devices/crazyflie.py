"""Bitcraze's Crazyflie 2.x over CRTP.

It takes off, hovers and lands by its own high-level commander, which needs nobody; in between it is sent setpoints at
100 Hz: place, velocity and acceleration of the governor's commands, which its Mellinger controller uses all.

When the host dies while setpoints flow, the firmware levels the Crazyflie out half a second after the last one, and
switches its motors off two seconds after it. While it hovers by itself, a dead host is not noticed. The firmware's
emergency watchdog would notice in every mode, a second after the last sign of life; but it cannot be ended again, so
that after every run only a restart would help, and a link that fails for a second would make it fall, even where it
hovers safely. So it is the user's choice (`emergency_watchdog`), and off by default.

Sources:
    Bitcraze, crazyflie-firmware 2026.08: log variables, parameters, supervisor, commanders, limits of the battery.
"""

import math
import threading
import time
from collections.abc import Callable
from enum import Enum

import numpy as np

from alula.core.errors import DeviceError
from alula.real_robot.codecs import crtp
from alula.real_robot.codecs.crtp import Info, Packet, Type
from alula.real_robot.contract import DeviceSpec, Receipt, State, Stop
from alula.real_robot.crtp_link import ATTEMPTS, CrtpLink, LogStream, open_transport
from alula.real_robot.devices.config import CrazyflieConfig
from alula.real_robot.devices.quadcopter import BatteryWatch, Telemetry, specification
from alula.real_robot.governor import SafeCommand

RATE = 100.0
PERIOD_MS = 10
"""Of the log blocks."""
LOG: tuple[tuple[tuple[str, Type], ...], ...] = (
    tuple((f"stateEstimate.{name}", Type.FLOAT) for name in ("x", "y", "z", "vx", "vy", "vz")),
    (
        *((f"stateEstimate.{name}", Type.FLOAT) for name in ("qw", "qx", "qy", "qz")),
        *((f"gyro.{name}", Type.HALF) for name in "xyz"),
        ("pm.vbat", Type.HALF),
        ("supervisor.info", Type.UINT16),
    ),
)
"""Log blocks: what is in them, and as which types it is sent; the gyroscope's are in degrees per second."""
PARAMETERS = {"stabilizer.estimator": 2, "stabilizer.controller": 2}
"""The Kalman filter, which knows positions, and Mellinger's controller, which knows velocities and accelerations."""
EMPTY, FULL = 3.0, 4.2
"""Voltage of an empty and a full battery [V] (firmware: critical limit, end of charging)."""
FARTHEST = 32.0
"""Farthest coordinate that a setpoint's millimetres in 16 bits can hold [m]."""
LINK_LOST_S = 0.3
"""Silence after which the link is lost [s]: our choice."""
SLOW_S = 0.15
"""Time there and back from which the link is too slow to fly by [s]: our choice."""
PACE = 0.5
"""Mean speed of takeoff and landing [m/s]: the firmware's own default."""
LEAST_RISE = 0.1
"""How far it must rise to its height after takeoff [m]: our choice."""
SETTLE_S = 5.0
"""Longest time to settle after takeoff, and to come to rest on the ground after landing [s]: our choice."""
AT_REST_S = 0.2
"""How long it must stand still to be at rest [s]: our choice."""
ARMING_S = 2.0
"""Longest time from arming to being ready [s]: our choice."""
HAND_OVER_ATTEMPTS = 4
"""Times that the high-level commander is given a task: with `PATIENCE_S` less than the firmware waits for setpoints."""
GIVE_UP_S = 2.5
"""Silence after which the end of a landing is not waited for [s]: it has landed, or switched off by itself."""
BRAKING_S = 1.0
"""Time in which the high-level commander brings it to rest [s]: our choice."""
STALE_S = 0.1
"""Age from which its last answer is no ground to take off on [s]: the governor's."""
READY_S = 1.0
"""How long it may complain, or be silent, before it takes off [s]: our choice."""

COMPLAINTS = {
    Info.TUMBLED: "it lies on its back",
    Info.CRASHED: "it has crashed",
    Info.LOCKED: "it is locked: restart it",
    Info.DECK_FAULT: "a deck reports a fault",
}


class Mode(Enum):
    """What it is doing, as far as the driver knows."""

    GROUNDED = "grounded"
    HOVERING = "hovering"
    """By its high-level commander."""
    STEERED = "steered"
    """By setpoints."""


class Crazyflie:
    """Driver of one.

    Args:
        config: Settings.

    Raises:
        DeviceError: the settings do not fit together.
    """

    def __init__(self, config: CrazyflieConfig) -> None:
        self.config = config
        if not max(config.fence, config.ceiling) <= FARTHEST:
            raise DeviceError(
                f"the fence of {config.fence} m or the ceiling of {config.ceiling} m is beyond the {FARTHEST} m that "
                "a Crazyflie can be sent to: change device.fence or device.ceiling"
            )
        self.spec: DeviceSpec = specification(
            name="crazyflie",
            model=f"{crtp.MODEL.decode()}, CRTP protocol {' or '.join(map(str, crtp.PROTOCOL_VERSIONS))}",
            fence=config.fence,
            ceiling=config.ceiling,
            takeoff=config.takeoff,
            rate=RATE,
            watchdog=1.0 if config.emergency_watchdog else 2.0,
        )
        self._link: CrtpLink | None = None
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        """As it is before anything was heard."""
        self._stream, self._telemetry, self._battery = LogStream(LOG), Telemetry(), BatteryWatch()
        self._info, self._mode, self._ground = Info(0), Mode.GROUNDED, 0.0
        self._sensed_ns = 0
        """When its estimate made sense last [ns]."""

    def configure(self) -> None:
        """Find out that it is a Crazyflie, let it send its state, and choose estimator and controller."""
        self._disconnect()
        self._forget()
        self._link = CrtpLink(open_transport(self.config.address), self._take)
        try:
            self._require_identity(self._link)
            self._stream.start(self._link, PERIOD_MS)
            for name, value in PARAMETERS.items():
                if (answer := self._link.ask(crtp.set_parameter(name, Type.UINT8, value))) is None or answer[-1]:
                    raise DeviceError(f"{self.config.address} does not take {name} = {value}; update its firmware")
            if not self._wait(lambda state: state.sequence > 0, 1.0):
                raise DeviceError(f"{self.config.address} has agreed to send its state, but does not; restart it")
        except DeviceError:
            self._disconnect()
            raise

    def _require_identity(self, link: CrtpLink) -> None:
        address, source = self.config.address, link.ask(crtp.source())
        if source is None:
            raise DeviceError(f"nobody answers at {address}: check that the Crazyflie is on, and its address")
        version = link.ask(crtp.protocol_version())
        if not source.startswith(crtp.MODEL) or version is None or version[1] not in crtp.PROTOCOL_VERSIONS:
            says = source.rstrip(b"\0").decode("ascii", "replace")
            raise DeviceError(
                f"{address} says that it is '{says}' with CRTP protocol {None if version is None else version[1]}; "
                f"it must be {self.spec.model}: update its firmware"
            )

    def _take(self, packet: Packet, now: int) -> None:
        """Take a packet; called by the link's thread."""
        with self._lock:
            values = self._stream.take(packet, now)
            if values is not None:
                numbers = np.array(values)
                self._telemetry.update(numbers[:3], numbers[6:10], numbers[3:6], np.radians(numbers[10:13]))
                self._telemetry.battery = float(np.clip((numbers[13] - EMPTY) / (FULL - EMPTY), 0.0, 1.0))
                self._info = Info(int(numbers[14]))
                self._sensed_ns = now if self._telemetry.valid else self._sensed_ns

    def read(self) -> State:
        """What it has sent last; waits for nothing."""
        now = time.monotonic_ns()
        with self._lock:
            return self._telemetry.state(self._stream.sequence, self._stream.received_ns, self._faults(now))

    def _faults(self, now: int) -> tuple[str, ...]:
        faults = [words for flag, words in COMPLAINTS.items() if flag in self._info]
        if self._link is None:
            return ("it is not connected",)
        silence = (now - self._link.heard_ns) / 1e9
        if self._link.delay_ns > SLOW_S * 1e9:
            faults.append(f"the link is slow: {self._link.delay_ns / 1e6:.0f} ms there and back")
        if silence > LINK_LOST_S:
            faults.append(f"the link is lost: nothing was heard for {1e3 * silence:.0f} ms")
        elif now - self._stream.received_ns > LINK_LOST_S * 1e9:
            faults.append("it sends no state, though the link is well")
        elif now - self._sensed_ns > LINK_LOST_S * 1e9:
            faults.append("its estimate of where it is makes no sense")
        if self._mode is not Mode.GROUNDED:
            faults += self._battery(self._telemetry.battery, now)
            if Info.CAN_FLY not in self._info:
                faults.append("its motors are off")
        return tuple(faults)

    def activate(self) -> State:
        """Take off, unless it flies, and hover; returns the state at rest."""
        link = self._require_link()
        if self._mode is Mode.GROUNDED and Info.FLYING in self._info:  # its last host has left it alone
            self._mode = Mode.STEERED
        self.stop(Stop.HOLD)
        if Info.CRASHED in self._info and Info.TUMBLED not in self._info:
            link.ask(crtp.recover())
            self._wait(lambda state: Info.CRASHED not in self._info, LINK_LOST_S)
        if self._mode is Mode.GROUNDED:
            self._rests(lambda state: True)  # it may be falling
        self._wait(lambda state: not self._complaints(state), READY_S)
        self._require_ready(self.read())
        if self._mode is Mode.GROUNDED:
            self._take_off(link)
        return self._settle()

    def _require_link(self) -> CrtpLink:
        if self._link is None:
            raise DeviceError(f"{self.spec.name} is not connected; call configure first")
        return self._link

    def _complaints(self, state: State) -> list[str]:
        """Why nobody may rely on its state."""
        silent = time.monotonic_ns() - state.received_ns > STALE_S * 1e9
        return [*state.faults, *(["it does not send its state"] if silent else [])]

    def _require_ready(self, state: State) -> None:
        battery, problems = self._telemetry.battery, self._complaints(state)
        if self._mode is Mode.GROUNDED:
            least, side = self.config.least_battery, self.config.fence - self.spec.limits.margin
            if not battery >= least:
                problems.append(f"its battery is at {100 * battery:.0f} %, {100 * least:.0f} % are needed: charge it")
            if not (np.abs(state.position[:2]) <= side).all() or state.position[2] > self.config.takeoff - LEAST_RISE:
                problems.append(
                    f"it stands at {state.position[:3].round(2).tolist()}, and must at most {side:.2f} m to the sides "
                    f"and {LEAST_RISE} m below device.takeoff ({self.config.takeoff} m): carry it there"
                )
        if problems:
            raise DeviceError(f"{self.spec.name} cannot be activated: {'; '.join(problems)}")

    def _take_off(self, link: CrtpLink) -> None:
        answer = link.ask(crtp.arm(True))
        if answer != b"\x81\x01\x01":
            raise DeviceError(f"{self.spec.name} refuses to be armed; it says: {self._info!r}")
        if not self._wait(lambda state: Info.CAN_FLY in self._info, ARMING_S):
            self.stop(Stop.LIMP)
            raise DeviceError(f"{self.spec.name} is armed, but not ready to fly; it says: {self._info!r}")
        if self.config.emergency_watchdog:
            link.pulse = (crtp.keep_alive(),)
        self._telemetry.forget_turns()
        self._battery, self._ground = BatteryWatch(), float(self.read().position[2])
        seconds = max(1.0, (self.config.takeoff - self._ground) / PACE)
        answer = link.ask(crtp.take_off(self.config.takeoff, seconds))
        self._mode = Mode.HOVERING
        # An answer may be lost, and then a second takeoff is refused; what counts is that it rises.
        self._wait(lambda state: bool(state.faults), seconds)

    def _settle(self) -> State:
        """Wait until it hovers where it may."""
        limits = self.spec.limits
        low, high = (np.array(bound) for bound in (limits.low, limits.high))

        def hovers(state: State) -> bool:
            inside = (state.position >= low + limits.margin) & (state.position <= high - limits.margin)
            return bool(inside.all()) and Info.TRAJECTORY_FINISHED in self._info

        rests, state = self._rests(hovers), self.read()
        if not rests:
            self.stop(Stop.LAND)
            raise DeviceError(
                f"{self.spec.name} does not come to rest in its fence after takeoff, and lands: it is at "
                f"{state.position.tolist()}, {'; '.join(state.faults) or 'without a complaint'}"
            )
        return state

    def _rests(self, met: Callable[[State], bool]) -> bool:
        """Whether it stands still for a while and `met` holds, before it is too late or a fault shows."""
        restless = begin = time.monotonic()
        while (now := time.monotonic()) < begin + SETTLE_S:
            state = self.read()
            if state.faults:
                return False
            if state.velocity.any() or not met(state):
                restless = now
            elif now - restless > AT_REST_S:
                return True
            time.sleep(1 / RATE)
        return False

    def write(self, command: SafeCommand) -> Receipt:
        """Send the command as a full-state setpoint."""
        if not isinstance(command, SafeCommand):
            raise TypeError(f"a device takes a SafeCommand, not {type(command).__name__}")
        link = self._require_link()
        if self._mode is Mode.GROUNDED:
            raise DeviceError(f"{self.spec.name} is not active; call activate first")
        self._mode = Mode.STEERED
        yaw = float(command.position[3])
        packet = crtp.full_state_setpoint(
            command.position[:3],
            command.velocity[:3],
            command.acceleration[:3],
            np.array([math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]),
            np.array([0.0, 0.0, float(command.velocity[3])]),
        )
        sent = link.send(packet)
        return Receipt(time.monotonic_ns(), sent, "" if sent else "the link refuses it")

    def stop(self, how: Stop) -> None:
        """Hover on its own; land and switch off; switch off at once, once (LIMP) or until it is restarted (KILL)."""
        link = self._link
        if link is None:
            return
        if how in (Stop.HOLD, Stop.BRAKE) and self._mode is Mode.STEERED:
            self._hover(link)
        elif how is Stop.LAND and self._mode is not Mode.GROUNDED:
            self._land(link)
        elif how is Stop.LIMP:
            self._disarm(link)
        elif how is Stop.KILL:
            self._kill(link)

    def _hover(self, link: CrtpLink) -> None:
        """Come to rest ahead, in the fence."""
        state, limits = self.read(), self.spec.limits
        ahead = state.position + state.velocity * BRAKING_S / 2
        goal = np.clip(ahead, np.array(limits.low) + limits.margin, np.array(limits.high) - limits.margin)
        self._hand_over(link, crtp.go_to(goal[:3], float(goal[3]), BRAKING_S))
        self._mode = Mode.HOVERING

    def _land(self, link: CrtpLink) -> None:
        """Land, wait for it, and switch off."""
        seconds = max(1.0, (float(self.read().position[2]) - self._ground) / PACE)
        self._hand_over(link, crtp.land(self._ground, seconds))
        self._mode = Mode.HOVERING
        begin = time.monotonic()
        while (now := time.monotonic()) < begin + seconds + SETTLE_S:
            answer = link.ask(crtp.supervisor_info(), attempts=1)
            info = Info.CAN_FLY if answer is None else crtp.decode_info(answer)
            silent = time.monotonic_ns() - link.heard_ns > GIVE_UP_S * 1e9
            if Info.CAN_FLY not in info or (now > begin + seconds and (silent or Info.TRAJECTORY_FINISHED in info)):
                self._disarm(link)
                return
            time.sleep(0.05)

    def _hand_over(self, link: CrtpLink, task: Packet) -> None:
        """Give the high-level commander a task, and then the say; without a task it would stop the motors."""
        link.ask(task, HAND_OVER_ATTEMPTS)
        for _ in range(ATTEMPTS):
            link.send(crtp.end_setpoints())

    def _disarm(self, link: CrtpLink) -> None:
        link.ask(crtp.arm(False))
        self._mode = Mode.GROUNDED
        self._wait(lambda state: Info.CAN_FLY not in self._info, LINK_LOST_S)

    def _kill(self, link: CrtpLink) -> None:
        for _ in range(2 * ATTEMPTS):
            link.send(crtp.emergency_stop())
            answer = link.ask(crtp.supervisor_info(), 1, 0.02)
            if answer is not None and Info.LOCKED in crtp.decode_info(answer):
                break
        self._mode = Mode.GROUNDED

    def close(self) -> None:
        """Land if it flies, and let go of the link."""
        if self._link is not None:
            self.stop(Stop.LAND)
            self._link.ask(crtp.reset_log(), attempts=2)
        self._disconnect()

    def _disconnect(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _wait(self, met: Callable[[State], bool], seconds: float) -> bool:
        """Whether something happens within this time [s]."""
        end = time.monotonic() + seconds
        while not met(self.read()):
            if time.monotonic() > end:
                return False
            time.sleep(1 / RATE)
        return True

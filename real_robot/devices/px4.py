"""A multicopter with PX4, over MAVLink: our own stream of setpoints, in PX4's mode OFFBOARD.

Who dies stops commanding: setpoints go out when the loop writes one, never by themselves, and PX4 takes over by its
own failsafe `COM_OF_LOSS_T` after the last. Who takes the drone has it: once its mode is no longer the one that was
asked for, nothing more is sent but KILL, until somebody calls `activate` again.

Sources: docs.px4.io, "Offboard mode" and "Parameter reference"; mavlink.io, common message set.
"""

import math

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.core.errors import DeviceError
from alula.real_robot.codecs import mavlink
from alula.real_robot.codecs.mavlink import Mode
from alula.real_robot.contract import Receipt, State, Stop
from alula.real_robot.devices.config import PX4Config
from alula.real_robot.devices.px4_session import MODEL, OFFBOARD_LOSS_S, PARAMETERS, Session, now
from alula.real_robot.devices.quadcopter import specification
from alula.real_robot.governor import SafeCommand

RATE = 100.0
READY_S = 1.0
"""How long a vehicle may take to get over what speaks against flying [s]: our choice."""
PROOF_S = 1.1
"""How long setpoints must flow before OFFBOARD is accepted [s]: PX4 wants more than a second."""
OFFERS = 3
"""How often OFFBOARD is asked for while it is refused for the time being: our choice."""
BEGIN_S = 2.0
"""How long its heartbeat may take to say that it is armed and follows [s]: it may come once a second."""
ROOM = 0.1
"""Kept from the ends of what commands may reach where it hovers first [m]: our choice, as it does not hover exactly."""
NEAR, SETTLED_S, SETTLING_S = 0.15, 0.3, 10.0
"""Distance from where it was sent that counts as there [m], for how long, and how long that is waited for [s]."""
FRESH_S = 0.03
"""Age of the newest measurement with which a flight may begin [s]: three times what is usual."""
LANDING_S = 20.0
"""How long a landing is waited for [s]: from three metres, at half of PX4's usual speed."""
STOP_S = 0.2
"""How long a change of mode is waited for where something must stop [s]."""

Place = Float64[ndarray, "4"]


class PX4:
    """Driver of a multicopter.

    Args:
        config: Where it is, and where it may fly.

    Raises:
        DeviceError: the address is none, or it would take off to outside its box.
    """

    def __init__(self, config: PX4Config) -> None:
        self.config = config
        box = config.fence, config.ceiling, config.takeoff
        self.spec = specification("px4", MODEL, *box, RATE, OFFBOARD_LOSS_S)
        self._own_limits = self.spec.limits
        """Of take-offs, which `device.speed` does not slow: close to the ground slow is not safe, and PX4 switches off
        again what has not taken off after 10 s."""
        self._session = Session(config.address, self.spec.period_ns)
        self._asked: Mode | None = None
        """The mode that we have asked for last."""
        self._active = False

    @property
    def parameters(self) -> dict[str, float]:
        """The vehicle's own protection, as found by `configure`; see `PARAMETERS`."""
        return {name: self._session.vehicle.parameters[name] for name in PARAMETERS}

    def configure(self) -> None:
        """Find the vehicle, check what it is and how it protects itself, and have it tell of its motion."""
        self._active, self._asked = False, None
        self._session.connect()

    def activate(self) -> State:
        """Take off, or take over where it flies, and hover; returns where.

        Raises:
            DeviceError: it is not ready, refuses, or does not get there; it has been told to land if it flew.
        """
        self._require_ready()
        session, vehicle = self._session, self._session.vehicle
        session.listen(PROOF_S, lambda: False, lambda: self._send_place(self._place()))
        here = self._place()

        def stay() -> None:
            self._send_place(here)

        self._asked = Mode.OFFBOARD
        session.command(mavlink.set_mode(vehicle.system, Mode.OFFBOARD), "follow setpoints", stay, OFFERS)
        if not vehicle.armed:
            session.command(mavlink.arm(vehicle.system), "switch its rotors on", stay)
        if not session.listen(BEGIN_S, lambda: vehicle.armed and vehicle.mode == Mode.OFFBOARD, stay):
            self._give_up("does not begin to fly")
        vehicle.begin()
        self._fly_to(here, self._first_place(here))
        vehicle.begin()
        self._active = True
        return self.read()

    def _require_ready(self) -> None:
        """What must be so before anything is armed."""
        session, vehicle = self._session, self._session.vehicle
        if not session.connected:
            raise DeviceError(f"{self.spec.name} is not connected; call configure first")
        self._active = vehicle.flying = False
        session.hear()
        if not session.listen(READY_S, lambda: not vehicle.complaints(now())):
            session.explain("is not ready", vehicle.complaints(now()))
        battery, least = vehicle.telemetry.battery, self.config.least_battery
        if not vehicle.armed and not battery >= least:
            raise DeviceError(
                f"the battery has {100 * battery:.0f} % left, {100 * least:.0f} % are needed to take off "
                "(device.least_battery): charge it"
            )
        limits = self.spec.limits
        for axis, value, low, high in zip("xy", self._place(), limits.low, limits.high, strict=False):
            # A drone that has braked hard may be a little outside; its first way leads back.
            if not low - limits.margin < value < high + limits.margin:
                raise DeviceError(
                    f"the vehicle is at {axis} = {value:.2f} m, its fence is {low} to {high} m: carry it inside, or "
                    "start PX4 where the middle of the fence is to be"
                )

    def _place(self) -> Place:
        """Where it is; the heading within half a turn."""
        place = self._session.vehicle.state(now()).position.copy()
        place[3] = math.remainder(place[3], 2 * math.pi)
        return place

    def _first_place(self, here: Place) -> Place:
        """Where it hovers first: above here, or here if it flies."""
        limits = self.spec.limits
        room = limits.margin + ROOM
        low, high = np.array(limits.low) + room, np.array(limits.high) - room
        place = here.copy()
        if self._session.vehicle.landed or here[2] < low[2]:
            place[2] = self.config.takeoff
        return np.clip(place, low, high)

    def _fly_to(self, start: Place, end: Place) -> None:
        """Go there within the limits, and stay until it hovers."""
        limits, vehicle = self._own_limits, self._session.vehicle
        way = Way(start, end, limits.velocity, limits.acceleration, limits.jerk)
        begun = still = now()

        def settled() -> bool:
            nonlocal still
            state = vehicle.state(now())
            if np.linalg.norm(state.position[:3] - end[:3]) > NEAR or state.velocity.any():
                still = now()
            fresh = vehicle.silence(now()) < FRESH_S
            return bool(state.faults) or (now() - still > SETTLED_S * 1e9 and fresh)

        def follow() -> None:
            self._send_place(way.at((now() - begun) / 1e9))

        arrived = self._session.listen(way.duration + SETTLING_S, settled, follow)
        if not arrived or vehicle.complaints(now()):
            self._give_up(f"does not get from {np.round(start, 2).tolist()} to {np.round(end, 2).tolist()}")

    def _give_up(self, what: str) -> None:
        """Land, and say why."""
        complaints = self._session.vehicle.complaints(now())
        self.stop(Stop.LAND)
        self._session.explain(what, complaints)

    def _send_place(self, place: Place) -> None:
        self._session.link.send(mavlink.position_target(self._session.vehicle.system, _milliseconds(), place))

    def read(self) -> State:
        """The newest that it has said."""
        self._session.hear()
        return self._session.vehicle.state(now())

    def write(self, command: SafeCommand) -> Receipt:
        """Send the command with its velocity and acceleration; nothing where somebody else flies."""
        if not isinstance(command, SafeCommand):
            raise TypeError(f"a device takes a SafeCommand, not {type(command).__name__}")
        if not self._active:
            raise DeviceError(f"{self.spec.name} is not active; call activate first")
        link, vehicle = self._session.link, self._session.vehicle
        if vehicle.mode != Mode.OFFBOARD:
            return Receipt(now(), False, f"its mode is {mavlink.mode_name(vehicle.mode)}")
        motion = command.position, command.velocity, command.acceleration
        sent = link.send(mavlink.motion_target(vehicle.system, _milliseconds(), *motion))
        return Receipt(now(), sent, link.lost)

    def stop(self, how: Stop) -> None:
        """Hold by PX4's own mode, land, or switch the rotors off in the air; LIMP is LAND, as limp it would fall.

        Where a pilot has taken over, only KILL does anything.
        """
        session, vehicle = self._session, self._session.vehicle
        self._active = vehicle.flying = False
        if not session.connected:
            return
        session.hear()
        if how is Stop.KILL:
            session.demand(mavlink.disarm(vehicle.system, force=True))
        elif vehicle.armed and not self._somebody_flies():
            self._end_flight(how)

    def _end_flight(self, how: Stop) -> None:
        session, vehicle = self._session, self._session.vehicle
        if vehicle.landed and session.demand(mavlink.disarm(vehicle.system)):
            return
        if how not in (Stop.HOLD, Stop.BRAKE):
            self._enter(Mode.LAND)
        elif vehicle.mode == Mode.OFFBOARD and not self._enter(Mode.HOLD):
            self._enter(Mode.LAND)  # PX4 cannot hold everywhere: without a global position it refuses

    def _somebody_flies(self) -> bool:
        """Whether its mode was chosen neither by us nor by its failsafe."""
        vehicle = self._session.vehicle
        return vehicle.mode not in (Mode.OFFBOARD, self._asked) and not vehicle.failsafe

    def _enter(self, mode: Mode) -> bool:
        """Change the mode; whether PX4 has accepted it."""
        self._asked = mode
        session, vehicle = self._session, self._session.vehicle
        accepted = vehicle.mode == mode or session.demand(mavlink.set_mode(vehicle.system, mode))
        if accepted:
            session.listen(STOP_S, lambda: vehicle.mode == mode)
        return accepted

    def close(self) -> None:
        """Let go of the link; if it flies by our command it lands first, which is waited for."""
        self.stop(Stop.LAND)
        session, vehicle = self._session, self._session.vehicle
        if session.connected and vehicle.armed and vehicle.mode == Mode.LAND and not self._somebody_flies():
            session.listen(LANDING_S, self._landing_over)
            self.stop(Stop.LAND)
        session.close()

    def _landing_over(self) -> bool:
        vehicle = self._session.vehicle
        return vehicle.landed or not vehicle.armed or vehicle.mode != Mode.LAND or vehicle.lost(now())


def _milliseconds() -> int:
    return now() // 1_000_000


class Way:
    """A straight way from rest to rest whose velocity, acceleration and jerk keep their limits.

    Args:
        start: Where it begins.
        end: Where it ends.
        velocity: Limit per element.
        acceleration: Limit per element.
        jerk: Limit per element.
    """

    def __init__(
        self,
        start: Place,
        end: Place,
        velocity: tuple[float, ...],
        acceleration: tuple[float, ...],
        jerk: tuple[float, ...],
    ) -> None:
        self._start, self._way = start, end - start
        distance = np.abs(self._way)
        # Greatest derivatives of 10 s³ - 15 s⁴ + 6 s⁵: 15/8, 10/√3 and 60.
        times = (1.875 * distance / velocity, np.sqrt(5.7736 * distance / acceleration), np.cbrt(60 * distance / jerk))
        self.duration = float(np.max(times))
        """[s]"""

    def at(self, seconds: float) -> Place:
        """Where it is by then."""
        share = min(seconds / self.duration, 1.0) if self.duration > 0 else 1.0
        return self._start + self._way * (share**3 * (10 - 15 * share + 6 * share**2))

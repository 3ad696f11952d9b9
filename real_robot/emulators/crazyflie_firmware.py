"""What a Crazyflie's firmware does with commands: supervisor, commanders, battery, and the controllers on a plant.

Priorities and times are those of crazyflie-firmware 2026.08 (supervisor.c, supervisor_state_machine.c, commander.c,
crtp_commander_high_level.c, planner.c, pm_stm32f4.c).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.core.geometry import rotate_by_yaw, rotation_from_quaternion, wrap_angle
from alula.real_robot.emulators.faults import FaultPlan
from alula.real_robot.emulators.plant import QuadcopterPlant
from alula.sims.quadcopters.action_modes import convert
from alula.sims.quadcopters.crazyflie import CRAZYFLIE, GRAVITY

LEVEL_S, SHUTDOWN_S = 0.5, 2.0
"""Age of a setpoint from which it levels out, and from which the motors stop [s]."""
WATCHDOG_S = 1.0
"""Silence of the emergency watchdog, once it was heard, from which the motors stop [s]."""
PREFLIGHT_S, LANDED_S = 30.0, 3.0
"""Time after which it is disarmed when it does not take off, and after it has landed [s]."""
THRUST_S = 2.0
"""Time without thrust after which it does not fly any more [s]."""
TILTED, TILTED_S, UPSIDE_DOWN, UPSIDE_DOWN_S = 0.5, 1.0, -0.2, 0.1
"""Share of gravity along its own vertical below which, and for how long [s], it has tumbled."""
PID, MELLINGER = 1, 2
"""Numbers of its controllers."""
PID_SPEED = 1.1
"""Greatest speed that the PID controller asks for on its way to a place [m/s]."""
POSITION_GAIN, VELOCITY_GAIN, YAW_GAIN = 2.0, 4.0, 3.0
"""Of the plant's own cascade [1/s]."""
EMPTY, SPAN, SAG, FLIGHT_S = 3.0, 1.2, 0.3, 420.0
"""Voltage of an empty battery, its rise to a full one, its sag in flight [V], and how long a full one lasts [s]."""
MOTORS_ON = ("ready", "flying", "level", "landed")

Vector = Float64[ndarray, "4"]


@dataclass
class Setpoint:
    """What the controllers are to do; without a kind: motors off."""

    kind: str = ""
    """place, velocity, or hover (velocities in the body, but a height)."""
    position: Vector = field(default_factory=lambda: np.zeros(4))
    """x, y, z, yaw."""
    velocity: Vector = field(default_factory=lambda: np.zeros(4))
    acceleration: Vector = field(default_factory=lambda: np.zeros(4))
    time_ns: int = 0


class Trajectory:
    """The high-level commander's way from a motion to rest: a polynomial of fifth order per axis."""

    def __init__(self, start: Vector, velocity: Vector, goal: Vector, seconds: float, now: int, landing: bool) -> None:
        self._start, self._seconds, self._now, self.landing = start, seconds, now, landing
        way = goal - start
        way[3] = wrap_angle(way[3])
        # Position, velocity and acceleration at the end, in units of the duration.
        ends = np.stack([way - velocity * seconds, -velocity * seconds, np.zeros(4)])
        highest = np.linalg.solve(np.array([[1.0, 1.0, 1.0], [3.0, 4.0, 5.0], [6.0, 12.0, 20.0]]), ends)
        self._coefficients = np.concatenate([np.zeros((1, 4)), [velocity * seconds], np.zeros((1, 4)), highest])

    def finished(self, now: int) -> bool:
        """Whether it is at its end."""
        return now - self._now >= self._seconds * 1e9

    def at(self, now: int) -> Setpoint:
        """Where to be."""
        share = min((now - self._now) / (self._seconds * 1e9), 1.0)
        orders = np.arange(6.0)
        way = share**orders @ self._coefficients
        speed = (orders[1:] * share ** orders[:-1]) @ self._coefficients[1:] / self._seconds
        push = (orders[2:] * orders[1:-1] * share ** orders[:-2]) @ self._coefficients[2:] / self._seconds**2
        return Setpoint("place", self._start + way, speed, push, now)


class Firmware:
    """One Crazyflie.

    Args:
        plant: The drone.
        faults: What goes wrong.
        note: Told of everything that happens: a name, and details.
        charge: Share of the battery's charge.
        arms_itself: Whether it needs no arming.
    """

    def __init__(
        self, plant: QuadcopterPlant, faults: FaultPlan, note: Callable[..., None], charge: float, arms_itself: bool
    ) -> None:
        self.plant, self.faults, self.note, self.arms_itself = plant, faults, note, arms_itself
        plant.battery = charge
        self.state, self.armed, self.tumbled, self.crashed, self.stopped = "grounded", False, False, False, False
        self.controller = PID
        self.trajectory: Trajectory | None = None
        self.steered = False
        """Whether setpoints from outside have priority."""
        self.setpoint = Setpoint()
        self._now = self._since = self._thrust_ns = self._upright_ns = self._standing_ns = 0
        self._keep_alive_ns: int | None = None
        self._jump = np.zeros(3)

    @property
    def position(self) -> Float64[ndarray, "3"]:
        """Where it believes it is [m]."""
        return self.plant.pose[:3] + self._jump

    @property
    def rotation(self) -> Float64[ndarray, "3 3"]:
        """From its axes to the world's."""
        return rotation_from_quaternion(self.plant.pose[None, 3:])[0]

    @property
    def place(self) -> Vector:
        """Where it believes it is, and its heading."""
        rotation = self.rotation
        return np.append(self.position, math.atan2(rotation[1, 0], rotation[0, 0]))

    @property
    def running(self) -> bool:
        """Whether the motors are."""
        return self.state in MOTORS_ON and self.setpoint.kind != ""

    @property
    def voltage(self) -> float:
        """Of the battery [V]."""
        sag = self.faults.find("battery_sag")
        return EMPTY + SPAN * self.plant.battery - SAG * self.running - (sag.value if sag else 0.0)

    @property
    def info(self) -> int:
        """The supervisor's bits."""
        finished = self.trajectory is None or self.trajectory.finished(self._now)
        flying = self.state in ("flying", "level")
        flags = (self.state == "grounded", self.armed, self.arms_itself, self.state in MOTORS_ON, flying, self.tumbled)
        more = (self.state == "locked", self.crashed, self.trajectory is not None, finished, False)
        return sum(bit << index for index, bit in enumerate(flags + more))

    def arm(self, armed: bool) -> tuple[bool, bool]:
        """Whether that is granted, and whether it is armed."""
        if armed and not self.armed and (self.state != "grounded" or self.faults.strikes("arming_denied")):
            return False, self.armed
        self.armed = armed
        if armed:
            self.faults.power()
        self._supervise()
        return True, self.armed

    def recover(self) -> bool:
        """Whether it is well again after a crash."""
        self.crashed = self.crashed and self.tumbled
        return not self.crashed

    def emergency_stop(self) -> None:
        """Until the end of time."""
        self.stopped = True
        self._supervise()

    def keep_alive(self) -> None:
        """The emergency watchdog has been heard."""
        self._keep_alive_ns = self._now

    def steer(self, setpoint: Setpoint) -> None:
        """A setpoint has come from outside."""
        setpoint.time_ns = self._now
        self.setpoint, self.steered, self.trajectory = setpoint, True, None

    def end_setpoints(self) -> None:
        """The high-level commander may take over."""
        self.steered = False

    def stop_trajectory(self) -> None:
        """The high-level commander has nothing to do any more."""
        self.trajectory = None

    def fly(self, goal: Vector, seconds: float, takeoff: bool = False, landing: bool = False) -> int:
        """A task for the high-level commander; returns 0 if it takes it."""
        if (takeoff and self.trajectory is not None) or (landing and self.trajectory and self.trajectory.landing):
            return 1
        start, velocity = self.place, np.append(self.plant.twist[:3], 0.0)
        if self.trajectory is not None:
            before = self.trajectory.at(self._now)
            start, velocity = before.position, before.velocity
        goal = np.where(np.isnan(goal), start, goal)
        self.trajectory = Trajectory(start, velocity, goal, max(seconds, 0.01), self._now, landing)
        return 0

    def advance(self, now: int) -> None:
        """Let the time pass that has passed."""
        elapsed, self._now = now - self._now if self._now else 0, now
        if self.running:
            self.plant.battery = max(self.plant.battery - elapsed / 1e9 / FLIGHT_S, 0.0)
        if jump := self.faults.find("estimator_jump"):
            self._jump = np.array([jump.value, 0.0, 0.0])
        if self.faults.strikes("tumble"):
            self.plant.state.qpos[0, 3:7] = 0.0, 1.0, 0.0, 0.0
        if self.trajectory is not None and self.trajectory.landing and self.trajectory.finished(now):
            self.trajectory = None
        if not self.steered:
            self.setpoint = Setpoint(time_ns=now) if self.trajectory is None else self.trajectory.at(now)
        self._supervise()
        self._drive()
        self.plant.advance(now)

    def _supervise(self) -> None:
        """Change the state if something asks for it."""
        before, now = self.state, self._now
        self._feel(now)
        new = self._next_state(now)
        if new != before:
            self.state, self._since = new, now
            self.crashed |= new == "crashed"
            if new not in MOTORS_ON:
                self.armed = self.arms_itself and new == "grounded"
            self.note(new, position=self.place.tolist(), setpoint_age_s=(now - self.setpoint.time_ns) / 1e9)
        if self.running:
            self._thrust_ns = now

    def _feel(self, now: int) -> None:
        """Whether it lies on its side or back."""
        upright = float(self.rotation[2, 2])
        if upright >= TILTED:
            self._standing_ns = now
        if upright >= UPSIDE_DOWN:
            self._upright_ns = now
        self.tumbled = now - self._standing_ns > TILTED_S * 1e9 or now - self._upright_ns > UPSIDE_DOWN_S * 1e9

    def _next_state(self, now: int) -> str:
        """By the firmware's table of transitions; first come, first served."""
        age, since = (now - self.setpoint.time_ns) / 1e9, (now - self._since) / 1e9
        silent = self._keep_alive_ns is not None and now - self._keep_alive_ns > WATCHDOG_S * 1e9
        emergency = self.stopped or silent
        thrust = self._thrust_ns > 0 and now - self._thrust_ns < THRUST_S * 1e9
        rules = {
            "grounded": ((emergency, "locked"), (self.tumbled, "grounded"), (self.armed, "ready")),
            "ready": (
                (emergency, "locked"),
                (self.tumbled or since > PREFLIGHT_S or not self.armed, "grounded"),
                (self.setpoint.kind != "", "flying"),
            ),
            "flying": (
                (emergency or age > SHUTDOWN_S, "locked"),
                (self.tumbled, "crashed"),
                (not self.armed, "grounded"),
                (age > LEVEL_S, "level"),
                (not thrust, "landed"),
            ),
            "level": ((emergency or age > SHUTDOWN_S or self.tumbled, "locked"), (age <= LEVEL_S, "flying")),
            "landed": ((not self.armed or since > LANDED_S, "grounded"), (self.setpoint.kind != "", "flying")),
            "crashed": ((emergency, "locked"), (not self.crashed and not self.tumbled, "grounded")),
            "locked": (),
        }
        return next((new for condition, new in rules[self.state] if condition), self.state)

    def _drive(self) -> None:
        """Command the plant."""
        mode, values = self._wanted()
        failed = [motor for motor in range(4) if self.faults.strikes("motor_failure", motor + 1)]
        if failed and mode != "rotor_speed":
            task, state = self.plant.task, self.plant.state
            memory = np.moveaxis(state.extras["controller"], -1, 0)
            command = np.array(values)[:, None, None]
            values = convert(task.controller, task.motion(state), command, memory, mode, "rotor_speed")[:, 0, 0]
            values[failed] = 0.0
            mode = "rotor_speed"
        self.plant.command(mode, np.array(values))

    def _wanted(self) -> tuple[str, Vector]:
        """Mode and command for the plant's cascade."""
        if not self.running:
            return "rotor_speed", np.zeros(4)
        wanted, here, moving = self.setpoint, self.place, self.plant.twist[:3]
        error = wanted.position - here
        error[3] = wrap_angle(error[3])
        if wanted.kind == "place" and self.controller == MELLINGER:
            speed = pursuit(error, wanted.velocity, wanted.acceleration)
        elif wanted.kind == "place":
            speed = np.clip(POSITION_GAIN * error, -PID_SPEED, PID_SPEED)
        else:
            speed = wanted.velocity.copy()
        if wanted.kind == "hover":
            speed[:3] = rotate_by_yaw(speed[None, :3], here[3:])[0]
            speed[2] = POSITION_GAIN * error[2]
        if wanted.kind == "place":
            speed[3] = wanted.velocity[3] + YAW_GAIN * error[3]
        if self.state != "level":
            return "velocity", speed
        lift = CRAZYFLIE.mass * max(GRAVITY + VELOCITY_GAIN * (speed[2] - moving[2]), 0.0)
        return "attitude_thrust", np.array([0.0, 0.0, here[3], lift])


def pursuit(
    error: Float64[ndarray, "*shape"], velocity: Float64[ndarray, "*shape"], acceleration: Float64[ndarray, "*shape"]
) -> Float64[ndarray, "*shape"]:
    """Velocity [m/s] to command to the plant's cascade to follow a moving place, as Mellinger's controller would.

    Args:
        error: Way to the place [m].
        velocity: Of the place [m/s].
        acceleration: Of the place [m/s^2].
    """
    return velocity + POSITION_GAIN * error + acceleration / VELOCITY_GAIN

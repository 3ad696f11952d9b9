"""The cascade from position to rotor speeds: its mathematics, its limits, and that nothing breaks it."""

import itertools

import numpy as np
import pytest

from alula.sims.quadcopters.action_modes import MODES, convert
from alula.sims.quadcopters.controllers import (
    ATTITUDE_GAIN,
    CONTROLLERS,
    MOTOR_RESPONSE,
    POSITION_GAIN,
    RATE_GAIN,
    VELOCITY_GAIN,
    Controller,
    Geometric,
    Motion,
    Pid,
    feedforward,
    rotation_from_euler,
)
from alula.sims.quadcopters.crazyflie import CRAZYFLIE, GRAVITY
from alula.sims.quadcopters.mixer import MAX_THRUST, rotor_speeds
from alula.sims.tasks.quadcopter import config

DRONES = 2
EVERY_CONTROLLER = pytest.mark.parametrize("kind", sorted(CONTROLLERS))


def controller(kind: str, motor_lag: bool = True) -> Controller:
    return CONTROLLERS[kind](100.0, motor_lag)


def memory(kind: str, num_envs: int) -> np.ndarray:
    return np.zeros((CONTROLLERS[kind].memory_size, num_envs, DRONES))


def random_motion(num_envs: int, seed: int = 0) -> Motion:
    draw = np.random.default_rng(seed)
    shape = (3, num_envs, DRONES)
    return Motion(
        position=draw.uniform(-0.2, 0.2, shape),
        rotation=rotation_from_euler(*draw.uniform(-0.4, 0.4, shape)),
        velocity=draw.uniform(-0.2, 0.2, shape),
        body_rate=draw.uniform(-1, 1, shape),
        rotor_speed=np.full((4, num_envs, DRONES), CRAZYFLIE.hover_speed),
    )


def level_motion(num_envs: int) -> Motion:
    """At rest in the origin, level, rotors at hover speed."""
    zero = np.zeros((3, num_envs, DRONES))
    return Motion(zero, rotation_from_euler(*zero), zero, zero, np.full((4, num_envs, DRONES), CRAZYFLIE.hover_speed))


def wrench(speeds: np.ndarray) -> np.ndarray:
    """Thrust [N] and torques [N m] of rotor speeds, by the physics' own formula."""
    return np.einsum("wr,rnd->wnd", CRAZYFLIE.allocation, speeds**2)


def test_the_mixer_inverts_the_rotors() -> None:
    """Where the rotors can give it, exactly the wanted thrust and torque come out."""
    draw = np.random.default_rng(0)
    thrust = draw.uniform(0.4, 0.6, (50, DRONES)) * MAX_THRUST
    torque = draw.uniform(-1, 1, (3, 50, DRONES)) * np.array([1e-3, 1e-3, 1e-4])[:, None, None]
    got = wrench(rotor_speeds(thrust, torque))
    np.testing.assert_allclose(got[0], thrust, rtol=1e-12)
    np.testing.assert_allclose(got[1:], torque, atol=1e-15)


@pytest.mark.parametrize("thrust", [0.0, 0.01, MAX_THRUST])
def test_saturation_keeps_roll_and_pitch(thrust: float) -> None:
    """With no thrust or all of it wanted, tilting torques still come out exactly; thrust and yaw give way."""
    torque = np.array([2e-3, -1e-3, 5e-3])[:, None, None] * np.ones((3, 1, DRONES))
    got = wrench(rotor_speeds(np.full((1, DRONES), thrust), torque))
    np.testing.assert_allclose(got[1:3], torque[:2], rtol=1e-9)
    assert (got[0] > 0).all()
    assert (got[0] < MAX_THRUST).all()
    assert (np.abs(got[3]) < np.abs(torque[2])).all()


def test_torques_beyond_the_rotors_keep_their_direction() -> None:
    """Ten times too much roll and pitch torque: the same mixture, as much as there is."""
    torque = np.array([0.08, 0.04, 0.0])[:, None, None] * np.ones((3, 1, DRONES))
    got = wrench(rotor_speeds(np.full((1, DRONES), 0.3), torque))
    np.testing.assert_allclose(got[1] / got[2], 2.0, rtol=1e-9)
    assert (got[1] < torque[0]).all()
    assert (got[1] > 0.005).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6, 1e200])
def test_the_mixer_never_leaves_the_rotors_range(scale: float) -> None:
    """Whatever is wanted, speeds are finite numbers between standstill and full speed."""
    draw = np.random.default_rng(1)
    speeds = rotor_speeds(scale * draw.normal(size=(200, DRONES)), scale * draw.normal(size=(3, 200, DRONES)))
    assert (speeds >= 0).all()
    assert (speeds <= CRAZYFLIE.max_speed * (1 + 1e-12)).all()


def test_not_even_nan_reaches_the_rotors() -> None:
    """A diverged environment's commands become a standing rotor."""
    speeds = rotor_speeds(np.full((1, DRONES), np.nan), np.full((3, 1, DRONES), np.nan))
    np.testing.assert_array_equal(speeds, 0.0)


def lee(motion: Motion, env: int, drone: int, target: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """Lee, Leok & McClamroch 2010, eq. 15, for one drone: the force [N] in the world, z up."""
    k_v = CRAZYFLIE.mass * VELOCITY_GAIN
    k_x = k_v * POSITION_GAIN
    position_error = motion.position[:, env, drone] - target[0]
    velocity_error = motion.velocity[:, env, drone] - target[1]
    weight = CRAZYFLIE.mass * GRAVITY * np.array([0, 0, 1])
    return -k_x * position_error - k_v * velocity_error + weight + CRAZYFLIE.mass * target[2]


def test_the_geometric_force_is_lees() -> None:
    """Through the position command with feedforward: thrust, direction and heading as in the paper."""
    motion, draw = random_motion(20), np.random.default_rng(3)
    target = draw.uniform(-0.3, 0.3, (3, 3, 20, DRONES))
    yaw = draw.uniform(-3, 3, (1, 20, DRONES))
    command = np.concatenate([feedforward(*target), yaw])
    # Heading is pursued at a bounded rate; where that bound does not bind, the wanted attitude has the wanted heading.
    command[3] = motion.yaw + np.clip(command[3], -0.6, 0.6)
    got = convert(controller("geometric"), motion, command, memory("geometric", 20), "position", "attitude_thrust")
    wanted = rotation_from_euler(*got[:3])
    for env in range(20):
        for drone in range(DRONES):
            force = lee(motion, env, drone, tuple(target[:, :, env, drone]))
            axis = motion.rotation[:, 2, env, drone]
            assert got[3, env, drone] == pytest.approx(force @ axis)
            np.testing.assert_allclose(wanted[:, 2, env, drone], force / np.linalg.norm(force), atol=1e-12)
            heading = np.arctan2(wanted[1, 0, env, drone], wanted[0, 0, env, drone])
            assert heading == pytest.approx(command[3, env, drone])


def test_the_geometric_moment_is_lees() -> None:
    """Attitude and rate stages together: -k_R e_R - k_Ω Ω + Ω × JΩ (eq. 16 for a constant attitude)."""
    motion, draw = random_motion(20), np.random.default_rng(4)
    angles = draw.uniform(-0.2, 0.2, (3, 20, DRONES))
    geometric, none = Geometric(100.0, motor_lag=False), memory("geometric", 20)
    command = np.concatenate([angles, np.full((1, 20, DRONES), 0.3)])
    rates = geometric.thrust_body_rate(motion, command, none)
    torque = geometric.torque(rates[1:] - motion.body_rate, motion.body_rate, none)
    inertia = np.array(CRAZYFLIE.inertia)
    k_omega = inertia * RATE_GAIN[:, 0, 0]
    k_rotation = k_omega * ATTITUDE_GAIN[:, 0, 0]
    wanted = rotation_from_euler(*angles)
    for env in range(20):
        for drone in range(DRONES):
            rotation, goal = motion.rotation[..., env, drone], wanted[..., env, drone]
            skew = 0.5 * (goal.T @ rotation - rotation.T @ goal)
            error = np.array([skew[2, 1], skew[0, 2], skew[1, 0]])
            rate = motion.body_rate[:, env, drone]
            moment = -k_rotation * error - k_omega * rate + np.cross(rate, inertia * rate)
            np.testing.assert_allclose(torque[:, env, drone], moment, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("angle", [0.01, 1.0, 3.0])
def test_attitude_errors_of_both_controllers(angle: float) -> None:
    """About one axis: the sine for the geometric one; 2 sin(angle / 2), which grows up to half a turn, for PID."""
    motion = level_motion(1)
    turned = rotation_from_euler(*np.array([angle, 0.0, 0.0])[:, None, None] * np.ones((3, 1, DRONES)))
    for kind, size in (("geometric", np.sin(angle)), ("pid", 2 * np.sin(angle / 2))):
        error = controller(kind).attitude_error(turned, motion.rotation)
        np.testing.assert_allclose(error[0], size, rtol=1e-6)
        np.testing.assert_allclose(error[1:], 0.0, atol=1e-12)


def test_euler_angles_turn_about_x_then_y_then_z() -> None:
    """Against the product of elementary rotations."""
    roll, pitch, yaw = 0.3, -0.5, 2.0
    x = np.array([[1, 0, 0], [0, np.cos(roll), -np.sin(roll)], [0, np.sin(roll), np.cos(roll)]])
    y = np.array([[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]])
    z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    got = rotation_from_euler(*(np.full((1, 1), angle) for angle in (roll, pitch, yaw)))
    np.testing.assert_allclose(got[..., 0, 0], z @ y @ x, atol=1e-15)


@EVERY_CONTROLLER
@pytest.mark.parametrize("mode", list(MODES))
def test_at_the_goal_all_rotors_turn_at_hover_speed(kind: str, mode: str) -> None:
    """Level, at rest and where it should be, every mode's neutral command is equilibrium."""
    neutral = {
        "position": (0, 0, 0, 0),
        "velocity": (0, 0, 0, 0),
        "attitude_thrust": (0, 0, 0, CRAZYFLIE.mass * GRAVITY),
        "thrust_body_rate": (CRAZYFLIE.mass * GRAVITY, 0, 0, 0),
        "rotor_speed": (CRAZYFLIE.hover_speed,) * 4,
    }[mode]
    command = np.array(neutral, dtype=float)[:, None, None] * np.ones((4, 3, DRONES))
    speeds = convert(controller(kind), level_motion(3), command, memory(kind, 3), mode, "rotor_speed")
    np.testing.assert_allclose(speeds, CRAZYFLIE.hover_speed, rtol=1e-9)


@EVERY_CONTROLLER
def test_stages_compose(kind: str) -> None:
    """Going down one mode at a time is going down at once, to the bit, in commands and memory."""
    motion, at_once, by_steps = random_motion(5), memory(kind, 5), memory(kind, 5)
    command = np.random.default_rng(5).uniform(-1, 1, (4, 5, DRONES))
    wanted = convert(controller(kind), motion, command, at_once, "position", "rotor_speed")
    names = list(MODES)
    for given, lower in itertools.pairwise(names):
        command = convert(controller(kind), motion, command, by_steps, given, lower)
    np.testing.assert_array_equal(command, wanted)
    np.testing.assert_array_equal(at_once, by_steps)


@EVERY_CONTROLLER
@pytest.mark.parametrize("mode", list(MODES)[1:])
def test_no_stage_asks_for_more_than_an_action_could(kind: str, mode: str) -> None:
    """From a far target and a wild motion, every command on the way is within its mode's bounds."""
    wild = random_motion(50)
    motion = Motion(100 * wild.position, wild.rotation, 50 * wild.velocity, 30 * wild.body_rate, wild.rotor_speed)
    command = np.random.default_rng(6).uniform(-8, 8, (4, 50, DRONES))
    lower = convert(controller(kind), motion, command, memory(kind, 50), "position", mode)
    low, high = MODES[mode].field(1, 100.0).bounds()
    assert (lower >= low[:, None, None] - 1e-6).all()
    assert (lower <= high[:, None, None] + 1e-3).all()


@EVERY_CONTROLLER
def test_a_drone_s_command_depends_on_itself_alone(kind: str) -> None:
    """To the bit, whatever the size of the batch."""
    motion, command = random_motion(40), np.random.default_rng(7).uniform(-1, 1, (4, 40, DRONES))
    wanted = convert(controller(kind), motion, command, memory(kind, 40), "position", "rotor_speed")
    few = Motion(
        motion.position[:, 7:9].copy(),
        motion.rotation[:, :, 7:9].copy(),
        motion.velocity[:, 7:9].copy(),
        motion.body_rate[:, 7:9].copy(),
        motion.rotor_speed[:, 7:9].copy(),
    )
    got = convert(controller(kind), few, command[:, 7:9].copy(), memory(kind, 2), "position", "rotor_speed")
    np.testing.assert_array_equal(got, wanted[:, 7:9])


def test_integrals_remove_what_the_model_does_not_know() -> None:
    """A steady velocity error makes PID push ever harder, up to its bound; no NaN gets in. Geometric has no memory."""
    pid, integral, error = Pid(100.0, True), memory("pid", 1), np.full((3, 1, DRONES), 0.1)
    pushes = [pid.acceleration(error, integral)[0, 0, 0] for _ in range(7000)]
    assert pushes[0] == pytest.approx(VELOCITY_GAIN * 0.1 + Pid.velocity_integral * 0.1 / 100)
    assert pushes[100] > pushes[0]
    np.testing.assert_allclose(pushes[-1], VELOCITY_GAIN * 0.1 + Pid.most_acceleration)
    pid.acceleration(np.full_like(error, np.nan), integral)
    assert np.isfinite(integral).all()
    assert Geometric.memory_size == 0


def test_the_lead_makes_the_rotors_faster() -> None:
    """One control period later, a lagging rotor is where one with MOTOR_RESPONSE would be; without lag, at the goal."""
    motion = level_motion(1)
    command = np.array([1.02 * CRAZYFLIE.mass * GRAVITY, 0, 0, 0])[:, None, None] * np.ones((4, 1, DRONES))
    goal, start = np.sqrt(1.02) * CRAZYFLIE.hover_speed, CRAZYFLIE.hover_speed
    sent = controller("pid").rotor_speed(motion, command, memory("pid", 1))
    reached = sent + np.exp(-0.01 / CRAZYFLIE.motor_time_constant) * (start - sent)
    np.testing.assert_allclose(reached - start, (1 - np.exp(-0.01 / MOTOR_RESPONSE)) * (goal - start))
    at_once = controller("pid", motor_lag=False).rotor_speed(motion, command, memory("pid", 1))
    np.testing.assert_allclose(at_once, goal)


def test_the_configuration_knows_every_mode_and_controller() -> None:
    """Its lists stand apart, so that `--help` need not load the controllers."""
    assert set(config.ACTION_MODES) == set(MODES)
    assert set(config.CONTROLLERS) == set(CONTROLLERS)


@pytest.mark.parametrize("name", list(MODES))
def test_every_mode_has_a_field(name: str) -> None:
    """Four named elements a drone, with units and finite bounds; several drones carry numbers."""
    one, three = MODES[name].field(1, 100.0), MODES[name].field(3, 50.0)
    assert (one.shape, three.shape, one.rate, three.rate) == ((4,), (12,), 100.0, 50.0)
    assert three.element_names[4:8] == tuple(f"drone1_{element}" for element in one.element_names)
    assert str(one.control_mode) == name
    low, high = three.bounds()
    assert (low < high).all()
    assert np.isfinite([low, high]).all()
    assert len(three.units) == 12

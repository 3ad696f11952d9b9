"""Free flight in every engine: closed forms, conservation laws, and agreement with each other."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy import ndarray

from alula.core.geometry import rotation_from_quaternion
from alula.sims.engine import Engine
from alula.sims.quadcopters.config import ENGINES, Aerodynamics
from alula.sims.quadcopters.crazyflie import CRAZYFLIE, GRAVITY

MakeEngine = Callable[..., Engine]
Disturb = Callable[[Engine, int], None]
STEP = 0.01
"""A control step of five physics steps at 500 Hz [s]."""
INERTIA = np.array(CRAZYFLIE.inertia)


def advance(engine: Engine, steps: int) -> None:
    for _ in range(steps):
        assert not engine.advance().any()


def test_the_parameters_agree_with_each_other_and_with_the_data_sheet() -> None:
    """Four rotors at hover speed carry the weight, at their largest speed 2.25 times as much; in rpm as published."""
    thrust = 4 * CRAZYFLIE.thrust_coefficient * CRAZYFLIE.hover_speed**2
    assert thrust == pytest.approx(CRAZYFLIE.mass * GRAVITY)
    assert CRAZYFLIE.hover_speed * 60 / (2 * np.pi) == pytest.approx(14476, abs=1)
    assert CRAZYFLIE.max_speed * 60 / (2 * np.pi) == pytest.approx(21714, abs=3)
    np.testing.assert_allclose(np.linalg.norm(CRAZYFLIE.rotor_positions, axis=1), 0.0397)
    assert np.abs(CRAZYFLIE.rotor_positions.sum(axis=0)).max() < 1e-15


def test_hover_thrust_balances_gravity(make_engine: MakeEngine) -> None:
    """At hover speed a level drone stays where it is; two of them, too."""
    engine = make_engine(num_drones=2)
    start = engine.state.qpos.copy()
    advance(engine, 100)
    np.testing.assert_allclose(engine.state.qpos, start, atol=1e-9)
    assert engine.state.time[0] == pytest.approx(1.0)


def test_free_fall(make_engine: MakeEngine) -> None:
    """With rotors at rest: v = -g t exactly, and the semi-implicit Euler sum z = z0 - g h^2 n (n + 1) / 2."""
    engine = make_engine()
    engine.state.ctrl[:] = engine.state.extras["rotor_speed"][:] = 0.0
    engine.state.qvel[0, 0] = 1.5
    advance(engine, 30)
    assert engine.state.qvel[0, 2] == pytest.approx(-GRAVITY * 0.3, abs=1e-12)
    assert engine.state.qpos[0, 2] == pytest.approx(1 - GRAVITY * 0.002**2 * 150 * 151 / 2, abs=1e-12)
    assert engine.state.qpos[0, 0] == pytest.approx(1.5 * 0.3, abs=1e-12)


@pytest.mark.parametrize(
    ("faster", "axis", "sign"),
    [((2, 3), 0, 1), ((1, 2), 1, 1), ((1, 3), 2, 1), ((0, 1), 0, -1), ((0, 3), 1, -1), ((0, 2), 2, -1)],
)
def test_torques_have_the_signs_of_the_airframe(
    make_engine: MakeEngine, faster: tuple[int, int], axis: int, sign: int
) -> None:
    """Faster left rotors roll right (about +x), back ones pitch down (+y), clockwise ones yaw to the left (+z).

    From rest about a principal axis nothing else turns, and the rate grows in proportion to time: torque / inertia.
    """
    engine = make_engine()
    squared = np.full(4, CRAZYFLIE.hover_speed**2)
    squared -= 2e3
    squared[list(faster)] += 4e3
    engine.state.ctrl[:] = np.sqrt(squared)
    advance(engine, 20)
    lever = np.array([0.0397 / np.sqrt(2)] * 2 + [CRAZYFLIE.torque_coefficient / CRAZYFLIE.thrust_coefficient])
    torque = 4 * 2e3 * CRAZYFLIE.thrust_coefficient * lever[axis]
    wanted = np.zeros(3)
    wanted[axis] = sign * torque / INERTIA[axis] * 0.2
    np.testing.assert_allclose(engine.state.qvel[0, 3:], wanted, atol=1e-9)
    angle = wanted * (0.2 + 0.002) / 2  # the Euler sum n (n + 1) / 2
    np.testing.assert_allclose(engine.state.qpos[0, 4:], np.sin(angle / 2), atol=1e-8)


def test_free_rotation_conserves_what_it_must(make_engine: MakeEngine, disturb: Disturb) -> None:
    """Without torque, angular momentum in the world and energy stay, the latter to first order of the integrator."""
    engine = make_engine(num_envs=4)
    disturb(engine, 0)
    engine.state.ctrl[:] = engine.state.extras["rotor_speed"][:] = 0.0
    engine.state.qpos[:, 2] = 100.0

    def momentum() -> ndarray:
        rotation = rotation_from_quaternion(engine.state.qpos[:, 3:])
        return np.einsum("eij,ej->ei", rotation, INERTIA * engine.state.qvel[:, 3:])

    def energy() -> ndarray:
        linear, angular = engine.state.qvel[:, :3], engine.state.qvel[:, 3:]
        kinetic = CRAZYFLIE.mass * (linear**2).sum(axis=1) + (INERTIA * angular**2).sum(axis=1)
        return kinetic / 2 + CRAZYFLIE.mass * GRAVITY * engine.state.qpos[:, 2]

    before, joules = momentum(), energy()
    advance(engine, 100)
    scale = np.linalg.norm(before, axis=1, keepdims=True)
    np.testing.assert_allclose(momentum() / scale, before / scale, atol=0.01)
    np.testing.assert_allclose(energy(), joules, rtol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(engine.state.qpos[:, 3:], axis=1), 1.0, atol=1e-12)


def sequence(rng: np.random.Generator, steps: int, num_envs: int) -> ndarray:
    """Commands around hover: a slow common part, and torques whose integrals stay small."""
    time = STEP * np.arange(steps)[:, None, None]
    collective = 0.08 * np.sin(2 * np.pi * (0.3 * time + rng.random((1, num_envs, 1))))
    waves = np.sin(2 * np.pi * (np.array([0.9, 1.3, 1.7, 2.1]) * time + rng.random((1, num_envs, 4))))
    noise = rng.normal(0, 0.01, (steps, num_envs, 4))
    return CRAZYFLIE.hover_speed * (1 + collective + 0.01 * waves + noise)


@pytest.mark.parametrize(
    "aerodynamics",
    [Aerodynamics(motor_lag=False), Aerodynamics(), Aerodynamics(drag=True, ground_effect=True, downwash=True)],
    ids=["instant", "lag", "all"],
)
def test_the_engines_fly_the_same_five_seconds(make_any: MakeEngine, aerodynamics: Aerodynamics) -> None:
    """The same commands keep all engines together, far closer than the 1 cm and 1 degree that matter; at 240 Hz.

    Two drones per environment; the second begins 2 m below the first, in its wash. (They must not collide: in torch
    they cannot.)
    """
    timestep = 1 / 240
    engines = [make_any(kind, 2, 2, aerodynamics, timestep) for kind in ENGINES]
    for engine in engines:
        engine.state.qpos[:, [2, 9]], engine.state.qpos[:, 7] = (300.0, 298.0), 0.1
    steps = round(5 / (5 * timestep))
    commands = sequence(np.random.default_rng(0), steps, 4).reshape(steps, 2, 8)
    apart = turned = 0.0
    nearest = np.inf
    for command in commands:
        for engine in engines:
            engine.state.ctrl[:] = command
            advance(engine, 1)
        poses = [engine.state.qpos.reshape(-1, 7) for engine in engines]
        nearest = min(nearest, float(np.linalg.norm(poses[0][::2, :3] - poses[0][1::2, :3], axis=1).min()))
        for pose in poses[1:]:
            apart = max(apart, float(np.linalg.norm(pose[:, :3] - poses[0][:, :3], axis=1).max()))
            cosines = (pose[:, 3:] * poses[0][:, 3:]).sum(axis=1)
            turned = max(turned, float(2 * np.sqrt(np.maximum(0, 2 - 2 * cosines)).max()))
    assert np.linalg.norm(poses[0][:, :2], axis=1).max() > 0.5  # They did fly somewhere,
    assert poses[0][:, 2].min() > 10.0  # but not to the floor,
    assert nearest > 0.2  # nor into each other.
    assert apart < 1e-6
    assert turned < 1e-5


def test_motors_lag(make_engine: MakeEngine) -> None:
    """A step of the command is answered by 1 - exp(-t / tau), and a command beyond the range by the range's end."""
    engine = make_engine(aerodynamics=Aerodynamics())
    engine.state.ctrl[:] = [0.0, 500.0, 2000.0, 1e5]
    start, target = CRAZYFLIE.hover_speed, np.array([0.0, 500.0, 2000.0, CRAZYFLIE.max_speed])
    for step in range(1, 11):
        advance(engine, 1)
        left = np.exp(-STEP * step / 0.065)
        np.testing.assert_allclose(engine.state.extras["rotor_speed"][0], target + (start - target) * left)


def test_lag_delays_the_climb(make_engine: MakeEngine) -> None:
    """After 0.2 s of full thrust, a drone with motor lag is lower than one without."""
    slow, quick = make_engine(aerodynamics=Aerodynamics()), make_engine()
    for engine in (slow, quick):
        engine.state.ctrl[:] = CRAZYFLIE.max_speed
        advance(engine, 20)
    assert 1.0 < slow.state.qpos[0, 2] < quick.state.qpos[0, 2] - 0.05

"""Every effect in the direction, and where it has one to the number, that its source predicts."""

from collections.abc import Callable

import numpy as np
import pytest

from alula.sims.engine import Engine
from alula.sims.quadcopters.aerodynamics import downwash, ground_effect
from alula.sims.quadcopters.config import Aerodynamics
from alula.sims.quadcopters.crazyflie import CRAZYFLIE, GRAVITY

MakeEngine = Callable[..., Engine]
DRAG = Aerodynamics(drag=True, motor_lag=False)
GROUND = Aerodynamics(ground_effect=True, motor_lag=False)
WASH = Aerodynamics(downwash=True, motor_lag=False)
WEIGHT = CRAZYFLIE.mass * GRAVITY


def advance(engine: Engine, steps: int) -> None:
    for _ in range(steps):
        assert not engine.advance().any()


def test_drag_slows_at_the_identified_rate(make_engine: MakeEngine) -> None:
    """Level hover: the velocity along an axis decays by 1 - k (sum of rotor speeds) h / m in each physics step."""
    engine = make_engine(aerodynamics=DRAG)
    engine.state.qvel[0, :3] = start = np.array([2.0, -1.0, 0.5])
    advance(engine, 10)
    share = 1 - np.array([9.1785e-7, 9.1785e-7, 10.311e-7]) * 4 * CRAZYFLIE.hover_speed * 0.002 / 0.027
    np.testing.assert_allclose(engine.state.qvel[0, :3], start * share**50, atol=1e-10)


def test_drag_belongs_to_the_body_s_axes(make_engine: MakeEngine) -> None:
    """A drone on its side flies along the world's x with its z axis, so the larger coefficient is at work.

    Coefficients of the body applied in the world would give the other number; without rotation there is no drag.
    """
    engine = make_engine(num_envs=2, aerodynamics=DRAG)
    engine.state.qpos[:, 3:] = [np.sqrt(0.5), 0, np.sqrt(0.5), 0]  # body z along world x
    engine.state.qvel[:, :3] = [0.0, 3.0, 0.0]
    engine.state.qvel[:, 0] = [0.0, 3.0]
    advance(engine, 1)
    pulled = engine.state.qvel[1, 0] - engine.state.qvel[0, 0]  # the difference that drag makes: thrust is in both
    lateral, axial = (k * 4 * CRAZYFLIE.hover_speed * 0.002 / 0.027 for k in (9.1785e-7, 10.311e-7))
    assert pulled == pytest.approx(3.0 * (1 - axial) ** 5, abs=1e-9)
    assert engine.state.qvel[0, 1] == pytest.approx(3.0 * (1 - lateral) ** 5, abs=1e-9)
    engine.state.ctrl[:] = engine.state.extras["rotor_speed"][:] = 0.0
    before = engine.state.qvel[:, :2].copy()
    advance(engine, 1)
    np.testing.assert_allclose(engine.state.qvel[:, :2], before, atol=1e-12)


def test_ground_effect_lifts_near_the_floor_only(make_engine: MakeEngine) -> None:
    """At hover speed, low drones rise, and less with height; at 2 m the floor is not felt (below 0.1 mm/s^2)."""
    engine = make_engine(num_envs=4, aerodynamics=GROUND)
    engine.state.qpos[:, 2] = heights = np.array([0.05, 0.1, 0.3, 2.0])
    advance(engine, 1)
    acceleration = engine.state.qvel[:, 2] / 0.01
    assert (np.diff(acceleration) < 0).all()
    np.testing.assert_allclose(acceleration[1:] / GRAVITY, 11.36859 * (0.0231348 / 4 / heights[1:]) ** 2, rtol=2e-2)
    assert acceleration[3] < 1e-3


def test_the_floor_never_adds_more_than_its_bound() -> None:
    """The factor falls monotonically from 1 + 4/15, which holds at and below the floor, to 1."""
    factor = ground_effect(CRAZYFLIE, np.linspace(-1, 5, 1001))
    assert (np.diff(factor) <= 0).all()
    assert factor[0] == pytest.approx(1 + 4 / 15)
    assert ground_effect(CRAZYFLIE, np.array(1e6)) == pytest.approx(1.0)


def test_the_lower_drone_is_pushed_down(make_engine: MakeEngine) -> None:
    """Of two hovering drones above each other, the lower falls and the upper stays; side by side, none falls."""
    engine = make_engine(num_envs=2, num_drones=2, aerodynamics=WASH)
    engine.state.qpos[0, [2, 9]], engine.state.qpos[0, 7] = (3.0, 2.0), 0.0
    advance(engine, 1)
    force = 2267.18 * (0.0231348 / 4) ** 2
    assert engine.state.qvel[0, 8] == pytest.approx(-force / 0.027 * 0.01, rel=1e-3)
    assert abs(engine.state.qvel[0, [0, 1, 2, 6, 7]]).max() < 1e-9
    assert abs(engine.state.qvel[1]).max() < 1e-9


def test_the_wash_is_narrow_bounded_and_one_way() -> None:
    """Force on the lower one: e^-1/2 of the largest one standard deviation off the axis, and never over the weight."""
    sideways = np.array([0.0, 0.05, 0.2, 1.0])  # at 1 m below, the standard deviation is 0.16 - 0.11 = 0.05 m
    zero = np.zeros((4, 2))
    force = downwash(CRAZYFLIE, sideways[:, None] * [0, 1], zero, np.tile([2.0, 1.0], (4, 1)))
    assert (force[:, 0] == 0).all()
    assert (np.diff(force[:, 1]) < 0).all()
    assert force[1, 1] / force[0, 1] == pytest.approx(np.exp(-0.5))
    below = np.linspace(0.01, 3, 300)
    under = downwash(CRAZYFLIE, np.zeros((300, 2)), np.zeros((300, 2)), np.stack([np.zeros(300), -below], axis=1))[:, 1]
    assert under.max() == pytest.approx(WEIGHT)
    assert (np.diff(under) <= 0).all()


def test_washes_add_up() -> None:
    """A drone below two others at the same place feels both."""
    x = y = np.zeros((1, 3))
    three = downwash(CRAZYFLIE, x, y, np.array([[2.0, 2.0, 1.0]]))
    two = downwash(CRAZYFLIE, x[:, 1:], y[:, 1:], np.array([[2.0, 1.0]]))
    assert three[0, 2] == pytest.approx(2 * two[0, 1])
    assert (three[0, :2] == 0).all()

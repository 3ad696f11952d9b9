"""The differentiable dynamics: gradients, precision, and independence from the batch."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from alula.sims.quadcopters.config import Aerodynamics
from alula.sims.quadcopters.crazyflie import CRAZYFLIE
from alula.sims.quadcopters.dynamics import Dynamics, Flight, body_z, multiply, rotate

ALL = Aerodynamics(drag=True, ground_effect=True, downwash=True)


def some_flight(*batch: int, seed: int = 0) -> Flight:
    """Low and close to each other, so that every effect acts; turning fast."""
    generator = torch.Generator().manual_seed(seed)

    def normal(size: int, scale: float) -> Tensor:
        return scale * torch.randn(size, *batch, generator=generator, dtype=torch.float64)

    position = normal(3, 0.1)
    position[2] = position[2].abs() + 0.3
    quaternion = normal(4, 0.3)
    quaternion[0] += 1.0
    rotor_speed = CRAZYFLIE.hover_speed + normal(4, 100.0)
    return Flight(position, quaternion / quaternion.norm(dim=0), normal(3, 1.0), normal(3, 5.0), rotor_speed)


def test_gradients_are_the_derivatives() -> None:
    """Autograd against finite differences through three steps, with respect to everything, all effects on."""
    dynamics = Dynamics(0.01, ALL)
    flight = some_flight(2)

    def fly(*inputs: Tensor) -> tuple[Tensor, ...]:
        # Rotor speeds in units of 1000 rad/s, so that a difference of 1e-6 is neither lost nor large.
        *pose, rotor_speed, command = inputs
        state = Flight(*pose, 1e3 * rotor_speed)
        for _ in range(3):
            state = dynamics.step(state, 1e3 * command)
        return state.position, state.quaternion, state.velocity, state.body_rates

    inputs = (*flight[:4], flight.rotor_speed / 1e3, torch.full((4, 2), 1.6, dtype=torch.float64))
    assert torch.autograd.gradcheck(fly, [tensor.clone().requires_grad_() for tensor in inputs], atol=1e-6)


def test_gradients_exist_at_rest() -> None:
    """At zero body rates, where the axis of rotation is undefined, gradients are finite and pass gradcheck."""
    dynamics = Dynamics(0.01, Aerodynamics(motor_lag=False))
    flight = some_flight(1)

    def turn(rates: Tensor) -> Tensor:
        return dynamics.step(replace_rates(flight, rates), flight.rotor_speed * 0).quaternion

    assert torch.autograd.gradcheck(turn, [torch.zeros(3, 1, dtype=torch.float64, requires_grad=True)])


def replace_rates(flight: Flight, rates: Tensor) -> Flight:
    return flight._replace(body_rates=rates)


def test_descending_the_gradient_finds_the_hover() -> None:
    """A constant command, found from the distance flown in 0.1 s alone, comes to hover speed."""
    dynamics = Dynamics(0.01, Aerodynamics())
    level = torch.tensor([[1.0], [0.0], [0.0], [0.0]], dtype=torch.float64)
    zero = torch.zeros(3, 1, dtype=torch.float64)
    share = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([share], max_iter=15, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        state = Flight(zero, level, zero, zero, torch.full((4, 1), CRAZYFLIE.hover_speed, dtype=torch.float64))
        for _ in range(10):
            state = dynamics.step(state, CRAZYFLIE.hover_speed * share.expand(4, 1))
        total: Tensor = state.position.square().sum() * 1e4
        optimizer.zero_grad()
        total.backward()
        return total

    optimizer.step(loss)
    assert float(share.detach()) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_do_not_depend_on_the_batch(dtype: torch.dtype) -> None:
    """One of 37 environments alone gives the same bits, in either precision, with every effect on."""
    dynamics = Dynamics(0.002, ALL, dtype=dtype)
    state = Flight(*(tensor.to(dtype) for tensor in some_flight(37, 3)))
    alone = Flight(*(tensor[:, 11:12].clone() for tensor in state))
    for _ in range(20):
        state, alone = (dynamics.step(each, each.rotor_speed + 50.0) for each in (state, alone))
    for many, one in zip(state, alone, strict=True):
        assert torch.equal(many[:, 11:12], one)


def test_single_precision_stays_close() -> None:
    """One second in float32 ends where float64 does, to five digits, with unit quaternions."""
    effects = Aerodynamics(drag=True)
    exact, rounded = Dynamics(0.01, effects), Dynamics(0.01, effects, dtype=torch.float32)
    precise = some_flight(64)
    coarse = Flight(*(tensor.float() for tensor in precise))
    for _ in range(100):
        precise, coarse = exact.step(precise, precise.rotor_speed), rounded.step(coarse, coarse.rotor_speed)
    assert (coarse.position - precise.position).norm(dim=0).max() < 1e-5 * precise.position.norm(dim=0).max()
    assert (coarse.quaternion.norm(dim=0) - 1).abs().max() < 1e-6


def test_rotations_agree_with_each_other() -> None:
    """Conjugation is rotation, the body's z axis is z rotated, and products of quaternions rotate one by one."""
    first, second = some_flight(5).quaternion, some_flight(5, seed=1).quaternion
    vector = some_flight(5, seed=2).velocity
    conjugate = torch.cat([first[:1], -first[1:]])
    pure = torch.cat([torch.zeros(1, 5, dtype=torch.float64), vector])
    torch.testing.assert_close(multiply(multiply(first, pure), conjugate)[1:], rotate(first, vector))
    torch.testing.assert_close(rotate(multiply(first, second), vector), rotate(first, rotate(second, vector)))
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)[:, None].expand(3, 5)
    torch.testing.assert_close(body_z(first), rotate(first, up))


def test_a_heavier_drone_falls_with_the_crazyflie_s_thrust() -> None:
    """Other parameters are other drones: twice the mass, at the same rotor speeds, falls with g / 2."""
    heavy = replace(CRAZYFLIE, mass=2 * CRAZYFLIE.mass, thrust_to_weight=3.0)
    state = some_flight(1)
    level = torch.tensor([[1.0], [0.0], [0.0], [0.0]], dtype=torch.float64)
    rest = state._replace(quaternion=level, velocity=torch.zeros_like(state.velocity))
    hover = torch.full((4, 1), CRAZYFLIE.hover_speed, dtype=torch.float64)
    after = Dynamics(0.002, Aerodynamics(motor_lag=False), heavy).step(rest, hover)
    assert float(after.velocity[2, 0]) == pytest.approx(-9.81 / 2 * 0.002)

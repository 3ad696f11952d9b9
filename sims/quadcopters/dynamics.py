"""Rigid-body dynamics of quadcopters on torch tensors: batched, differentiable, on any device.

The integrator is MuJoCo's: velocities first, then poses with the new velocities, quaternions by the exponential map.
Tensors have their components in the first axis, so that every operation runs over contiguous memory. Nothing couples
two members of the batch but downwash, whose drones are the last axis.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from alula.sims.quadcopters.aerodynamics import downwash, ground_effect, lag_decays, rotor_response
from alula.sims.quadcopters.config import Aerodynamics
from alula.sims.quadcopters.crazyflie import CRAZYFLIE, GRAVITY, Quadcopter


class Flight(NamedTuple):
    """State of a batch of quadcopters."""

    position: Float[Tensor, "3 *batch"]
    """In the world [m]."""
    quaternion: Float[Tensor, "4 *batch"]
    """Attitude wxyz, body to world."""
    velocity: Float[Tensor, "3 *batch"]
    """In the world [m/s]."""
    body_rates: Float[Tensor, "3 *batch"]
    """Angular velocity in the body [rad/s]."""
    rotor_speed: Float[Tensor, "4 *batch"]
    """[rad/s]"""


class Dynamics:
    """One physics step as a pure function of state and command; knows no floor.

    Args:
        timestep: Physics step [s].
        aerodynamics: Effects that are on.
        drone: Parameters.
        dtype: Floating-point type of the tensors.
        device: Where they are.
    """

    def __init__(
        self,
        timestep: float,
        aerodynamics: Aerodynamics,
        drone: Quadcopter = CRAZYFLIE,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        self.timestep, self.aerodynamics, self.drone = timestep, aerodynamics, drone

        def constant(values: object) -> Tensor:
            return torch.as_tensor(values, dtype=dtype, device=device)

        self._decay = float(lag_decays(drone, timestep, 1, aerodynamics.motor_lag)[0])
        inertia = constant(drone.inertia)
        inverse = torch.cat([constant([1 / drone.mass]), 1 / inertia])
        self._kick = timestep * inverse[:, None] * constant(drone.allocation)
        """Change of velocity along body z and of the body rates in a step, over squared rotor speeds."""
        self._gyroscopic = timestep * (inertia[[1, 2, 0]] - inertia[[2, 0, 1]]) / inertia
        self._gravity = constant([0, 0, -GRAVITY * timestep])
        self._drag = constant(drone.drag) * timestep / drone.mass

    def step(self, flight: Flight, command: Float[Tensor, "4 *batch"]) -> Flight:
        """State one physics step later under commanded rotor speeds [rad/s]."""
        position, quaternion, velocity, rates, rotor_speed = flight
        rotor_speed = rotor_response(self.drone, rotor_speed, command, self._decay)
        squared = rotor_speed * rotor_speed
        if self.aerodynamics.ground_effect:
            squared = squared * ground_effect(self.drone, position[2])
        kick = sum_products(_like(self._kick.T, squared), squared)
        x, y, z = rates
        turned = rates + kick[1:] + _like(self._gyroscopic, rates) * torch.stack([y * z, z * x, x * y])
        pushed = velocity + _like(self._gravity, velocity) + body_z(quaternion) * kick[0]
        if self.aerodynamics.drag:
            pushed = pushed + self._drag_kick(quaternion, velocity, rotor_speed)
        if self.aerodynamics.downwash:
            wash = downwash(self.drone, *position) * (self.timestep / self.drone.mass)
            pushed = torch.stack([pushed[0], pushed[1], pushed[2] - wash])
        moved = torch.add(position, pushed, alpha=self.timestep)
        return Flight(moved, self._turn(quaternion, turned), pushed, turned, rotor_speed)

    def _drag_kick(
        self, quaternion: Float[Tensor, "4 *batch"], velocity: Float[Tensor, "3 *batch"], rotor_speed: Tensor
    ) -> Float[Tensor, "3 *batch"]:
        """Change of velocity by drag: along the body's axes, over velocity and the sum of rotor speeds (Förster)."""
        inverse = torch.cat([quaternion[:1], -quaternion[1:]])
        along_body = rotate(inverse, velocity)
        return rotate(quaternion, -_like(self._drag, velocity) * rotor_speed.sum(0) * along_body)

    def _turn(
        self, quaternion: Float[Tensor, "4 *batch"], rates: Float[Tensor, "3 *batch"]
    ) -> Float[Tensor, "4 *batch"]:
        """Attitude after a step at constant body rates: quaternion times exp(rates timestep / 2).

        The sine over its angle is a series, so that the gradient exists at rest; for half angles up to 0.3 rad
        (300 rad/s at 500 Hz) its error is below 1e-11 of the turn. Beyond a right angle it is no rotation any more.
        """
        half = rates * (self.timestep / 2)
        x, y, z = half * half
        angle = x + y + z  # squared
        ratio = 1 - angle / 6 * (1 - angle / 20 * (1 - angle / 42 * (1 - angle / 72)))
        real = (1 - angle * ratio * ratio).sqrt()
        turned = multiply(quaternion, torch.stack([real, *(half * ratio)]))
        w, x, y, z = turned * turned
        return turned * (w + x + y + z).rsqrt()


def _like(constants: Tensor, tensor: Float[Tensor, "components *batch"]) -> Tensor:
    """Constants, made to broadcast over the batch axes of a tensor."""
    return constants.reshape(*constants.shape, *(1,) * (tensor.dim() - 1))


def sum_products(left: Iterable[Tensor], right: Iterable[Tensor]) -> Tensor:
    """Sum of the products of pairs; unlike a matrix product, its rounding does not depend on the batch size."""
    pairs = zip(left, right, strict=True)
    first, second = next(pairs)
    total = first * second
    for first, second in pairs:
        total = torch.addcmul(total, first, second)
    return total


def multiply(left: Float[Tensor, "4 *batch"], right: Float[Tensor, "4 *batch"]) -> Float[Tensor, "4 *batch"]:
    """Product of quaternions wxyz."""
    w, x, y, z = left
    nx, ny, nz = -left[1:]
    rows = ((w, nx, ny, nz), (x, w, nz, y), (y, z, w, nx), (z, ny, x, w))
    return torch.stack([sum_products(row, right) for row in rows])


def body_z(quaternion: Float[Tensor, "4 *batch"]) -> Float[Tensor, "3 *batch"]:
    """The body's z axis in the world: where thrust points."""
    w, x, y, z = quaternion
    return 2 * torch.stack([x * z + w * y, y * z - w * x, 0.5 - x * x - y * y])


def rotate(quaternion: Float[Tensor, "4 *batch"], vector: Float[Tensor, "3 *batch"]) -> Float[Tensor, "3 *batch"]:
    """Vectors turned by unit quaternions wxyz."""
    real, imaginary = quaternion[0], quaternion[1:]
    twice = 2 * torch.linalg.cross(imaginary, vector, dim=0)
    return vector + real * twice + torch.linalg.cross(imaginary, twice, dim=0)

"""Quadcopters by the differentiable dynamics alone: the fastest engine for large batches, without collisions.

Drones pass through each other and through obstacles. The floor stops them without a bounce: after every control step, a
drone below it lies on it, at rest and with the attitude it came with.
"""

from collections.abc import Mapping
from dataclasses import replace

import mujoco
import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy import ndarray
from torch import Tensor

from alula.sims.quadcopters.config import Aerodynamics
from alula.sims.quadcopters.crazyflie import CRAZYFLIE
from alula.sims.quadcopters.dynamics import Dynamics, Flight
from alula.sims.quadcopters.rotor_engine import RotorEngine


class QuadcopterTorchEngine(RotorEngine):
    """See `make_quadcopter_engine`.

    Args:
        model: The scene: initial state, timestep, mocap bodies.
        num_envs: Number of environments.
        num_drones: Crazyflies per environment.
        substeps: Physics steps per control step.
        extras: Task-owned arrays by name, and "rotor_speed".
        aerodynamics: Effects that are on.
        dtype: Precision of the physics; the state's arrays are float64 either way.
        device: Where the physics runs.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num_envs: int,
        num_drones: int,
        substeps: int,
        extras: Mapping[str, tuple[int, ...]],
        aerodynamics: Aerodynamics,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(model, num_envs, num_drones, substeps, extras, aerodynamics)
        self._dtype, self._device = dtype, device
        # Rotor speeds come with the lag in them.
        instant = replace(aerodynamics, motor_lag=False)
        self._dynamics = Dynamics(model.opt.timestep, instant, CRAZYFLIE, dtype, device)

    @torch.inference_mode()
    def _fly(self, speeds: Float64[ndarray, "num_envs substeps rotors"]) -> None:
        poses, velocities = self._tensor(self.state.qpos), self._tensor(self.state.qvel)
        commands = [self._tensor(command) for command in np.moveaxis(speeds, 1, 0)]
        flight = Flight(poses[:3], poses[3:], velocities[:3], velocities[3:], commands[0])
        for command in commands:
            flight = self._dynamics.step(flight, command)
        self.state.qpos[:] = self._array(torch.cat([flight.position, flight.quaternion]))
        self.state.qvel[:] = self._array(torch.cat([flight.velocity, flight.body_rates]))
        self._land()

    def _land(self) -> None:
        heights = self.state.qpos[:, 2::7]
        resting = CRAZYFLIE.collision_height / 2
        below = heights < resting
        heights[below] = resting
        self.state.qvel.reshape(self.num_envs, self.num_drones, 6)[below] = 0.0

    def _tensor(self, array: Float64[ndarray, "num_envs numbers"]) -> Float[Tensor, "components num_envs num_drones"]:
        by_drone = torch.from_numpy(array).reshape(self.num_envs, self.num_drones, -1)
        return by_drone.movedim(-1, 0).to(self._device, self._dtype).contiguous()

    def _array(self, tensor: Float[Tensor, "components num_envs num_drones"]) -> Float64[ndarray, "num_envs numbers"]:
        return tensor.movedim(0, -1).reshape(self.num_envs, -1).cpu().double().numpy()

    def close(self) -> None:
        """Nothing is held."""

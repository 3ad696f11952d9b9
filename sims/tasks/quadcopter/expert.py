"""Scripted pilot of the quadcopter tasks: a smooth reference, and the upper stages of the flight controller."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.core.spaces import FieldSpec
from alula.sims.engine import BatchState
from alula.sims.quadcopters.action_modes import convert
from alula.sims.quadcopters.controllers import Controller, Motion, feedforward
from alula.sims.tasks.quadcopter.trajectories import Reference

TREMOR = 0.1
"""Noise as a share of the action range, times `noise`: more, and not even the best pilot holds a Crazyflie still."""


class Pilot:
    """Follows a reference by commanding what the upper stages of the cascade would, down to the task's action mode.

    Args:
        controller: Whose stages; its memory for them is kept here, and begins anew with every episode.
        measure: Motion of the drones in a state.
        reference: Where the drones should be now, and how they should move.
        mode: Action mode.
        field: The action.
        noise: Imperfection; 1 is noise on every action with a standard deviation of TREMOR times its range.
        seed: Of that noise.
    """

    def __init__(
        self,
        controller: Controller,
        measure: Callable[[BatchState], Motion],
        reference: Callable[[BatchState], Reference],
        mode: str,
        field: FieldSpec,
        noise: float,
        seed: int,
    ) -> None:
        self.controller, self.measure, self.reference, self.mode = controller, measure, reference, mode
        self.low, self.high = field.bounds()
        self.spread = noise * TREMOR * (self.high - self.low)
        self.generator = np.random.default_rng(seed)
        self.memory = np.zeros((controller.memory_size, 0, 1))

    def act(self, state: BatchState) -> Float64[ndarray, "num_envs action"]:
        """The reference's position, velocity and acceleration as one command; heading along the world's x axis."""
        motion, wanted = self.measure(state), self.reference(state)
        num_envs, num_drones, _ = wanted.position.shape
        if self.memory.shape[1:] != (num_envs, num_drones):
            self.memory = np.zeros((self.controller.memory_size, num_envs, num_drones))
        self.memory[:, state.time == 0.0] = 0.0
        command = np.zeros((4, num_envs, num_drones))
        command[:3] = np.moveaxis(feedforward(wanted.position, wanted.velocity, wanted.acceleration), -1, 0)
        command = convert(self.controller, motion, command, self.memory, "position", self.mode)
        action = np.moveaxis(command, 0, -1).reshape(num_envs, 4 * num_drones)
        return np.clip(action + self.spread * self.generator.standard_normal(action.shape), self.low, self.high)

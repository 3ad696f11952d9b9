"""Quadcopters in Bullet: a world per environment, with contacts between drones, floor and obstacles.

Bullet knows no batches: Python steps one world after the other. Rotors and air act on each drone as one force and one
torque; those of all substeps are computed beforehand, unless they depend on where the drones are or how they move.
"""

from collections.abc import Mapping

import mujoco
import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray

from alula.core.geometry import rotation_from_quaternion
from alula.sims.quadcopters.aerodynamics import downwash, ground_effect
from alula.sims.quadcopters.bullet_world import BulletWorld
from alula.sims.quadcopters.config import Aerodynamics
from alula.sims.quadcopters.crazyflie import CRAZYFLIE
from alula.sims.quadcopters.rotor_engine import RotorEngine

ALLOCATION = CRAZYFLIE.allocation
DRAG = np.array(CRAZYFLIE.drag)

Vectors = Float64[ndarray, "num_envs steps drones 3"]


class QuadcopterBulletEngine(RotorEngine):
    """See `make_quadcopter_engine`."""

    def __init__(
        self,
        model: mujoco.MjModel,
        num_envs: int,
        num_drones: int,
        substeps: int,
        extras: Mapping[str, tuple[int, ...]],
        aerodynamics: Aerodynamics,
    ) -> None:
        super().__init__(model, num_envs, num_drones, substeps, extras, aerodynamics)
        depends_on_motion = aerodynamics.drag or aerodynamics.ground_effect or aerodynamics.downwash
        self._steps_known = 1 if depends_on_motion else substeps
        self._poses = self.state.qpos.reshape(num_envs, num_drones, 7, copy=False)
        self._velocities = self.state.qvel.reshape(num_envs, num_drones, 6, copy=False)
        self._worlds = [BulletWorld(model, num_drones) for _ in range(num_envs)]
        self._obstacles = list(self._worlds[0].obstacles)
        self._placed = np.full((num_envs, len(self._obstacles), 7), np.nan)  # where Bullet has them: nowhere yet

    def _fly(self, speeds: Float64[ndarray, "num_envs substeps rotors"]) -> None:
        self._place()
        for first in range(0, self.substeps, self._steps_known):
            forces, torques = self._wrenches(speeds[:, first : first + self._steps_known])
            for world, by_step, turning in zip(self._worlds, forces.tolist(), torques.tolist(), strict=True):
                for force, torque in zip(by_step, turning, strict=True):
                    world.step(force, torque)
            self._read()

    def _place(self) -> None:
        """Hand the state to Bullet."""
        for world, poses, velocities in zip(self._worlds, self._poses.tolist(), self._velocities.tolist(), strict=True):
            world.place(poses, velocities)
        if self._obstacles:
            self._place_obstacles()

    def _place_obstacles(self) -> None:
        """Move those that are not where Bullet has them."""
        state, obstacles = self.state, self._obstacles
        wanted = np.concatenate([state.mocap_pos[:, obstacles], state.mocap_quat[:, obstacles]], axis=-1)
        for env, index in np.argwhere((wanted != self._placed).any(axis=-1)):
            self._worlds[env].place_obstacle(obstacles[index], wanted[env, index].tolist())
        self._placed = wanted

    def _read(self) -> None:
        """Fetch the state from Bullet."""
        numbers = np.array([world.read() for world in self._worlds])
        self._poses[:], self._velocities[:] = numbers[..., :7], numbers[..., 7:]

    def _wrenches(self, speeds: Float64[ndarray, "num_envs steps rotors"]) -> tuple[Vectors, Vectors]:
        """Force [N] and torque [N m] on every drone, in its frame, for substeps that begin in the present state."""
        effects = self.aerodynamics
        position, quaternion = self._poses[:, None, :, :3], self._poses[..., 3:]
        by_rotor = speeds.reshape(*speeds.shape[:2], self.num_drones, 4)
        squared = by_rotor**2
        if effects.ground_effect:
            squared *= ground_effect(CRAZYFLIE, position[..., 2])[..., None]
        wrench = np.einsum("wr,...r->...w", ALLOCATION, squared)
        force = np.zeros((*wrench.shape[:3], 3))
        force[..., 2] = wrench[..., 0]
        if effects.drag or effects.downwash:
            rotation = rotation_from_quaternion(quaternion.reshape(-1, 4)).reshape(*quaternion.shape[:2], 3, 3)
        if effects.drag:
            along_body = np.einsum("edji,edj->edi", rotation, self._velocities[..., :3])
            force -= DRAG * by_rotor.sum(axis=-1, keepdims=True) * along_body[:, None]
        if effects.downwash:
            down = downwash(CRAZYFLIE, *np.moveaxis(position, -1, 0))
            force -= down[..., None] * rotation[:, None, :, 2]
        return force, wrench[..., 1:]

    def picture(self, env: int, drone: int, width: int = 64, height: int = 48) -> UInt8[ndarray, "height width 3"]:
        """What a drone's camera sees, by Bullet's software renderer."""
        self._worlds[env].place(self._poses[env].tolist(), self._velocities[env].tolist())
        self._place_obstacles()
        return self._worlds[env].picture(drone, width, height)

    def close(self) -> None:
        """Free the worlds."""
        for world in self._worlds:
            world.close()

"""Change places between random formations without coming close to each other."""

import mujoco
import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from alula.core.spaces import FieldSpec
from alula.sims.engine import BatchState
from alula.sims.quadcopters.action_modes import drone_names
from alula.sims.scenery import add_camera
from alula.sims.tasks.quadcopter.base import QuadcopterTask
from alula.sims.tasks.quadcopter.config import FormationConfig
from alula.sims.tasks.quadcopter.scene import add_mark
from alula.sims.tasks.quadcopter.trajectories import Reference, through

CENTER = np.array([0.0, 0.0, 1.0])
"""Of all formations [m]."""
SPACING = 0.6
"""Distance between neighbours in a formation [m]."""
SUCCESS_DISTANCE = 0.1
"""[m]"""
SUCCESS_SPEED = 0.2
"""[m/s]"""
HOLD = 0.5
"""How long all drones must stay at their places, and slow [s]."""
HALF_REWARD = 0.2
"""Distance from its place at which a drone's reward is one half [m]."""
LAYERS = 0.8
"""The expert's drones pass each other at heights spread over so much [m], ..."""
LAYER = 0.4
"""... but not further apart than this [m]."""
CLIMB, PASSAGE = 1.5, 1.0
"""Duration of the expert's climbs [s], and the mean speed of the longest way between them [m/s]."""


class Formation(QuadcopterTask):
    """Success once all drones were within 10 cm of their places and slower than 0.2 m/s for half a second.

    They begin in a regular polygon and end in another or in a line, in any order. Two that come closer than
    `min_distance` have collided, which ends the episode, as success does. The reward of a step is the mean over the
    drones of 1 / (1 + d / 0.2 m), with a drone's distance d to its place.
    """

    config: FormationConfig

    def __init__(self, config: FormationConfig) -> None:
        self.num_draws = 3 + config.num_drones
        super().__init__(config, config.num_drones)

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """The places."""
        far = 1.0 + 0.25 * self.num_drones
        add_camera(spec.worldbody, "overview", (far, -far, 0.9 + 0.6 * far), (0, 0, 0.9), fovy=45)
        for drone in range(self.num_drones):
            add_mark(spec, f"place{drone}", 0.05)

    def memory(self) -> dict[str, tuple[int, ...]]:
        """For how many steps the formation was held before the present state."""
        return {"held": (1,)}

    def lay_out(
        self, state: BatchState, env_ids: Int64[ndarray, " selected"], unit: Float64[ndarray, "selected n"]
    ) -> Float64[ndarray, "selected drones 3"]:
        """A polygon to start from; a polygon or a line to form, whose places are dealt out at random."""
        count = self.num_drones
        radius = 0.5 * SPACING / np.sin(np.pi / count)
        places = np.argsort(unit[:, 3:], axis=1)
        toward = 2 * np.pi * unit[:, 1:2]
        start, wanted = np.tile(CENTER, (2, len(unit), count, 1))
        start[..., :2] += radius * _direction(2 * np.pi * (unit[:, :1] + np.arange(count) / count))
        polygon = radius * _direction(toward + 2 * np.pi * places / count)
        line = SPACING * (places - 0.5 * (count - 1))[..., None] * _direction(toward)
        wanted[..., :2] += np.where(unit[:, 2, None, None] < 0.5, polygon, line)
        state.mocap_pos[env_ids] = wanted
        return start

    def environment_field(self) -> FieldSpec:
        """Where a drone's place and the other drones are from it, for every drone."""
        others = [f"to_neighbor{index}" for index in range(self.num_drones - 1)]
        names = tuple(f"{name}_{axis}" for name in ("to_place", *others) for axis in "xyz")
        resolution = (*(SUCCESS_DISTANCE,) * 3, *(self.config.min_distance,) * (len(names) - 3))
        return FieldSpec(
            name="observation.environment_state",
            shape=(self.num_drones * len(names),),
            element_names=drone_names(names, self.num_drones),
            units=("m",),
            resolution=resolution * self.num_drones,
        )

    def observe_environment(self, state: BatchState) -> Float64[ndarray, "num_envs field"]:
        """See `environment_field`; neighbours in the order of their numbers."""
        count, position = self.num_drones, self.position(state)
        seen = np.empty((len(position), count, count, 3))
        seen[:, :, 0] = state.mocap_pos - position
        for drone in range(count):
            others = [other for other in range(count) if other != drone]
            seen[:, drone, 1:] = position[:, others] - position[:, drone : drone + 1]
        return seen.reshape(len(position), -1)

    def _distance(self, state: BatchState) -> Float64[ndarray, "num_envs drones"]:
        away = state.mocap_pos - self.position(state)
        return np.sqrt(np.einsum("nda,nda->nd", away, away))

    def _held(self, state: BatchState) -> Float64[ndarray, " num_envs"]:
        """For how many steps, the present one included, all drones have been at their places and slow."""
        velocity = self.velocity(state)
        slow = np.einsum("nda,nda->nd", velocity, velocity) < SUCCESS_SPEED**2
        there = (slow & (self._distance(state) < SUCCESS_DISTANCE)).all(axis=1)
        return np.where(there, state.extras["held"][:, 0] + 1, 0)

    def commit(self, state: BatchState) -> None:
        """Count."""
        state.extras["held"][:, 0] = self._held(state)

    def success(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """Held for long enough."""
        return self._held(state) >= HOLD * self.config.control_rate

    def reward(self, state: BatchState, success: Bool[ndarray, " num_envs"]) -> Float64[ndarray, " num_envs"]:
        """See the class."""
        del success
        return (1.0 / (1.0 + self._distance(state) / HALF_REWARD)).mean(axis=1)

    def crashed(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """Into each other, too."""
        position = self.position(state)
        first, second = np.triu_indices(self.num_drones, 1)
        apart = position[:, first] - position[:, second]
        collided = np.einsum("npa,npa->np", apart, apart) < self.config.min_distance**2
        return super().crashed(state) | collided.any(axis=1)

    def reference(self, state: BatchState) -> Reference:
        """Every drone climbs to a height of its own, flies above or below its place, and goes there."""
        start, end = state.extras["start"], state.mocap_pos
        number = np.arange(self.num_drones) / (self.num_drones - 1) - 0.5
        height = CENTER[2] + min(LAYERS, LAYER * (self.num_drones - 1)) * number
        above_start, above_end = start.copy(), end.copy()
        above_start[..., 2] = above_end[..., 2] = height
        points = np.stack([start, above_start, above_end, end], axis=1)
        way = np.linalg.norm(above_end - above_start, axis=-1).max(axis=1) / PASSAGE
        climb = np.full_like(way, CLIMB)
        return through(
            points, np.zeros_like(points), np.stack([climb, np.maximum(way, 1.0), climb], axis=1), state.time
        )


def _direction(angle: Float64[ndarray, "batch drones"]) -> Float64[ndarray, "batch drones 2"]:
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)

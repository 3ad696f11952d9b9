"""Follow a figure-eight for one round."""

import mujoco
import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from alula.core.geometry import quaternion_from_yaw, rotate_by_yaw
from alula.core.spaces import FieldSpec
from alula.sims.engine import BatchState
from alula.sims.scenery import add_camera
from alula.sims.tasks.quadcopter.base import QuadcopterTask
from alula.sims.tasks.quadcopter.config import TrackConfig
from alula.sims.tasks.quadcopter.scene import MARK_COLOR, add_mark
from alula.sims.tasks.quadcopter.trajectories import Reference

CENTER = np.array([0.0, 0.0, 1.0])
"""Of the figure [m]."""
RISE = 0.2
"""Height of the figure's tips above its centre, one up, one down [m]."""
START_ERROR = 0.05
"""Largest initial distance from the reference along each axis [m]."""
LOOKAHEAD = (0.0, 0.1, 0.2, 0.4, 0.8)
"""The references of these times from now are observed [s]."""
HALF_REWARD = 0.1
"""Distance from the reference at which the reward is one half [m]."""
DOTS = 48
"""They draw the figure."""
POSITION = 0
"""In a path."""


class Track(QuadcopterTask):
    """Success if after the round the root mean square of the distance to the reference is within `bound`.

    The figure is Gerono's lemniscate (sin θ, ½ sin 2θ) with rising tips, turned about the vertical. θ goes from 0 to 2π
    along a minimum-jerk profile: the reference begins and ends at rest. The reward of a step is 1 / (1 + d / 0.1 m)
    with the distance d to the reference; the episode ends with the round or a crash.
    """

    config: TrackConfig
    num_draws = 4

    def __init__(self, config: TrackConfig) -> None:
        super().__init__(config)
        self.path = _path(config)

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """The reference, and dots along the figure."""
        add_camera(spec.worldbody, "overview", (1.5, -1.5, 1.9), (0, 0, 0.9), fovy=45)
        add_mark(spec, "reference", 0.03)
        figure = spec.worldbody.add_body(name="figure", mocap=True)
        angles = 2 * np.pi * np.arange(DOTS) / DOTS
        for dot in _figure(angles, self.config.size)[0]:
            figure.add_site(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.008, 0, 0], pos=list(dot), rgba=list(MARK_COLOR))

    def memory(self) -> dict[str, tuple[int, ...]]:
        """Direction of the figure [rad], and the sum of squared errors before the present state [m²]."""
        return {"direction": (1,), "squared_error": (1,)}

    def lay_out(
        self, state: BatchState, env_ids: Int64[ndarray, " selected"], unit: Float64[ndarray, "selected n"]
    ) -> Float64[ndarray, "selected drones 3"]:
        """The figure in any direction; the drone near its centre, where the reference begins."""
        direction = 2 * np.pi * unit[:, 0] - np.pi
        state.extras["direction"][env_ids, 0] = direction
        state.mocap_pos[env_ids, :2] = CENTER
        state.mocap_quat[env_ids, 1] = quaternion_from_yaw(direction)
        return (CENTER + START_ERROR * (2 * unit[:, 1:] - 1))[:, None]

    def _at(self, state: BatchState, quantity: int, seconds: float = 0.0) -> Float64[ndarray, "num_envs 3"]:
        """The reference's position [m], velocity [m/s] or acceleration [m/s²] in the world, some time from now."""
        step = np.rint((state.time + seconds) * self.config.control_rate).astype(np.int64)
        vector = self.path[quantity, np.minimum(step, self.path.shape[1] - 1)]
        return rotate_by_yaw(vector, state.extras["direction"][:, 0])

    def reference(self, state: BatchState) -> Reference:
        """The figure's."""
        position, velocity, acceleration = (self._at(state, quantity)[:, None] for quantity in range(3))
        return Reference(CENTER + position, velocity, acceleration)

    def environment_field(self) -> FieldSpec:
        """Where the references of now and of the next moments are from the drone."""
        ahead = [round(1000 * seconds) for seconds in LOOKAHEAD]
        return FieldSpec(
            name="observation.environment_state",
            shape=(3 * len(ahead),),
            element_names=tuple(f"to_reference_{axis}_in_{ms}_ms" for ms in ahead for axis in "xyz"),
            units=("m",),
            resolution=(0.05,),
        )

    def observe_environment(self, state: BatchState) -> Float64[ndarray, "num_envs field"]:
        """See `environment_field`."""
        from_center = CENTER - state.qpos[:, :3]
        return np.concatenate([from_center + self._at(state, POSITION, seconds) for seconds in LOOKAHEAD], axis=1)

    def _squared_error(self, state: BatchState) -> Float64[ndarray, " num_envs"]:
        away = CENTER + self._at(state, POSITION) - state.qpos[:, :3]
        return np.einsum("na,na->n", away, away)

    def commit(self, state: BatchState) -> None:
        """Add up the error, and show the reference that is to be reached next."""
        state.extras["squared_error"][:, 0] += self._squared_error(state)
        state.mocap_pos[:, 0] = CENTER + self._at(state, POSITION, 1.0 / self.config.control_rate)

    def _finished(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        return state.time > self.config.lap - 0.5 / self.config.control_rate

    def success(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """The round is over, and its error small."""
        total = state.extras["squared_error"][:, 0] + self._squared_error(state)
        mean = total / (self.config.lap * self.config.control_rate)
        return self._finished(state) & (mean <= self.config.bound**2)

    def reward(self, state: BatchState, success: Bool[ndarray, " num_envs"]) -> Float64[ndarray, " num_envs"]:
        """See the class."""
        del success
        return 1.0 / (1.0 + np.sqrt(self._squared_error(state)) / HALF_REWARD)

    def terminated(self, state: BatchState, success: Bool[ndarray, " num_envs"]) -> Bool[ndarray, " num_envs"]:
        """With the round, or on a crash."""
        return self._finished(state) | self.crashed(state)


def _path(config: TrackConfig) -> Float64[ndarray, "3 steps 3"]:
    """Position from the centre [m], velocity [m/s] and acceleration [m/s²] at every control step of the round."""
    steps = round(config.lap * config.control_rate)
    share, lap = np.arange(steps + 1)[:, None] / steps, config.lap
    angle = 2 * np.pi * share**3 * (10 - 15 * share + 6 * share**2)
    rate = 2 * np.pi / lap * 30 * share**2 * (1 - share) ** 2
    growth = 2 * np.pi / lap**2 * 60 * share * (1 - share) * (1 - 2 * share)
    point, slope, bend = _figure(angle[:, 0], config.size)
    return np.stack([point, slope * rate, slope * growth + bend * rate**2])


def _figure(
    angle: Float64[ndarray, " batch"], size: float
) -> tuple[Float64[ndarray, "batch 3"], Float64[ndarray, "batch 3"], Float64[ndarray, "batch 3"]]:
    """Points of the lemniscate [m], and their first and second derivatives by the angle."""
    one, two = (np.sin(angle), np.cos(angle)), (np.sin(2 * angle), np.cos(2 * angle))
    rise = RISE / size
    point = np.stack([one[0], 0.5 * two[0], rise * one[0]], axis=-1)
    slope = np.stack([one[1], two[1], rise * one[1]], axis=-1)
    bend = np.stack([-one[0], -2 * two[0], -rise * one[0]], axis=-1)
    return size * point, size * slope, size * bend

"""Fly through a random sequence of gates, in order."""

from collections.abc import Mapping

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from numpy import ndarray

from alula.core.geometry import quaternion_from_yaw
from alula.core.spaces import FieldSpec
from alula.sims.engine import BatchState
from alula.sims.quadcopters.crazyflie import CRAZYFLIE
from alula.sims.scenery import add_camera
from alula.sims.tasks.quadcopter.base import QuadcopterTask
from alula.sims.tasks.quadcopter.config import GatesConfig
from alula.sims.tasks.quadcopter.trajectories import Reference, through

FRAME = 0.08
"""Width of a gate's bars [m]."""
SPACING = (0.9, 1.3)
"""Range of distances between gates, seen from above [m]."""
BEND = 0.9
"""Largest change of direction at a gate, either way [rad]."""
HEIGHT = (0.7, 1.3)
"""Range of the heights of gates' centres [m]."""
PASS_REWARD = 1.0
"""Of a gate."""
SPEED = 0.9
"""Of the expert through gates [m/s]."""
LEAD_OUT = 0.4
"""The expert flies on so far behind the last gate [m]."""
COLORS = ((0.90, 0.45, 0.13, 1.0), (0.20, 0.42, 0.66, 1.0))
"""Of odd and even gates."""


class Gates(QuadcopterTask):
    """Success once all gates were flown through in order, from the front; it ends the episode.

    Passing is decided by where the straight line of a control step crosses a gate's plane: the drone must fit into the
    opening; touching the frame of any gate, from either side, is a crash. The reward of a step is how much nearer it
    came to the next gate's centre [m], plus 1 for passing it.
    """

    config: GatesConfig

    def __init__(self, config: GatesConfig) -> None:
        self.num_draws = 2 + 3 * config.num_gates
        self.arena = 1.0 + SPACING[1] * config.num_gates
        super().__init__(config)

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """The gates, whose frames nothing touches physically; the camera flies along."""
        drone = spec.body("drone0")
        add_camera(drone, "overview", (-0.9, -1.0, 0.7), (0.2, 0.2, -0.05), fovy=60)
        spec.camera("overview").mode = mujoco.mjtCamLight.mjCAMLIGHT_TRACK
        half, bar = self.config.opening / 2, FRAME / 2
        long = half + FRAME
        for number in range(self.config.num_gates):
            gate = spec.worldbody.add_body(name=f"gate{number}", mocap=True)
            for side in (-1, 1):
                for position, size in (
                    ([0, side * (half + bar), 0], [0.01, bar, long]),
                    ([0, 0, side * (half + bar)], [0.01, half, bar]),
                ):
                    gate.add_geom(
                        type=mujoco.mjtGeom.mjGEOM_BOX,
                        pos=position,
                        size=size,
                        rgba=list(COLORS[number % 2]),
                        contype=0,
                        conaffinity=0,
                    )

    def memory(self) -> dict[str, tuple[int, ...]]:
        """The gates' directions; position and gates passed before the last step; what `forward` makes of it."""
        return {"direction": (self.config.num_gates, 2), "before": (3,), "gate": (1,), "passed": (1,), "hit": (1,)}

    def lay_out(
        self, state: BatchState, env_ids: Int64[ndarray, " selected"], unit: Float64[ndarray, "selected n"]
    ) -> Float64[ndarray, "selected drones 3"]:
        """A chain of gates that bends at each; every gate stands across the bend."""
        gates = self.config.num_gates
        turns = BEND * (2 * unit[:, : gates + 1] - 1)
        turns[:, 0] *= np.pi / BEND
        lengths = SPACING[0] + (SPACING[1] - SPACING[0]) * unit[:, gates + 1 : 2 * gates + 1]
        heading = np.cumsum(turns[:, :gates], axis=1)
        x, y = (np.cumsum(lengths * function(heading), axis=1) for function in (np.cos, np.sin))
        middle = np.stack([x[:, -1], y[:, -1]], axis=-1) / 2
        across = heading + turns[:, 1:] / 2
        state.mocap_pos[env_ids, :, 0], state.mocap_pos[env_ids, :, 1] = x - middle[:, :1], y - middle[:, 1:]
        state.mocap_pos[env_ids, :, 2] = HEIGHT[0] + (HEIGHT[1] - HEIGHT[0]) * unit[:, 2 * gates + 1 : 3 * gates + 1]
        state.mocap_quat[env_ids] = quaternion_from_yaw(across.ravel()).reshape(-1, gates, 4)
        state.extras["direction"][env_ids] = np.stack([np.cos(across), np.sin(across)], axis=-1)
        start = np.concatenate([-middle, np.full((len(unit), 1), np.mean(HEIGHT))], axis=1)
        state.extras["before"][env_ids] = start
        return start[:, None]

    def forward(self, state: BatchState) -> None:
        """Also which gates the last step went through, and whether it hit one."""
        super().forward(state)
        with np.errstate(invalid="ignore", over="ignore"):  # where a step began diverged
            passes, hits = self._crossings(state)
        gate = state.extras["gate"][:, 0]
        ahead = np.minimum(gate, self.config.num_gates - 1).astype(np.int64)
        state.extras["passed"][:, 0] = gate + passes[np.arange(len(gate)), ahead]
        state.extras["hit"][:, 0] = hits.any(axis=1)

    def _crossings(self, state: BatchState) -> tuple[Bool[ndarray, "num_envs gates"], Bool[ndarray, "num_envs gates"]]:
        """For every gate, whether the last step led through its opening from the front, and whether into its frame."""
        (along, left, up), (along_before, left_before, up_before) = (
            self._in_gates(state, position) for position in (state.qpos[:, :3], state.extras["before"])
        )
        crossed = (along >= 0) != (along_before >= 0)
        share = along_before / np.where(crossed, along_before - along, 1.0)
        left = np.abs(left_before + share * (left - left_before))
        up = np.abs(up_before + share * (up - up_before))
        half, radius, height = self.config.opening / 2, CRAZYFLIE.collision_radius, CRAZYFLIE.collision_height / 2
        fits = (left < half - radius) & (up < half - height)
        reaches = (left < half + FRAME + radius) & (up < half + FRAME + height)
        return crossed & fits & (along >= 0), crossed & reaches & ~fits

    def _in_gates(
        self, state: BatchState, position: Float64[ndarray, "num_envs 3"]
    ) -> tuple[ndarray, ndarray, ndarray]:
        """A position along every gate's axis, to its left and above its centre [m]: (num_envs, gates) each."""
        x, y, z = np.moveaxis(position[:, None] - state.mocap_pos, -1, 0)
        cos, sin = np.moveaxis(state.extras["direction"], -1, 0)
        return cos * x + sin * y, cos * y - sin * x, z

    def commit(self, state: BatchState) -> None:
        """Where the next step begins."""
        state.extras["before"][:] = state.qpos[:, :3]
        state.extras["gate"][:] = state.extras["passed"]

    def environment_field(self) -> FieldSpec:
        """Where the next gate and the one after it are from the drone, where they point, and how many are left."""
        gate = ("to_{0}_x", "to_{0}_y", "to_{0}_z", "{0}_cos", "{0}_sin")
        names = (*(name.format("next") for name in gate), *(name.format("second") for name in gate), "gates_left")
        units = (*(*("m",) * 3, "1", "1") * 2, "1")
        resolution = (*(0.1, 0.1, 0.1, 0.0, 0.0) * 2, 0.0)
        return FieldSpec("observation.environment_state", (11,), "float32", units, names, resolution=resolution)

    def place(self, state: BatchState, poses: Mapping[str, Float[ndarray, "num_envs 7"]]) -> None:
        """See `Task.place`; gates stand upright."""
        super().place(state, poses)
        w, x, y, z = np.moveaxis(state.mocap_quat, -1, 0)
        yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        state.extras["direction"][:] = np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)

    def observe_environment(self, state: BatchState) -> Float64[ndarray, "num_envs field"]:
        """See `environment_field`."""
        passed = state.extras["passed"][:, 0].astype(np.int64)
        seen = np.empty((len(passed), 11))
        for column, number in ((0, passed), (5, passed + 1)):
            ahead = np.arange(len(passed)), np.minimum(number, self.config.num_gates - 1)
            seen[:, column : column + 3] = state.mocap_pos[ahead] - state.qpos[:, :3]
            seen[:, column + 3 : column + 5] = state.extras["direction"][ahead]
        seen[:, 10] = self.config.num_gates - passed
        return seen

    def success(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """All passed."""
        return state.extras["passed"][:, 0] >= self.config.num_gates

    def reward(self, state: BatchState, success: Bool[ndarray, " num_envs"]) -> Float64[ndarray, " num_envs"]:
        """See the class."""
        del success
        gate, passed = state.extras["gate"][:, 0], state.extras["passed"][:, 0]
        ahead = np.arange(len(gate)), np.minimum(gate, self.config.num_gates - 1).astype(np.int64)
        center = state.mocap_pos[ahead]
        before = np.linalg.norm(state.extras["before"] - center, axis=1)
        after = np.linalg.norm(state.qpos[:, :3] - center, axis=1)
        return before - after + PASS_REWARD * (passed - gate)

    def crashed(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """Into a frame, too."""
        return super().crashed(state) | (state.extras["hit"][:, 0] > 0)

    def reference(self, state: BatchState) -> Reference:
        """Through the gates' centres along their axes at a steady pace, and a little further."""
        forward = np.concatenate(
            [state.extras["direction"], np.zeros((len(state.time), self.config.num_gates, 1))], axis=2
        )
        end = state.mocap_pos[:, -1:] + LEAD_OUT * forward[:, -1:]
        points = np.concatenate([state.extras["start"], state.mocap_pos, end], axis=1)
        velocities = np.zeros_like(points)
        velocities[:, 1:-1] = SPEED * forward
        durations = np.linalg.norm(np.diff(points, axis=1), axis=-1) / SPEED
        durations[:, [0, -1]] *= 2  # from and to rest
        return through(points[:, :, None], velocities[:, :, None], durations, state.time)

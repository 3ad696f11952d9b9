"""What quadcopter tasks share: the drones, how they start, what they feel and how they are commanded."""

from abc import abstractmethod

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64
from numpy import ndarray

from alula.core.geometry import rotation_from_quaternion
from alula.core.seeding import BatchRng
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.sims.engine import BatchState, Engine
from alula.sims.quadcopters.action_modes import MODES, convert, drone_names
from alula.sims.quadcopters.controllers import CONTROLLERS, Motion
from alula.sims.quadcopters.crazyflie import CRAZYFLIE, add_crazyflie
from alula.sims.quadcopters.engines import make_quadcopter_engine
from alula.sims.task import Task
from alula.sims.tasks.quadcopter.config import QuadcopterConfig
from alula.sims.tasks.quadcopter.expert import Pilot
from alula.sims.tasks.quadcopter.scene import empty_arena
from alula.sims.tasks.quadcopter.trajectories import Points, Reference

STATE_NAMES = (
    *("x", "y", "z"),
    *("xx", "xy", "xz", "yx", "yy", "yz", "zx", "zy", "zz"),
    *("velocity_x", "velocity_y", "velocity_z"),
    *("rate_x", "rate_y", "rate_z"),
)
STATE_UNITS = (*("m",) * 3, *("1",) * 9, *("m/s",) * 3, *("rad/s",) * 3)


class QuadcopterTask(Task):
    """One or more Crazyflies over a floor.

    A task says what else there is (`furnish`, `lay_out`), what is seen of it (`environment_field`,
    `observe_environment`), when it is solved (`success`) and how (`reference`). The drones' part of the observation,
    the action, the reset and crashes are done here.

    What a task counts over an episode is committed at the beginning of a step (`commit`), so that all else is a
    function of the state.
    """

    camera = "overview"
    arena = 3.0
    """Half the side of the square that drones may fly over [m]."""
    ceiling = 3.0
    """Height that drones may fly at [m]."""
    ground = 0.03
    """A drone's centre below this height has crashed [m]: the arms are about to touch the floor."""
    num_draws: int
    """Uniform numbers that `lay_out` needs per episode."""

    def __init__(self, config: QuadcopterConfig, num_drones: int = 1) -> None:
        self.config = config
        self.randomization = config.randomization
        self.num_drones = num_drones
        self.substeps = config.physics_rate // config.control_rate
        self.max_episode_steps = config.max_episode_steps
        self.controller = CONTROLLERS[config.controller](config.control_rate, config.aerodynamics.motor_lag)
        spec = empty_arena(config.physics_rate)
        for drone in range(num_drones):
            add_crazyflie(spec, f"drone{drone}", (0.5 * drone, 0.0, 1.0))
        self.furnish(spec)
        self.model: mujoco.MjModel = spec.compile()
        own = {"rotation": (num_drones, 3, 3), "controller": (num_drones, self.controller.memory_size)}
        self.extras = {**own, "start": (num_drones, 3), **self.memory()}
        self.action = SpaceSpec((MODES[config.action_mode].field(num_drones, config.control_rate),))
        self.observation = SpaceSpec((self._state_field(), self.environment_field()))

    @abstractmethod
    def furnish(self, spec: mujoco.MjSpec) -> None:
        """Add the camera, and what is in the arena beside the drones."""

    @abstractmethod
    def lay_out(
        self, state: BatchState, env_ids: Int64[ndarray, " selected"], unit: Float64[ndarray, "selected n"]
    ) -> Float64[ndarray, "selected drones 3"]:
        """Place the things of a new episode, by `num_draws` uniform numbers of [0, 1) each.

        Returns:
            Where the drones start [m].
        """

    @abstractmethod
    def environment_field(self) -> FieldSpec:
        """What is seen beside the drones' own motion."""

    @abstractmethod
    def observe_environment(self, state: BatchState) -> Float[ndarray, "num_envs field"]:
        """See `environment_field`."""

    @abstractmethod
    def reference(self, state: BatchState) -> Reference:
        """Where the expert wants the drones to be now."""

    def memory(self) -> dict[str, tuple[int, ...]]:
        """Further arrays per environment: name and shape of one environment's entry."""
        return {}

    def commit(self, state: BatchState) -> None:
        """Write down, before the next step, what of the present state must be remembered; by default nothing."""
        del state

    def make_engine(self, num_envs: int, num_threads: int | None) -> Engine:
        """The configured physics."""
        aerodynamics, engine = self.config.aerodynamics, self.config.engine
        return make_quadcopter_engine(
            engine, self.model, num_envs, self.num_drones, self.substeps, self.extras, aerodynamics, num_threads
        )

    def motion(self, state: BatchState) -> Motion:
        """What a flight controller measures."""
        pose, velocity, rotor_speed = (
            self._components(array) for array in (state.qpos, state.qvel, state.extras["rotor_speed"])
        )
        rotation = np.moveaxis(state.extras["rotation"], (0, 1), (2, 3))
        return Motion(pose[:3], rotation, velocity[:3], velocity[3:], rotor_speed)

    def _components(self, array: Float[ndarray, "num_envs elements"]) -> Float[ndarray, "component num_envs drones"]:
        """A contiguous copy with the components of a drone in front, as flight controllers want it."""
        return np.ascontiguousarray(np.moveaxis(array.reshape(len(array), self.num_drones, -1), -1, 0))

    def position(self, state: BatchState) -> Points:
        """Centres of the drones [m]; a view of the state."""
        return state.qpos.reshape(len(state.time), self.num_drones, 7)[..., :3]

    def velocity(self, state: BatchState) -> Points:
        """Velocities of the drones [m/s]; a view of the state."""
        return state.qvel.reshape(len(state.time), self.num_drones, 6)[..., :3]

    def reset(self, state: BatchState, env_ids: Int64[ndarray, " selected"], rng: BatchRng) -> None:
        """Draw the scene, and the drones' attitudes and velocities."""
        count, drones = len(env_ids), self.num_drones
        unit = rng.uniform(env_ids, 0.0, 1.0, self.num_draws + 6 * drones)  # one draw of all, because each call costs
        either_way = (2 * unit[:, self.num_draws :] - 1).reshape(count, drones, 6)
        start = self.lay_out(state, env_ids, unit[:, : self.num_draws])
        turn = self.config.start_tilt * either_way[..., :3]
        angle = np.sqrt((turn**2).sum(axis=-1, keepdims=True))
        qpos, qvel = np.zeros((count, drones, 7)), np.zeros((count, drones, 6))
        qpos[..., :3] = state.extras["start"][env_ids] = start
        qpos[..., 3:4] = np.cos(angle / 2)
        qpos[..., 4:] = 0.5 * np.sinc(angle / (2 * np.pi)) * turn
        qvel[..., :3] = self.config.start_speed * either_way[..., 3:]
        state.qpos[env_ids], state.qvel[env_ids] = qpos.reshape(count, -1), qvel.reshape(count, -1)
        state.ctrl[env_ids] = state.extras["rotor_speed"][env_ids] = CRAZYFLIE.hover_speed
        state.extras["rotation"][env_ids] = _rotations(qpos)

    def forward(self, state: BatchState) -> None:
        """Rotation matrices of the drones."""
        state.extras["rotation"][:] = _rotations(state.qpos.reshape(len(state.time), self.num_drones, 7))

    def control(self, state: BatchState, action: Float[ndarray, "num_envs action"]) -> None:
        """Run the flight controller from the action's mode down to the rotors."""
        with np.errstate(invalid="ignore", over="ignore"):  # environments that are about to be found diverged
            self.commit(state)
            command, memory = self._components(action), np.moveaxis(state.extras["controller"], -1, 0)
            mode = self.config.action_mode
            speeds = convert(self.controller, self.motion(state), command, memory, mode, "rotor_speed")
        state.ctrl[:] = np.moveaxis(speeds, 0, -1).reshape(state.ctrl.shape)

    def observe(self, state: BatchState) -> dict[str, Float32[ndarray, "num_envs field"]]:
        """Pose, as position and rotation matrix, and velocities of every drone; and what the task adds."""
        own = np.empty((len(state.time), self.num_drones, len(STATE_NAMES)), dtype=np.float32)
        own[..., :3] = self.position(state)
        own[..., 3:12] = state.extras["rotation"].reshape(*own.shape[:2], 9)
        own[..., 12:] = state.qvel.reshape(*own.shape[:2], 6)
        return {
            "observation.state": own.reshape(len(own), -1),
            "observation.environment_state": self.observe_environment(state).astype(np.float32, copy=False),
        }

    def crashed(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """A drone is on the floor, or has left the arena."""
        x, y, z = np.moveaxis(self.position(state), -1, 0)
        out = (np.maximum(np.abs(x), np.abs(y)) > self.arena) | (z > self.ceiling) | (z < self.ground)
        return out.any(axis=1)

    def terminated(self, state: BatchState, success: Bool[ndarray, " num_envs"]) -> Bool[ndarray, " num_envs"]:
        """On success or a crash."""
        return success | self.crashed(state)

    def expert(self, noise: float, seed: int) -> Pilot:
        """See `Pilot`."""
        mode, field = self.config.action_mode, self.action["action"]
        return Pilot(self.controller, self.motion, self.reference, mode, field, noise, seed)

    def _state_field(self) -> FieldSpec:
        count = self.num_drones
        return FieldSpec(
            name="observation.state",
            shape=(len(STATE_NAMES) * count,),
            element_names=drone_names(STATE_NAMES, count),
            units=STATE_UNITS * count,
        )


def _rotations(poses: Float64[ndarray, "num_envs drones 7"]) -> Float64[ndarray, "num_envs drones 3 3"]:
    return rotation_from_quaternion(poses[..., 3:].reshape(-1, 4)).reshape(*poses.shape[:2], 3, 3)

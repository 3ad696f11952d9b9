"""What Gymnasium's MuJoCo environments of version 5 share: the model's file, the reward's parts, the start's noise."""

import warnings
from collections.abc import Callable
from functools import reduce
from importlib.resources import files
from types import MappingProxyType

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from numpy import ndarray

from alula.core.seeding import BatchRng, box_muller
from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec
from alula.sims.engine import BatchState
from alula.sims.mujoco_engine import MujocoEngine
from alula.sims.task import Task
from alula.sims.tasks.locomotion.config import LocomotionConfig
from alula.sims.tasks.locomotion.expert import Gait, GaitExpert

Element = tuple[str, str]
"""Name and unit of one element of an observation."""


def uniform(unit: Float64[ndarray, "selected twice"]) -> Float64[ndarray, "selected once"]:
    """Numbers in [-1, 1), made of twice as many in [0, 1)."""
    return 2.0 * unit[:, ::2] - 1.0


def normal(unit: Float64[ndarray, "selected twice"]) -> Float64[ndarray, "selected once"]:
    """Numbers from N(0, 1), made of twice as many in [0, 1)."""
    return box_muller(unit, 1.0)


class LocomotionTask(Task):
    """Run along x by motor torques: the reward is the speed, something for not falling, less the effort.

    Subclasses say what differs; their numbers are the defaults of Gymnasium's arguments.
    """

    camera = "track"
    extras = MappingProxyType({"before": (), "healthy": ()})
    """Where the last step began [m], and 1 while `healthy`, else 0."""

    file: str
    """Model among Gymnasium's."""
    gait: str
    """Name of its expert's file in `experts/`."""
    hidden = 1
    """Leading elements of `qpos` that are not observed: where it runs must not matter."""
    speed_limit = np.inf
    """Observed velocities are clipped to this [m/s, rad/s]."""
    effort_weight: float
    """Price of one motor's full torque."""
    survival_reward = 1.0
    """Reward of a step at whose end it is healthy."""
    start_noise: float
    """Scale of the random start around the model's initial state [m, rad, m/s, rad/s]; uniform for positions."""
    velocity_noise: Callable[[Float64[ndarray, "selected twice"]], Float64[ndarray, "selected once"]]
    """`uniform` or `normal`."""

    def __init__(self, config: LocomotionConfig) -> None:
        self.config = config
        self.randomization = config.randomization
        self.max_episode_steps = config.max_episode_steps
        self.model = _load(self.file)
        self.observation = SpaceSpec((self._observation_field(),))
        self.action = SpaceSpec((self._action_field(),))

    def make_engine(self, num_envs: int, num_threads: int | None) -> MujocoEngine:
        """MuJoCo; one body on a floor is about equally much work in every environment."""
        return MujocoEngine(self.model, num_envs, self.substeps, self.extras, num_threads, chunks_per_thread=2)

    def _observation_field(self) -> FieldSpec:
        names, units = zip(*self.elements(), strict=True)
        return FieldSpec(
            name="observation.state", shape=(len(names),), dtype="float64", units=units, element_names=names
        )

    def _action_field(self) -> FieldSpec:
        low, high = self.model.actuator_ctrlrange.T.tolist()
        return FieldSpec(
            name="action",
            shape=(self.model.nu,),
            element_names=tuple(self.model.joint(joint).name for joint in self.model.actuator_trnid[:, 0]),
            low=tuple(low),
            high=tuple(high),
            control_mode=ControlMode.TORQUE,
            rate=self.control_rate,
        )

    def elements(self) -> list[Element]:
        """What is observed, in order."""
        positions, velocities = _coordinates(self.model)
        return positions[self.hidden :] + velocities

    def position(self, state: BatchState) -> Float64[ndarray, " num_envs"]:
        """Where the reward has it [m]."""
        return state.qpos[:, 0]

    def healthy(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """Whether it is upright enough to go on; by default always."""
        return np.ones(len(state.qpos), dtype=bool)

    def reset(self, state: BatchState, env_ids: Int64[ndarray, " selected"], rng: BatchRng) -> None:
        """Near the model's initial state."""
        nq, nv = self.model.nq, self.model.nv
        unit = rng.uniform(env_ids, 0.0, 1.0, 2 * (nq + nv))
        state.qpos[env_ids] += self.start_noise * uniform(unit[:, : 2 * nq])
        state.qvel[env_ids] += self.start_noise * self.velocity_noise(unit[:, 2 * nq :])
        state.extras["before"][env_ids] = state.qpos[env_ids, 0]
        state.extras["healthy"][env_ids] = 1.0

    def control(self, state: BatchState, action: Float[ndarray, "num_envs action"]) -> None:
        """Motors take the action as it is."""
        state.extras["before"][:] = self.position(state)
        state.ctrl[:] = action

    def forward(self, state: BatchState) -> None:
        """Judge its health once for all who ask."""
        state.extras["healthy"][:] = self.healthy(state)

    def observe(self, state: BatchState) -> dict[str, Float64[ndarray, "num_envs field"]]:
        """Positions without `hidden`, and velocities."""
        velocities = np.clip(state.qvel, -self.speed_limit, self.speed_limit)
        return {"observation.state": np.concatenate((state.qpos[:, self.hidden :], velocities), axis=1)}

    def rewards(self, state: BatchState) -> dict[str, Float[ndarray, " num_envs"]]:
        """The parts of the reward, by Gymnasium's names."""
        # Gymnasium squares an action in its own type, and actions are of single precision.
        effort = np.square(state.ctrl.astype(np.float32)).sum(axis=1)
        return {
            "reward_forward": (self.position(state) - state.extras["before"]) * self.control_rate,
            "reward_survive": self.survival_reward * state.extras["healthy"],
            "reward_ctrl": -self.effort_weight * effort,
        }

    def reward(self, state: BatchState, success: Bool[ndarray, " num_envs"]) -> Float64[ndarray, " num_envs"]:
        """Sum of the parts; success adds nothing."""
        del success
        return reduce(np.add, self.rewards(state).values())

    def terminated(self, state: BatchState, success: Bool[ndarray, " num_envs"]) -> Bool[ndarray, " num_envs"]:
        """On a fall; success is no reason to stop running."""
        del success
        return state.extras["healthy"] == 0.0

    def success(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """It has come as far as configured, measured from the origin; stays true while it is there."""
        return state.qpos[:, 0] >= self.config.success_distance

    def metrics(self, state: BatchState) -> dict[str, Float[ndarray, " num_envs"]]:
        """Gymnasium's numbers: where it is [m], how fast it was in the last step [m/s], and the reward's parts."""
        rewards = self.rewards(state)
        return {"x_position": state.qpos[:, 0].copy(), "x_velocity": rewards["reward_forward"], **rewards}

    def expert(self, noise: float, seed: int) -> GaitExpert:
        """The gait that `benchmarks/experts/search.py` found."""
        return GaitExpert(self, self.hidden, Gait.load(self.gait), noise, seed)


def _load(file: str) -> mujoco.MjModel:
    spec = mujoco.MjSpec.from_file(str(files("gymnasium") / "envs/mujoco/assets" / file))
    with warnings.catch_warnings():  # HalfCheetah's file fixes its mass in a way that MuJoCo is about to drop.
        warnings.filterwarnings("ignore", "compiler attribute 'settotalmass' is deprecated")
        model = spec.compile()
    # With a single body there is one island; not to look for it changes no bit and saves a tenth of the time.
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_ISLAND
    return model


def _coordinates(model: mujoco.MjModel) -> tuple[list[Element], list[Element]]:
    """Names and units of `qpos` and of `qvel`."""
    positions: list[Element] = []
    velocities: list[Element] = []
    for joint in range(model.njnt):
        name, kind = model.joint(joint).name, model.jnt_type[joint]
        if kind == mujoco.mjtJoint.mjJNT_FREE:
            positions += [(axis, "m") for axis in "xyz"] + [(f"q{axis}", "1") for axis in "wxyz"]
            velocities += [(f"velocity_{axis}", "m/s") for axis in "xyz"] + [
                (f"rate_{axis}", "rad/s") for axis in "xyz"
            ]
        else:
            unit = "m" if kind == mujoco.mjtJoint.mjJNT_SLIDE else "rad"
            positions.append((name, unit))
            velocities.append((f"{name}_velocity", f"{unit}/s"))
    return positions, velocities

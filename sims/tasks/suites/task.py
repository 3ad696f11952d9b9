"""What the adapters share: a task whose dynamics, observations, rewards and success are another suite's own."""

from abc import abstractmethod
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar, NamedTuple, NoReturn

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64
from numpy import ndarray

from alula.core.errors import ConfigError
from alula.core.seeding import BatchRng
from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec
from alula.sims.config import TaskConfig
from alula.sims.engine import BatchState, Engine
from alula.sims.robots.robot import Vector
from alula.sims.scenery import add_camera
from alula.sims.task import Task
from alula.sims.tasks.quadcopter.scene import add_mark
from alula.sims.tasks.suites.engine import SnapshotEngine, SuiteEngine, SuiteState
from alula.sims.tasks.suites.original import Original

STATE, ENVIRONMENT = "observation.state", "observation.environment_state"
CAMERA = "overview"
MARK_RADIUS = 0.02
"""Of the goals in pictures [m]."""


class Part(NamedTuple):
    """Neighbours among the numbers that a suite observes."""

    field: str
    """Which of our fields they belong to."""
    name: str
    size: int
    unit: str

    def element_names(self) -> list[str]:
        """One per number."""
        if self.size == 1:
            return [self.name]
        return [f"{self.name}_{axis}" for axis in ("xyz" if self.size == 3 else range(self.size))]


class SuiteTask(Task):
    """One original environment per row of the batch; the task only translates.

    The originals of closed engines are kept for the next, for to make one can take a second; what an original did
    before does not matter to an episode.

    Args:
        config: Time limit and randomisation.
        parts: The suite's observed numbers in their order.
    """

    suite: ClassVar[str]
    """Its name in prose."""
    package: ClassVar[str]
    """What is imported."""
    remedy: ClassVar[str] = "pip install 'alula[suites]'"
    """How it is installed."""
    engine_class: ClassVar[type[SuiteEngine[Any]]] = SnapshotEngine
    camera = CAMERA

    def __init__(self, config: TaskConfig, parts: Sequence[Part]) -> None:
        self.randomization, self.max_episode_steps = config.randomization, config.max_episode_steps
        fields = np.repeat([part.field for part in parts], [part.size for part in parts])
        names = np.array([name for part in parts for name in part.element_names()])
        units = np.repeat([part.unit for part in parts], [part.size for part in parts])
        self._elements = {str(field): np.flatnonzero(fields == field) for field in dict.fromkeys(fields.tolist())}
        self.observation = SpaceSpec(
            tuple(
                FieldSpec(field, chosen.shape, units=_strings(units[chosen]), element_names=_strings(names[chosen]))
                for field, chosen in self._elements.items()
            )
        )
        self._idle: list[Any] = []

    @classmethod
    def require(cls, module: str) -> Any:
        """A module of the suite.

        Raises:
            ConfigError: the suite is not installed, or misses something itself.
        """
        if find_spec(cls.package) is None:
            raise ConfigError(f"this task needs {cls.suite}, which is not installed: {cls.remedy}")
        try:
            return import_module(module)
        except ImportError as error:
            raise ConfigError(f"{cls.suite} is installed, but cannot be imported ({error}): {cls.remedy}") from error

    @abstractmethod
    def make(self) -> Original:
        """One more environment of the suite."""

    def make_engine(self, num_envs: int, num_threads: int | None) -> Engine:
        """One original per environment, on the calling thread."""
        del num_threads
        originals = [self._idle.pop() if self._idle else self.make() for _ in range(num_envs)]
        observed = sum(field.size for field in self.observation.values())
        layout = (self.model, observed, self.action["action"].size, self.substeps)
        return self.engine_class(originals, *layout, self._idle.extend)

    def action_space(
        self, names: Sequence[str], mode: ControlMode, unit: str = "1", low: float = -1.0, high: float = 1.0
    ) -> SpaceSpec:
        """Space of the suite's actions, at the model's control rate.

        Args:
            names: Of the elements.
            mode: What they command.
            unit: Of all elements.
            low: Smallest value of all.
            high: Largest value of all.
        """
        return SpaceSpec(
            (
                FieldSpec(
                    name="action",
                    shape=(len(names),),
                    units=(unit,),
                    element_names=tuple(names),
                    low=(low,),
                    high=(high,),
                    control_mode=mode,
                    rate=self.control_rate,
                ),
            )
        )

    def reset(self, state: BatchState, env_ids: Int64[ndarray, " selected"], rng: BatchRng) -> None:
        """The suite's own episode of a seed that is drawn here."""
        assert isinstance(state, SuiteState)
        seeds = np.floor(rng.uniform(env_ids, 0, 2**31, 1))[:, 0]
        for env, seed in zip(env_ids, seeds, strict=True):
            state.engine.begin(int(env), int(seed))

    def control(self, state: BatchState, action: Float[ndarray, "num_envs action"]) -> None:
        """Handed on as it is."""
        state.ctrl[:] = action

    def observe(self, state: BatchState) -> dict[str, Float32[ndarray, "num_envs field"]]:
        """What the suite observed."""
        observed = state.extras["observed"].astype(np.float32)
        return {name: observed[:, chosen] for name, chosen in self._elements.items()}

    def success(self, state: BatchState) -> Bool[ndarray, " num_envs"]:
        """What the suite calls success."""
        return state.extras["success"][:, 0] > 0.0

    def reward(self, state: BatchState, success: Bool[ndarray, " num_envs"]) -> Float64[ndarray, " num_envs"]:
        """The suite's."""
        del success
        return state.extras["reward"][:, 0].copy()

    def terminated(self, state: BatchState, success: Bool[ndarray, " num_envs"]) -> Bool[ndarray, " num_envs"]:
        """Where the suite ends the episode."""
        del success
        return state.extras["terminated"][:, 0] > 0.0

    def expert(self, noise: float, seed: int) -> NoReturn:
        """There is none.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"{type(self).__name__} of {self.suite} has no scripted expert here; give demonstrations: data=PATH"
        )


def _strings(array: ndarray) -> tuple[str, ...]:
    return tuple(str(entry) for entry in array)


def furnish(spec: mujoco.MjSpec, camera: tuple[Vector, Vector], marks: int = 0) -> mujoco.MjModel:
    """Compile a scene with our camera and, behind all other bodies, goals as mocap bodies.

    Args:
        spec: The suite's model.
        camera: Position and target of the camera [m].
        marks: Number of goals.
    """
    for index in range(marks):
        add_mark(spec, f"goal_{index}", MARK_RADIUS)
    add_camera(spec.worldbody, CAMERA, *camera, fovy=45)
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 960
    return spec.compile()

"""Engines for suites that step one Python object per environment: as slow as these, but under the same contract."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import mujoco
import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from alula.sims.array_engine import within
from alula.sims.engine import BatchState, Engine
from alula.sims.tasks.suites.original import MujocoOriginal, Original, Pose

PREFIX = "original."
"""Of the arrays that an original adds to the saved state."""

Some = TypeVar("Some", bound=Original)


class SuiteState(BatchState):
    """The batch, with the engine behind it: only that can begin an episode."""

    engine: "SuiteEngine[Any]"


class SuiteEngine(Engine, Generic[Some]):
    """One original environment per row; the state's arrays are copies of what these hold.

    An environment that diverges goes back to the beginning of its episode.

    Args:
        originals: The environments.
        scene: Layout of positions, velocities and mocap bodies.
        observed: Numbers in an observation.
        num_controls: Elements of an action.
        substeps: Physics steps per control step.
        release: Takes the environments back when the engine closes.
    """

    def __init__(
        self,
        originals: list[Some],
        scene: mujoco.MjModel,
        observed: int,
        num_controls: int,
        substeps: int,
        release: Callable[[list[Some]], None],
    ) -> None:
        self.originals, self._release = originals, release
        self.num_envs = count = len(originals)
        self.period = substeps * scene.opt.timestep
        extras = {name: np.zeros((count, 1)) for name in ("seed", "reward", "success", "terminated")}
        self.state = SuiteState(
            time=np.zeros(count),
            qpos=np.zeros((count, scene.nq)),
            qvel=np.zeros((count, scene.nv)),
            ctrl=np.zeros((count, num_controls)),
            mocap_pos=np.zeros((count, scene.nmocap, 3)),
            mocap_quat=np.zeros((count, scene.nmocap, 4)),
            sensors=np.zeros((count, substeps, 0)),
            extras=extras | {"observed": np.zeros((count, observed))},
        )
        self.state.engine = self
        for env in range(count):
            self.begin(env, 0)

    def reset_to_model(self, env_ids: Int64[ndarray, " selected"]) -> None:
        """Nothing: originals know no initial state but that of an episode, see `begin`."""

    def begin(self, env: int, seed: int) -> None:
        """Start the episode of `seed` in one environment."""
        state = self.state
        observation = self.originals[env].begin(seed)
        for array in self._arrays().values():
            array[env] = 0.0
        state.extras["seed"][env] = seed
        self._show(env, observation)

    def _show(self, env: int, observation: Float64[ndarray, " numbers"]) -> None:
        state = self.state
        state.qpos[env], state.qvel[env], state.mocap_pos[env], state.mocap_quat[env] = self.originals[env].pose()
        state.extras["observed"][env] = observation

    def advance(self) -> Bool[ndarray, " num_envs"]:
        """See `Engine.advance`."""
        state = self.state
        diverged = ~self._sane()
        for env in np.flatnonzero(~diverged).tolist():
            self._prepare(env)
            outcome = self.originals[env].step(state.ctrl[env])
            self._show(env, outcome.observation)
            for name in ("reward", "success", "terminated"):
                state.extras[name][env] = getattr(outcome, name)
        diverged |= ~self._sane() | np.array([original.diverged for original in self.originals])
        for env in np.flatnonzero(diverged).tolist():
            self.begin(env, int(state.extras["seed"][env, 0]))
        state.time += self.period
        return diverged

    def _sane(self) -> Bool[ndarray, " num_envs"]:
        return within(self.state.qpos) & within(self.state.qvel)

    @abstractmethod
    def _prepare(self, env: int) -> None:
        """What must happen before an original's step."""

    @abstractmethod
    def _hidden(self) -> dict[str, ndarray]:
        """What decides the future beside the state's arrays, copied."""

    @abstractmethod
    def _bring_back(self, saved: Mapping[str, ndarray], env: int) -> None:
        """Put one original into its row of the saved state."""

    def _arrays(self) -> dict[str, ndarray]:
        state = self.state
        names = ("time", "qpos", "qvel", "ctrl", "mocap_pos", "mocap_quat")
        own = {name: getattr(state, name) for name in names}
        return own | {f"extras.{name}": array for name, array in state.extras.items()}

    def get_state(self) -> dict[str, ndarray]:
        """Everything that decides the future, copied."""
        return {name: array.copy() for name, array in self._arrays().items()} | self._hidden()

    def set_state(self, saved: Mapping[str, ndarray]) -> None:
        """Inverse of `get_state`, exact to the bit."""
        self.restore(saved, np.ones(self.num_envs, dtype=bool))

    def restore(self, saved: Mapping[str, ndarray], chosen: Bool[ndarray, " num_envs"]) -> None:
        """Put only the chosen environments back to `saved`; the others' originals are not touched."""
        for env in np.flatnonzero(chosen).tolist():
            self._bring_back(saved, env)
        for name, array in self._arrays().items():
            array[chosen] = saved[name][chosen]

    def close(self) -> None:
        """Give the originals back."""
        self._release(self.originals)


class SnapshotEngine(SuiteEngine[MujocoOriginal]):
    """Saves what MuJoCo and Python hold; positions, velocities and mocap poses can be written to."""

    def _prepare(self, env: int) -> None:
        state = self.state
        self.originals[env].place(Pose(state.qpos[env], state.qvel[env], state.mocap_pos[env], state.mocap_quat[env]))

    def _hidden(self) -> dict[str, ndarray]:
        rows = [original.save() for original in self.originals]
        return {PREFIX + name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _bring_back(self, saved: Mapping[str, ndarray], env: int) -> None:
        self.originals[env].load(
            {name.removeprefix(PREFIX): array[env] for name, array in saved.items() if name.startswith(PREFIX)}
        )


class ReplayEngine(SuiteEngine[Original]):
    """For physics that cannot save itself exactly: a state is its episode's seed and actions, and is reached anew.

    Exact, as an episode is a function of these; but to restore a state takes as long as it took to get there, and
    writing to the state's arrays moves nothing.
    """

    def __init__(
        self,
        originals: list[Original],
        scene: mujoco.MjModel,
        observed: int,
        num_controls: int,
        substeps: int,
        release: Callable[[list[Original]], None],
    ) -> None:
        self._steps = np.zeros(len(originals), dtype=np.int64)
        self._actions = np.zeros((len(originals), 1, num_controls))
        super().__init__(originals, scene, observed, num_controls, substeps, release)

    def begin(self, env: int, seed: int) -> None:
        """Start the episode of `seed` in one environment."""
        super().begin(env, seed)
        self._steps[env], self._actions[env] = 0, 0.0

    def _prepare(self, env: int) -> None:
        self._make_room(int(self._steps[env]) + 1)
        self._actions[env, self._steps[env]] = self.state.ctrl[env]
        self._steps[env] += 1

    def _make_room(self, steps: int) -> None:
        while self._actions.shape[1] < steps:
            self._actions = np.concatenate([self._actions, np.zeros_like(self._actions)], axis=1)

    def _hidden(self) -> dict[str, ndarray]:
        return {"actions": self._actions.copy(), "steps": self._steps.copy()}

    def set_state(self, saved: Mapping[str, ndarray]) -> None:
        """Inverse of `get_state`, exact to the bit."""
        self._actions = saved["actions"].copy()
        super().set_state(saved)

    def _bring_back(self, saved: Mapping[str, ndarray], env: int) -> None:
        steps, actions = int(saved["steps"][env]), saved["actions"][env]
        self.begin(env, int(saved["extras.seed"][env, 0]))
        self._make_room(len(actions))
        self._actions[env, : len(actions)], self._steps[env] = actions, steps
        for action in actions[:steps]:
            self.originals[env].step(action)

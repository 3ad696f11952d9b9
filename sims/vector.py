"""Any task as a `gymnasium.vector.VectorEnv`, all environments in one batch, and as a single `gymnasium.Env`."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float, Float32, Int64
from numpy import ndarray

from alula.core.errors import ActionError
from alula.core.seeding import BatchRng
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Observation
from alula.sims.randomization import Randomizer
from alula.sims.rendering import Camera
from alula.sims.task import Task


def gymnasium_box(field: FieldSpec) -> gymnasium.spaces.Box:
    """Gymnasium's space of one field."""
    low, high = field.bounds()
    return gymnasium.spaces.Box(low, high, field.shape, dtype=np.dtype(field.dtype).type)


def gymnasium_dict(space: SpaceSpec) -> gymnasium.spaces.Dict:
    """Gymnasium's space of all fields, keyed by name."""
    return gymnasium.spaces.Dict({name: gymnasium_box(field) for name, field in space.items()})


RENDER_MODES = ["rgb_array", "depth_array"]

StepResult = tuple[
    Observation,
    Float[ndarray, " num_envs"],
    Bool[ndarray, " num_envs"],
    Bool[ndarray, " num_envs"],
    dict[str, Any],
]
"""Observation, reward, terminated, truncated, info."""


class TaskVectorEnv(VectorEnv[Observation, ndarray, ndarray]):
    """`num_envs` environments of one task.

    `step` refuses actions that are not finite (`ActionError`, physics untouched) and clips the others to the action
    field's bounds; `info["clipped"]` tells where. An environment whose physics diverges is terminated alone and
    flagged in `info["diverged"]`. `info["success"]` is the task's success after each step, beside the
    task's own metrics.

    Args:
        task: The task; may be shared between environments.
        num_envs: Size of the batch.
        autoreset_mode: One of Gymnasium's modes. SAME_STEP fills `final_obs` and `final_info`.
        num_threads: Physics threads; default all cores.
        render_mode: "rgb_array", "depth_array" or None, which draws RGB, too.
    """

    metadata: dict[str, Any]

    def __init__(
        self,
        task: Task,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
        num_threads: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.task = task
        self.num_envs = num_envs
        self.autoreset_mode = autoreset_mode
        self.render_mode = render_mode
        self.metadata = {
            "autoreset_mode": autoreset_mode,
            "render_modes": RENDER_MODES,
            "render_fps": round(task.control_rate),
        }
        self.single_observation_space = gymnasium_dict(task.observation)
        self.single_action_space = gymnasium_box(task.action["action"])
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.engine = task.make_engine(num_envs, num_threads)
        self._randomizer = Randomizer(task.randomization, self.engine, task.action["action"].size)
        self._low, self._high = task.action["action"].bounds()
        self._rng = BatchRng.from_seeds(np.random.SeedSequence().generate_state(num_envs).astype(np.int64))
        self._elapsed = np.zeros(num_envs, dtype=np.int64)
        self._ended = np.ones(num_envs, dtype=bool)
        self._camera: Camera | None = None

    def reset(
        self,
        *,
        seed: int | np.integer[Any] | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Start new episodes.

        Args:
            seed: One seed per environment; an integer stands for seed, seed + 1, ...; None goes on with each
                environment's own stream. An episode depends on its own seed alone.
            options: `{"reset_mask": mask}` resets only those environments.

        Raises:
            ValueError: seeds or mask have not one entry per environment.
        """
        mask = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs)), dtype=bool)
        if isinstance(seed, int | np.integer):
            seed = range(int(seed), int(seed) + self.num_envs)
        for name, entries in (("seed", seed), ("reset_mask", mask)):
            if entries is not None and len(entries) != self.num_envs:
                raise ValueError(f"{name} has {len(entries)} entries for {self.num_envs} environments")
        if seed is not None:
            given = [(env, value) for env, value in enumerate(seed) if value is not None and mask[env]]
            self._rng.reseed(np.array([env for env, _ in given], dtype=np.int64), [value for _, value in given])
        self._reset(np.flatnonzero(mask))
        return self._observe(slice(None)), {}

    def randomize_clocks(self, generator: np.random.Generator) -> None:
        """Pretend that episodes began at different times, so that not all are truncated in the same step."""
        self._elapsed[:] = generator.integers(0, self.task.max_episode_steps, self.num_envs)

    def _reset(self, env_ids: Int64[ndarray, " selected"]) -> None:
        self.engine.reset_to_model(env_ids)
        self.task.reset(self.engine.state, env_ids, self._rng)
        self._randomizer.reset(self.engine.state, env_ids, self._rng)
        self._elapsed[env_ids] = 0
        self._ended[env_ids] = False

    def _observe(self, env_ids: Int64[ndarray, " selected"] | slice) -> Observation:
        """What policies see of the chosen environments."""
        state = self.engine.state
        observation = self.task.observe(state if isinstance(env_ids, slice) else state.rows(env_ids))
        keys, counters = self._rng.keys[env_ids], self._rng.counters[env_ids]
        return self._randomizer.noisy(observation, keys, counters, self._elapsed[env_ids])

    def checked(self, actions: ndarray) -> tuple[Float32[ndarray, "num_envs action"], Bool[ndarray, " num_envs"]]:
        """Actions within bounds, and where clipping was needed.

        Raises:
            ActionError: the shape is wrong or a value is not finite; nothing has moved.
        """
        actions = np.asarray(actions, dtype=np.float32)
        if actions.shape != self.action_space.shape:
            raise ActionError(
                f"actions have shape {actions.shape}, expected {self.action_space.shape} "
                "(environments, action elements); nothing was simulated"
            )
        finite = np.isfinite(actions).all(axis=1)
        if not finite.all():
            env = int(np.argmin(finite))
            raise ActionError(
                f"action of environment {env} is not finite: {actions[env].tolist()}; nothing was simulated. "
                "Check the policy's weights and the normalizer's statistics"
            )
        within = np.clip(actions, self._low, self._high)
        return within, (within != actions).any(axis=1)

    def step(self, actions: ndarray) -> StepResult:
        """Advance every environment by one control step."""
        actions, clipped = self.checked(actions)
        task, state = self.task, self.engine.state
        resetting = self._ended & (self.autoreset_mode == AutoresetMode.NEXT_STEP)
        if resetting.any():
            self._reset(np.flatnonzero(resetting))
            kept = self.engine.get_state()
        task.control(state, self._randomizer.delayed(state, actions))
        diverged = self.engine.advance()
        if resetting.any():
            self.engine.restore(kept, resetting)
        task.forward(state)
        self._elapsed += ~resetting
        success = task.success(state) & ~diverged & ~resetting
        reward = np.where(diverged | resetting, 0.0, task.reward(state, success))
        terminated = (task.terminated(state, success) | diverged) & ~resetting
        truncated = (self._elapsed >= task.max_episode_steps) & ~terminated & ~resetting
        info = {"success": success, "diverged": diverged & ~resetting, "clipped": clipped & ~resetting}
        info |= task.metrics(state)
        return self._finish(reward, terminated, truncated, info)

    def _finish(
        self,
        reward: Float[ndarray, " num_envs"],
        terminated: Bool[ndarray, " num_envs"],
        truncated: Bool[ndarray, " num_envs"],
        info: dict[str, Any],
    ) -> StepResult:
        """Autoreset as the mode demands, and the tuple that Gymnasium expects."""
        observation = self._observe(slice(None))
        ended = terminated | truncated
        self._ended = ended
        if ended.any() and self.autoreset_mode == AutoresetMode.SAME_STEP:
            info = info | {
                "final_obs": observation,
                "final_info": {name: value.copy() for name, value in info.items()},
                "_final_obs": ended.copy(),
                "_final_info": ended.copy(),
            }
            begun = np.flatnonzero(ended)
            self._reset(begun)
            fresh = self._observe(begun)
            observation = {name: value.copy() for name, value in observation.items()}
            for name, value in fresh.items():
                observation[name][begun] = value
        return observation, reward, terminated, truncated, info

    def get_state(self) -> dict[str, ndarray]:
        """Everything that decides the future: engine, clocks, random streams; copied."""
        own = {"elapsed": self._elapsed, "ended": self._ended, "keys": self._rng.keys, "counters": self._rng.counters}
        return self.engine.get_state() | {name: array.copy() for name, array in own.items()}

    def set_state(self, saved: Mapping[str, ndarray]) -> Observation:
        """Inverse of `get_state`, exact to the bit; returns the observation of that state."""
        self.engine.set_state(saved)
        self._elapsed, self._ended = saved["elapsed"].copy(), saved["ended"].copy()
        self._rng = BatchRng(saved["keys"].copy(), saved["counters"].copy())
        return self._observe(slice(None))

    def branch(self, env_ids: Int64[ndarray, " selected"], count: int) -> "TaskVectorEnv":
        """A new batch that holds `count` copies of each chosen environment, next to each other.

        The copies are exact, random streams included: under equal actions they and the originals go through the
        same states, bit for bit. Planners try different futures on them.
        """
        copies = TaskVectorEnv(self.task, count * len(env_ids), self.autoreset_mode)
        copies.set_state({name: np.repeat(array[env_ids], count, axis=0) for name, array in self.get_state().items()})
        return copies

    def render(self) -> tuple[ndarray, ...]:
        """One image per environment, from the task's camera: see `render_env`."""
        return tuple(self.render_env(env) for env in range(self.num_envs))

    def render_env(self, env: int) -> ndarray:
        """Image of one environment: RGB (height, width, 3) uint8, or depth (height, width) float32 [m].

        Raises:
            RenderError: no OpenGL context can be made here.
        """
        if self._camera is None:
            self._camera = Camera(self.task.model, self.task.camera)
        draw = self._camera.depth if self.render_mode == "depth_array" else self._camera.picture
        return draw(self.engine.state, env)

    def close_extras(self, **kwargs: Any) -> None:
        """Stop threads and free the renderer."""
        self.engine.close()
        if self._camera is not None:
            self._camera.close()


class TaskEnv(gymnasium.Env[Observation, ndarray]):
    """One environment of a task: a batch of one, unwrapped."""

    def __init__(self, task: Task, render_mode: str | None = None) -> None:
        self.batch = TaskVectorEnv(task, 1, AutoresetMode.DISABLED, num_threads=1, render_mode=render_mode)
        self.render_mode = render_mode
        self.metadata = {"render_modes": RENDER_MODES, "render_fps": round(task.control_rate)}
        self.observation_space = self.batch.single_observation_space
        self.action_space = self.batch.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a new episode."""
        super().reset(seed=seed)
        observation, info = self.batch.reset(seed=[seed])
        return {name: value[0] for name, value in observation.items()}, info

    def step(self, action: ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Advance by one control step; see `TaskVectorEnv`."""
        observation, reward, terminated, truncated, info = self.batch.step(np.asarray(action)[None])
        return (
            {name: value[0] for name, value in observation.items()},
            float(reward[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            {name: value[0].item() for name, value in info.items()},
        )

    def render(self) -> ndarray:
        """See `TaskVectorEnv.render_env`."""
        return self.batch.render_env(0)

    def close(self) -> None:
        """Stop threads and free the renderer."""
        self.batch.close()

"""A task that is two lines of NumPy, small policies on any task, tiny algorithms, and a small dataset."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import mujoco
import numpy as np
import pytest
import torch

from alula.core.normalizer import FieldStatistics
from alula.core.seeding import BatchRng
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.store import EpisodeStore
from alula.policies.config import FieldConfig, ResidualHeadConfig
from alula.policies.policy import GenerativePolicy
from alula.policies.registry import POLICIES, make_policy
from alula.sims.engine import BatchState
from alula.sims.registry import make_task
from alula.sims.task import Task
from alula.sims.tasks.peg_insertion.config import PegInsertionConfig
from alula.training.config import ALGORITHMS, PPOConfig

MODEL = """<mujoco><worldbody><body><joint name="slide" type="slide"/><geom size="0.1" mass="1"/></body></worldbody>
<actuator><motor joint="slide"/></actuator></mujoco>"""
BASES = {"residual_ppo": "diffusion", "dppo": "diffusion", "gaussian_ppo": "gaussian"}
STEPS, ENVS = 12, 4
SETTINGS: dict[str, dict[str, Any]] = {
    "dppo": {"sampling_steps": 4, "trainable_steps": 2, "std_floor": 0.1},
    "residual_ppo": {"head": ResidualHeadConfig(field=FieldConfig(width=8, blocks=1))},
}


class LineExpert:
    """Steps to the goal, give or take noise in action units."""

    def __init__(self, noise: float, seed: int) -> None:
        self.noise, self.rng = noise, np.random.default_rng(seed)

    def act(self, state: BatchState) -> np.ndarray:
        x = state.extras["x"]
        return np.clip(-x, -0.5, 0.5) + self.noise * self.rng.standard_normal(x.shape)


class Line(Task):
    """x' = x + u with x from a uniform draw in [-2, 2]; the goal is |x| < 0.1. All physics is in `control`."""

    substeps = 1
    camera = "none"
    observation = SpaceSpec((FieldSpec("observation.state", (1,), resolution=(0.1,)),))
    action = SpaceSpec((FieldSpec("action", (1,), low=(-3.0,), high=(3.0,)),))
    extras: ClassVar[dict[str, tuple[int, ...]]] = {"x": (1,), "u": (1,), "before": (1,)}

    def __init__(self, max_episode_steps: int = 10) -> None:
        self.model = mujoco.MjModel.from_xml_string(MODEL)
        self.max_episode_steps = max_episode_steps

    def reset(self, state: BatchState, env_ids: np.ndarray, rng: BatchRng) -> None:
        state.extras["x"][env_ids] = rng.uniform(env_ids, -2.0, 2.0, 1)

    def control(self, state: BatchState, action: np.ndarray) -> None:
        state.extras["before"][:], state.extras["u"][:] = state.extras["x"], action
        state.extras["x"] += action

    def observe(self, state: BatchState) -> dict[str, np.ndarray]:
        return {"observation.state": state.extras["x"].astype(np.float32)}

    def success(self, state: BatchState) -> np.ndarray:
        return np.abs(state.extras["x"][:, 0]) < 0.1

    def expert(self, noise: float, seed: int) -> LineExpert:
        return LineExpert(noise, seed)


class Precise(Line):
    """The same, observed in double precision."""

    observation = SpaceSpec((FieldSpec("observation.state", (1,), dtype="float64", resolution=(0.1,)),))

    def observe(self, state: BatchState) -> dict[str, np.ndarray]:
        return {"observation.state": state.extras["x"].copy()}


class Bandit(Line):
    """One step, and a bell of width 0.4 around u = 0.7 that is worth 1 at its top."""

    def terminated(self, state: BatchState, success: np.ndarray) -> np.ndarray:
        return np.ones(len(state.time), dtype=bool)

    def reward(self, state: BatchState, success: np.ndarray) -> np.ndarray:
        return np.exp(-(((state.extras["u"][:, 0] - 0.7) / 0.4) ** 2))


class Cliff(Line):
    """An episode that is beyond 1.4 after a step has failed."""

    def terminated(self, state: BatchState, success: np.ndarray) -> np.ndarray:
        return success | (np.abs(state.extras["x"][:, 0]) > 1.4)


class Regulator(Line):
    """The linear-quadratic regulator: cost x^2 + u^2 at every step, without end."""

    def terminated(self, state: BatchState, success: np.ndarray) -> np.ndarray:
        return np.zeros(len(state.time), dtype=bool)

    def reward(self, state: BatchState, success: np.ndarray) -> np.ndarray:
        return -(state.extras["before"][:, 0] ** 2 + state.extras["u"][:, 0] ** 2)


class Twin(Bandit):
    """One step, and two equally good actions: 1.2 and -1.2."""

    tilt = 0.0
    """What the positive one is worth beyond the other."""

    def reward(self, state: BatchState, success: np.ndarray) -> np.ndarray:
        u = state.extras["u"][:, 0]
        return -((np.abs(u) - 1.2) ** 2) + self.tilt * (u > 0)


class Tilted(Twin):
    """The same, with the positive action worth more."""

    tilt = 0.5


TASKS = {
    "line": Line,
    "precise": Precise,
    "cliff": Cliff,
    "bandit": Bandit,
    "twin": Twin,
    "tilted": Tilted,
    "regulator": Regulator,
}
MakeTask = Callable[..., Task]


@pytest.fixture
def task_of_kind() -> MakeTask:
    """`task_of_kind(name, max_episode_steps)`: line, precise, cliff, bandit, twin, tilted or regulator."""
    return lambda name, max_episode_steps=10: TASKS[name](max_episode_steps)


@pytest.fixture
def line() -> Task:
    """The plain line, ten steps an episode."""
    return Line()


@pytest.fixture(scope="session")
def peg() -> Task:
    """PegInsertion with episodes so short that truncation happens within a rollout."""
    made: Task = make_task(PegInsertionConfig(max_episode_steps=10))
    return made


@pytest.fixture
def make_base() -> Callable[..., GenerativePolicy]:
    """`make_base(name, task, **settings)`: a small untrained policy for a task, scaled to its action bounds."""

    def build(name: str, task: Any, **settings: Any) -> GenerativePolicy:
        torch.manual_seed(3)
        sizes: dict[str, Any] = {"horizon": 4, "execute_steps": 2, "field": FieldConfig(width=8, blocks=1)}
        if name == "diffusion":
            sizes |= {"denoising_steps": 4, "sampling_steps": 2}
        policy = make_policy(POLICIES[name](**{**sizes, **settings}), task.observation, task.action)
        ranges = {
            name: np.stack([-np.ones(field.shape), np.ones(field.shape)]) for name, field in task.observation.items()
        }
        ranges["action"] = np.stack(task.action["action"].bounds())
        policy.fit_normalizers({name: FieldStatistics.of(array) for name, array in ranges.items()})
        return policy

    return build


@pytest.fixture
def tiny() -> Callable[..., PPOConfig]:
    """`tiny(algorithm, iterations, **settings)`: an algorithm of the table at the smallest size that does it all."""

    def configure(algorithm: str, iterations: int = 4, **settings: Any) -> PPOConfig:
        sizes: dict[str, Any] = {
            "total_steps": iterations * STEPS * ENVS,
            **{"num_envs": ENVS, "rollout_steps": STEPS, "epochs": 2, "minibatch": 16, "critic_width": 8},
            **{"critic_warmup": 0, "evaluate_every": 2, "evaluation_episodes": 4, "checkpoint_every": 2},
            **{"target_kl": 1e9},
        }
        return ALGORITHMS[algorithm](**{**sizes, **SETTINGS.get(algorithm, {}), **settings})

    return configure


@pytest.fixture(params=sorted(ALGORITHMS))
def algorithm(request: pytest.FixtureRequest) -> str:
    """Every line of the algorithms table."""
    return str(request.param)


@pytest.fixture
def base_of() -> dict[str, str]:
    """Which policy each algorithm starts from here."""
    return BASES


def line_episode(seed: int, length: int = 6) -> Episode:
    """The expert's way to the goal, a function of the seed."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2) + np.zeros((length + 1, 1))
    u = np.zeros((length, 1))
    for step in range(length):
        u[step] = np.clip(-x[step], -0.5, 0.5)
        x[step + 1] = x[step] + u[step]
    at_end = np.arange(length) == length - 1
    steps = {
        "observation.state": x[:-1].astype(np.float32),
        "action": u.astype(np.float32),
        "next.reward": at_end.astype(float),
        "next.terminated": at_end,
        "next.truncated": np.zeros(length, dtype=bool),
        "next.success": at_end,
    }
    return Episode(steps, {"seed": seed, "success": True})


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., EpisodeStore]:
    """`make_dataset(episodes)`: demonstrations on the line."""

    def make(episodes: int = 20, name: str = "data") -> EpisodeStore:
        store = EpisodeStore.create(tmp_path / name, Line.observation, Line.action)
        store.extend([line_episode(seed) for seed in range(episodes)])
        return store

    return make

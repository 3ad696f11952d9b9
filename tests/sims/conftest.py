"""Every task, with short episodes, and ways to drive and compare environments."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from alula.sims.registry import TASKS, make_task
from alula.sims.task import Task

EPISODE_STEPS = 20
NEEDS = {
    "adroit_door": "gymnasium_robotics",
    "fetch": "gymnasium_robotics",
    "franka_kitchen": "gymnasium_robotics",
    "metaworld": "metaworld",
    "push_t_gym": "gym_pusht",
    "robosuite": "robosuite",
    "hover_gpd": "gym_pybullet_drones",
}


@pytest.fixture(scope="session", params=sorted(TASKS))
def task_name(request: pytest.FixtureRequest) -> str:
    """Every line of the tasks table."""
    package = NEEDS.get(request.param)
    if package is not None and find_spec(package) is None:
        pytest.skip(f"{request.param} needs {package}, which is not installed")
    return str(request.param)


@pytest.fixture(scope="session")
def task(task_name: str) -> Task:
    """The task, with episodes of 20 steps."""
    made: Task = make_task(TASKS[task_name].config(max_episode_steps=EPISODE_STEPS))
    return made


@pytest.fixture
def quiet_mujoco(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo writes its log of instabilities into the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def corners() -> Callable[[Task, int], np.ndarray]:
    """`corners(task, num_envs)`: each environment's own corner of the action space.

    Held constant they drive an arm into the table and fingers into each other, so contacts are certain.
    """

    def choose(task: Task, num_envs: int) -> np.ndarray:
        low, high = task.action["action"].bounds()
        picks = np.random.default_rng(0).integers(0, 2, (num_envs, *low.shape)).astype(bool)
        return np.where(picks, low, high)

    return choose


def _flat(value: Any, path: str) -> list[tuple[str, np.ndarray]]:
    if isinstance(value, Mapping):
        return [item for name in sorted(value) for item in _flat(value[name], f"{path}.{name}")]
    if isinstance(value, tuple | list):
        return [item for index, entry in enumerate(value) for item in _flat(entry, f"{path}[{index}]")]
    return [(path, np.asarray(value))]


@pytest.fixture(scope="session")
def assert_identical() -> Callable[[Any, Any], None]:
    """Equal bit for bit, in nested dictionaries, tuples and lists of arrays."""

    def check(got: Any, wanted: Any) -> None:
        left, right = _flat(got, ""), _flat(wanted, "")
        assert [path for path, _ in left] == [path for path, _ in right]
        for (path, a), (_, b) in zip(left, right, strict=True):
            assert a.dtype == b.dtype, path
            assert a.shape == b.shape, path
            assert a.tobytes() == b.tobytes(), f"{path} differs by {np.abs(np.subtract(a, b, dtype=float)).max()}"

    return check

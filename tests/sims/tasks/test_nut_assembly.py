"""NutAssembly: geometry, success, contact and its expert."""

from collections.abc import Callable

import mujoco
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from alula.core.errors import ConfigError
from alula.core.geometry import rotate_by_yaw
from alula.sims.task import Task
from alula.sims.tasks.tabletop.config import NutAssemblyConfig
from alula.sims.tasks.tabletop.nut_assembly import HALF_THICKNESS, PEG_HALF_WIDTH, PEG_HEIGHT, SPACING, NutAssembly
from alula.sims.vector import TaskVectorEnv

Share = Callable[[Task, int, float], float]


@pytest.fixture(scope="module")
def task() -> NutAssembly:
    """The default task."""
    return NutAssembly(NutAssemblyConfig())


def placed(task: NutAssembly, offsets: np.ndarray, turns: np.ndarray, opening: float = 0.04) -> TaskVectorEnv:
    """Nuts at offsets [m] from their pegs, in these pegs' frames, turned against them; fingers at `opening` each."""
    env = TaskVectorEnv(task, len(offsets), AutoresetMode.DISABLED)
    env.reset(seed=0)
    state, everyone, peg = env.engine.state, np.arange(len(offsets)), task.fixtures["peg"]
    away = np.tile([task.center[0] - task.half, task.half, 0.0], (len(offsets), 1))  # Out of the gripper's way.
    peg.place(state, everyone, away, np.linspace(-3.0, 3.0, len(offsets)))
    yaw = peg.yaw(state)
    task.things["nut"].place(state, everyone, away + rotate_by_yaw(offsets, yaw), yaw + turns)
    for joint, _ in task.arms[0].fingers:
        state.qpos[:, joint] = opening
    return env


def test_the_expert_assembles(task: NutAssembly, share_of_successes: Share) -> None:
    """On at least 19 of 20 seeds, and with the clumsiness of the demonstrations on at least 17."""
    assert share_of_successes(task, 20, 0.0) >= 0.95
    assert share_of_successes(task, 20, 0.4) >= 0.85


@pytest.mark.parametrize(
    ("offset", "opening", "expected"),
    [
        ((0.0, 0.0, HALF_THICKNESS), 0.04, True),
        ((0.0019, -0.0019, HALF_THICKNESS), 0.04, True),
        ((0.0, 0.0, HALF_THICKNESS + 0.0049), 0.04, True),
        ((0.0, 0.0, HALF_THICKNESS + 0.0051), 0.04, False),
        ((0.0, 0.0, PEG_HEIGHT + HALF_THICKNESS), 0.04, False),
        ((0.0041, 0.0, HALF_THICKNESS), 0.04, False),
        ((0.0, -0.05, HALF_THICKNESS), 0.04, False),
        ((0.0, 0.0, HALF_THICKNESS), 0.008, False),
        ((0.0, 0.0, HALF_THICKNESS), 0.014, True),
    ],
)
def test_success_is_around_down_and_released(
    task: NutAssembly, offset: tuple[float, float, float], opening: float, expected: bool
) -> None:
    """Just inside and outside each bound, for pegs of five poses, in each of the four ways the nut fits."""
    for quarter in range(4):
        env = placed(task, np.tile(offset, (5, 1)), np.full(5, quarter * np.pi / 2), opening)
        assert (task.success(env.engine.state) == expected).all()
        env.close()


def test_the_nut_goes_down_the_peg_only_where_it_fits(task: NutAssembly) -> None:
    """Dropped onto the peg: straight it falls to the table, turned by 45 degrees or shifted it cannot."""
    start = PEG_HEIGHT + HALF_THICKNESS + 0.002
    offsets = np.array([[0.0, 0.0, start], [0.0015, -0.0015, start], [0.0, 0.0, start], [0.008, 0.0, start]])
    env = placed(task, offsets, np.array([0.0, 0.0, np.pi / 4, 0.0]))
    idle = np.tile([0.0, 0.0, 0.0, 0.0, 1.0], (4, 1))
    for _ in range(20):
        info = env.step(idle)[4]
    assert info["success"].tolist() == [True, True, False, False]
    heights = task.things["nut"].position(env.engine.state)[:, 2]
    np.testing.assert_allclose(heights[:2], HALF_THICKNESS, atol=0.001)
    env.close()


@pytest.mark.parametrize("clearance", [0.0005, 0.002, 0.005])
def test_the_clearance_is_the_gap(clearance: float) -> None:
    """Between each side of the peg and the part of the nut it faces, in the compiled model."""
    model = NutAssembly(NutAssemblyConfig(clearance=clearance)).model
    for name, axis, sign in (("east", 0, 1), ("west", 0, -1), ("north", 1, 1), ("south", 1, -1)):
        wall = model.geom(name)
        assert sign * wall.pos[axis] - wall.size[axis] - PEG_HALF_WIDTH == pytest.approx(clearance, abs=1e-12)
        assert wall.size[1 - axis] >= PEG_HALF_WIDTH + clearance - 1e-12
    assert (model.geom("peg").size[:2] == PEG_HALF_WIDTH).all()


def test_episodes_start_unsolved_and_apart(task: NutAssembly) -> None:
    """Nut flat on the table; its lug away from the peg; nothing touches anything but the table."""
    env = TaskVectorEnv(task, 500, num_threads=1)
    env.reset(seed=0)
    state, nut = env.engine.state, task.things["nut"]
    lug = nut.position(state) + task.reach * nut.rotation(state)[:, :, 0]
    distance = np.linalg.norm((lug - task.fixtures["peg"].position(state))[:, :2], axis=1)
    assert (distance > SPACING).mean() > 0.97
    assert (np.abs(lug[:, :2] - task.center) <= task.half).all()
    assert not task.success(state).any()
    data, table = mujoco.MjData(task.model), task.model.geom("table").id
    for env_id in np.flatnonzero(distance > SPACING)[:50]:
        data.qpos[:], data.mocap_pos[:] = state.qpos[env_id], state.mocap_pos[env_id]
        data.mocap_quat[:] = state.mocap_quat[env_id]
        mujoco.mj_forward(task.model, data)
        assert all(table in contact.geom for contact in data.contact)
    env.close()


def test_a_clearance_out_of_range_is_refused() -> None:
    """By name and value."""
    with pytest.raises(ConfigError, match=r"task.clearance is 0.01 m; allowed are 0.0005 m to 0.005 m"):
        NutAssemblyConfig(clearance=0.01)

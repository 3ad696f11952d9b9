"""DoorOpen: the door's kinematics and mechanics, success and its expert."""

from collections.abc import Callable

import mujoco
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from alula.core.errors import ConfigError
from alula.core.geometry import rotation_from_quaternion
from alula.sims.task import Task
from alula.sims.tasks.tabletop.config import DoorOpenConfig
from alula.sims.tasks.tabletop.door_open import DAMPING, FRICTION, GRIP_HEIGHT, HANDLE, LIMIT, OPEN, DoorOpen
from alula.sims.vector import TaskVectorEnv

Share = Callable[[Task, int, float], float]


@pytest.fixture(scope="module")
def task() -> DoorOpen:
    """The default task."""
    return DoorOpen(DoorOpenConfig())


def opened(task: DoorOpen, angles: np.ndarray) -> TaskVectorEnv:
    """Doors at these angles, at rest."""
    env = TaskVectorEnv(task, len(angles), AutoresetMode.DISABLED)
    env.reset(seed=0)
    env.engine.state.qpos[:, task.handle.hinge] = angles
    return env


def test_the_expert_opens_the_door(task: DoorOpen, share_of_successes: Share) -> None:
    """On at least 19 of 20 seeds, and with the clumsiness of the demonstrations on at least 17."""
    assert share_of_successes(task, 20, 0.0) >= 0.95
    assert share_of_successes(task, 20, 0.4) >= 0.85


def test_success_is_an_angle(task: DoorOpen) -> None:
    """Which is reported, too."""
    angles = np.array([0.0, OPEN - 0.001, OPEN + 0.001, LIMIT])
    env = opened(task, angles)
    assert task.success(env.engine.state).tolist() == [False, False, True, True]
    np.testing.assert_array_equal(task.metrics(env.engine.state)["angle"], angles)
    env.close()


def test_the_handle_is_where_mujoco_has_it(task: DoorOpen) -> None:
    """Position and orientation equal the geom's at any angle and place; opening moves it towards the arm."""
    angles = np.linspace(0.0, LIMIT, 6)
    env = opened(task, angles)
    state, data = env.engine.state, mujoco.MjData(task.model)
    position, rotation = task.handle.position(state), task.handle.rotation(state)
    for index in range(6):
        data.qpos[:], data.mocap_pos[:] = state.qpos[index], state.mocap_pos[index]
        data.mocap_quat[:] = state.mocap_quat[index]
        mujoco.mj_forward(task.model, data)
        np.testing.assert_allclose(position[index, :2], data.geom("handle").xpos[:2], atol=1e-9)
        assert position[index, 2] == pytest.approx(GRIP_HEIGHT)
        np.testing.assert_allclose(rotation[index], data.body("door").xmat.reshape(3, 3), atol=1e-9)
    env.close()
    env = opened(task, np.zeros(6))
    further = task.handle.when(env.engine.state, np.full(6, 0.3))
    assert (further[:, 0] < task.handle.position(env.engine.state)[:, 0]).all()
    env.close()


def test_the_hinge_brakes_as_documented(task: DoorOpen) -> None:
    """Left alone the door stays; a moving one loses (friction + damping x speed) per moment of inertia, then stops."""
    env = opened(task, np.array([0.5, 0.5]))
    dof = int(task.model.joint("hinge").dofadr[0])
    data = mujoco.MjData(task.model)
    mujoco.mj_forward(task.model, data)
    inertia = np.zeros(task.model.nv)
    mujoco.mj_mulM(task.model, data, inertia, np.eye(task.model.nv)[dof])
    speed, step = 0.3, float(task.model.opt.timestep)
    data.qvel[dof], data.qpos[task.handle.hinge] = speed, 0.5
    mujoco.mj_step(task.model, data)
    loss = (FRICTION + DAMPING * speed) * step / (inertia[dof] + DAMPING * step)
    assert speed - data.qvel[dof] == pytest.approx(loss, rel=0.05)
    env.engine.state.qvel[1, dof] = speed
    for _ in range(10):
        env.step(np.tile([0.0, 0.0, 0.0, 0.0, 1.0], (2, 1)))
    state = env.engine.state
    assert state.qpos[0, task.handle.hinge] == pytest.approx(0.5, abs=1e-4)
    assert 0.5 < state.qpos[1, task.handle.hinge] < 0.6
    assert np.abs(state.qvel[:, dof]).max() < 1e-3
    env.close()


def test_doors_start_closed_before_the_arm(task: DoorOpen) -> None:
    """The handle in the far half of the workspace; the door's front, its x axis, turned to the arm within 0.3 rad."""
    env = TaskVectorEnv(task, 500, num_threads=1)
    env.reset(seed=0)
    state = env.engine.state
    handle = task.handle.position(state)[:, :2] - task.center
    assert (handle[:, 0] >= 0).all()
    assert (handle[:, 0] <= task.half).all()
    assert (np.abs(handle[:, 1]) <= 0.5 * task.half).all()
    assert handle.std(axis=0) == pytest.approx([task.half / 12**0.5] * 2, rel=0.1)
    front = rotation_from_quaternion(state.mocap_quat[:, 0])[:, :, 0]
    assert (front[:, 0] <= -np.cos(0.3)).all()
    offset = task.handle.position(state) - state.mocap_pos[:, 0]
    np.testing.assert_allclose(np.einsum("ni,ni->n", offset, front), HANDLE[0], atol=1e-9)
    env.close()


def test_an_arm_that_is_too_small_is_refused() -> None:
    """With the arms that are not."""
    with pytest.raises(ConfigError, match=r"task.robot is so101, .* allowed are panda, ur5e, viperx"):
        DoorOpenConfig(robot="so101")

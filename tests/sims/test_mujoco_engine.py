"""The engine, against plain MuJoCo, on the sharp edges of `mujoco.rollout`."""

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import pytest

from alula.sims.engine import BatchState
from alula.sims.mujoco_engine import MujocoEngine
from alula.sims.registry import make_task
from alula.sims.robots.kinematics import SerialChain
from alula.sims.tasks.peg_insertion.config import PegInsertionConfig
from alula.sims.vector import TaskVectorEnv

Same = Callable[[Any, Any], None]
SUBSTEPS = 10
SCENE = """
<mujoco>
  <option timestep="0.002"/>
  <worldbody>
    <body name="plate" mocap="true" pos="0 0 0.1"><geom type="box" size="1 1 0.05"/></body>
    <body name="ball" pos="0 0 0.6"><freejoint/><geom type="sphere" size="0.05" mass="0.1"/></body>
    <body name="arm" pos="3 0 1">
      <joint name="shoulder" axis="0 0 1" damping="0.1"/><geom type="capsule" fromto="0 0 0 0.4 0 0" size="0.02"/>
      <body name="forearm" pos="0.4 0 0" quat="0.7071 0.7071 0 0">
        <joint name="elbow" axis="0 0 1"/><geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.02"/>
        <site name="tip" pos="0.3 0.02 0.01"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="shoulder" gear="1"/><motor joint="elbow" gear="1e9"/></actuator>
  <sensor><framepos objtype="site" objname="tip"/></sensor>
</mujoco>
"""
BALL, ARM = slice(0, 7), slice(7, 9)


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    """A ball above a movable plate, and an arm of two hinges far from both."""
    return mujoco.MjModel.from_xml_string(SCENE)


@pytest.fixture
def make_engine(model: mujoco.MjModel) -> Callable[..., MujocoEngine]:
    """`make_engine(num_envs)`: the plate at a height of its own in each environment, the arm swinging."""

    def make(num_envs: int, substeps: int = SUBSTEPS, num_threads: int | None = None) -> MujocoEngine:
        engine = MujocoEngine(model, num_envs, substeps, {"note": (2,)}, num_threads)
        state = engine.state
        state.mocap_pos[:, 0, 2] += 0.05 * np.arange(num_envs)
        state.qvel[:, 6:8] = np.random.default_rng(0).normal(0, 3, (num_envs, 2))
        state.ctrl[:, 0] = 0.2
        return engine

    return make


def set_mujoco(model: mujoco.MjModel, state: BatchState, env: int) -> mujoco.MjData:
    """A fresh `MjData` in the state and under the controls of one environment."""
    data = mujoco.MjData(model)
    data.time, data.qpos[:], data.qvel[:] = state.time[env], state.qpos[env], state.qvel[env]
    data.ctrl[:], data.mocap_pos[:], data.mocap_quat[:] = state.ctrl[env], state.mocap_pos[env], state.mocap_quat[env]
    return data


def settle(engine: MujocoEngine, steps: int = 60) -> None:
    """Until the balls lie on their plates (1.2 s)."""
    for _ in range(steps):
        assert not engine.advance().any()


def test_every_environment_keeps_its_own_mocap_pose(make_engine: Callable[..., MujocoEngine]) -> None:
    """Balls come to rest on plates of different heights, none of them where the model file put it."""
    engine = make_engine(4)
    poses = engine.state.mocap_pos.copy()
    settle(engine)
    np.testing.assert_array_equal(engine.state.mocap_pos, poses)
    np.testing.assert_allclose(engine.state.qpos[:, 2], 0.2 + 0.05 * np.arange(4), atol=2e-3)


@pytest.mark.parametrize("env", [0, 2])
def test_free_motion_is_plain_mujoco_s(
    model: mujoco.MjModel, make_engine: Callable[..., MujocoEngine], env: int
) -> None:
    """While nothing touches, calls of ten substeps equal a loop of `mj_step`, bit for bit."""
    engine = make_engine(3)
    data = set_mujoco(model, engine.state, env)
    for _ in range(5):
        engine.advance()
        for _ in range(SUBSTEPS):
            mujoco.mj_step(model, data)
        assert data.ncon == 0
        np.testing.assert_array_equal(engine.state.qpos[env], data.qpos)
        np.testing.assert_array_equal(engine.state.qvel[env], data.qvel)
        assert engine.state.time[env] == data.time


def test_a_step_is_a_function_of_state_and_control(
    make_engine: Callable[..., MujocoEngine], assert_identical: Same
) -> None:
    """From a state in contact, repeated after other simulations, in another row or on threads: the same bits.

    A solver that starts from what it did last would not pass.
    """
    engine = make_engine(3)
    settle(engine, 18)  # The balls still bounce.
    saved = engine.get_state()
    engine.advance()
    wanted = engine.get_state()
    assert np.abs(wanted["physics"] - saved["physics"])[:, 1:8].max() > 1e-9
    for disturb in (lambda: engine.advance(), lambda: engine.state.qpos.__setitem__(slice(None), 1.0)):
        disturb()
        engine.advance()
        engine.set_state(saved)
        engine.advance()
        assert_identical(engine.get_state(), wanted)
    large = make_engine(12, num_threads=2)
    settle(large, 3)
    large.set_state({name: np.tile(array[::-1], (4, *(1,) * (array.ndim - 1))) for name, array in saved.items()})
    large.advance()
    assert_identical(large.get_state(), {n: np.tile(a[::-1], (4, *(1,) * (a.ndim - 1))) for n, a in wanted.items()})


def test_substeps_in_one_call_are_the_definition_of_a_step(make_engine: Callable[..., MujocoEngine]) -> None:
    """Ten plus ten substeps after contact need not be twenty, for the solver starts cold at each call.

    That is why a control step is one call; if MuJoCo ever makes both equal, this test says that the rule may go.
    """
    one, two = make_engine(1, substeps=20), make_engine(1, substeps=10)
    for _ in range(60):
        one.advance()
        two.advance()
        two.advance()
    assert np.abs(one.state.qpos - two.state.qpos).max() > 0
    np.testing.assert_allclose(one.state.qpos[:, :3], two.state.qpos[:, :3], atol=1e-3)


def test_sensors_are_one_substep_old_but_kinematics_is_fresh(
    model: mujoco.MjModel, make_engine: Callable[..., MujocoEngine]
) -> None:
    """Forward kinematics gives MuJoCo's tip position after the step; the sensor gives the one a substep before."""
    engine, shorter = make_engine(3), make_engine(3, substeps=SUBSTEPS - 1)
    chain = SerialChain(model, ("shoulder", "elbow"), "tip")
    engine.advance()
    shorter.advance()
    fresh = chain.forward(engine.state.qpos[:, ARM]).position
    for env in range(3):
        data, earlier = set_mujoco(model, engine.state, env), set_mujoco(model, shorter.state, env)
        mujoco.mj_forward(model, data)
        mujoco.mj_forward(model, earlier)
        np.testing.assert_allclose(fresh[env], data.site("tip").xpos, atol=1e-12)
        np.testing.assert_allclose(engine.state.sensors[env, -1], earlier.site("tip").xpos, atol=1e-12)
        assert np.linalg.norm(engine.state.sensors[env, -1] - data.site("tip").xpos) > 5e-4


def test_the_observed_tip_is_where_mujoco_has_it() -> None:
    """PegInsertion's tip after a fast step equals `mj_forward`'s to 1e-12, far below the clearance."""
    task = make_task(PegInsertionConfig())
    env = TaskVectorEnv(task, 3)
    env.reset(seed=0)
    for _ in range(3):
        env.step(np.tile(task.action["action"].bounds()[1], (3, 1)))
    state = env.engine.state
    moved = np.linalg.norm(np.einsum("bij,bj->bi", state.extras["jacobian"], state.qvel)[:, :3], axis=1)
    assert (moved * task.model.opt.timestep > 1e-4).all()  # A sensor's age would show.
    for row in range(3):
        data = set_mujoco(task.model, state, row)
        mujoco.mj_forward(task.model, data)
        np.testing.assert_allclose(state.extras["tool_position"][row], data.site("tip").xpos, atol=1e-12)
        np.testing.assert_allclose(state.extras["tool_rotation"][row].ravel(), data.site("tip").xmat, atol=1e-12)
    env.close()


@pytest.mark.usefixtures("quiet_mujoco")
@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e12])
def test_mujoco_s_silent_reset_is_noticed(make_engine: Callable[..., MujocoEngine], value: float, steps: int) -> None:
    """A broken row comes back finite from MuJoCo, so only its clock betrays it; ours is flagged and finite."""
    engine = make_engine(3)
    settle(engine, steps)
    engine.state.qpos[1, 8] = value
    clock = engine.state.time.copy()
    assert engine.advance().tolist() == [False, True, False]
    assert np.isfinite(engine.get_state()["physics"]).all()
    np.testing.assert_allclose(engine.state.time, clock + SUBSTEPS * 0.002, atol=1e-12)
    assert not engine.advance().any()


@pytest.mark.usefixtures("quiet_mujoco")
def test_divergence_within_a_step_restores_the_state_before_it(
    make_engine: Callable[..., MujocoEngine], assert_identical: Same
) -> None:
    """A sane state that an absurd force blows up stays as it was, one step later; its neighbours move on."""
    engine, clean = make_engine(3), make_engine(3)
    before = engine.get_state()
    engine.state.ctrl[1, 1] = 1e9  # Times a gear of 1e9.
    assert engine.advance().tolist() == [False, True, False]
    assert not clean.advance().any()
    assert_identical(engine.get_state()["physics"][1, 1:], before["physics"][1, 1:])
    assert engine.state.time[1] == pytest.approx(SUBSTEPS * 0.002)
    assert not engine.state.sensors[1].any()
    for name, array in clean.get_state().items():
        assert_identical(engine.get_state()[name][[0, 2]], array[[0, 2]])


def test_saved_states_are_copies(make_engine: Callable[..., MujocoEngine], assert_identical: Same) -> None:
    """Simulating on does not change what was saved, nor does writing to it change the simulation."""
    engine = make_engine(2)
    saved = engine.get_state()
    kept = {name: array.copy() for name, array in saved.items()}
    engine.advance()
    assert_identical(saved, kept)
    now = engine.get_state()
    for array in saved.values():
        array[:] = -1
    assert_identical(engine.get_state(), now)


def test_views_move_the_simulation(model: mujoco.MjModel, make_engine: Callable[..., MujocoEngine]) -> None:
    """Every named array of the state is the engine's own memory, in MuJoCo's order."""
    engine = make_engine(2)
    state, number = engine.state, iter(range(1, 100))
    for array in (state.time, state.qpos, state.qvel, state.ctrl, state.mocap_pos, state.mocap_quat):
        array[0] = np.arange(array[0].size).reshape(array[0].shape) + 100 * next(number)
    data, saved = mujoco.MjData(model), engine.get_state()
    mujoco.mj_setState(model, data, saved["physics"][0], mujoco.mjtState.mjSTATE_FULLPHYSICS)
    for name in ("time", "qpos", "qvel"):
        np.testing.assert_array_equal(getattr(data, name), getattr(state, name)[0])
    np.testing.assert_array_equal(
        saved["control"][0], [*state.ctrl[0], *state.mocap_pos[0].ravel(), *state.mocap_quat[0].ravel()]
    )


def test_resets_and_restores_touch_only_the_chosen(
    make_engine: Callable[..., MujocoEngine], assert_identical: Same
) -> None:
    """The others keep every bit; the chosen have the model's initial state or the saved one, extras included."""
    engine, initial = make_engine(3), make_engine(3)
    initial.reset_to_model(np.arange(3))
    fresh, saved = initial.get_state(), engine.get_state()
    settle(engine, 3)
    engine.state.extras["note"][:] = 7.0
    before = engine.get_state()
    engine.reset_to_model(np.array([1]))
    after = engine.get_state()
    engine.restore(saved, np.array([True, False, False]))
    restored = engine.get_state()
    for name in before:
        assert_identical(after[name], np.stack([before[name][0], fresh[name][1], before[name][2]]))
        assert_identical(restored[name], np.stack([saved[name][0], after[name][1], after[name][2]]))
    np.testing.assert_array_equal(after["extras.note"], [[7, 7], [0, 0], [7, 7]])

"""What every quadcopter engine promises about its state: exactness, independence, recovery; and about the floor."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from alula.core.errors import ConfigError
from alula.sims.engine import Engine
from alula.sims.quadcopters.config import Aerodynamics
from alula.sims.quadcopters.crazyflie import CRAZYFLIE

MakeEngine = Callable[..., Engine]
Disturb = Callable[[Engine, int], None]
Same = Callable[[Any, Any], None]
ALL = Aerodynamics(drag=True, ground_effect=True, downwash=True)
RESTING = CRAZYFLIE.collision_height / 2


def advance(engine: Engine, steps: int) -> None:
    for _ in range(steps):
        assert not engine.advance().any()


def crash(engine: Engine) -> None:
    """Drones, tilted and turning, low enough that they hit the floor and each other within a few steps."""
    drones = engine.state.qpos.reshape(engine.num_envs, -1, 7)
    drones[..., 0] *= 0.16
    drones[..., 2] = 0.06
    engine.state.qvel[:, 2::6] = -1.0
    engine.state.ctrl[:] *= 0.5


@pytest.mark.parametrize("aerodynamics", [Aerodynamics(), ALL], ids=["lag", "all"])
def test_a_step_is_a_function_of_state_and_command(
    make_engine: MakeEngine, disturb: Disturb, assert_identical: Same, aerodynamics: Aerodynamics
) -> None:
    """In contact, after other simulations, on threads, in another row of a larger batch: the same bits."""
    engine = make_engine(num_envs=3, num_drones=2, aerodynamics=aerodynamics)
    disturb(engine, 0)
    crash(engine)
    advance(engine, 4)
    saved = engine.get_state()
    advance(engine, 3)
    wanted = engine.get_state()
    for other in range(2):
        disturb(engine, other)
        advance(engine, 2)
        engine.set_state(saved)
        assert_identical(engine.get_state(), saved)
        advance(engine, 3)
        assert_identical(engine.get_state(), wanted)
    large = make_engine(num_envs=12, num_drones=2, aerodynamics=aerodynamics, num_threads=2)
    disturb(large, 3)
    advance(large, 2)

    def tiled(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: np.tile(array[::-1], (4, *(1,) * (array.ndim - 1))) for name, array in arrays.items()}

    large.set_state(tiled(saved))
    advance(large, 3)
    assert_identical(large.get_state(), tiled(wanted))


@pytest.mark.usefixtures("quiet_mujoco")
@pytest.mark.parametrize("aerodynamics", [Aerodynamics(), ALL], ids=["lag", "all"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e12])
@pytest.mark.parametrize("place", ["qpos", "qvel", "ctrl"])
def test_a_broken_environment_recovers_alone(
    make_engine: MakeEngine,
    disturb: Disturb,
    assert_identical: Same,
    aerodynamics: Aerodynamics,
    value: float,
    place: str,
) -> None:
    """It is flagged, finite, and its clock goes on; the others do not notice; the next step is sound.

    A command that is huge, or infinite, is only clipped to the motors' range.
    """
    engine, clean = (make_engine(num_envs=3, num_drones=2, aerodynamics=aerodynamics) for _ in range(2))
    for each in (engine, clean):
        disturb(each, 1)
    getattr(engine.state, place)[1, 4] = value
    broken = not (place == "ctrl" and value > 0)
    assert engine.advance().tolist() == [False, broken, False]
    assert not clean.advance().any()
    for array in (engine.state.qpos, engine.state.qvel, engine.state.extras["rotor_speed"]):
        assert np.isfinite(array).all()
    np.testing.assert_allclose(engine.state.time, 0.01)
    others = [0, 2]
    assert_identical(
        {name: array[others] for name, array in engine.get_state().items()},
        {name: array[others] for name, array in clean.get_state().items()},
    )
    engine.state.ctrl[:] = CRAZYFLIE.hover_speed
    assert not engine.advance().any()


@pytest.mark.usefixtures("quiet_mujoco")
def test_a_command_that_is_no_number_moves_nothing(make_engine: MakeEngine, disturb: Disturb) -> None:
    """The environment stays in the state before the step."""
    engine = make_engine(num_envs=2)
    disturb(engine, 0)
    before = engine.state.rows(np.array([1]))
    engine.state.ctrl[1, 2] = np.nan
    assert engine.advance().tolist() == [False, True]
    np.testing.assert_array_equal(engine.state.qpos[1:], before.qpos)
    np.testing.assert_array_equal(engine.state.qvel[1:], before.qvel)
    np.testing.assert_array_equal(engine.state.extras["rotor_speed"][1:], before.extras["rotor_speed"])


def test_resets_touch_only_the_chosen(make_engine: MakeEngine, disturb: Disturb, assert_identical: Same) -> None:
    """The chosen environment has the model's start and standing rotors; the others keep every bit."""
    engine = make_engine(num_envs=3)
    disturb(engine, 0)
    advance(engine, 2)
    before = engine.get_state()
    engine.reset_to_model(np.array([1]))
    after = engine.get_state()
    for name in before:
        assert_identical(after[name][[0, 2]], before[name][[0, 2]])
    np.testing.assert_array_equal(engine.state.qpos[1], [0, 0, 1, 1, 0, 0, 0])
    for array in (engine.state.qvel, engine.state.ctrl, engine.state.time, *engine.state.extras.values()):
        assert not array[1].any()
    np.testing.assert_array_equal(engine.state.mocap_pos[1], [[0, 30, 1], [0, 0, 1]])


def test_shapes(make_engine: MakeEngine) -> None:
    """All engines have the same state, with sensors of zero width."""
    state = make_engine(num_envs=2, num_drones=3).state
    shapes = {name: array.shape[1:] for name, array in vars(state).items() if name != "extras"}
    assert shapes["sensors"][-1] == 0
    del shapes["sensors"]
    assert shapes == {
        "time": (), "qpos": (21,), "qvel": (18,), "ctrl": (12,), "mocap_pos": (2, 3), "mocap_quat": (2, 4)
    }  # fmt: skip
    assert {name: array.shape for name, array in state.extras.items()} == {"rotor_speed": (2, 12), "note": (2, 2)}


def test_the_floor_stops_a_falling_drone(make_engine: MakeEngine) -> None:
    """With standing rotors, a level drone ends up lying on the floor; it takes off again."""
    engine = make_engine()
    engine.state.qpos[0, 2] = 0.3
    engine.state.ctrl[:] = 0.0
    advance(engine, 100)
    assert engine.state.qpos[0, 2] == pytest.approx(RESTING, abs=2e-3)
    assert np.abs(engine.state.qvel).max() < 0.1
    engine.state.ctrl[:] = 1.2 * CRAZYFLIE.hover_speed
    advance(engine, 30)
    assert engine.state.qpos[0, 2] > 0.1


@pytest.mark.parametrize("kind", ["mujoco", "bullet"])
def test_drones_and_obstacles_are_solid(make_engine: MakeEngine) -> None:
    """A drone that flies into a pillar, or into another drone, does not get past; a target is air."""
    engine = make_engine(num_envs=3, num_drones=2)
    engine.state.qpos[:, 1] = 2.0  # The first drones fly along x at y = 2 m,
    engine.state.qvel[:, 0] = 2.0
    engine.state.mocap_pos[0, 0] = [0.5, 2.0, 1.0]  # one into the pillar,
    engine.state.qpos[1, 7:10] = [0.4, 2.0, 1.0]  # one into the second drone,
    engine.state.mocap_pos[2, 1] = [0.5, 2.0, 1.0]  # one through the target.
    advance(engine, 40)
    assert engine.state.qpos[0, 0] < 0.4
    assert engine.state.qpos[1, 0] < engine.state.qpos[1, 7]
    assert engine.state.qpos[1, 7] > 0.41
    assert engine.state.qpos[2, 0] == pytest.approx(0.8, abs=1e-6)


def test_bullet_s_camera_sees_the_pillar_in_front(make_any: MakeEngine) -> None:
    """Turned towards the pillar, the middle of the picture changes; its shape and type are as asked for."""
    engine: Any = make_any("bullet", num_envs=2)
    away = engine.picture(1, 0, 64, 48)
    engine.state.mocap_pos[1, 0] = [0.5, 0.0, 1.0]
    toward = engine.picture(1, 0, 64, 48)
    assert toward.shape == (48, 64, 3)
    assert toward.dtype == np.uint8
    assert (toward[24, 32] != away[24, 32]).any()
    np.testing.assert_array_equal(engine.picture(0, 0, 64, 48), away)


def test_an_unknown_engine_is_named(make_any: MakeEngine) -> None:
    with pytest.raises(ConfigError, match="'gazebo'; allowed are mujoco, bullet, torch"):
        make_any("gazebo")

"""A scene with drones in each engine."""

from collections.abc import Callable, Iterator

import mujoco
import numpy as np
import pytest

from alula.sims.engine import Engine
from alula.sims.quadcopters.config import ENGINES, Aerodynamics
from alula.sims.quadcopters.crazyflie import CRAZYFLIE, add_crazyflie
from alula.sims.quadcopters.engines import make_quadcopter_engine

SUBSTEPS = 5
STILL_AIR = Aerodynamics(motor_lag=False)


def build_scene(num_drones: int, timestep: float) -> mujoco.MjModel:
    """Drones half a metre apart at a height of 1 m, a pillar far away that may be moved, and a target."""
    spec = mujoco.MjSpec()
    spec.option.timestep = timestep
    for index in range(num_drones):
        add_crazyflie(spec, f"drone{index}", (0.5 * index, 0.0, 1.0))
    spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[5, 5, 0.1])
    pillar = spec.worldbody.add_body(name="pillar", mocap=True, pos=[0.0, 30.0, 1.0])
    pillar.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.1, 0.1, 1.0])
    target = spec.worldbody.add_body(name="target", mocap=True, pos=[0.0, 0.0, 1.0])
    target.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.05, 0, 0], contype=0, conaffinity=0)
    return spec.compile()


MakeEngine = Callable[..., Engine]


@pytest.fixture(params=ENGINES)
def kind(request: pytest.FixtureRequest) -> str:
    """Every engine."""
    return str(request.param)


@pytest.fixture
def make_any() -> Iterator[MakeEngine]:
    """`make_any(kind, num_envs=1, num_drones=1, aerodynamics=STILL_AIR)`: an engine with its rotors at hover speed."""
    made: list[Engine] = []

    def make(
        kind: str,
        num_envs: int = 1,
        num_drones: int = 1,
        aerodynamics: Aerodynamics = STILL_AIR,
        timestep: float = 0.002,
        num_threads: int | None = None,
    ) -> Engine:
        model = build_scene(num_drones, timestep)
        extras = {"note": (2,)}
        engine = make_quadcopter_engine(kind, model, num_envs, num_drones, SUBSTEPS, extras, aerodynamics, num_threads)
        engine.state.ctrl[:] = engine.state.extras["rotor_speed"][:] = CRAZYFLIE.hover_speed
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def make_engine(kind: str, make_any: MakeEngine) -> MakeEngine:
    """`make_any` for every engine in turn."""

    def make(*args: object, **kwargs: object) -> Engine:
        return make_any(kind, *args, **kwargs)

    return make


@pytest.fixture
def disturb() -> Callable[[Engine, int], None]:
    """`disturb(engine, seed)`: every drone turned, moving and turning, under commands of its own."""

    def write(engine: Engine, seed: int) -> None:
        rng = np.random.default_rng(seed)
        state = engine.state
        drones = state.qpos.shape[1] // 7
        quaternion = rng.normal([1, 0, 0, 0], 0.3, (engine.num_envs, drones, 4))
        quaternion /= np.linalg.norm(quaternion, axis=-1, keepdims=True)
        state.qpos.reshape(engine.num_envs, drones, 7)[..., 3:] = quaternion
        state.qvel[:] = rng.normal(0, 2.0, state.qvel.shape)
        state.ctrl[:] = CRAZYFLIE.hover_speed * rng.uniform(0.9, 1.1, state.ctrl.shape)
        state.extras["note"][:] = rng.normal(size=state.extras["note"].shape)

    return write

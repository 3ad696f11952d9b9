"""Episodes that differ in physics, delay and noise, and are exact all the same."""

from collections.abc import Callable
from copy import copy
from typing import Any

import mujoco
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from alula.core.errors import ConfigError
from alula.sims.config import Randomization
from alula.sims.mujoco_engine import MujocoEngine
from alula.sims.registry import make_task
from alula.sims.tasks.tabletop.config import LiftConfig
from alula.sims.vector import TaskVectorEnv

Same = Callable[[Any, Any], None]
EVERYTHING = Randomization(mass=0.3, friction=0.5, damping=0.5, actuator_gain=0.2, latency=3, observation_noise=0.01)


def lift(randomization: Randomization, num_envs: int, steps: int = 12) -> TaskVectorEnv:
    """Environments of Lift with short episodes, so that resets happen."""
    config = LiftConfig(max_episode_steps=steps, randomization=randomization)
    return TaskVectorEnv(make_task(config), num_envs, AutoresetMode.SAME_STEP)


def actions(env: TaskVectorEnv, steps: int) -> np.ndarray:
    """Random actions, the same for the same number of environments."""
    low, high = env.task.action["action"].bounds()
    return np.random.default_rng(0).uniform(low, high, (steps, env.num_envs, *low.shape)).astype(np.float32)


def run(env: TaskVectorEnv, sequence: np.ndarray) -> list[Any]:
    """Observations and flags of every step."""
    return [env.step(action)[:4] for action in sequence]


def test_the_same_seed_gives_the_same_episode_in_any_batch(assert_identical: Same) -> None:
    """Physics, delay and noise are drawn from the environment's own stream."""
    many, one = lift(EVERYTHING, 9), lift(EVERYTHING, 1)
    many.reset(seed=list(range(9)))
    one.reset(seed=[5])
    sequence = actions(many, 30)
    wanted = [
        tuple({k: v[5:6] for k, v in o.items()} if isinstance(o, dict) else o[5:6] for o in step)
        for step in run(many, sequence)
    ]
    assert_identical(run(one, sequence[:, 5:6]), wanted)


def test_a_saved_state_holds_models_delays_and_noise(assert_identical: Same) -> None:
    """Another environment goes on exactly, over resets that draw anew."""
    env, other = lift(EVERYTHING, 3), lift(EVERYTHING, 3)
    env.reset(seed=0)
    other.reset(seed=100)
    sequence = actions(env, 40)
    before = run(env, sequence[:5])[-1][0]
    saved = env.get_state()
    first = run(env, sequence[5:])
    assert_identical(other.set_state(saved), before)
    assert_identical(run(other, sequence[5:]), first)


@pytest.mark.parametrize("kind", ["mass", "friction", "damping", "actuator_gain"])
def test_each_parameter_is_scaled_within_its_range(kind: str) -> None:
    """Physics is that of a model changed by hand with the drawn factors, which fill the range around 1."""
    env = lift(Randomization(**{kind: 0.4}), 8)
    env.reset(seed=1)
    factors = env.engine.state.extras["factors"]
    assert factors.min() >= 0.6
    assert factors.max() <= 1.4
    assert abs(factors.mean() - 1.0) < 0.1
    assert factors.std() == pytest.approx(0.4 / np.sqrt(3), rel=0.15)
    by_hand = copy(env.task.model)
    match kind:
        case "mass":
            by_hand.body_mass[:] *= factors[2]
            by_hand.body_inertia[:] *= factors[2][:, None]
        case "friction":
            by_hand.geom_friction[:, 0] *= factors[2]
        case "damping":
            by_hand.dof_damping[:] *= factors[2]
        case _:
            by_hand.actuator_gainprm[:] *= factors[2][:, None]
            by_hand.actuator_biasprm[:] *= factors[2][:, None]
    mujoco.mj_setConst(by_hand, mujoco.MjData(by_hand))
    plain = MujocoEngine(by_hand, 1, env.task.substeps, {})
    original = MujocoEngine(env.task.model, 1, env.task.substeps, {})
    for engine in (plain, original):
        saved = env.engine.get_state()
        engine.set_state({name: saved[name][2:3] for name in ("physics", "control", "sensors")})
    for action in actions(env, 6):
        env.step(action)
        for engine in (plain, original):
            engine.state.ctrl[:] = env.engine.state.ctrl[2:3]
            engine.advance()
    np.testing.assert_array_equal(plain.state.qpos, env.engine.state.qpos[2:3])
    assert kind == "damping" or (original.state.qpos != plain.state.qpos).any()


def test_delay_repeats_the_first_action_and_then_lags(assert_identical: Same) -> None:
    """With delay d, step t executes what was sent at step t - d: as an environment without delay that is sent that."""
    delayed, plain = lift(Randomization(latency=4), 32, 40), lift(Randomization(), 32, 40)
    delayed.reset(seed=3)
    plain.reset(seed=3)
    delays = delayed.engine.state.extras["latency"][:, 0].astype(int)
    assert set(delays) == {0, 1, 2, 3, 4}
    sequence = actions(plain, 15)
    for step, sent in enumerate(sequence):
        due = sequence[np.maximum(step - delays, 0), np.arange(32)]
        assert_identical(delayed.step(sent)[0], plain.step(due)[0])


def test_noise_has_its_size_and_leaves_the_state_alone(assert_identical: Same) -> None:
    """Observations differ from the true ones by N(0, std^2), anew at every step; physics does not know."""
    noisy, plain = lift(Randomization(observation_noise=0.05), 64), lift(Randomization(), 64)
    noisy.reset(seed=0)
    plain.reset(seed=0)
    errors = []
    for action in actions(plain, 8):
        seen, true = noisy.step(action)[0], plain.step(action)[0]
        errors.append(np.concatenate([seen[name] - true[name] for name in true], axis=1))
    assert_identical(noisy.engine.get_state(), plain.engine.get_state())
    assert np.std(errors) == pytest.approx(0.05, rel=0.03)
    assert abs(np.mean(errors)) < 0.002
    assert len(np.unique(np.asarray(errors)[:, 0, 0])) == 8


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"mass": 1.5}, "task.randomization.mass is 1.5; allowed are 0 to 0.9"),
        ({"friction": -0.1}, "task.randomization.friction is -0.1"),
        ({"latency": 99}, "task.randomization.latency is 99 control steps; allowed are 0 to 50"),
        ({"observation_noise": float("nan")}, "task.randomization.observation_noise is nan"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, float], message: str) -> None:
    """By name, with what is allowed."""
    with pytest.raises(ConfigError, match=message):
        Randomization(**setting)  # type: ignore[arg-type]

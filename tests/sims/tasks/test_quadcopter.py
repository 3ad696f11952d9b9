"""Hover, Track, Gates, Land and Formation: their rules, distributions, references and experts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from alula.core.errors import ConfigError
from alula.sims.engine import BatchState
from alula.sims.quadcopters.config import Aerodynamics
from alula.sims.registry import TASKS, make_task
from alula.sims.task import Expert
from alula.sims.tasks.quadcopter.config import (
    FormationConfig,
    GatesConfig,
    HoverConfig,
    LandConfig,
    TrackConfig,
)
from alula.sims.tasks.quadcopter.formation import Formation
from alula.sims.tasks.quadcopter.gates import Gates
from alula.sims.tasks.quadcopter.hover import Hover
from alula.sims.tasks.quadcopter.land import Land
from alula.sims.tasks.quadcopter.track import Track
from alula.sims.tasks.quadcopter.trajectories import minimum_jerk, through
from alula.sims.vector import TaskVectorEnv

Same = Callable[[Any, Any], None]
NAMES = ("hover", "track", "gates", "land", "formation")
LEVEL = np.array([1.0, 0.0, 0.0, 0.0])


def batch(task: Any, num_envs: int, seed: int = 0) -> TaskVectorEnv:
    env = TaskVectorEnv(task, num_envs, AutoresetMode.DISABLED, num_threads=1)
    env.reset(seed=seed)
    return env


def demonstrate(task: Any, num_envs: int, noise: float = 0.0, seed: int = 10_000) -> float:
    """Share of episodes, of distinct seeds, that succeed before they end."""
    env = batch(task, num_envs, seed)
    expert = task.expert(noise, seed=0)
    succeeded, running = np.zeros(num_envs, dtype=bool), np.ones(num_envs, dtype=bool)
    while running.any():
        _, _, terminated, truncated, info = env.step(expert.act(env.engine.state))
        succeeded |= info["success"] & running
        running &= ~(terminated | truncated | succeeded)
    env.close()
    return float(succeeded.mean())


def place(state: BatchState, positions: Any, velocities: Any = 0.0) -> None:
    """Put the only drone of every environment there, level."""
    state.qpos[:, :3], state.qpos[:, 3:] = positions, LEVEL
    state.qvel[:, :3], state.qvel[:, 3:] = velocities, 0.0


@pytest.mark.parametrize("name", NAMES)
def test_the_expert_succeeds(name: str) -> None:
    """With the default configuration, on every one of 10 seeds; benchmarks/experts scores 100."""
    task = make_task(TASKS[name].config())
    assert isinstance(task.expert(0.0, 0), Expert)
    assert demonstrate(task, 10) == 1.0


def test_a_trembling_expert_still_succeeds() -> None:
    """With the noise of demonstrations, at the task that forgives least."""
    assert demonstrate(Hover(HoverConfig()), 20, noise=0.4) >= 0.85


@pytest.mark.parametrize(
    ("mode", "controller"),
    [
        ("position", "pid"),
        ("velocity", "geometric"),
        ("attitude_thrust", "pid"),
        ("thrust_body_rate", "geometric"),
        ("rotor_speed", "pid"),
    ],
)
def test_the_expert_flies_through_every_action_mode(mode: str, controller: str) -> None:
    """Its commands are inverted to the mode; with either controller below it."""
    task = Gates(GatesConfig(action_mode=mode, controller=controller, num_gates=1))
    assert demonstrate(task, 5) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["bullet", "torch"])
def test_the_other_engines_fly_too(engine: str) -> None:
    """To a landing, by the same touchdown rule without contacts."""
    assert demonstrate(Land(LandConfig(engine=engine)), 3) == 1.0


def test_air_does_not_defeat_the_expert() -> None:
    """With drag and the cushion of the ground effect, which its model does not know, it still lands."""
    air = Aerodynamics(drag=True, ground_effect=True)
    assert demonstrate(Land(LandConfig(aerodynamics=air)), 5) == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_doing_nothing_does_not_succeed(name: str) -> None:
    """Hovering thrust and level rates: the scene is never solved from the start."""
    task = make_task(TASKS[name].config(engine="torch"))
    env = batch(task, 20)
    action = np.tile([0.027 * 9.81, 0, 0, 0], (20, task.num_drones)).astype(np.float32)
    for _ in range(30):
        assert not env.step(action)[4]["success"].any()
    env.close()


def test_the_expert_s_noise_is_seeded(assert_identical: Same) -> None:
    """Equal seeds tremble alike, others otherwise; without noise the seed does not matter."""
    task = Hover(HoverConfig(engine="torch"))
    env = batch(task, 3)
    actions = {key: task.expert(*key).act(env.engine.state) for key in ((0.4, 1), (0.4, 2), (0.0, 1), (0.0, 2))}
    assert_identical(task.expert(0.4, 1).act(env.engine.state), actions[0.4, 1])
    assert (actions[0.4, 1] != actions[0.4, 2]).all()
    assert_identical(actions[0.0, 1], actions[0.0, 2])
    env.close()


@pytest.mark.parametrize("name", NAMES)
def test_drones_start_as_configured(name: str) -> None:
    """Unit quaternions within the tilt, velocities within the speed, inside the arena, rotors at hover speed."""
    task = make_task(TASKS[name].config(engine="torch", start_tilt=0.3, start_speed=0.7))
    env = batch(task, 200)
    state = env.engine.state
    poses = state.qpos.reshape(200, task.num_drones, 7)
    np.testing.assert_allclose(np.linalg.norm(poses[..., 3:], axis=-1), 1.0)
    angles = 2 * np.arccos(poses[..., 3])
    assert 0.3 < angles.max() <= 0.3 * np.sqrt(3) + 1e-9
    velocities = task.velocity(state)
    assert 0.65 < np.abs(velocities).max() <= 0.7
    assert not task.crashed(state).any()
    assert not task.success(state).any()
    assert (state.ctrl == state.extras["rotor_speed"]).all()
    env.close()


def test_what_is_observed() -> None:
    """Pose and velocities under their names; the rotation's rows turn body into world axes."""
    env = batch(Hover(HoverConfig(engine="torch")), 5)
    state, names = env.engine.state, env.task.observation["observation.state"].element_names
    seen = dict(zip(names, env.task.observe(state)["observation.state"].T.astype(float), strict=True))
    for index, name in enumerate(("x", "y", "z")):
        np.testing.assert_allclose(seen[name], state.qpos[:, index], rtol=1e-6)
        np.testing.assert_allclose(seen[f"velocity_{name}"], state.qvel[:, index], rtol=1e-6)
        np.testing.assert_allclose(seen[f"rate_{name}"], state.qvel[:, 3 + index], rtol=1e-6)
    w, x, y, z = state.qpos[:, 3:].T
    np.testing.assert_allclose(seen["xz"], 2 * (x * z + w * y), atol=1e-6)
    np.testing.assert_allclose(seen["yx"], 2 * (x * y + w * z), atol=1e-6)
    np.testing.assert_allclose(seen["zz"], 1 - 2 * (x * x + y * y), atol=1e-6)
    target = env.task.observe(state)["observation.environment_state"]
    np.testing.assert_allclose(target, state.mocap_pos[:, 0] - state.qpos[:, :3], rtol=1e-5)
    env.close()


@pytest.mark.parametrize(
    ("position", "expected"),
    [((0, 0, 1), False), ((3.1, 0, 1), True), ((0, -3.1, 1), True), ((0, 0, 3.1), True), ((0, 0, 0.02), True)],
)
def test_a_crash_ends_the_episode(position: tuple[float, float, float], expected: bool) -> None:
    """On the floor or out of the arena."""
    env = batch(Hover(HoverConfig()), 2)
    place(env.engine.state, position)
    success = np.zeros(2, dtype=bool)
    assert (env.task.terminated(env.engine.state, success) == expected).all()
    env.close()


def test_hover_needs_a_second_without_a_break() -> None:
    """From rest at the target, success comes after one second to the step; a break begins the count anew."""
    still = HoverConfig(target_range=0.0, start_range=0.0, start_tilt=0.0, start_speed=0.0)
    env = batch(Hover(still), 2)
    state, expert = env.engine.state, env.task.expert(0.0, 0)
    found = []
    for step in range(1, 181):
        found.append(env.step(expert.act(state))[4]["success"])
        if step == 40:
            state.qvel[1, 0] = 0.11  # just too fast, for an instant
    first = np.argmax(found, axis=0) + 1
    assert first[0] == 99  # the start is the first of 100 steps
    assert 140 <= first[1] <= 170
    env.close()


def test_hover_s_reward() -> None:
    """One at the target, one half at 10 cm, less 0.02 per rad/s; the episode goes on after success."""
    env = batch(Hover(HoverConfig()), 3)
    state = env.engine.state
    place(state, state.mocap_pos[:, 0] + np.array([[0, 0, 0], [0.1, 0, 0], [0, 0, 0]]))
    state.qvel[2, 3:] = 0, 3, 4
    np.testing.assert_allclose(env.task.reward(state, np.zeros(3, dtype=bool)), [1.0, 0.5, 0.9])
    assert not env.task.terminated(state, np.ones(3, dtype=bool)).any()
    env.close()


def test_track_s_reference_is_smooth() -> None:
    """It begins and ends at rest in the centre; velocity and acceleration are the derivatives of the position."""
    task = Track(TrackConfig())
    position, velocity, acceleration = task.path
    for end in (0, -1):
        np.testing.assert_allclose([position[end], velocity[end], acceleration[end]], 0.0, atol=1e-12)
    np.testing.assert_allclose(np.gradient(position, 0.01, axis=0)[2:-2], velocity[2:-2], atol=2e-3)
    np.testing.assert_allclose(np.gradient(velocity, 0.01, axis=0)[2:-2], acceleration[2:-2], atol=5e-3)
    np.testing.assert_allclose(np.abs(position).max(axis=0), [0.8, 0.4, 0.2], rtol=1e-3)


def test_track_counts_every_error() -> None:
    """Success is what the recorded positions say, at the end of the round, which ends the episode."""
    for bound, expected in ((0.1, True), (0.02, False)):
        task = Track(TrackConfig(bound=bound, lap=4.0, size=0.2))
        env = batch(task, 2)
        state, expert = env.engine.state, task.expert(0.0, 0)
        errors = []
        for step in range(1, 401):
            _, _, terminated, _, info = env.step(expert.act(state))
            errors.append(np.linalg.norm(task.reference(state).position - task.position(state), axis=-1)[:, 0])
            assert (terminated == (step == 400)).all()
        root = np.sqrt(np.mean(np.square(errors), axis=0))
        assert info["success"].tolist() == (root < bound).tolist() == [expected] * 2
        env.close()


STEPS_AT_A_GATE = [
    # name, start and end of a step in the gate's frame (along, left, up) [m], passed, hit
    ("through the middle", (-0.1, 0, 0), (0.1, 0, 0), True, False),
    ("through a corner", (-0.1, 0.13, 0.18), (0.1, 0.13, 0.18), True, False),
    ("from behind", (0.1, 0, 0), (-0.1, 0, 0), False, False),
    ("not yet", (-0.3, 0, 0), (-0.1, 0, 0), False, False),
    ("into the left bar", (-0.1, 0.15, 0), (0.1, 0.15, 0), False, True),
    ("into the lower bar", (-0.1, 0, -0.2), (0.1, 0, -0.2), False, True),
    ("into a bar from behind", (0.1, 0.25, 0), (-0.1, 0.25, 0), False, True),
    ("beside it", (-0.1, 0.4, 0), (0.1, 0.4, 0), False, False),
    ("above it", (-0.1, 0, 0.35), (0.1, 0, 0.35), False, False),
    ("slantwise through the middle", (-0.1, 0.3, 0), (0.1, -0.3, 0), True, False),
    ("slantwise into a bar", (-0.1, -0.1, 0), (0.1, 0.5, 0), False, True),
]


@pytest.mark.parametrize(("start", "end", "passed", "hit"), [case[1:] for case in STEPS_AT_A_GATE])
def test_a_gate_is_passed_through_its_opening(
    start: tuple[float, ...], end: tuple[float, ...], passed: bool, hit: bool
) -> None:
    """Steps across the planes of first gates in ten directions, and a crash where the frame was hit."""
    env = batch(Gates(GatesConfig()), 10)
    state = env.engine.state
    cos, sin = state.extras["direction"][:, 0].T

    def in_world(point: tuple[float, ...]) -> np.ndarray:
        along, left, up = point
        return state.mocap_pos[:, 0] + np.stack([cos * along - sin * left, sin * along + cos * left, 0 * cos + up], -1)

    state.extras["before"][:] = in_world(start)
    place(state, in_world(end))
    env.task.forward(state)
    assert (state.extras["passed"][:, 0] == passed).all()
    success = env.task.success(state)
    assert not success.any()
    assert (env.task.terminated(state, success) == hit).all()
    env.close()


def test_gates_count_in_order() -> None:
    """Through the second gate first: nothing. Through the first, then the second: observed, rewarded and counted."""
    env = batch(Gates(GatesConfig(num_gates=2)), 4)
    task, state = env.task, env.engine.state
    forward = np.concatenate([state.extras["direction"], np.zeros((4, 2, 1))], axis=2)
    reached = []
    for gate in (1, 0, 1):
        state.extras["before"][:] = state.mocap_pos[:, gate] - 0.05 * forward[:, gate]
        place(state, state.mocap_pos[:, gate] + 0.05 * forward[:, gate])
        task.forward(state)
        reached.append((state.extras["passed"][0, 0], task.reward(state, task.success(state))))
        left = task.observe(state)["observation.environment_state"][:, 10]
        np.testing.assert_array_equal(left, 2 - state.extras["passed"][:, 0])
        task.commit(state)
    assert [passed for passed, _ in reached] == [0, 1, 2]
    np.testing.assert_allclose([reward for _, reward in reached[1:]], 1.0, atol=1e-9)
    assert task.success(state).all()
    env.close()


TOUCHDOWNS = [
    # name, position from the pad [m], velocity [m/s], sinking speed before the last step [m/s], success
    ("soft", (0, 0, 0.015), (0, 0, -0.2), 0.2, True),
    ("not down yet", (0, 0, 0.025), (0, 0, -0.2), 0.2, False),
    ("at the pad's edge", (0.11, 0, 0.015), (0, 0, -0.2), 0.2, True),
    ("beside the pad", (0.09, 0.09, 0.015), (0, 0, -0.2), 0.2, False),
    ("too fast", (0, 0, 0.015), (0, 0, -0.35), 0.2, False),
    ("stopped by the ground", (0, 0, 0.015), (0, 0, 0.0), 1.0, False),
    ("sliding", (0, 0, 0.015), (0.25, 0, -0.2), 0.2, False),
]


@pytest.mark.parametrize(("position", "velocity", "sinking", "expected"), [case[1:] for case in TOUCHDOWNS])
def test_a_landing_is_soft_steady_and_on_the_pad(
    position: tuple[float, ...], velocity: tuple[float, ...], sinking: float, expected: bool
) -> None:
    """States just inside and outside each bound; any touchdown ends the episode. Tilted, none succeeds."""
    env = batch(Land(LandConfig()), 3)
    task, state = env.task, env.engine.state
    place(state, state.mocap_pos[:, 0] + position, velocity)
    state.extras["sinking"][:] = sinking
    task.forward(state)
    assert (task.success(state) == expected).all()
    assert (task.terminated(state, task.success(state)) == (position[2] < 0.02)).all()
    state.qpos[:, 3:5] = np.cos(0.15), np.sin(0.15)
    task.forward(state)
    assert not task.success(state).any()
    env.close()


def test_formations_are_dealt_out_at_random() -> None:
    """Places are apart, every drone gets any of them, polygons and lines occur, all around the centre."""
    env = batch(Formation(FormationConfig(engine="torch")), 300)
    state = env.engine.state
    for spots in (env.task.position(state), state.mocap_pos):
        apart = np.linalg.norm(spots[:, :, None] - spots[:, None], axis=-1)[:, [0, 0, 1], [1, 2, 2]]
        assert apart.min() == pytest.approx(0.6)
        np.testing.assert_allclose(spots.mean(axis=1), [[0, 0, 1]] * 300, atol=1e-9)
    line = apart.max(axis=1) > 1.0
    assert 0.4 < line.mean() < 0.6
    middle = np.argmin(np.linalg.norm(state.mocap_pos - [0, 0, 1], axis=-1), axis=1)[line]
    assert np.bincount(middle, minlength=3).min() > 0.2 * line.sum()
    env.close()


def test_drones_that_come_close_have_collided() -> None:
    """Below `min_distance` between any two, the episode ends."""
    env = batch(Formation(FormationConfig(engine="torch", num_drones=4)), 2)
    task, state = env.task, env.engine.state
    poses = state.qpos.reshape(2, 4, 7)
    assert not task.crashed(state).any()
    poses[0, 3, :3] = poses[0, 1, :3] + [0, 0, 0.149]
    poses[1, 3, :3] = poses[1, 1, :3] + [0, 0, 0.151]
    assert task.crashed(state).tolist() == [True, False]
    env.close()


def test_every_drone_sees_its_place_and_its_neighbours() -> None:
    """Relative positions under the drone's own names, other drones in the order of their numbers."""
    env = batch(Formation(FormationConfig(engine="torch")), 3)
    task, state = env.task, env.engine.state
    field = task.observation["observation.environment_state"]
    values = task.observe(state)["observation.environment_state"]
    seen = dict(zip(field.element_names, values.T, strict=True))
    position = task.position(state)
    np.testing.assert_allclose(seen["drone1_to_place_y"], (state.mocap_pos - position)[:, 1, 1], rtol=1e-5)
    np.testing.assert_allclose(seen["drone1_to_neighbor0_x"], (position[:, 0] - position[:, 1])[:, 0], rtol=1e-5)
    np.testing.assert_allclose(seen["drone1_to_neighbor1_x"], (position[:, 2] - position[:, 1])[:, 0], rtol=1e-5)
    assert task.action["action"].shape == (12,)
    env.close()


def test_minimum_jerk_meets_its_ends() -> None:
    """Positions and velocities as given, no acceleration there; velocity and acceleration are derivatives."""
    draw = np.random.default_rng(0)
    ends = draw.normal(size=(4, 1, 1, 3))
    duration, times = np.array([1.7]), np.linspace(0, 1.7, 2001)
    along = [minimum_jerk(*ends, duration, np.array([time])) for time in times]
    position, velocity, acceleration = (
        np.array([getattr(reference, name)[0, 0] for reference in along])
        for name in ("position", "velocity", "acceleration")
    )
    np.testing.assert_allclose([position[0], velocity[0], position[-1], velocity[-1]], ends[:, 0, 0], atol=1e-12)
    np.testing.assert_allclose(acceleration[[0, -1]], 0.0, atol=1e-12)
    np.testing.assert_allclose(np.gradient(position, times, axis=0)[1:-1], velocity[1:-1], atol=1e-4)
    np.testing.assert_allclose(np.gradient(velocity, times, axis=0)[1:-1], acceleration[1:-1], atol=1e-3)


def test_legs_join_at_their_waypoints() -> None:
    """At the end of every leg the reference is the waypoint; afterwards it stays at the last."""
    draw = np.random.default_rng(1)
    points, velocities = draw.normal(size=(2, 2, 4, 3, 3))
    durations = draw.uniform(0.5, 2.0, (2, 3))
    ends = np.cumsum(durations, axis=1)
    for leg in range(3):
        for moment in (ends[:, leg] - 1e-9, ends[:, leg] + 1e-9):
            got = through(points, velocities, durations, moment)
            np.testing.assert_allclose(got.position, points[:, leg + 1], atol=1e-7)
            np.testing.assert_allclose(got.velocity, velocities[:, leg + 1], atol=1e-6)
    np.testing.assert_allclose(through(points, velocities, durations, ends[:, -1] + 9).position, points[:, -1])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"engine": "gazebo"}, "task.engine is 'gazebo'; allowed are mujoco, bullet, torch"),
        ({"action_mode": "wish"}, "task.action_mode is 'wish'; allowed are position"),
        ({"controller": "lqr"}, "task.controller is 'lqr'; allowed are pid, geometric"),
        ({"control_rate": 300}, "task.control_rate is 300 Hz; allowed are divisors of task.physics_rate"),
        ({"control_rate": 25}, "task.control_rate is 25 Hz; allowed are divisors .* from 50 Hz"),
        ({"physics_rate": 50}, "task.physics_rate is 50 Hz; allowed are 100 Hz to 10000 Hz"),
        ({"start_tilt": 2.0}, "task.start_tilt is 2.0 rad; allowed are 0.0 rad to 1.0 rad"),
        ({"target_range": 5.0}, "task.target_range is 5.0 m; allowed are"),
        ({"max_episode_steps": 0}, "task.max_episode_steps is 0; at least 1"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, Any], message: str) -> None:
    """By key, value, unit and what is allowed."""
    with pytest.raises(ConfigError, match=message):
        HoverConfig(**parameters)


def test_rates_reach_the_physics() -> None:
    """Physics and control at other rates: the same flight, to a few millimetres."""
    ends = []
    for physics_rate, control_rate in ((1000, 200), (500, 50)):
        task = Hover(HoverConfig(physics_rate=physics_rate, control_rate=control_rate, target_range=0.0))
        assert task.control_rate == pytest.approx(control_rate)
        env = batch(task, 2)
        expert = task.expert(0.0, 0)
        for _ in range(2 * control_rate):
            env.step(expert.act(env.engine.state))
        ends.append(env.engine.state.qpos[:, :3].copy())
        assert env.engine.state.time == pytest.approx(2.0)
        env.close()
    for end in ends:
        np.testing.assert_allclose(end, [[0, 0, 1]] * 2, atol=0.05)

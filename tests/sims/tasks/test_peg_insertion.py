"""PegInsertion: geometry, distributions, success, contact and its expert."""

from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Any

import mujoco
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from alula.core.errors import ConfigError, RenderError
from alula.core.geometry import rotate_by_yaw
from alula.sims.rendering import Camera
from alula.sims.robots.kinematics import damped_least_squares, upright_error, yaw_of
from alula.sims.task import Expert
from alula.sims.tasks.peg_insertion.config import PegInsertionConfig
from alula.sims.tasks.peg_insertion.frames import relative_pose
from alula.sims.tasks.peg_insertion.task import PegInsertion
from alula.sims.vector import TaskVectorEnv

Same = Callable[[Any, Any], None]
Placed = Callable[[np.ndarray, np.ndarray], TaskVectorEnv]


@pytest.fixture(scope="module")
def exact() -> PegInsertion:
    """Every socket is measured exactly."""
    return PegInsertion(PegInsertionConfig(offset_std=0.0, offset_yaw_std=0.0))


@pytest.fixture(scope="module")
def mismeasured() -> PegInsertion:
    """Sockets are measured with errors of a centimetre."""
    return PegInsertion(PegInsertionConfig(offset_std=0.01, offset_yaw_std=0.2))


@pytest.fixture
def placed(exact: PegInsertion) -> Iterator[Placed]:
    """`placed(tips, yaws)`: environments at rest with these tip poses in the frames of their true sockets."""
    made = []

    def make(tips: np.ndarray, yaws: np.ndarray) -> TaskVectorEnv:
        env = TaskVectorEnv(exact, len(tips), AutoresetMode.DISABLED)
        made.append(env)
        env.reset(seed=0)
        state = env.engine.state
        yaw = state.extras["socket_yaw"][:, 0]
        target = state.mocap_pos[:, 0] + rotate_by_yaw(tips, yaw)
        for _ in range(40):
            pose = exact.arm.chain.forward(state.qpos)
            twist = np.hstack([target - pose.position, upright_error(pose.rotation, yaw + yaws)])
            state.qpos[:] += damped_least_squares(pose.jacobian, twist, np.zeros_like(state.qpos), 0.02)
        state.ctrl[:] = state.qpos
        exact.forward(state)
        state.extras["target"][:] = state.extras["tool_position"]
        state.extras["target_yaw"][:, 0] = yaw_of(state.extras["tool_rotation"])
        position, turned = relative_pose(state, measured=False)
        np.testing.assert_allclose(position, tips, atol=1e-7)
        np.testing.assert_allclose(turned, yaws, atol=1e-6)
        return env

    yield make
    for env in made:
        env.close()


def demonstrate(task: PegInsertion, num_envs: int, noise: float) -> float:
    """Share of distinct seeds at which the expert succeeds within the time limit."""
    env = TaskVectorEnv(task, num_envs, AutoresetMode.DISABLED)
    env.reset(seed=100)
    expert, succeeded = task.expert(noise, seed=0), np.zeros(num_envs, dtype=bool)
    for _ in range(task.max_episode_steps):
        succeeded |= env.step(expert.act(env.engine.state))[4]["success"]
        if succeeded.all():
            break
    env.close()
    return float(succeeded.mean())


def test_the_expert_inserts_the_peg() -> None:
    """Without noise on at least 95 of 100 seeds, with the clumsiness of the demonstrations on at least 85."""
    task = PegInsertion(PegInsertionConfig())
    assert isinstance(task.expert(0.0, 0), Expert)
    assert demonstrate(task, 100, noise=0.0) >= 0.95
    assert demonstrate(task, 100, noise=0.4) >= 0.85


def test_doing_nothing_does_not_succeed(exact: PegInsertion) -> None:
    """Nor does a peg that only moves down: the start is never above the hole by chance."""
    for actions in (np.zeros(4), np.array([0, 0, -0.01, 0])):
        env = TaskVectorEnv(exact, 50, AutoresetMode.DISABLED)
        env.reset(seed=0)
        for _ in range(30):
            assert not env.step(np.tile(actions, (50, 1)))[4]["success"].any()
        env.close()


def test_the_measurement_error_moves_only_the_measured_socket(
    exact: PegInsertion, mismeasured: PegInsertion, assert_identical: Same
) -> None:
    """Same seed, same physics, success and expert bit for bit; the observed socket is off by the drawn error."""
    envs = [TaskVectorEnv(task, 10, AutoresetMode.DISABLED) for task in (exact, mismeasured)]
    experts = [env.task.expert(0.0, 0) for env in envs]
    observations: list[dict[str, np.ndarray]] = [env.reset(seed=3)[0] for env in envs]
    offset = envs[1].engine.state.extras["offset"].copy()
    assert (np.abs(offset) > 1e-6).all()
    assert not envs[0].engine.state.extras["offset"].any()
    for _ in range(60):
        clear, blurred = (observation["observation.environment_state"].astype(float) for observation in observations)
        assert_identical(observations[0]["observation.state"], observations[1]["observation.state"])
        np.testing.assert_allclose((blurred - clear)[:, [0, 1, 3]], offset, atol=1e-6)
        np.testing.assert_array_equal(blurred[:, 2], clear[:, 2])
        shift = -rotate_by_yaw(np.column_stack([offset[:, :2], np.zeros(10)]), -blurred[:, 3])
        turned = rotate_by_yaw(clear[:, 4:7], -offset[:, 2])
        np.testing.assert_allclose(blurred[:, 4:7], turned + shift, atol=1e-6)
        actions = [expert.act(env.engine.state) for expert, env in zip(experts, envs, strict=True)]
        assert_identical(actions[0], actions[1])
        results = [env.step(action) for env, action in zip(envs, actions, strict=True)]
        assert_identical(results[0][1:], results[1][1:])
        observations = [result[0] for result in results]
    assert envs[0].task.success(envs[0].engine.state).any()
    for env in envs:
        env.close()


SIDES = [
    # name, tip in the socket's frame [m], yaw [rad], success
    ("deep enough", (0, 0, -0.0181), 0.0, True),
    ("not deep enough", (0, 0, -0.0179), 0.0, False),
    ("at the bottom", (0, 0, -0.025), 0.0, True),
    ("within the walls east", (0.00095, 0, -0.02), 0.0, True),
    ("through the east wall", (0.00105, 0, -0.02), 0.0, False),
    ("through the west wall", (-0.00105, 0, -0.02), 0.0, False),
    ("through the north wall", (0, 0.00105, -0.02), 0.0, False),
    ("through the south wall", (0, -0.00105, -0.02), 0.0, False),
    ("beside the socket", (0.06, 0.0, -0.02), 0.0, False),
    ("a little turned", (0, 0, -0.02), 0.095, True),
    ("turned too far left", (0, 0, -0.02), 0.105, False),
    ("turned too far right", (0, 0, -0.02), -0.105, False),
]


@pytest.mark.parametrize(("tip", "yaw", "expected"), [case[1:] for case in SIDES], ids=[case[0] for case in SIDES])
def test_success_needs_depth_position_and_yaw(
    exact: PegInsertion, placed: Placed, tip: tuple[float, float, float], yaw: float, expected: bool
) -> None:
    """States just inside and just outside each bound, in sockets of five poses, however these are measured."""
    env = placed(np.tile(tip, (5, 1)).astype(float), np.full(5, yaw))
    assert (exact.success(env.engine.state) == expected).all()
    env.engine.state.extras["offset"][:] = 0.005
    assert (exact.success(env.engine.state) == expected).all()
    np.testing.assert_array_equal(exact.reward(env.engine.state, np.full(5, expected)), float(expected))
    np.testing.assert_array_equal(exact.terminated(env.engine.state, np.full(5, expected)), expected)


@pytest.mark.parametrize("clearance", [0.0001, 0.0005, 0.002])
def test_the_clearance_is_the_gap(clearance: float) -> None:
    """Between each face of the peg and the wall it faces, in the compiled model; the hole goes to the table."""
    task = PegInsertion(PegInsertionConfig(clearance=clearance))
    model, data = task.model, mujoco.MjData(task.model)
    mujoco.mj_forward(model, data)
    peg = model.geom("peg").size
    assert peg[0] == peg[1]
    for name, axis, sign in (("east", 0, 1), ("west", 0, -1), ("north", 1, 1), ("south", 1, -1)):
        wall = model.geom(name)
        assert sign * wall.pos[axis] - wall.size[axis] - peg[axis] == pytest.approx(clearance, abs=1e-12)
        assert wall.size[1 - axis] >= peg[0] + clearance - 1e-12  # No gap in the corners.
        world = data.geom(name).xpos
        assert world[2] + wall.size[2] == pytest.approx(data.body("socket").xpos[2])
        assert world[2] - wall.size[2] == pytest.approx(0.0, abs=1e-12)
    tip = data.geom("peg").xpos + data.geom("peg").xmat.reshape(3, 3) @ [0, 0, peg[2]]
    np.testing.assert_allclose(tip, data.site("tip").xpos, atol=1e-12)


def distance(shares: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance from the even distribution; above 2.23 / sqrt(n) once in 10 000 fair samples."""
    steps = np.arange(len(shares) + 1) / len(shares)
    ordered = np.sort(shares)
    return float(max(np.abs(ordered - steps[1:]).max(), np.abs(ordered - steps[:-1]).max()))


def test_episodes_start_as_documented(mismeasured: PegInsertion) -> None:
    """Socket, start and measurement error fill their ranges, evenly, and none tells of another."""
    count = 2000
    env = TaskVectorEnv(mismeasured, count, num_threads=1)
    env.reset(seed=0)
    state = env.engine.state
    tip, tip_yaw = state.extras["tool_position"], yaw_of(state.extras["tool_rotation"])
    socket, offset = state.mocap_pos[:, 0], state.extras["offset"]
    uniform = {
        "socket x": (socket[:, 0], 0.42, 0.58),
        "socket y": (socket[:, 1], -0.08, 0.08),
        "socket yaw": (state.extras["socket_yaw"][:, 0], -0.5, 0.5),
        "tip x": (tip[:, 0], 0.44, 0.56),
        "tip y": (tip[:, 1], -0.06, 0.06),
        "tip z": (tip[:, 2], 0.05, 0.11),
        "tip yaw": (tip_yaw, -0.2, 0.2),
    }
    for name, (values, low, high) in uniform.items():
        assert values.min() > low - 1e-6, name
        assert values.max() < high + 1e-6, name
        assert distance((values - low) / (high - low)) < 2.23 / np.sqrt(count), name
    for values, std in zip(offset.T, (0.01, 0.01, 0.2), strict=True):
        assert distance(np.array([NormalDist(0, std).cdf(value) for value in values])) < 2.23 / np.sqrt(count)
    everything = np.column_stack([*(values for values, _, _ in uniform.values()), offset])
    correlations = np.corrcoef(everything.T) - np.eye(everything.shape[1])
    assert np.abs(correlations).max() < 4.5 / np.sqrt(count)
    np.testing.assert_allclose(state.extras["tool_rotation"][:, :, 2], np.tile([0.0, 0.0, -1.0], (count, 1)), atol=1e-5)
    np.testing.assert_array_equal(socket[:, 2], 0.025)
    half = state.extras["socket_yaw"][:, 0] / 2
    np.testing.assert_allclose(state.mocap_quat[:, 0, 0], np.cos(half), atol=1e-12)
    np.testing.assert_allclose(state.mocap_quat[:, 0, 3], np.sin(half), atol=1e-12)
    assert (state.qpos >= mismeasured.arm.low).all()
    assert (state.qpos <= mismeasured.arm.high).all()
    env.close()


@pytest.mark.parametrize(
    ("setting", "allowed"),
    [
        ({"clearance": 0.0}, "task.clearance is 0.0 m; allowed are 0.0001 m to 0.005 m"),
        ({"clearance": float("nan")}, "task.clearance is nan m; allowed"),
        ({"clearance": 0.006}, "allowed are 0.0001 m to 0.005 m"),
        ({"offset_std": -0.001}, "allowed are 0 to 0.01 m and 0 to 0.2 rad"),
        ({"offset_std": 0.02}, "task.offset_std is 0.02 m"),
        ({"offset_yaw_std": 0.3}, "task.offset_yaw_std 0.3 rad"),
        ({"max_episode_steps": 0}, "task.max_episode_steps is 0; at least 1"),
    ],
)
def test_impossible_settings_are_refused_with_what_is_allowed(setting: dict[str, Any], allowed: str) -> None:
    """The message has the value, its unit and the permitted range."""
    with pytest.raises(ConfigError) as caught:
        PegInsertionConfig(**setting)
    assert allowed in str(caught.value)


def test_nothing_is_felt_in_free_space(exact: PegInsertion) -> None:
    """Hovering at the start, forces and torques at the wrist vanish once the arm rests."""
    env = TaskVectorEnv(exact, 20, AutoresetMode.DISABLED)
    env.reset(seed=0)
    for _ in range(60):
        observation, *_ = env.step(np.zeros((20, 4)))
    assert np.abs(observation["observation.state"][:, 10:13]).max() < 0.01  # [N]
    assert np.abs(observation["observation.state"][:, 13:16]).max() < 0.001  # [N m]
    env.close()


def test_the_rim_stops_a_peg_that_is_off_the_hole(exact: PegInsertion, placed: Placed) -> None:
    """Pressed down from 5 mm above, a peg 3 mm off rests on the rim and is felt; in the middle it slides in.

    The compliant arm may slide along the rim, so one that started beside the hole may find it, but never through
    the wall: below the edge it is within the clearance, or past the socket.
    """
    tips = np.array([[0.003, 0, 0.005], [-0.003, 0, 0.005], [0, 0.003, 0.005], [0, -0.003, 0.005], [0, 0, 0.005]])
    env = placed(tips, np.zeros(5))
    position, felt = tips, np.zeros(5)
    for step in range(30):
        back = np.column_stack([(tips - position)[:, :2], np.full(5, -0.004)])
        command = np.column_stack([rotate_by_yaw(back, env.engine.state.extras["socket_yaw"][:, 0]), np.zeros(5)])
        observation, *_ = env.step(command)
        position, _ = relative_pose(env.engine.state, measured=False)
        lateral = np.abs(position[:, :2]).max(axis=1)
        assert not ((position[:, 2] < -0.0005) & (lateral > 0.001) & (lateral < 0.03)).any()
        if step < 5:
            assert (position[:4, 2] > -0.0005).all()
            felt = np.maximum(felt, np.linalg.norm(observation["observation.state"][:, 10:13], axis=1))
    assert (felt[:4] > 10.0).all()  # [N]
    assert exact.success(env.engine.state)[4]


@pytest.mark.parametrize("camera", ["closeup", "overview"])
def test_cameras_show_peg_and_socket_upright(exact: PegInsertion, camera: str) -> None:
    """Orange and blue are in the picture wherever the socket is, and the horizon is level."""
    axes = exact.model.camera(camera).mat0.reshape(3, 3)
    assert axes[2, 0] == pytest.approx(0.0, abs=1e-6)
    assert axes[2, 1] > 0
    env = TaskVectorEnv(exact, 4)
    env.reset(seed=0)
    try:
        lens = Camera(exact.model, camera)
    except RenderError as error:
        pytest.skip(str(error))
    for row in range(4):
        red, _, blue = lens.picture(env.engine.state, row).astype(int).transpose(2, 0, 1)
        assert (red - blue > 70).sum() > 10
        assert (blue - red > 40).sum() > 5
    lens.close()
    env.close()


def test_actions_displace_the_tool_in_the_world(exact: PegInsertion) -> None:
    """Half a second of constant commands moves the tip that way, and only that way, upright all along."""
    commands = np.array([[0.005, 0, 0, 0], [0, -0.005, 0, 0], [0, 0, 0.005, 0], [0, 0, 0, 0.05]])
    env = TaskVectorEnv(exact, 4, AutoresetMode.DISABLED)
    env.reset(seed=[1, 1, 1, 1])
    state = env.engine.state
    start = np.column_stack([state.extras["tool_position"], yaw_of(state.extras["tool_rotation"])])
    for _ in range(10):
        env.step(commands)
    moved = np.column_stack([state.extras["tool_position"], yaw_of(state.extras["tool_rotation"])]) - start
    along = np.array([moved[row] @ commands[row] / np.linalg.norm(commands[row]) for row in range(4)])
    across = moved - along[:, None] * commands / np.linalg.norm(commands, axis=1, keepdims=True)
    assert (along > 5 * np.linalg.norm(commands, axis=1)).all()
    assert (along < 10 * np.linalg.norm(commands, axis=1)).all()
    assert np.abs(across[:, :3]).max() < 0.002
    assert np.abs(across[:, 3]).max() < 0.02
    assert (state.extras["tool_rotation"][:, 2, 2] < -0.999).all()
    env.close()

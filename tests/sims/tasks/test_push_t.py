"""PushT: exact coverage, the model of pushing, and the expert that plans with it."""

from collections.abc import Callable

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from alula.core.errors import ConfigError
from alula.core.geometry import rotate_by_yaw
from alula.sims.task import Task
from alula.sims.tasks.tabletop.config import PushTConfig
from alula.sims.tasks.tabletop.push_t import HALF_HEIGHT, PushT
from alula.sims.tasks.tabletop.pushing import DIRECTION, GAP, STICK_RADIUS, TOUCH, best_push, slide
from alula.sims.tasks.tabletop.t_shape import AREA, BAR, OUTLINE, STEM, UNIT, coverage
from alula.sims.vector import TaskVectorEnv

Share = Callable[[Task, int, float], float]
RNG = np.random.default_rng(0)
POSITIONS, YAWS = RNG.uniform(-0.06, 0.06, (200, 2)), RNG.uniform(-np.pi, np.pi, 200)


@pytest.fixture(scope="module")
def task() -> PushT:
    """The default task."""
    return PushT(PushTConfig())


def within(points: np.ndarray) -> np.ndarray:
    """Whether points lie in the T, from its two rectangles."""
    inside = [(np.abs(points - np.array(center)) <= half).all(axis=-1) for center, half in (BAR, STEM)]
    return inside[0] | inside[1]


def turned(points: np.ndarray, yaw: float) -> np.ndarray:
    """Points of the plane after a rotation."""
    flat = np.column_stack([points, np.zeros(len(points))])
    return rotate_by_yaw(flat, np.full(len(points), yaw))[:, :2]


def upright(quarters: int, shift: np.ndarray) -> float:
    """Coverage by a T in quarter turns, from the overlaps of upright rectangles."""
    total = 0.0
    for center, half in (BAR, STEM):
        center, half = turned(np.array([center]), quarters * np.pi / 2)[0] + shift, np.array(half)
        half = half[::-1] if quarters % 2 else half
        for other, size in (BAR, STEM):
            low = np.maximum(center - half, np.array(other) - size)
            high = np.minimum(center + half, np.array(other) + size)
            total += float(np.prod(np.maximum(high - low, 0.0)))
    return total / AREA


def test_the_expert_covers_the_target(task: PushT, share_of_successes: Share) -> None:
    """From any angle, on at least 19 of 20 seeds."""
    assert share_of_successes(task, 20, 0.0) >= 0.95


def test_coverage_at_rest_and_far_away() -> None:
    """All of it, in full turns; nothing of it, at any angle."""
    assert coverage(np.zeros((3, 2)), np.array([0.0, 2 * np.pi, -2 * np.pi])) == pytest.approx(1.0, abs=1e-12)
    assert coverage(np.full((5, 2), 0.12), np.linspace(-3, 3, 5)) == pytest.approx(0.0, abs=1e-12)


def test_coverage_of_upright_shapes_is_that_of_their_rectangles() -> None:
    """In quarter turns and at random shifts; a small shift loses the T's width, four units, times the shift."""
    for quarters in range(4):
        for shift in POSITIONS[:25]:
            got = coverage(shift[None], np.array([quarters * np.pi / 2]))[0]
            assert got == pytest.approx(upright(quarters, shift), abs=1e-9)
    shifts = np.array([[0.005, 0.0], [-0.005, 0.0], [0.0, 0.005], [0.0, -0.005]])
    assert coverage(shifts, np.zeros(4)) == pytest.approx(1.0 - 4 * UNIT * 0.005 / AREA, abs=1e-12)


def test_coverage_at_any_angle_is_the_share_of_points() -> None:
    """Of a lattice of 0.5 mm."""
    grid = np.arange(-0.1, 0.1, 0.0005) + 0.00025
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    points = points[within(points)]
    assert len(points) * 0.0005**2 == pytest.approx(AREA, rel=0.02)
    exact = coverage(POSITIONS[:40], YAWS[:40])
    for index in range(40):
        seen = within(turned(points - POSITIONS[index], -YAWS[index])).mean()
        assert exact[index] == pytest.approx(seen, abs=0.015)


def test_coverage_is_mutual_and_continuous() -> None:
    """What T covers of target, target covers of T; rounding errors never matter, not even where edges coincide."""
    back = np.array([turned(-position[None], -yaw)[0] for position, yaw in zip(POSITIONS, YAWS, strict=True)])
    np.testing.assert_allclose(coverage(POSITIONS, YAWS), coverage(back, -YAWS), atol=1e-12)
    tiny = 1e-15 * RNG.standard_normal((2000, 3))
    assert coverage(tiny[:, :2], tiny[:, 2]) == pytest.approx(1.0, abs=1e-9)


def test_coverage_depends_on_the_relative_pose_alone(task: PushT) -> None:
    """Moving T and target together changes nothing; success is a bound on it."""
    env = TaskVectorEnv(task, 50, AutoresetMode.DISABLED)
    env.reset(seed=0)
    state, block, target = env.engine.state, task.things["block"], task.fixtures["target"]
    before = task.metrics(state)["coverage"]
    assert before == pytest.approx(coverage(*task.block_in_target(state)))
    everyone, turn = np.arange(50), np.linspace(-3, 3, 50)
    for body, height in ((block, HALF_HEIGHT), (target, 0.0)):
        yaw, moved = body.yaw(state) + turn, rotate_by_yaw(body.position(state), turn) + np.array([0.1, -0.2, 0.0])
        moved[:, 2] = height
        body.place(state, everyone, moved, yaw)
    np.testing.assert_allclose(task.metrics(state)["coverage"], before, atol=1e-9)
    place = target.position(state) + np.array([0.0, 0.0, HALF_HEIGHT])
    for shift, expected in ((0.0, True), (0.0052, True), (0.0053, False)):
        block.place(
            state,
            everyone,
            place + rotate_by_yaw(np.tile([shift, 0, 0], (50, 1)), target.yaw(state)),
            target.yaw(state),
        )
        assert (task.success(state) == expected).all()
    env.close()


def test_the_t_is_that_of_the_literature() -> None:
    """Bar four by one, stem one by three, centre of mass at the origin; the model has the same."""
    assert np.ptp(OUTLINE, axis=0) == pytest.approx([4 * UNIT, 4 * UNIT])
    x, y = OUTLINE.T
    assert 0.5 * (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() == pytest.approx(AREA)
    assert 4 * np.array(BAR[0]) + 3 * np.array(STEM[0]) == pytest.approx(0.0, abs=1e-12)


def test_block_and_model_share_the_centre_of_mass(task: PushT) -> None:
    """In the compiled scene."""
    np.testing.assert_allclose(task.model.body("block").ipos, 0.0, atol=1e-9)


def test_a_push_moves_the_point_that_it_touches() -> None:
    """The pushed point moves as the stick; through the centre of mass nothing turns; off it the side decides."""
    contact, step = RNG.uniform(-0.06, 0.06, (30, 4, 2)), RNG.uniform(-0.01, 0.01, (30, 4, 2))
    move, angle = slide(contact, step)
    swept = np.stack([-contact[..., 1], contact[..., 0]], axis=-1) * angle[..., None]
    np.testing.assert_allclose(move + swept, step, atol=1e-12)
    move, angle = slide(contact, 0.1 * contact)
    np.testing.assert_allclose(move, 0.1 * contact, atol=1e-12)
    np.testing.assert_allclose(angle, 0.0, atol=1e-12)
    _, angle = slide(np.array([[[0.05, 0.0], [-0.05, 0.0]]]), np.array([[[0.0, 0.01], [0.0, 0.01]]]))
    assert angle[0, 0] == -angle[0, 1] > 0.0


def test_pushes_start_free_and_aim_at_the_t() -> None:
    """The stick touches the outline without entering it, has room before, and runs into the T."""
    assert not within(TOUCH).any()
    assert not within(TOUCH - GAP * DIRECTION).any()
    assert within(TOUCH + 1.2 * STICK_RADIUS * DIRECTION).all()
    push = best_push(np.array([[0.05, 0.0], [-0.05, 0.0], [0.0, 0.05]]), np.zeros(3))
    way = push.end - push.start
    assert (np.einsum("ni,ni->n", way, [[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0]]) > 0.03).all()


def test_the_t_slides_as_the_model_says(task: PushT) -> None:
    """A first push of the expert brings the T near to where its plan has it: MuJoCo agrees with the model."""
    env = TaskVectorEnv(task, 30, AutoresetMode.DISABLED)
    env.reset(seed=0)
    state, expert = env.engine.state, task.expert(0.0, 0)
    before = task.metrics(state)["coverage"]
    start, _ = task.block_in_target(state)
    pushed = np.zeros(30, dtype=bool)
    for _ in range(60):
        env.step(expert.act(state))
        pushed |= expert.phase == 3
        if pushed.all():
            break
    after, _ = task.block_in_target(state)
    assert pushed.all()
    assert (task.metrics(state)["coverage"] > before).mean() > 0.6
    far = np.linalg.norm(start, axis=1) > 0.04
    assert (np.linalg.norm(after, axis=1) < np.linalg.norm(start, axis=1))[far].mean() > 0.8
    env.close()


def test_the_stick_is_the_tool(task: PushT) -> None:
    """No gripper: the action is a displacement and a turn, and the state has no opening."""
    assert task.action["action"].element_names == ("step_x", "step_y", "step_z", "turn")
    assert "opening" not in task.observation["observation.state"].element_names


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"coverage": 1.0}, "task.coverage is 1.0; allowed are 0.5 to 0.99"),
        ({"start_range": 0.2}, "task.start_range is 0.2 m"),
        ({"robot": "so101"}, "task.robot is so101"),
    ],
)
def test_impossible_parameters_are_refused(parameters: dict[str, float | str], message: str) -> None:
    """By name and value."""
    with pytest.raises(ConfigError, match=message):
        PushTConfig(**parameters)

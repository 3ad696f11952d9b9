"""What has failed is tried again, and behaviours do what their numbers say."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alula.core.errors import ConfigError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.real_robot.contract import DeviceSpec, Limits, Stop
from alula.real_robot.devices.simulated import Simulated
from alula.real_robot.loop import ControlLoop, Tick
from alula.real_robot.recovery import behaviors
from alula.real_robot.recovery.attempts import retry
from alula.real_robot.recovery.behaviors import Action, Condition, Fallback, Node, Retry, Scene, Status
from alula.real_robot.recovery.insertion import SPACE, search_and_insert
from alula.real_robot.recovery.motions import go, line, spiral, wait
from alula.real_robot.recovery.parameters import Parameter, Parameters, tune
from alula.real_robot.recovery.source import Behavior

pytestmark = pytest.mark.real_time

RUNNING, SUCCESS, FAILURE = Status
PERIOD = 0.05


def scene(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Scene:
    return Scene(np.array([x, y, z]), np.array([x, y, z]), PERIOD)


class Told:
    """A leaf that says what it is told, and counts."""

    def __init__(self, *said: Status) -> None:
        self.said, self.ticks, self.resets = said, 0, 0

    def tick(self, scene: Scene) -> Status:
        self.ticks += 1
        return self.said[min(self.ticks, len(self.said)) - 1]

    def reset(self) -> None:
        self.resets += 1


def outcome(node: Node, ticks: int = 20) -> list[Status]:
    """What it says, until it has ended."""
    seen = list[Status]()
    while len(seen) < ticks and (not seen or seen[-1] is RUNNING):
        seen.append(node.tick(scene()))
    return seen


@pytest.mark.parametrize(
    ("results", "recoveries", "verified", "recovered"),
    [
        ([True], [], [True], [None]),
        ([False, False, True], [True, True], [False, False, True], [True, True, None]),
        ([False, False, False], [True, True], [False] * 3, [True, True, None]),
        ([False], [False], [False], [False]),
    ],
)
def test_a_skill_is_tried_until_the_verifier_agrees(
    results: list[bool], recoveries: list[bool], verified: list[bool], recovered: list[bool | None]
) -> None:
    """And no longer than attempts are left, or recovery works; everything that happened is told."""
    order = list[str]()

    def next_of(name: str, answers: Iterator[bool]) -> Callable[[], bool]:
        def ask() -> bool:
            order.append(name)
            return next(answers)

        return ask

    found = retry(
        lambda: order.append("skill"), next_of("verify", iter(results)), next_of("recover", iter(recoveries)), 3
    )
    assert [attempt.verified for attempt in found.attempts] == verified
    assert [attempt.recovered for attempt in found.attempts] == recovered
    assert [attempt.number for attempt in found.attempts] == list(range(1, len(verified) + 1))
    assert found.success is verified[-1]
    assert all(attempt.seconds >= 0 for attempt in found.attempts)
    expected = [part for each in recovered for part in ("skill", "verify", *(["recover"] if each is not None else []))]
    assert order == expected


def test_what_is_raised_is_no_failed_attempt() -> None:
    def broken() -> None:
        raise RuntimeError("no power")

    with pytest.raises(RuntimeError, match="no power"):
        retry(broken, lambda: True, lambda: True, 3)
    with pytest.raises(ConfigError, match="attempts is 0"):
        retry(lambda: None, lambda: True, lambda: True, 0)


def test_a_sequence_goes_on_with_success_and_a_fallback_with_failure() -> None:
    assert outcome(behaviors.Sequence(Told(RUNNING, SUCCESS), Told(SUCCESS))) == [RUNNING, SUCCESS]
    assert outcome(behaviors.Sequence(Told(SUCCESS), Told(RUNNING, FAILURE), Told(SUCCESS))) == [RUNNING, FAILURE]
    assert outcome(Fallback(Told(RUNNING, FAILURE), Told(SUCCESS))) == [RUNNING, SUCCESS]
    assert outcome(Fallback(Told(FAILURE), Told(FAILURE))) == [FAILURE]
    assert (outcome(behaviors.Sequence()), outcome(Fallback())) == ([SUCCESS], [FAILURE])


def test_children_are_not_ticked_out_of_turn() -> None:
    first, second, third = Told(SUCCESS), Told(RUNNING, RUNNING, FAILURE), Told(SUCCESS)
    assert outcome(behaviors.Sequence(first, second, third)) == [RUNNING, RUNNING, FAILURE]
    assert (first.ticks, second.ticks, third.ticks) == (1, 3, 0)


@given(st.integers(1, 6), st.integers(0, 8))
def test_retry_tries_as_often_as_it_may(attempts: int, failures: int) -> None:
    child = Told(*[FAILURE] * failures, SUCCESS)
    seen = outcome(Retry(child, attempts))
    assert child.ticks == min(attempts, failures + 1)
    assert seen[-1] is (SUCCESS if failures < attempts else FAILURE)


def test_a_tree_begins_anew_after_its_end() -> None:
    tree = Retry(behaviors.Sequence(Action(lambda s: wait(s, 2 * PERIOD)), Told(FAILURE, SUCCESS)), 3)
    assert outcome(tree) == [RUNNING, RUNNING, RUNNING, RUNNING, RUNNING, SUCCESS]
    assert outcome(tree) == [RUNNING, RUNNING, SUCCESS]


def test_conditions_ask_the_scene() -> None:
    high = Condition(lambda s: bool(s.pose[2] > 0.1))
    assert (high.tick(scene(z=0.2)), high.tick(scene(z=0.0))) == (SUCCESS, FAILURE)


def wishes(motion: Iterator[np.ndarray], tool: Scene, follow: bool = True) -> np.ndarray:
    """All wishes of a motion, for a tool that goes where it is wished."""
    found = [tool.wish.copy()]
    for wish in motion:
        tool.wish = wish
        if follow:
            tool.pose = wish
        found.append(wish.copy())
    return np.stack(found)


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.floats(-0.1, 0.1)] * 3), st.floats(0.01, 0.3))
def test_a_line_goes_the_whole_way_at_its_speed(way: tuple[float, float, float], speed: float) -> None:
    tool = scene(0.4, 0.1, 0.2)
    path = wishes(line(tool, np.array(way), speed), tool)
    np.testing.assert_allclose(path[-1] - path[0], way, atol=1e-12)
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert (steps <= speed * PERIOD * (1 + 1e-9)).all()
    assert abs(len(steps) - np.linalg.norm(way) / (speed * PERIOD)) < 1 + 1e-9


def test_going_somewhere_ends_there_or_when_something_happens() -> None:
    tool = scene()
    path = wishes(go(tool, np.array([0.0, 0.0, -0.1]), 0.1), tool)
    assert path[-1].tolist() == [0.0, 0.0, -0.1]
    tool = scene()
    path = wishes(go(tool, np.array([0.0, 0.0, -0.1]), 0.1, lambda s: bool(s.pose[2] < -0.03)), tool)
    assert -0.04 < path[-1, 2] < -0.03


@settings(max_examples=10, deadline=None)
@given(st.floats(0.001, 0.003), st.floats(0.002, 0.006), st.floats(0.02, 0.06))
def test_a_spiral_leaves_no_place_out(pitch: float, radius: float, speed: float) -> None:
    """Every point within the radius is at most half a pitch, and half a step, from the path; and it presses."""
    tool = scene(0.5, 0.0, 0.03)
    tool.period = 0.01
    tool.wish = np.array([0.5, 0.0, 0.028])
    path = wishes(spiral(tool, pitch, radius, speed, 0.002, lambda s: False), tool, follow=False)[1:]
    np.testing.assert_allclose(path[:, 2], 0.028)
    away = path[:, :2] - [0.5, 0.0]
    assert np.hypot(*away[-1]) <= radius
    steps = np.linalg.norm(np.diff(away, axis=0), axis=1)
    assert steps.max() <= speed * tool.period * 1.2
    angle = np.linspace(0, 2 * np.pi, 20)
    for distance in (0.3 * radius, 0.9 * (radius - pitch)):
        if distance > 0:
            places = distance * np.column_stack([np.cos(angle), np.sin(angle)])
            nearest = np.linalg.norm(places[:, None] - away[None], axis=2).min(axis=1)
            assert nearest.max() <= np.hypot(0.5 * pitch, 0.5 * speed * tool.period) * 1.2


class Hole:
    """A flat plate with a hole, and a tool that goes where it is wished but not through the plate."""

    def __init__(self, x: float, y: float, half: float = 0.0008, depth: float = 0.025) -> None:
        self.place, self.half, self.depth = np.array([x, y]), half, depth

    def move(self, tool: Scene) -> None:
        above = np.abs(tool.wish[:2] - self.place).max() < self.half or tool.pose[2] < -0.001
        floor = -self.depth if above else 0.0
        tool.pose = np.array([*(self.place if floor and tool.pose[2] < -0.001 else tool.wish[:2]), tool.wish[2]])
        tool.pose[2] = max(tool.pose[2], floor)


def attempt(hole: Hole, values: Mapping[str, float], seconds: float = 60.0) -> tuple[Status, float, np.ndarray]:
    """End, time and path of a search around the origin."""
    tree, tool = search_and_insert(np.zeros(3), 0.02, values), scene(0.0, 0.0, 0.0)
    path = list[np.ndarray]()
    for step in range(round(seconds / PERIOD)):
        status = tree.tick(tool)
        if status is not RUNNING:
            return status, step * PERIOD, np.stack(path)
        hole.move(tool)
        path.append(tool.pose.copy())
    return RUNNING, seconds, np.stack(path)


FINE = {
    "lift": 0.01,
    "travel_speed": 0.1,
    "touch_speed": 0.02,
    "pitch": 0.001,
    "radius": 0.006,
    "search_speed": 0.02,
    "press": 0.002,
}


@pytest.mark.parametrize(("x", "y"), [(0.003, 0.0), (-0.002, 0.004), (0.0, 0.0), (0.0035, -0.0035)])
def test_a_hole_beside_where_it_is_believed_is_found(x: float, y: float) -> None:
    status, _, path = attempt(Hole(x, y), FINE)
    assert status is SUCCESS
    assert path[-1, 2] < -0.02
    # It lifted, by what it was told, before it searched.
    assert path[: path[:, 2].argmin(), 2].max() == pytest.approx(0.01)


def test_numbers_decide_whether_it_is_found() -> None:
    """Too small a radius, or turns too far apart, and the search ends without it, after all attempts."""
    assert attempt(Hole(0.004, 0.0), FINE | {"radius": 0.002})[0] is FAILURE
    assert attempt(Hole(0.004, 0.0008), FINE | {"pitch": 0.003, "search_speed": 0.06})[0] is FAILURE
    quick, slow = (attempt(Hole(0.004, 0.0), FINE | {"search_speed": speed})[1] for speed in (0.02, 0.005))
    assert quick < slow


def test_a_hole_that_is_too_shallow_is_given_up() -> None:
    status, seconds, _ = attempt(Hole(0.001, 0.0, depth=0.01), FINE)
    assert status is FAILURE
    assert seconds < 30


def test_the_space_is_what_tuning_needs() -> None:
    default = SPACE.default()
    assert ((default >= 0) & (default <= 1)).all()
    values = SPACE.values(default)
    assert values == pytest.approx({each.name: each.default for each in SPACE.parameters})
    assert attempt(Hole(0.003, 0.001), values)[0] is SUCCESS
    low, high = SPACE.values(np.full(len(default), -5.0)), SPACE.values(np.full(len(default), 7.0))
    for each in SPACE.parameters:
        assert (low[each.name], high[each.name]) == pytest.approx((each.low, each.high))
    with pytest.raises(ConfigError, match="7 parameters"):
        SPACE.values(np.zeros(2))
    with pytest.raises(ConfigError, match=r"parameter lift is 3 m; allowed are 0 to 1"):
        Parameter("lift", 0, 1, 3, "m")


def test_tuning_finds_a_maximum_though_scores_are_noisy() -> None:
    space = Parameters(tuple(Parameter(name, -1.0, 1.0, 0.0, "m") for name in "abc"))
    noise, asked = np.random.default_rng(0), list[int]()

    def score(sets: Sequence[Mapping[str, float]]) -> np.ndarray:
        asked.append(len(sets))
        if len(asked) == 1:
            assert dict(sets[0]) == {"a": 0.0, "b": 0.0, "c": 0.0}
        away = np.array([(v["a"] - 0.6) ** 2 + (v["b"] + 0.5) ** 2 + (v["c"] - 0.1) ** 2 for v in sets])
        return -away + 0.01 * noise.standard_normal(len(sets))

    point, progress = tune(space, score, generations=12, population=24, seed=1)
    assert asked == [24] * 12
    assert list(space.values(point).values()) == pytest.approx([0.6, -0.5, 0.1], abs=0.1)
    assert progress[-1] > progress[0]


def test_a_behavior_is_a_source_of_a_device() -> None:
    limits = Limits(*((value,) * 3 for value in (-1.0, 1.0, 2.0, 20.0, 1000.0)))
    fields = [SpaceSpec((FieldSpec(name, (3,), units=("m",)),)) for name in ("observation.state", "action")]
    spec = DeviceSpec("test", "test", *fields, limits, 100.0, (Stop.HOLD,), None)
    way, ticks = np.array([0.02, 0.0, 0.03]), list[Tick]()
    source = Behavior(Action(lambda s: line(s, way, 0.3)), spec)
    loop = ControlLoop(Simulated(spec, np.zeros(3)), source, ticks.append)
    loop.run(0.6)
    assert source.status is SUCCESS
    np.testing.assert_allclose(ticks[-1].command.position, way, atol=1e-3)
    assert {tick.intent.source for tick in ticks if tick.intent} == {"recovery"}

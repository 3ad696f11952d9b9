"""Promise S12: whatever is wished, the tool stays in its box and bodies keep their distance."""

from collections.abc import Iterator

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64
from numpy import ndarray

from alula.core.errors import ConfigError, DeviceError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.real_robot.contract import DeviceSpec, Intent, Limits, State, Stop, Workspace
from alula.real_robot.governor import Governor, Reason, SafeCommand
from alula.real_robot.workspace import Apart, ArmWorkspace
from alula.sims.registry import TASKS, make_task

RATE, PERIOD_NS, JOINTS = 50.0, 20_000_000, 6
HOME = np.array([0.0, -1.5, 1.8, -1.9, -1.57, 0.0])
NAMES = [[f"joint{number}"] for number in range(1, JOINTS + 1)]
HALF = np.array([0.2, 0.3, 0.2])
"""Of the box around the tool at home [m]."""
DISTANCE = 0.02
ARM = ("link4", "link5", "link6", "hand")
APART = (Apart(("world",), ("link3", *ARM, "left_finger", "right_finger")), Apart(("link0", "link1"), ARM))
MODEL = make_task(TASKS["reach"].config(robot="ur5e")).model  # type: ignore[call-arg]
LIMITS = Limits(*((value,) * JOINTS for value in (-3.1, 3.1, 2.0, 8.0, 100.0)), 0.01)
SPEC = DeviceSpec(
    "ur5e",
    "test",
    SpaceSpec(()),
    SpaceSpec((FieldSpec("action", (JOINTS,), units=("rad",)),)),
    LIMITS,
    RATE,
    (Stop.HOLD,),
    None,
)


class Witness:
    """Measures by itself, without what it judges."""

    def __init__(self) -> None:
        self.data = mujoco.MjData(MODEL)
        names = [MODEL.body(body).name for body in MODEL.geom_bodyid]
        self.pairs = [
            (first, second)
            for pair in APART
            for first, name in enumerate(names)
            for second, other in enumerate(names)
            if name in pair.first and other in pair.second
        ]

    def place(self, joints: Float64[ndarray, " joints"]) -> None:
        self.data.qpos[:JOINTS] = joints
        mujoco.mj_kinematics(MODEL, self.data)
        mujoco.mj_comPos(MODEL, self.data)

    def tool(self, joints: Float64[ndarray, " joints"]) -> Float64[ndarray, "3"]:
        self.place(joints)
        return np.array(self.data.site("tool").xpos)

    def distance(self, joints: Float64[ndarray, " joints"]) -> float:
        self.place(joints)
        return min(mujoco.mj_geomDistance(MODEL, self.data, *pair, 1.0, None) for pair in self.pairs)

    def jacobian(self, joints: Float64[ndarray, " joints"]) -> Float64[ndarray, "3 joints"]:
        self.place(joints)
        jacobian = np.zeros((3, MODEL.nv))
        mujoco.mj_jacSite(MODEL, self.data, jacobian, None, MODEL.site("tool").id)
        return jacobian[:, :JOINTS]


WITNESS = Witness()
CENTER = WITNESS.tool(HOME)
BOX = tuple((CENTER - HALF).tolist()), tuple((CENTER + HALF).tolist())


def fence() -> ArmWorkspace:
    return ArmWorkspace(MODEL, NAMES, "tool", BOX, APART, DISTANCE)  # type: ignore[arg-type]


class Rig:
    """A governor before an arm that always is where it was commanded to be."""

    def __init__(self, workspace: Workspace) -> None:
        self.governor, self.period = Governor(SPEC, workspace), 0
        self.last = self.governor.start(self.state(HOME), 0)

    def state(self, at: Float64[ndarray, " joints"]) -> State:
        return State({}, at, np.zeros(JOINTS), np.ones(JOINTS, bool), self.period, self.period * PERIOD_NS)

    def step(self, wish: Float64[ndarray, " joints"]) -> SafeCommand:
        self.period += 1
        now = self.period * PERIOD_NS
        before = self.last.position
        self.last = self.governor(Intent(wish, now, "policy"), self.state(before), now)
        for share in (0.5, 1.0):
            tool = WITNESS.tool(before + share * (self.last.position - before))
            assert (np.abs(tool - CENTER) <= HALF + 1e-3).all(), f"{tool} after {self.period} periods"
        distance = WITNESS.distance(self.last.position)
        assert distance >= DISTANCE - 1e-3, f"{distance} m after {self.period} periods"
        return self.last


def greedy(rig: Rig, rng: np.random.Generator) -> Iterator[Float64[ndarray, " joints"]]:
    """Wishes that push through a wall at full speed, along one, at the table, at random; another every second."""
    while True:
        way = rng.choice((-1.0, 1.0)) * np.eye(3)[rng.integers(3)]
        slanted, anywhere, kind = rng.normal(size=3), rng.uniform(-3.0, 3.0, JOINTS), rng.integers(4)
        for _ in range(int(RATE)):
            joints = rig.last.position
            toward = WITNESS.jacobian(joints).T @ (way if kind == 0 else slanted)
            yield joints + 3.0 * np.sign(toward) if kind == 0 else joints + 0.5 * toward if kind == 1 else anywhere


@pytest.mark.parametrize("seconds", [20, pytest.param(3600, marks=pytest.mark.slow)])
def test_nobody_can_leave_the_workspace(seconds: int) -> None:
    """The slow one is an hour of simulated control."""
    rig, moved, prevented = Rig(fence()), 0.0, 0
    wishes = greedy(rig, np.random.default_rng(0))
    for _ in range(int(seconds * RATE)):
        before = rig.last.position
        command = rig.step(next(wishes))
        moved += float(np.abs(command.position - before).sum())
        prevented += Reason.WORKSPACE in command.reasons
    # It was tried hard, and the arm was not simply held for safety's sake.
    assert prevented > 0.2 * seconds * RATE
    assert moved > 0.5 * seconds


@settings(max_examples=5)
@given(st.lists(st.tuples(*[st.floats(-4.0, 4.0)] * JOINTS), min_size=1, max_size=8))
def test_no_sequence_of_wishes_leaves_the_workspace(wishes: list[tuple[float, ...]]) -> None:
    rig = Rig(fence())
    for wish in wishes:
        for _ in range(15):
            rig.step(np.array(wish))


def test_it_agrees_with_distances_measured_one_by_one() -> None:
    """Bodies within the distance of each other, parents and children too, and nothing else, are outside."""
    anywhere = (-9.0, -9.0, -9.0), (9.0, 9.0, 9.0)
    workspace = ArmWorkspace(MODEL, NAMES, "tool", anywhere, APART, DISTANCE)
    joints = np.random.default_rng(0).uniform(-2.5, 2.5, (400, JOINTS))
    distances = np.array([WITNESS.distance(row) for row in joints])
    judged = workspace.inside(joints)
    assert judged[distances > DISTANCE + 0.02].all()
    assert not judged[distances < DISTANCE].any()
    assert 0.2 < judged.mean() < 0.8


def test_nothing_on_a_way_is_missed() -> None:
    """Of a way through an obstacle only the ends are given, or a few places; it is not free all the same."""
    workspace = fence()
    over, lean = HOME.copy(), np.array([0.0, 0.25, 0.0, 0.0, 0.0, 0.0])
    assert workspace.inside(np.stack((over, over - 0.5 * lean))).all()
    ways = [np.linspace(over - lean * 0.5, over + 3.0 * lean, places) for places in (2, 3, 30)]
    assert not any(workspace.free(way) for way in ways)
    assert workspace.free(np.linspace(over - 0.5 * lean, over, 65))
    assert workspace.free(over[None])


class Wall:
    """The first element stays below 0.5, whatever the others do."""

    def inside(self, positions: Float64[ndarray, "points action"]) -> ndarray:
        return np.asarray(positions[:, 0] <= 0.5)

    def free(self, way: Float64[ndarray, "places action"]) -> bool:
        return bool(self.inside(way).all())


def wall_rig() -> tuple[Governor, list[SafeCommand]]:
    governor = Governor(SPEC, Wall())
    state = State({}, np.zeros(JOINTS), np.zeros(JOINTS), np.ones(JOINTS, bool), 0, 0)
    return governor, [governor.start(state, 0)]


def follow(governor: Governor, commands: list[SafeCommand], wish: ndarray, periods: int) -> ndarray:
    for _ in range(periods):
        now = len(commands) * PERIOD_NS
        at = commands[-1].position
        state = State({}, at, np.zeros(JOINTS), np.ones(JOINTS, bool), len(commands), now)
        commands.append(governor(Intent(wish, now, "policy"), state, now))
    return np.stack([command.position for command in commands])


def test_a_wall_is_reached_and_not_hit() -> None:
    """It comes as near as it may and stays there without trembling."""
    governor, commands = wall_rig()
    wish = np.zeros(JOINTS)
    wish[0] = 2.0
    first = follow(governor, commands, wish, 150)[:, 0]
    assert 0.49 < first[-1] <= 0.5
    assert np.ptp(first[-50:]) < 1e-3
    assert Reason.WORKSPACE in commands[-1].reasons


def test_along_a_wall_one_may_move_on() -> None:
    """What pushes into the wall does not hold up the rest, nor the way back."""
    governor, commands = wall_rig()
    wish = np.zeros(JOINTS)
    wish[0] = 2.0
    follow(governor, commands, wish, 100)
    wish[1] = 1.0
    position = follow(governor, commands, wish, 100)[-1]
    assert position[1] == pytest.approx(1.0, abs=1e-3)
    assert position[0] == pytest.approx(0.5, abs=0.01)
    position = follow(governor, commands, np.zeros(JOINTS), 100)[-1]
    np.testing.assert_allclose(position, 0.0, atol=1e-3)


def test_nothing_starts_outside() -> None:
    governor = Governor(SPEC, Wall())
    state = State({}, np.full(JOINTS, 0.6), np.zeros(JOINTS), np.ones(JOINTS, bool), 0, 0)
    with pytest.raises(DeviceError, match="outside its workspace: move it inside by hand"):
        governor.start(state, 0)


def test_what_is_within_the_workspace_passes_to_the_bit() -> None:
    """Promise S13, with somebody watching."""
    rig = Rig(fence())
    for period in range(1, 150):
        wish = HOME + 0.1 * (1 - np.cos(period / RATE))
        assert rig.step(wish).position.tolist() == wish.tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tool": "tol"}, "unknown site 'tol'.* Did you mean 'tool'"),
        ({"joints": [["joint1"], ["joint9"]]}, "unknown joint 'joint9'"),
        ({"apart": [Apart(("world",), ("link33",))]}, "unknown body 'link33'"),
        ({"box": ((0.0, 0.0, 0.0), (1.0, -1.0, 1.0))}, "each edge must be longer"),
        ({"apart": [Apart(("world",), ("hand",))] * 16}, "at most 15"),
    ],
)
def test_a_mistake_is_named(changes: dict[str, object], message: str) -> None:
    settings = {"model": MODEL, "joints": NAMES, "tool": "tool", "box": BOX, **changes}
    with pytest.raises(ConfigError, match=message):
        ArmWorkspace(**settings)  # type: ignore[arg-type]

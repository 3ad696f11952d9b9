"""No input makes the governor break a limit, and what is within limits passes unchanged."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64
from numpy import ndarray

from alula.core.errors import DeviceError
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.real_robot.contract import DeviceSpec, Intent, Limits, State, Stop
from alula.real_robot.governor import Governor, Reason, SafeCommand

RATE = 50.0
PERIOD_NS = 20_000_000
VELOCITY, ACCELERATION, JERK = 2.0, 8.0, 100.0
MARGIN = 0.01


def device(elements: int, following: float = np.inf) -> DeviceSpec:
    """An arm with so many equal joints, from -1 to 1 rad, that may be so far from its commands."""
    values = (-1.0, 1.0, VELOCITY, ACCELERATION, JERK)
    limits = Limits(*((value,) * elements for value in values), MARGIN, (following,) * elements)
    action = SpaceSpec((FieldSpec("action", (elements,), units=("rad",)),))
    return DeviceSpec("test", "test", SpaceSpec(()), action, limits, RATE, (Stop.HOLD,), None)


class Rig:
    """A governor before a device that always is where it was commanded to be."""

    def __init__(self, start: Float64[ndarray, " action"], following: float = np.inf, share: float = 1.0) -> None:
        self.governor = Governor(device(len(start), following).slower(share))
        self.period = 0
        self.commands = [self.governor.start(self.state(start), 0)]

    def state(self, at: Float64[ndarray, " action"], **changes: object) -> State:
        """The device's answer in this period."""
        size = len(at)
        state = State({}, at, np.zeros(size), np.ones(size, bool), self.period, self.period * PERIOD_NS)
        return State(**{**vars(state), **changes})

    def step(self, action: object, state: State | None = None, silent: bool = False) -> SafeCommand:
        """One period with this wish."""
        self.period += 1
        now = self.period * PERIOD_NS
        intent = None if silent else Intent(np.asarray(action), now, "policy")
        self.commands.append(self.governor(intent, state or self.state(self.commands[-1].position), now))
        return self.commands[-1]

    def differences(self) -> list[Float64[ndarray, "periods action"]]:
        """Positions, velocities, accelerations and jerks of all commands, from rest."""
        found = [np.stack([command.position for command in self.commands])]
        rest = [found[0][:1], *[np.zeros_like(found[0][:1])] * 2]
        for before in rest:
            found.append(np.diff(found[-1], axis=0, prepend=before) * RATE)
        return found

    def require_limits(self) -> None:
        """Every command so far keeps them."""
        position, velocity, acceleration, jerk = self.differences()
        rounding = 1 + 1e-9
        assert np.abs(position).max() <= (1.0 - MARGIN) * rounding
        assert np.abs(velocity).max() <= VELOCITY * rounding
        assert np.abs(acceleration).max() <= ACCELERATION * rounding
        assert np.abs(jerk).max() <= JERK * rounding


WISHES: dict[str, Callable[[np.random.Generator, int, int], ndarray]] = {
    "noise": lambda rng, period, size: rng.uniform(-1.5, 1.5, size),
    "rare jumps": lambda rng, period, size: np.random.default_rng(period // 25).uniform(-1.2, 1.2, size),
    "extremes": lambda rng, period, size: rng.choice([-1e38, 1e38, 1e-300, 0.0, 1.0, -1.0], size),
    "square wave": lambda rng, period, size: np.where((period // (1 + np.arange(size) % 60)) % 2, 1.0, -1.0),
    "fast sine": lambda rng, period, size: np.sin(period / RATE * (1 + np.arange(size) / 5)),
    "ramp into a limit": lambda rng, period, size: np.full(size, -0.9 + period * VELOCITY / RATE),
}


@pytest.mark.parametrize("elements", [50, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", WISHES)
def test_no_wish_breaks_a_limit(kind: str, elements: int) -> None:
    """The slow ones are 250,000 actions of each kind: one and a half million."""
    rng = np.random.default_rng(0)
    rig = Rig(rng.uniform(-0.9, 0.9, elements))
    for period in range(250):
        rig.step(WISHES[kind](rng, period, elements))
    rig.require_limits()


@given(st.lists(st.one_of(st.floats(width=32), st.just("silent"), st.just("shape"), st.just("text")), max_size=60))
def test_nothing_at_all_breaks_a_limit(wishes: list[float | str]) -> None:
    rig = Rig(np.array([0.3]))
    for wish in wishes:
        match wish:
            case "silent":
                rig.step(None, silent=True)
            case "shape":
                rig.step(np.zeros((2, 1)))
            case "text":
                rig.step(np.array(["left"]))
            case value:
                rig.step([value])
    rig.require_limits()


def test_what_is_within_limits_passes_to_the_bit() -> None:
    """A gentle sine that starts from rest."""
    rig = Rig(np.zeros(3))
    for period in range(1, 500):
        time = period / RATE
        wish = 0.45 * (1 - np.cos(1.5 * time)) * np.array([1.0, -0.7, 0.1])
        command = rig.step(wish)
        assert command.position.tolist() == wish.tolist()
        assert command.reasons == ()


def test_a_jump_is_reached_without_passing_it() -> None:
    rig = Rig(np.array([-0.5, 0.5, 0.0]))
    target = np.array([0.7, -0.9, 0.001])
    for _ in range(150):
        rig.step(target)
    position = rig.differences()[0]
    np.testing.assert_allclose(position[-1], target, atol=1e-4)
    assert (position[:, 0] <= 0.7 + 1e-6).all()
    assert (position[:, 1] >= -0.9 - 1e-6).all()
    rig.require_limits()
    # Near the least time there is: 1.2 rad at 2 rad/s, and about a quarter of a second to get there and to rest.
    assert np.argmax(position[:, 0] > 0.69) / RATE < 1.25


def test_a_moving_wish_is_caught_up_with() -> None:
    """Promise S13: a wish that begins with a jump is met at its own speed, not followed at a braking distance."""
    rig = Rig(np.zeros(1))
    for period in range(100):
        wish = [0.2 + 0.5 * np.sin(period / RATE)]
        command = rig.step(wish)
    assert command.position.tolist() == wish
    assert command.reasons == ()
    rig.require_limits()


@settings(max_examples=8)
@given(st.floats(0.2, 3.0), st.floats(-0.5, 0.5), st.floats(0.02, 0.4))
def test_a_smooth_wish_is_followed_within_50_ms(frequency: float, offset: float, size: float) -> None:
    """Promise S13, wherever it begins and however fast it is within the limits."""
    size = min(size, 0.7 * VELOCITY / frequency, 0.7 * ACCELERATION / frequency**2)
    rig = Rig(np.zeros(1))
    for period in range(150):
        position = rig.step([offset + size * np.sin(frequency * period / RATE)]).position[0]
        if period > 75:
            lagging = offset + size * np.sin(frequency * (period / RATE - np.linspace(0.0, 0.05, 20)))
            assert lagging.min() - 2e-3 <= position <= lagging.max() + 2e-3


def test_the_first_command_is_where_the_device_is() -> None:
    start = np.array([0.123456789, -0.987])
    assert Rig(start).commands[0].position.tolist() == start.tolist()


@pytest.mark.parametrize("bad", [[np.nan, 0.0], [np.inf, 0.0], [0.0], [[0.0, 0.0]], ["up", "down"], None])
def test_three_bad_actions_stop_the_run(bad: object) -> None:
    rig = Rig(np.zeros(2))
    for _ in range(10):
        rig.step([0.5, 0.5])
    for _ in range(2):
        assert Reason.BAD_ACTION in rig.step(bad).reasons
        assert rig.governor.stopped is None
    rig.step(bad)
    assert "3 actions in a row" in str(rig.governor.stopped)
    for _ in range(60):
        assert Reason.EMERGENCY_STOP in rig.step([0.9, 0.9]).reasons
    assert np.ptp(rig.differences()[0][-5:], axis=0).max() == 0.0
    rig.require_limits()


def test_a_silent_source_is_braked_for_in_the_fourth_period() -> None:
    rig = Rig(np.zeros(1))
    for _ in range(20):
        rig.step([0.9])
    moving = rig.commands[-1]
    reasons = [rig.step(None, silent=True).reasons for _ in range(4)]
    assert [Reason.NO_ACTION in found for found in reasons] == [False, False, True, True]
    for _ in range(50):
        rig.step(None, silent=True)
    position, velocity, *_ = rig.differences()
    assert velocity[-1, 0] == 0.0
    # No farther than the braking distance: v squared by 2 a, the way that the jerk limit adds, and three periods.
    assert position[-1, 0] - moving.position[0] < VELOCITY**2 / (2 * ACCELERATION) + 0.2
    assert rig.governor.stopped is None
    assert Reason.NO_ACTION not in rig.step([0.2]).reasons


def test_an_old_action_counts_as_none() -> None:
    rig = Rig(np.zeros(1))
    for _ in range(5):
        rig.period += 1
        now = rig.period * PERIOD_NS
        command = rig.governor(Intent(np.array([0.5]), 0, "policy"), rig.state(np.zeros(1)), now)
    assert Reason.NO_ACTION in command.reasons


def test_an_action_from_the_future_is_no_fresher_than_one_from_now() -> None:
    """A source with a wrong clock must not put the watchdog to sleep."""
    rig = Rig(np.zeros(1))
    rig.period += 1
    now = rig.period * PERIOD_NS
    rig.governor(Intent(np.array([0.5]), now + 3_600_000_000_000, "policy"), rig.state(np.zeros(1)), now)
    reasons = [rig.step(None, silent=True).reasons for _ in range(3)]
    assert Reason.NO_ACTION in reasons[-1]


def test_a_state_that_goes_back_in_time_is_no_news() -> None:
    rig = Rig(np.zeros(1))
    rig.step([0.1])
    old = [rig.step([0.1], state=rig.state(np.zeros(1), sequence=-period)).reasons for period in range(4)]
    assert Reason.STALE_STATE in old[-1]


def test_a_silent_device_halts_at_40_ms_and_ends_the_run_at_100_ms() -> None:
    rig = Rig(np.zeros(1))
    frozen = rig.state(np.zeros(1))
    reasons = [rig.step([0.5], state=frozen).reasons for _ in range(8)]
    stale = [Reason.STALE_STATE in found for found in reasons]
    assert stale == [False, False, True, True, True, True, True, True]
    stopped = [Reason.EMERGENCY_STOP in found for found in reasons]
    assert stopped == [False, False, False, False, False, True, True, True]
    assert "silent for 120 ms" in str(rig.governor.stopped)


def test_an_element_that_is_not_measured_any_more_halts_at_once_and_ends_the_run_after_400_ms() -> None:
    rig = Rig(np.zeros(2))

    def blind_step() -> SafeCommand:
        state = rig.state(rig.commands[-1].position, valid=np.array([True, False]))
        return rig.step(np.ones(2), State(**{**vars(state), "sequence": rig.period + 1}))

    for _ in range(20):
        assert Reason.STALE_STATE in blind_step().reasons
        assert rig.governor.stopped is None
    blind_step()
    assert rig.governor.stopped == "test has not measured element 1 for 420 ms"
    assert rig.governor.faulty
    rig.require_limits()


def test_a_fault_of_the_device_ends_the_run() -> None:
    rig = Rig(np.zeros(1))
    rig.step([0.1], state=rig.state(np.zeros(1), faults=("joint 3 is overheated",)))
    assert "joint 3 is overheated" in str(rig.governor.stopped)


def test_an_emergency_stop_is_latched_until_a_new_start() -> None:
    rig = Rig(np.zeros(1))
    for _ in range(15):
        rig.step([0.9])
    rig.governor.emergency_stop("red button")
    for _ in range(60):
        assert Reason.EMERGENCY_STOP in rig.step([-0.9]).reasons
    rig.governor.emergency_stop("once more")
    assert rig.governor.stopped == "red button"
    rest = rig.commands[-1].position
    rig.governor.start(rig.state(rest), rig.period * PERIOD_NS)
    assert rig.governor.stopped is None


@pytest.mark.parametrize("late", [3, 5])
def test_being_late_is_no_distance_from_the_way(late: int) -> None:
    """At the greatest velocity it is 0.2 rad from the last command, yet always where it was sent 0.1 s ago."""
    rig = Rig(np.array([-0.9]), following=0.02)
    for _ in range(60):
        rig.step([0.9], state=rig.state(rig.commands[max(0, len(rig.commands) - 1 - late)].position))
    assert rig.governor.stopped is None
    assert max(abs(rig.differences()[1])) == pytest.approx(VELOCITY, rel=1e-3)


@pytest.mark.parametrize("share", [1.0, 0.05])
def test_what_stays_behind_ends_the_run_at_any_speed(share: float) -> None:
    """It is stuck, and commands go on by 0.02 rad and what 0.2 s more let them."""
    rig = Rig(np.zeros(1), following=0.02, share=share)
    while rig.governor.stopped is None:
        command = rig.step([0.9], state=rig.state(np.zeros(1)))
    assert "does not follow" in rig.governor.stopped
    assert Reason.NOT_FOLLOWING in command.reasons
    assert 0.02 < command.position[0] < 0.02 + 0.24 * share * VELOCITY
    assert rig.governor.faulty


@pytest.mark.parametrize("share", [1.0, 0.05, 0.001])
def test_what_rests_at_full_speed_rests_at_any(share: float) -> None:
    """Sensors do not become quieter because a device is told to be slow."""
    rig = Rig(np.zeros(1), share=share)
    trembling = rig.state(np.zeros(1), velocity=np.array([0.9e-3 * VELOCITY]))
    assert rig.governor.start(trembling, 0).position.tolist() == [0.0]
    with pytest.raises(DeviceError, match="it moves"):
        rig.governor.start(rig.state(np.zeros(1), velocity=np.array([1.1e-3 * VELOCITY])), 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"velocity": np.array([0.5])}, "it moves"),
        ({"position": np.array([0.995])}, "outside .*move it inside by hand"),
        ({"position": np.array([np.nan])}, "not every element has been measured"),
        ({"valid": np.array([False])}, "not every element has been measured"),
        ({"received_ns": -200_000_000}, "last answer is 200 ms old"),
        ({"faults": ("overload",)}, "overload"),
    ],
)
def test_nothing_starts_that_is_not_ready(changes: dict[str, object], message: str) -> None:
    rig = Rig(np.zeros(1))
    with pytest.raises(DeviceError, match=message):
        rig.governor.start(rig.state(np.zeros(1), **changes), 0)


def test_only_the_governor_makes_commands() -> None:
    """Promise S2."""
    numbers = np.zeros(1), np.zeros(1), np.zeros(1)
    with pytest.raises(TypeError, match="only the governor"):
        SafeCommand(*numbers, None, (), 0)
    with pytest.raises(TypeError, match="only the governor"):
        SafeCommand(*numbers, None, (), 0, None, object())

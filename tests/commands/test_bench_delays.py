"""What a delay does to plans, with policies whose plans are known; in simulated time."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy import ndarray

from alula.commands.benches.delays import DELAY_S, EXECUTE_STEPS, HORIZON, Motion, Unhurried, run_late
from alula.core.real_time import Mode
from alula.real_robot.planning.planner import Request, Think
from alula.sims.tasks.tabletop.config import ReachConfig

SEED, EPISODES = 3_700_000, 2
HURRY, EASE = 0.02, 0.005
"""Steps of the commanded tool per control step: the longest that is permitted, and a slow one [m]."""
MakeThink = Callable[[float], Think]


@pytest.fixture(scope="module")
def task() -> Unhurried:
    """Three seconds at most."""
    return Unhurried(ReachConfig(robot="ur5e", max_episode_steps=60))


@pytest.fixture(scope="module")
def straight(task: Unhurried) -> MakeThink:
    """Goes straight to the target, as fast as is said, and stays: the best plan, given what is committed."""
    names = {name: list(field.element_names) for name, field in task.observation.items()}
    target = names["observation.environment_state"].index("to_target_x")
    lead = names["observation.state"].index("lead_x")

    def make(longest: float) -> Think:
        def think(request: Request) -> ndarray:
            seen, committed = request.observation, request.committed
            state, things = seen["observation.state"], seen["observation.environment_state"]
            way = things[target : target + 3].astype(float) - state[lead : lead + 3]
            plan = np.zeros((HORIZON, task.action["action"].size), np.float32)
            for index in range(HORIZON):
                if committed is not None and index < len(committed.weights) and committed.weights[index] == 1:
                    plan[index] = committed.actions[index]
                else:
                    plan[index, :3] = way * min(1.0, longest / max(float(np.linalg.norm(way)), 1e-9))
                way -= plan[index, :3]
            return plan

        return think

    return make


def late(task: Unhurried, think: Think, mode: Mode, delay: float) -> Motion:
    """A few episodes."""
    motion = Motion()
    for episode in range(EPISODES):
        run_late(task, think, mode, delay, SEED + episode, motion)
    return motion


@pytest.mark.slow
def test_without_delay_nothing_stands_and_agreeing_changes_nothing(task: Unhurried, straight: MakeThink) -> None:
    found = [late(task, straight(EASE), mode, 0.0) for mode in Mode]
    assert [motion.successes for motion in found] == [EPISODES] * len(Mode)
    assert max(np.median(motion.standing) for motion in found) < 0.02
    assert found[0] == found[2]


@pytest.mark.slow
def test_a_delay_stops_the_synchronous_loop_only(task: Unhurried, straight: MakeThink) -> None:
    """The arm stands for no more than the delay's share of a cycle, of which braking takes a part; and that jerks."""
    synchronous, *ahead = (late(task, straight(EASE), mode, DELAY_S) for mode in Mode)
    cycle = DELAY_S + EXECUTE_STEPS / task.control_rate
    assert 0.5 * DELAY_S / cycle < np.median(synchronous.standing) <= DELAY_S / cycle + 0.02
    for motion in ahead:
        assert np.median(motion.standing) < 0.05
        assert np.median(motion.times) < 0.9 * np.median(synchronous.times)
    assert np.median(ahead[1].jerks) < 0.8 * np.median(synchronous.jerks)


def test_who_makes_up_for_everything_within_the_delay_never_arrives(straight: MakeThink) -> None:
    """Unless plans build on what is committed: what is executed of the others is what follows the correction.

    The plant lags behind its commands, so there is always something to correct.
    """

    def heedless(request: Request) -> ndarray:
        plan = straight(HURRY)(Request(request.step, request.observation))
        plan[EXECUTE_STEPS:] = 0.0
        return plan

    brief = Unhurried(ReachConfig(robot="ur5e", max_episode_steps=30))
    for think, mode, successes in (
        (heedless, Mode.SYNCHRONOUS, EPISODES),
        (heedless, Mode.ASYNCHRONOUS, 0),
        (heedless, Mode.REAL_TIME, 0),
        (straight(HURRY), Mode.REAL_TIME, EPISODES),
    ):
        assert late(brief, think, mode, DELAY_S).successes == successes

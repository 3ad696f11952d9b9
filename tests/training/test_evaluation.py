"""Scores: intervals and tests against golden values, and episodes that count once."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alula.core.executor import ChunkExecutor, ChunkQueue
from alula.policies.policy import GenerativePolicy, Policy
from alula.sims.task import Task
from alula.sims.vector import TaskVectorEnv
from alula.training import evaluation
from alula.training.evaluation import Evaluation, compare, evaluate, wilson_interval

MakeBase = Callable[..., GenerativePolicy]


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.277533), (10, 10, 0.722467, 1.0), (50, 100, 0.403832, 0.596168), (1, 1, 0.206549, 1.0)],
)
def test_wilson_intervals(successes: int, trials: int, low: float, high: float) -> None:
    """Golden values."""
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-6)


@given(trials=st.integers(1, 500), data=st.data())
def test_the_interval_holds_the_share_and_mirrors(trials: int, data: st.DataObject) -> None:
    """It lies in [0, 1], contains the observed share, and failures have the mirrored one."""
    successes = data.draw(st.integers(0, trials))
    low, high = wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials + 1e-12
    assert successes / trials - 1e-12 <= high <= 1
    assert wilson_interval(trials - successes, trials) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def outcome(success: list[bool]) -> Evaluation:
    """An evaluation with this success."""
    count = len(success)
    return Evaluation(list(range(count)), success, [1] * count, False, 0, 1.0, 1.0)


def pairs(both: int, first: int, second: int, neither: int) -> tuple[Evaluation, Evaluation]:
    """Two evaluations with these counts."""
    a = [True] * (both + first) + [False] * (second + neither)
    b = [True] * both + [False] * first + [True] * second + [False] * neither
    return outcome(a), outcome(b)


@pytest.mark.parametrize(
    ("first", "second", "p_value"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (0, 5, 0.0625),
        (1, 9, 0.021484375),
        (6, 6, 1.0),
        (0, 10, 2 / 1024),
        (3, 12, 0.03515625),
    ],
)
def test_mcnemar_exact_p_values(first: int, second: int, p_value: float) -> None:
    """Twice the binomial tail of the discordant pairs, at most 1."""
    found = compare(*pairs(7, first, second, 4))
    assert found.p_value == pytest.approx(p_value, abs=1e-12)
    assert (found.only_first, found.only_second, found.both, found.neither) == (first, second, 7, 4)


def test_a_policy_compared_with_itself() -> None:
    """No difference, p = 1, and an interval around zero."""
    same = outcome([True, False, True])
    found = compare(same, same)
    assert (found.p_value, found.difference) == (1.0, 0.0)
    assert found.low == pytest.approx(-found.high)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_swapping_the_policies_mirrors_the_comparison(outcomes: list[tuple[bool, bool]]) -> None:
    """Same p, opposite difference and interval; the interval is within [-1, 1]."""
    a, b = (outcome(list(column)) for column in zip(*outcomes, strict=True))
    one, other = compare(a, b), compare(b, a)
    assert one.p_value == other.p_value
    assert one.difference == pytest.approx(-other.difference) == pytest.approx(b.rate - a.rate)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert -1 <= one.low <= one.high <= 1


def test_agresti_min_interval() -> None:
    """Golden value: 9 against 1 discordant of 21 pairs, half a pair added to every cell."""
    found = compare(*pairs(7, 1, 9, 4))
    center, size = 8 / 23, 23
    half = 1.959964 * ((11 / size - center**2) / size) ** 0.5
    assert (found.low, found.high) == pytest.approx((center - half, center + half), abs=1e-6)


def test_comparing_needs_the_same_seeds() -> None:
    """In the same order."""
    first = outcome([True, False])
    with pytest.raises(ValueError, match="same seeds"):
        compare(first, replace(first, seeds=[1, 0]))


def counted(result: Evaluation) -> dict[str, Any]:
    """All but the wall clock."""
    return {name: value for name, value in result.to_dict().items() if name != "latency_ms"}


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("name", ["gaussian", "diffusion"])
def test_scoring_again_gives_the_same(make_base: MakeBase, line: Task, name: str, stochastic: bool) -> None:
    """Everything but the wall clock, and another seed of the policy's noise changes what is stochastic."""
    policy = make_base(name, line, **({"std_floor": 0.3} if name == "diffusion" else {}))
    first, second = (evaluate(policy, line, range(50, 90), stochastic, policy_seed=5) for _ in range(2))
    assert counted(first) == counted(second)
    other = evaluate(policy, line, range(50, 90), stochastic, policy_seed=6)
    if stochastic:
        assert (other.lengths, other.success) != (first.lengths, first.success)
    assert first.seeds == list(range(50, 90))
    assert first.network_evaluations == (1.0 if name == "gaussian" else 2.0)


class Straight(Policy):
    """Steps towards the goal at 0.3 a step, without a network."""

    joint_size = execute_steps = 1

    def memory(self, num_envs: int) -> ChunkQueue:
        return ChunkExecutor(1, 1).empty(num_envs)

    def reset(self, memory: ChunkQueue, ended: np.ndarray) -> ChunkQueue:
        return memory

    def act(
        self, observation: Any, memory: ChunkQueue, generator: Any, stochastic: bool
    ) -> tuple[np.ndarray, ChunkQueue, None]:
        return np.clip(-observation["observation.state"], -0.3, 0.3).astype(np.float32), memory, None

    def log_prob(self, observation: Any, trace: Any) -> Any:
        raise NotImplementedError


def expected(seed: int, task: Task, limit: int) -> tuple[bool, int]:
    """Outcome of `Straight` on one seed, by hand, from where that seed begins."""
    environment = TaskVectorEnv(task, 1)
    x = float(environment.reset(seed=[seed])[0]["observation.state"][0, 0])
    environment.close()
    for step in range(1, limit + 1):
        x += float(np.clip(-x, -0.3, 0.3))
        if abs(x) < 0.1:
            return True, step
    return False, limit


@pytest.mark.parametrize("batch", [1, 7, 256])
def test_each_seed_is_one_episode_whatever_the_batch(
    task_of_kind: Callable[..., Task], monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """Success and length of every seed are those of that seed alone; what follows an episode's end is not counted."""
    task = task_of_kind("line", 5)
    monkeypatch.setattr(evaluation, "BATCH", batch)
    policy = Straight()
    seeds = [3, 99, 7, *range(200, 220)]
    result = evaluate(policy, task, seeds)
    wanted = [expected(seed, task, 5) for seed in seeds]
    assert list(zip(result.success, result.lengths, strict=True)) == wanted
    assert {success for success, _ in wanted} == {True, False}
    assert result.rate == sum(success for success, _ in wanted) / len(seeds)
    assert result.interval == wilson_interval(sum(result.success), len(seeds))


def test_what_follows_the_end_of_an_episode_does_not_count(task_of_kind: Callable[..., Task]) -> None:
    """Who falls off the cliff has failed in one step, though idling on beside the others leads to the goal."""
    task = task_of_kind("cliff", 10)
    environments = TaskVectorEnv(task, 100)
    starts = environments.reset(seed=list(range(100)))[0]["observation.state"][:, 0]
    environments.close()
    result = evaluate(Straight(), task, range(100))
    fallen = np.abs(starts) - 0.3 > 1.4
    assert 5 < fallen.sum() < 50
    assert (np.array(result.lengths)[fallen] == 1).all()
    np.testing.assert_array_equal(result.success, ~fallen)
    assert max(result.lengths) >= 6


def test_films_are_of_the_first_episodes(line: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """One frame per step until the episode ends, across batches."""
    monkeypatch.setattr(evaluation, "BATCH", 4)
    policy = Straight()
    result = evaluate(policy, line, range(10), film=6)
    assert [film.seed for film in result.filmed] == list(range(6))
    assert [film.success for film in result.filmed] == result.success[:6]
    lengths = [len(film.frames) for film in result.filmed]
    assert all(0 <= frames - length <= 1 for frames, length in zip(lengths, result.lengths[:6], strict=True))


def test_seeds_must_be_distinct(make_base: MakeBase, line: Task) -> None:
    """An episode counted twice would narrow the interval for nothing."""
    with pytest.raises(ValueError, match="distinct"):
        evaluate(make_base("gaussian", line), line, [1, 2, 1])

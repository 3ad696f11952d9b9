"""Advantages over decisions of any length, against the definition written out."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alula.training.estimators import Steps, generalized_advantages, normalized


def random_steps(seed: int, num_steps: int, num_envs: int, density: float) -> Steps:
    """Episodes that end anywhere for either reason, decisions at arbitrary times and after every end."""
    rng = np.random.default_rng(seed)
    shape = (num_steps, num_envs)
    terminated = rng.random(shape) < 0.15
    truncated = (rng.random(shape) < 0.15) & ~terminated
    decided = rng.random(shape) < density
    decided[1:] |= (terminated | truncated)[:-1]
    reward, value, final = rng.standard_normal((3, *shape))
    return Steps(reward, terminated, truncated, decided, value, final, rng.standard_normal(num_envs))


def brute_force(steps: Steps, discount: float, gae_lambda: float) -> np.ndarray:
    """A_m = sum over the decisions of the same episode from m on of (prod of discount^length x lambda) x delta."""
    num_steps, num_envs = steps.reward.shape
    advantages = np.zeros((num_steps, num_envs))
    for env in range(num_envs):
        starts = np.flatnonzero(steps.decided[:, env]).tolist()
        for position, first in enumerate(starts):
            weight = 1.0
            for start, stop in zip(starts[position:], [*starts[position + 1 :], num_steps], strict=True):
                delta, over = -steps.value[start, env], False
                for t in range(start, stop):
                    delta += discount ** (t - start) * steps.reward[t, env]
                    if steps.terminated[t, env] or steps.truncated[t, env]:
                        over = True
                        if steps.truncated[t, env]:
                            delta += discount ** (t + 1 - start) * steps.final_value[t, env]
                        break
                if not over:
                    onward = steps.next_value[env] if stop == num_steps else steps.value[stop, env]
                    delta += discount ** (stop - start) * onward
                advantages[first, env] += weight * delta
                if over:
                    break
                weight *= discount ** (stop - start) * gae_lambda
    return advantages


CASES: dict[str, Any] = {
    "seed": st.integers(0, 10_000),
    "num_steps": st.integers(1, 24),
    "density": st.sampled_from([0.0, 0.2, 0.6, 1.0]),
}


@given(**CASES, discount=st.sampled_from([0.0, 0.9, 1.0]), gae_lambda=st.sampled_from([0.0, 0.7, 1.0]))
def test_advantages_equal_the_definition(
    seed: int, num_steps: int, density: float, discount: float, gae_lambda: float
) -> None:
    """Termination, truncation and chunks of random lengths, begun at any time and cut by the rollout's end."""
    steps = random_steps(seed, num_steps, 3, density)
    found, target = generalized_advantages(steps, discount, gae_lambda)
    expected = brute_force(steps, discount, gae_lambda)
    at = steps.decided
    np.testing.assert_allclose(found[at], expected[at], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(target[at], (expected + steps.value)[at], rtol=1e-10, atol=1e-10)


@given(seed=st.integers(0, 10_000), discount=st.floats(0.5, 1), gae_lambda=st.floats(0, 1))
def test_decisions_at_every_step_give_the_textbook_recursion(seed: int, discount: float, gae_lambda: float) -> None:
    """A_t = delta_t + discount lambda A_{t+1} without episode ends (Schulman et al. 2016, eq. 16)."""
    steps = random_steps(seed, 20, 3, 1.0)
    none = np.zeros_like(steps.terminated)
    steps = replace(steps, terminated=none, truncated=none)
    following = np.concatenate([steps.value[1:], steps.next_value[None]])
    delta = steps.reward + discount * following - steps.value
    expected, later = np.zeros_like(delta), np.zeros(3)
    for t in reversed(range(20)):
        later = expected[t] = delta[t] + discount * gae_lambda * later
    np.testing.assert_allclose(generalized_advantages(steps, discount, gae_lambda)[0], expected, rtol=1e-10, atol=1e-10)


@given(
    seed=st.integers(0, 10_000),
    density=st.sampled_from([0.2, 1.0]),
    reason=st.sampled_from(["terminated", "truncated"]),
)
def test_nothing_leaks_from_one_episode_into_the_one_before(seed: int, density: float, reason: str) -> None:
    """Other rewards and values after an episode's end leave its advantages the same to the bit."""
    steps = random_steps(seed, 20, 3, density)
    steps.terminated[9] = steps.truncated[9] = False
    getattr(steps, reason)[9] = True
    steps.decided[10] = True
    before = generalized_advantages(steps, 0.99, 0.95)[0][:10]
    rng = np.random.default_rng(seed + 1)
    for array in (steps.reward, steps.value, steps.final_value):
        array[10:] += rng.standard_normal(array[10:].shape)
    steps.next_value += 1.0
    after = generalized_advantages(steps, 0.99, 0.95)[0][:10]
    assert before.tobytes() == after.tobytes()


@pytest.mark.parametrize(("reason", "expected"), [("terminated", 1.0), ("truncated", 5.0), (None, 3.0)])
def test_time_limits_bootstrap_and_the_end_of_the_task_does_not(reason: str | None, expected: float) -> None:
    """One step, reward 1, V = 0 before, V = 8 of the final observation, V = 4 of the next one, discount 0.5."""
    flags = {name: np.array([[name == reason]]) for name in ("terminated", "truncated")}
    one = np.ones((1, 1))
    steps = Steps(
        one, **flags, decided=one.astype(bool), value=0 * one, final_value=8 * one, next_value=np.array([4.0])
    )
    assert generalized_advantages(steps, 0.5, 0.95)[0].item() == expected


def test_the_rewards_of_a_chunk_are_discounted_step_by_step() -> None:
    """A chunk of three rewards 1, 2, 4 and then V = 8, at discount 0.5: 1 + 1 + 1 + 1."""
    reward = np.array([[1.0], [2.0], [4.0]])
    decided = np.array([[True], [False], [False]])
    none = np.zeros((3, 1), dtype=bool)
    steps = Steps(reward, none, none, decided, np.zeros((3, 1)), np.zeros((3, 1)), np.array([8.0]))
    assert generalized_advantages(steps, 0.5, 0.95)[0][0, 0] == 4.0


def test_normalised_advantages() -> None:
    """Mean 0 and deviation 1; where all are equal, exactly 0."""
    found = normalized(np.random.default_rng(0).standard_normal(1000) * 7 + 3)
    assert found.mean() == pytest.approx(0, abs=1e-12)
    assert found.std() == pytest.approx(1, abs=1e-6)
    assert not normalized(np.full(10, 3.0)).any()
    assert not normalized(np.array([5.0])).any()

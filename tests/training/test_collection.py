"""Recording: counts, seeds, successes, and giving up."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alula.core.errors import DatasetError
from alula.core.transitions import Observation
from alula.datasets.store import EpisodeStore
from alula.sims.task import Task
from alula.sims.vector import TaskVectorEnv
from alula.training import collection
from alula.training.collection import collect
from alula.training.rollouts import ExpertActor


@pytest.fixture
def store(tmp_path: Path, line: Task) -> EpisodeStore:
    """An empty dataset for the line."""
    return EpisodeStore.create(tmp_path / "data", line.observation, line.action)


def expert(task: Task, noise: float) -> Callable[[TaskVectorEnv], ExpertActor]:
    """The line's expert in any batch."""
    made = task.expert(noise, 0)
    return lambda environments: ExpertActor(made, environments)


class Away:
    """Never reaches the goal."""

    source = "policy"

    def act(self, observation: Observation) -> np.ndarray:
        return np.where(observation["observation.state"] > 0, 3.0, -3.0).astype(np.float32)

    def reset(self, ended: np.ndarray) -> None:
        pass


def test_as_many_successes_as_asked_for(task_of_kind: Callable[..., Task], store: EpisodeStore) -> None:
    """Where few steps reach the goal failures are tried but not kept, seeds count up, and progress is reported."""
    task = task_of_kind("line", 2)
    reports: list[tuple[int, int]] = []
    tried = collect(
        task, expert(task, 0.05), store, 30, 500, only_success=True, report=lambda *counts: reports.append(counts)
    )
    assert store.num_episodes == 30
    assert reports[-1] == (30, 30)
    metadata = store.episode_metadata
    assert all(entry["success"] and entry["source"] == "expert" for entry in metadata)
    seeds = [entry["seed"] for entry in metadata]
    assert seeds == sorted(set(seeds))
    assert 500 <= seeds[0] <= seeds[-1] < 500 + tried
    assert seeds != list(range(500, 530))


def test_failures_are_kept_when_asked_for(line: Task, store: EpisodeStore) -> None:
    """Then every seed is an episode, in order, and failures run to the time limit."""
    collect(line, expert(line, 3.0), store, 12, 40, only_success=False)
    assert [entry["seed"] for entry in store.episode_metadata] == list(range(40, 52))
    success = np.array([entry["success"] for entry in store.episode_metadata])
    assert not success.all()
    assert (store.lengths[~success] == line.max_episode_steps).all()


def test_what_is_recorded_is_the_episode_of_its_seed(line: Task, store: EpisodeStore) -> None:
    """x, u and their sum fit together; the last step alone ends the episode, and success is where |x| < 0.1."""
    collect(line, expert(line, 0.05), store, 20, 0, only_success=False)
    for index in range(20):
        steps = store.episode(index).steps
        x, u = steps["observation.state"][:, 0], steps["action"][:, 0]
        np.testing.assert_allclose(x[1:], (x + u)[:-1], atol=1e-6)
        reached = np.abs(x + u) < 0.1
        np.testing.assert_array_equal(steps["next.success"], reached)
        ended = steps["next.terminated"] | steps["next.truncated"]
        assert ended.tolist() == [False] * (len(x) - 1) + [True]
        assert steps["next.reward"].tolist() == reached.astype(float).tolist()


def test_a_hopeless_expert_is_given_up(line: Task, store: EpisodeStore) -> None:
    """The message says how many of how many succeeded, and what to change."""
    with pytest.raises(DatasetError, match=r"only \d+ of \d+ episodes succeeded, 40 were asked for.*expert_noise"):
        collect(line, lambda environments: Away(), store, 40, 0, only_success=True)
    assert store.num_episodes == 0


def test_many_episodes_are_no_reason_to_give_up(
    line: Task, store: EpisodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Giving up counts failures, not episodes: a perfect expert records any number."""
    monkeypatch.setattr(collection, "BATCH", 4)
    assert collect(line, expert(line, 0.0), store, 100, 0, only_success=True) == 100
    assert store.num_episodes == 100


def test_nothing_is_added_to_a_dataset_that_has_enough(line: Task, store: EpisodeStore) -> None:
    """Asked for fewer than there are, collecting does nothing."""
    collect(line, expert(line, 0.0), store, 10, 0, only_success=True)
    assert collect(line, expert(line, 0.0), store, 4, 100, only_success=True) == 0
    assert store.num_episodes == 10

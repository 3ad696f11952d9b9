"""Held-out episodes: chosen by the seed, never learned from, and errors that can be worked out by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from alula.core.errors import DatasetError
from alula.core.normalizer import FieldStatistics
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.store import EpisodeStore
from alula.datasets.windows import WindowSampler
from alula.policies.config import FieldConfig, GaussianPolicyConfig
from alula.policies.fields import zero_output
from alula.policies.policy import GenerativePolicy
from alula.policies.registry import make_policy
from alula.training import held_out
from alula.training.checkpoint import load_policy, weights_hash
from alula.training.config import BCConfig
from alula.training.held_out import HeldOut, split_episodes, statistics_of, steps_of
from alula.training.pipeline import clone
from alula.training.run import Run, read_metrics

OBSERVATION = SpaceSpec((FieldSpec("observation.state", (2,)),))
ACTION = SpaceSpec((FieldSpec("action", (2,), units=("m", "rad"), element_names=("reach", "turn")),))
LENGTHS = (5, 1, 7, 4, 6, 3)
SMALL = GaussianPolicyConfig(horizon=3, execute_steps=2, field=FieldConfig(width=8, blocks=1))
QUICK = BCConfig(steps=100, batch_size=16, warmup_steps=5, learning_rate=3e-3, evaluate_every=100)


def episode(length: int, rng: np.random.Generator) -> Episode:
    """The action is the state, scaled; the state is random."""
    state = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
    ends = np.zeros(length, dtype=bool)
    steps = {"observation.state": state, "action": state * np.float32([0.1, 2.0]), "next.reward": np.zeros(length)}
    return Episode(steps | dict.fromkeys(("next.terminated", "next.truncated", "next.success"), ends))


def recorded(path: Path, change: Callable[[int, Episode], None] = lambda index, episode: None) -> EpisodeStore:
    """Episodes of `LENGTHS`, each after `change(index, episode)`."""
    rng = np.random.default_rng(0)
    store = EpisodeStore.create(path, OBSERVATION, ACTION)
    for index, length in enumerate(LENGTHS):
        made = episode(length, rng)
        change(index, made)
        store.append(made)
    return store


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    """Six episodes with 26 steps."""
    return recorded(tmp_path / "data.zarr")


def cloned(store: EpisodeStore, folder: Path, share: float, config: BCConfig = QUICK, seed: int = 0) -> Run:
    """A finished cloning run."""
    run = Run(folder, {}, {})
    clone(store, SMALL, config, seed, run, lambda *_: None, held_out=share)
    run.close()
    return run


def still(center: tuple[float, float]) -> GenerativePolicy:
    """A policy whose every action is `center`, whatever it sees; it predicts three and executes two."""
    policy = make_policy(SMALL, OBSERVATION, ACTION)
    zero_output(policy.field)
    middle = np.array([center])
    ranges = FieldStatistics.of(np.concatenate([middle - 1, middle + 1]))
    policy.fit_normalizers({"observation.state": ranges, "action": ranges})
    return policy


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.01, 1), (0.34, 2), (0.5, 3), (0.8, 5)])
def test_a_share_of_the_episodes_is_kept_back(store: EpisodeStore, share: float, count: int) -> None:
    """At least one, each episode on one side only, the same for the same seed and another for another."""
    split = split_episodes(store, share, seed=3)
    assert len(split.held_out) == count
    assert sorted([*split.training, *split.held_out]) == list(range(6))
    assert (np.diff(split.training) > 0).all()
    assert np.array_equal(split_episodes(store, share, seed=3).held_out, split.held_out)
    if 0 < count < 5:
        assert len({tuple(split_episodes(store, share, seed).held_out) for seed in range(20)}) > 1


def test_something_must_be_left_to_learn_from(tmp_path: Path) -> None:
    """One episode cannot be shared out; the message says how to train on all of it."""
    store = EpisodeStore.create(tmp_path / "one.zarr", OBSERVATION, ACTION)
    store.append(episode(5, np.random.default_rng(0)))
    with pytest.raises(DatasetError, match=r"has 1 episodes with steps.*held_out=0\.1.*held_out=0"):
        split_episodes(store, 0.1, seed=0)
    assert len(split_episodes(store, 0.0, seed=0).training) == 1


def test_steps_are_counted_over_the_whole_dataset(store: EpisodeStore) -> None:
    """Episodes 1 and 3 of lengths 5, 1, 7, 4 have step 5 and steps 13 to 16."""
    assert steps_of(store, np.array([1, 3])).tolist() == [5, 13, 14, 15, 16]
    assert steps_of(store, np.array([], dtype=np.int64)).tolist() == []


def test_statistics_are_those_of_the_chosen_steps(store: EpisodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in blocks of three steps, they equal NumPy's over the chosen rows."""
    monkeypatch.setattr(held_out, "BLOCK_BYTES", 3 * 2 * 4)
    steps = np.array([0, 1, 2, 5, 17, 25])
    found = statistics_of(store, ["action"], steps)["action"]
    values = store.read("action").astype(np.float64)[steps]
    assert found.count == 6
    for mine, theirs in ((found.low, values.min(0)), (found.high, values.max(0)), (found.mean, values.mean(0))):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)
    np.testing.assert_allclose(found.std, values.std(0), rtol=1e-12)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """A recording may hold them where its field allows; a network cannot learn from them, and the field is named."""
    gaps = SpaceSpec((FieldSpec("observation.state", (2,), allow_nan=True),))
    store = EpisodeStore.create(tmp_path / "gaps.zarr", gaps, ACTION)
    made = episode(5, np.random.default_rng(0))
    made.steps["observation.state"][2, 0] = np.nan
    store.append(made)
    with pytest.raises(DatasetError, match=r"'observation\.state'.*not finite.*fields="):
        statistics_of(store, ["observation.state"], np.arange(5))


def test_nothing_is_learned_from_held_out_episodes(tmp_path: Path) -> None:
    """Whatever they hold, weights and scaling are the same to the last bit."""
    kept_back = split_episodes(recorded(tmp_path / "plain.zarr"), 0.34, seed=0).held_out

    def spoil(index: int, made: Episode) -> None:
        if index in kept_back:
            for name in ("observation.state", "action"):
                made.steps[name] = made.steps[name] * 100 + 7

    stores = [EpisodeStore.open(tmp_path / "plain.zarr"), recorded(tmp_path / "spoilt.zarr", spoil)]
    runs = [cloned(store, tmp_path / str(index), 0.34) for index, store in enumerate(stores)]
    assert weights_hash(runs[0].folder) == weights_hash(runs[1].folder)
    errors = [read_metrics(run.folder)[-1]["held_out/error"] for run in runs]
    assert errors[1] > 10 * errors[0]


def test_measuring_leaves_the_training_alone(store: EpisodeStore, tmp_path: Path) -> None:
    """Measured every 100 steps or at the end only: the same weights, and the same last error."""
    often, once = (BCConfig(**{**vars(QUICK), "steps": 300, "evaluate_every": every}) for every in (100, 0))
    runs = [cloned(store, tmp_path / str(config.evaluate_every), 0.34, config) for config in (often, once)]
    assert weights_hash(runs[0].folder) == weights_hash(runs[1].folder)
    errors = [[line["held_out/error"] for line in read_metrics(run.folder) if "held_out/error" in line] for run in runs]
    assert len(errors[0]) == 4  # before, and three times
    assert errors[1] == errors[0][-1:]


def test_a_clone_foretells_what_it_never_saw(tmp_path: Path) -> None:
    """Where the action is a function of what is seen, the first one is learned; the rest of the chunk is random."""
    rng = np.random.default_rng(0)
    store = EpisodeStore.create(tmp_path / "many.zarr", OBSERVATION, ACTION)
    store.extend([episode(20, rng) for _ in range(30)])
    run = Run(tmp_path / "run", {}, {})
    config = GaussianPolicyConfig(horizon=1, execute_steps=1, field=FieldConfig(width=32, blocks=1))
    policy = clone(store, config, BCConfig(steps=400, batch_size=64), 0, run, lambda *_: None, held_out=0.2)
    run.close()
    split = split_episodes(store, 0.2, 0)
    action = statistics_of(store, ["action"], steps_of(store, split.training))["action"]
    measured = HeldOut(store, WindowSampler(store, 1).sample, split.held_out, action, 0).measure(policy)
    assert measured.error < 0.05
    assert measured.baseline == pytest.approx(3**0.5 / 2, rel=0.05)  # mean distance from the middle, in std


def test_the_error_by_hand(store: EpisodeStore) -> None:
    """A policy that stands still is off by its distance from the actions it would execute, ends of episodes left out.

    Of every window the first two of three actions count; at the last step of an episode only one.
    """
    policy = still((0.05, -1.0))
    episodes = np.array([1, 2])
    action = FieldStatistics.of(store.read("action").astype(np.float64))
    measured = HeldOut(store, WindowSampler(store, 3).sample, episodes, action, 0).measure(policy)
    first, second = store.read("action", 5, 6), store.read("action", 6, 13)
    executed = np.concatenate([first, second, second[1:]])
    errors = np.abs(executed - [0.05, -1.0]).mean(0)
    baselines = np.abs(executed - action.mean).mean(0)
    assert [(element.name, element.unit) for element in measured.elements] == [("reach", "m"), ("turn", "rad")]
    np.testing.assert_allclose([element.error for element in measured.elements], errors, rtol=1e-5)
    np.testing.assert_allclose([element.baseline for element in measured.elements], baselines, rtol=1e-5)
    assert measured.error == pytest.approx((errors / action.std).mean(), rel=1e-5)
    assert measured.baseline == pytest.approx((baselines / action.std).mean(), rel=1e-5)
    assert (measured.steps, measured.windows, measured.execute_steps) == (8, 8, 2)
    for found, values in zip(measured.foretold, (first, second), strict=True):
        np.testing.assert_allclose(found.recorded, values, rtol=1e-5)
        np.testing.assert_allclose(found.predicted, np.broadcast_to([0.05, -1.0], values.shape), rtol=1e-5)


def test_an_element_that_never_changed_counts_for_nothing(store: EpisodeStore) -> None:
    """Its spread is zero, so an error cannot be measured by it; the others decide."""
    policy = still((0.0, 0.0))
    action = FieldStatistics.of(store.read("action").astype(np.float64) * [1.0, 0.0])
    measured = HeldOut(store, WindowSampler(store, 3).sample, np.array([2]), action, 0).measure(policy)
    assert measured.error == pytest.approx(measured.elements[0].error / measured.elements[0].std)


def test_predictions_follow_the_recording(store: EpisodeStore, tmp_path: Path) -> None:
    """In the plot every second step is a fresh look, and its successor the second action of that look."""
    run = cloned(store, tmp_path / "run", 0.34)
    policy = load_policy(run.folder).policy
    assert isinstance(policy, GenerativePolicy)
    sampler = WindowSampler(store, 3)
    action = FieldStatistics.of(store.read("action").astype(np.float64))
    (found,) = HeldOut(store, sampler.sample, np.array([2]), action, 0).measure(policy).foretold
    seen = {"observation.state": torch.from_numpy(store.read("observation.state", 6, 13)[::2])}
    chunks, _ = policy.sample(seen, torch.Generator(), stochastic=False)
    np.testing.assert_allclose(found.predicted, chunks[:, :2].reshape(-1, 2)[:7], rtol=1e-4, atol=1e-6)


def test_plots_hold_whole_episodes_as_far_as_they_fit(store: EpisodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for ten steps: 5, 1 and no more; a first episode that is too long is cut."""
    policy = still((0.0, 0.0))
    action = FieldStatistics.of(store.read("action").astype(np.float64))

    def drawn(*episodes: int) -> list[tuple[int, int]]:
        measured = HeldOut(store, WindowSampler(store, 3).sample, np.array(episodes), action, 0).measure(policy)
        return [(found.episode, len(found.recorded)) for found in measured.foretold]

    monkeypatch.setattr(held_out, "MOST_DRAWN", 10)
    assert drawn(0, 1, 2) == [(0, 5), (1, 1)]
    monkeypatch.setattr(held_out, "MOST_DRAWN", 4)
    assert drawn(2, 3) == [(2, 4)]


def test_large_datasets_are_measured_by_evenly_spaced_windows(
    store: EpisodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four of the 26, first and last among them."""
    monkeypatch.setattr(held_out, "MOST_WINDOWS", 4)
    action = FieldStatistics.of(store.read("action").astype(np.float64))
    kept_back = HeldOut(store, WindowSampler(store, 3).sample, np.arange(6), action, 0)
    assert kept_back.measured.tolist() == [0, 8, 17, 25]
    assert kept_back.measure(still((0.0, 0.0))).windows == 4

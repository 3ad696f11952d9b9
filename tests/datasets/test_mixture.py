"""Mixtures draw each source by its weight, and windows hold what their own source recorded."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alula.core.errors import DatasetError, SpecError
from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.mixture import Mixture, Source
from alula.datasets.statistics import statistics
from alula.datasets.store import EpisodeStore
from alula.datasets.windows import WindowSampler

MakeStore = Callable[..., EpisodeStore]
Make = Callable[..., EpisodeStore]
STATE = FieldSpec("observation.state", (2,), units=("rad", "m"))
GOAL = FieldSpec("observation.goal", (1,), units=("m",))
ACTION = FieldSpec("action", (1,), units=("m",), low=(-1.0,), high=(1.0,))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`make(name, lengths, fields)`: a dataset whose values say which one and which step it is."""

    def build(name: str, lengths: list[int], fields: list[FieldSpec], action: FieldSpec = ACTION) -> EpisodeStore:
        store = EpisodeStore.create(tmp_path / name, SpaceSpec(tuple(fields)), SpaceSpec((action,)))
        start = 1000 * ord(name)
        for length in lengths:
            count = np.arange(start, start + length)
            flags = np.zeros(length, dtype=bool)
            steps = {
                "next.reward": np.zeros(length),
                **dict.fromkeys(("next.terminated", "next.truncated", "next.success"), flags),
            }
            for field in (*fields, action):
                values = np.broadcast_to(count.reshape(-1, *(1 for _ in field.shape)), (length, *field.shape))
                steps[field.name] = values.astype(field.dtype)
            store.append(Episode(steps))
            start += length
        return store

    return build


def test_windows_are_those_of_their_own_source(make: Make) -> None:
    """Row by row, a mixture is what the source's own sampler gives; fields that it lacks are zeros and say so."""
    stores = [make("A", [5, 3], [STATE]), make("B", [40], [GOAL, STATE]), make("C", [7], [GOAL])]
    mixture = Mixture([Source(store) for store in stores], horizon=3, history=2)
    assert list(mixture.observation) == ["observation.state", "observation.goal"]
    windows = mixture.sample(np.random.default_rng(0).integers(0, len(mixture), 3000))
    assert windows.source is not None
    assert windows.present is not None
    assert windows.history_mask is not None
    for number, store in enumerate(stores):
        rows = windows.source == number
        steps = windows.actions[rows, 0, 0].astype(int) - 1000 * ord("ABC"[number])
        wanted = WindowSampler(store, 3, history=2).sample(steps)
        assert set(steps) == set(range(store.num_steps)), "every window is drawn sooner or later"
        np.testing.assert_array_equal(windows.actions[rows], wanted.actions)
        np.testing.assert_array_equal(windows.mask[rows], wanted.mask)
        np.testing.assert_array_equal(windows.history_mask[rows], wanted.history_mask)
        for name, field in mixture.observation.items():
            has = name in store.observation
            assert (windows.present[name][rows] == has).all()
            values = wanted.observation[name] if has else np.zeros((rows.sum(), 2, *field.shape))
            np.testing.assert_array_equal(windows.observation[name][rows], values)


@settings(max_examples=10, deadline=None)
@given(sizes=st.lists(st.tuples(st.integers(1, 30), st.floats(0.01, 100.0)), min_size=1, max_size=4))
def test_indices_are_shared_out_by_weight_and_within_a_source_evenly(
    sizes: list[tuple[int, float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """All indices of a source, divided by all there are, is its weight; each window has the same number of them."""
    folder = tmp_path_factory.mktemp("mixture")
    sources = []
    for number, (length, weight) in enumerate(sizes):
        store = EpisodeStore.create(folder / str(number), SpaceSpec(()), SpaceSpec((ACTION,)))
        flags = np.zeros(length, dtype=bool)
        outcome = dict.fromkeys(("next.terminated", "next.truncated", "next.success"), flags)
        count = np.arange(length, dtype=np.float32)[:, None]
        store.append(Episode({"action": count, "next.reward": np.zeros(length), **outcome}))
        sources.append(Source(store, weight))
    mixture = Mixture(sources, horizon=1)
    total = sum(weight for _, weight in sizes)
    np.testing.assert_allclose(mixture.weights, [weight / total for _, weight in sizes])
    start = 0
    for number, (length, weight) in enumerate(sizes):
        num_indices = last_index_of(mixture, number) + 1 - start
        assert num_indices / len(mixture) == pytest.approx(weight / total, rel=2e-6)
        assert num_indices % length == 0
        windows = mixture.sample(start + np.arange(2 * length) % num_indices)
        assert np.bincount(windows.actions[:, 0, 0].astype(int)).tolist() == [2] * length
        start += num_indices
    assert start == len(mixture)


def last_index_of(mixture: Mixture, number: int) -> int:
    """By bisection: sources follow each other in the order of indices."""
    low, high = 0, len(mixture) - 1
    while low < high:
        middle = (low + high + 1) // 2
        source = mixture.sample(np.array([middle])).source
        assert source is not None
        low, high = (middle, high) if source[0] <= number else (low, middle - 1)
    return low


def test_a_seed_decides_what_is_drawn(make: Make) -> None:
    """And the shares of a long draw are the weights."""
    stores = make("A", [5], [STATE]), make("B", [500], [STATE])
    mixtures = [Mixture([Source(stores[0], 3.0), Source(stores[1], 1.0)], horizon=2) for _ in range(2)]
    first, again, other = (
        mixture.sample(np.random.default_rng(seed).integers(0, len(mixture), 20_000))
        for mixture, seed in ((mixtures[0], 1), (mixtures[1], 1), (mixtures[1], 2))
    )
    assert first.source is not None
    np.testing.assert_array_equal(first.actions, again.actions)
    assert (first.actions != other.actions).any()
    assert (first.source == 0).mean() == pytest.approx(0.75, abs=0.01)


def test_statistics_are_kept_by_source_and_combined_by_weight(make: Make) -> None:
    """Half of what is drawn is A's, however short it is; a field that only B has keeps B's statistics."""
    stores = make("A", [10], [STATE]), make("B", [1000], [STATE, GOAL])
    mixture = Mixture([Source(store) for store in stores], horizon=2)
    own = [statistics(store) for store in stores]
    for found, wanted in zip(mixture.source_statistics, own, strict=True):
        assert set(found) <= {"observation.state", "observation.goal", "action"}
        np.testing.assert_array_equal(found["action"].mean, wanted["action"].mean)
    action = mixture.statistics["action"]
    np.testing.assert_allclose(action.mean, (own[0]["action"].mean + own[1]["action"].mean) / 2)
    assert action.low == own[0]["action"].low
    assert action.high == own[1]["action"].high
    for rank, part in ((0.25, own[0]["action"]), (0.75, own[1]["action"])):  # B's values are all larger than A's.
        reach = (part.high - part.low).item() * 0.004
        np.testing.assert_allclose(action.quantile(rank), part.quantile(0.5), atol=reach)
    np.testing.assert_allclose(mixture.statistics["observation.goal"].mean, own[1]["observation.goal"].mean)


def test_memory_is_shared_and_what_exceeds_it_is_mapped(make: Make, tmp_path: Path) -> None:
    sources = [Source(make("A", [10], [STATE])), Source(make("B", [90], [STATE, GOAL]))]
    free = Mixture(sources, horizon=3, cache=tmp_path / "copies")
    assert not (tmp_path / "copies").exists()
    tight = Mixture(sources, horizon=3, memory_limit=0, cache=tmp_path / "copies")
    assert len(list((tmp_path / "copies").glob("*/*.float32"))) == 5
    indices = np.random.default_rng(0).integers(0, len(free), 100)
    np.testing.assert_array_equal(tight.sample(indices).actions, free.sample(indices).actions)


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("observation.state.*shape is", replace(STATE, shape=(3,), units=("rad",))),
        (
            r"observation.state.*unit is \('rad', 'm'\) in '.*A', \('deg', 'm'\) in '.*B'",
            replace(STATE, units=("deg", "m")),
        ),
        ("observation.state.*type in windows is float32 in '.*A', uint8 in '.*B'", replace(STATE, dtype="uint8")),
        ("observation.state.*element names", replace(STATE, element_names=("wrist", "slide"))),
        ("action.*control mode is", replace(ACTION, control_mode=ControlMode.TORQUE)),
        (r"action.*rate \[Hz\] is 20.0 in '.*A', 50.0 in '.*B'", replace(ACTION, rate=50.0)),
    ],
)
def test_disagreements_name_both_sides(what: str, changed: FieldSpec, make: Make) -> None:
    state, action = replace(STATE, element_names=("elbow", "slide")), replace(ACTION, rate=20.0)
    mine = make("A", [5], [state], action)
    observed, commanded = (state, changed) if changed.name == "action" else (changed, action)
    theirs = make("B", [5], [observed, GOAL], commanded)
    with pytest.raises(SpecError, match=f"{what}.*convert one of them"):
        Mixture([Source(mine), Source(theirs)], horizon=2)
    if changed.name != "action":
        left_out = Mixture([Source(mine), Source(theirs)], 2, fields=["observation.goal"])
        assert list(left_out.observation) == ["observation.goal"]


def test_what_one_side_does_not_say_is_no_disagreement(make: Make) -> None:
    """Names and rates may be unknown, one unit may stand for all elements; limits become the wider ones."""
    sides = (
        replace(ACTION, rate=20.0, low=(-2.0,)),
        replace(ACTION, element_names=("slide",), high=(3.0,)),
    )
    states = replace(STATE, units=("m",)), replace(STATE, units=("m", "m"))
    stores = [make(name, [5], [state], side) for name, state, side in zip("AB", states, sides, strict=True)]
    mixture = Mixture([Source(store) for store in stores], horizon=2)
    assert (mixture.action["action"].low, mixture.action["action"].high) == ((-2.0,), (3.0,))
    assert Mixture([Source(stores[0])], horizon=2).action["action"] == sides[0]


def test_impossible_mixtures_are_refused(make: Make) -> None:
    store = make("A", [5], [STATE])
    for weights in ([], [0.0], [-1.0, 2.0], [float("nan")], [float("inf")]):
        with pytest.raises(DatasetError, match=r"weights of a mixture are .* all above 0"):
            Mixture([Source(store, weight) for weight in weights], horizon=2)
    with pytest.raises(DatasetError, match=r"Did you mean 'observation.state'"):
        Mixture([Source(store)], 2, fields=["observation.stat"])

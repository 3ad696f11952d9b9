"""Transitions and episodes."""

import numpy as np

from alula.core.transitions import Episode, Transition


def test_a_step_ends_an_episode_for_either_reason() -> None:
    """Terminated, truncated, both or neither."""
    flags = np.array([False, True, False, True]), np.array([False, False, True, True])
    nothing = np.zeros(4)
    transition = Transition({}, np.zeros((4, 1)), nothing, *flags, {}, np.zeros(4, dtype=bool), "policy")
    assert transition.ended.tolist() == [False, True, True, True]


def test_the_length_of_an_episode_is_its_number_of_steps() -> None:
    """And zero before anything was recorded; metadata is not shared between episodes."""
    assert Episode({"action": np.zeros((7, 2))}).length == 7
    empty = Episode({})
    empty.metadata["seed"] = 1
    assert empty.length == 0
    assert Episode({}).metadata == {}

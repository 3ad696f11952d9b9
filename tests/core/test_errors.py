"""Errors: one tree, and messages that lead on."""

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alula.core import errors
from alula.core.errors import AlulaError, unknown_name

OURS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", OURS)
def test_every_error_is_caught_as_one_of_ours(kind: type[Exception]) -> None:
    """The command line prints what derives from AlulaError; each says what it is for and is in the module's tree."""
    assert issubclass(kind, AlulaError)
    assert kind.__doc__
    assert errors.__doc__ is not None
    assert kind.__name__ in errors.__doc__


@given(st.lists(st.text("abcdef", min_size=1), min_size=1, unique=True), st.text("xyz", min_size=1))
def test_all_valid_names_are_listed_in_order(names: list[str], wrong: str) -> None:
    """Whatever was asked for; a name that resembles none gets no guess."""
    message = unknown_name("task", wrong, names)
    assert message == f"unknown task '{wrong}'. Valid: {', '.join(sorted(names))}"


def test_the_nearest_name_comes_first() -> None:
    """A slip of the finger is recognised."""
    message = unknown_name("task", "peg_insertoin", ["adroit_door", "peg_insertion"])
    assert message.startswith("unknown task 'peg_insertoin'. Did you mean 'peg_insertion'? Valid: adroit_door, ")

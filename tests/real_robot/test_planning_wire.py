"""Messages between robot and policy: they arrive to the bit, and no bytes do harm."""

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy import ndarray

from alula.core.real_time import Committed
from alula.real_robot.planning.planner import Plan, Request
from alula.real_robot.planning.wire import HEADER, TYPES, answer, answered, asked, pack, question, unpack

NOTHING = Request(0, {})
ANY_ARRAY = arrays.arrays(
    st.sampled_from(sorted(TYPES)).map(np.dtype), arrays.array_shapes(min_dims=0, min_side=0, max_dims=4, max_side=5)
)
FLOATS = arrays.arrays(np.float32, (3, 2))


@given(
    st.integers(0, 2**40), st.dictionaries(st.text(max_size=9), ANY_ARRAY, max_size=4), st.none() | FLOATS, st.floats(0)
)
def test_questions_arrive_as_they_were_put(
    step: int, observation: dict[str, ndarray], actions: ndarray | None, deadline: float
) -> None:
    """Every element type, every bit of it, empty arrays and those without axes too."""
    committed = None if actions is None else Committed(actions, actions[:, 0])
    frame = pack(question(Request(step, observation, committed), deadline))
    found, found_deadline = asked(unpack(frame[HEADER.size :]))
    assert HEADER.unpack(frame[: HEADER.size]) == (len(frame) - HEADER.size,)
    assert (found.step, found_deadline, list(found.observation)) == (step, deadline, list(observation))
    pairs = [(found.observation[name], value) for name, value in observation.items()]
    if committed is not None:
        assert found.committed is not None
        pairs += [(found.committed.actions, committed.actions), (found.committed.weights, committed.weights)]
    for there, here in pairs:
        assert (there.dtype, there.shape, there.tobytes()) == (here.dtype, here.shape, here.tobytes())
        assert there.flags.writeable


@pytest.mark.parametrize("plan", [Plan(NOTHING, np.full((2, 2), np.nan)), Plan(NOTHING, None, "too tired")])
def test_answers_arrive_as_they_were_given(plan: Plan) -> None:
    found = answered(plan.request, unpack(pack(answer(plan))[HEADER.size :]))
    assert found.failure == plan.failure
    np.testing.assert_array_equal(found.chunk, plan.chunk)  # type: ignore[arg-type]


@given(st.binary(max_size=60) | st.builds(lambda value: pack({"step": value})[4:], st.integers(-9, 9) | st.text()))
def test_what_is_no_question_is_a_value_error(body: bytes) -> None:
    """And nothing else, whatever the bytes."""
    with pytest.raises(ValueError):  # noqa: PT011  the messages are msgpack's own
        asked(unpack(body))


@pytest.mark.parametrize(
    "array",
    [
        ["<f4", [2], b"1234567"],
        ["<f4", [-1], b""],
        ["<f4", [2**63, 0], b""],
        ["|O8", [1], b"12345678"],
        ["<f4", "ab", b""],
        ["<f4", [1] * 100, b"1234"],
        [],
    ],
)
def test_arrays_that_do_not_add_up_are_refused(array: list[object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        unpack(msgpack.packb({"observation": msgpack.ExtType(1, msgpack.packb(array))}))


def test_what_could_run_is_not_sent() -> None:
    with pytest.raises(TypeError, match="object"):
        pack({"observation": np.array([print])})

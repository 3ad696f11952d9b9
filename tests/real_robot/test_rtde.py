"""RTDE as bytes: golden packages, round trips, and what must not be believed."""

import contextlib
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alula.core.errors import DeviceError
from alula.real_robot.codecs import rtde
from alula.real_robot.codecs.rtde import TYPES, Kind, Package, Recipe, Text

INTEGERS = {
    "BOOL": st.booleans(),
    "UINT8": st.integers(0, 2**8 - 1),
    "UINT32": st.integers(0, 2**32 - 1),
    "UINT64": st.integers(0, 2**64 - 1),
    "INT32": st.integers(-(2**31), 2**31 - 1),
    "VECTOR6INT32": st.integers(-(2**31), 2**31 - 1),
    "VECTOR6UINT32": st.integers(0, 2**32 - 1),
}
FINITE = st.floats(allow_nan=False, allow_infinity=False)
packages = st.builds(Package, st.sampled_from(Kind), st.binary(max_size=60))


@st.composite
def filled_recipes(draw: st.DrawFn) -> tuple[Recipe, dict[str, rtde.Value]]:
    """A recipe, and values for it."""
    types = draw(st.dictionaries(st.from_regex("[a-z_0-9]{1,12}", fullmatch=True), st.sampled_from(sorted(TYPES))))
    values: dict[str, rtde.Value] = {}
    for name, kind in types.items():
        count = TYPES[kind][1]
        parts = tuple(draw(INTEGERS.get(kind, FINITE)) for _ in range(count))
        values[name] = parts[0] if count == 1 else parts
    return Recipe(draw(st.integers(0, 255)), types), values


def test_requests_have_the_bytes_of_the_guide() -> None:
    assert rtde.request_protocol() == bytes.fromhex("0005 56 0002")
    assert rtde.request_robot_version() == bytes.fromhex("0003 76")
    assert rtde.request_outputs(("timestamp", "actual_q"), 125.0) == (
        bytes.fromhex("001d 4f 405f400000000000") + b"timestamp,actual_q"
    )
    assert rtde.request_inputs(("input_int_register_24",)) == b"\x00\x18I" + b"input_int_register_24"
    assert rtde.request_start() == b"\x00\x03S"
    assert rtde.request_pause() == b"\x00\x03P"


def test_answers_are_read() -> None:
    assert [rtde.accepted(answer) for answer in (b"\x01", b"\x00")] == [True, False]
    assert rtde.robot_version(struct.pack(">4I", 5, 12, 2, 1101534)) == (5, 12, 2, 1101534)
    assert rtde.text(b"\x05hello\x06script\x02") == Text("hello", "script", 2)
    recipe = Recipe.read(("timestamp", "actual_q"), b"\x01DOUBLE,VECTOR6D")
    assert recipe == Recipe(1, {"timestamp": "DOUBLE", "actual_q": "VECTOR6D"})
    assert recipe == Recipe.read(("timestamp", "actual_q"), b"\x01DOUBLE,VECTOR6D,"), "a comma at the end is common"


def test_data_has_the_bytes_of_the_guide() -> None:
    recipe = Recipe(7, {"on": "BOOL", "bits": "UINT32", "count": "INT32", "joints": "VECTOR3D"})
    data = recipe.pack({"count": -2, "joints": (1.0, -2.0, 0.5), "bits": 3, "on": True})
    assert data == bytes.fromhex("0025 55 07 01 00000003 fffffffe 3ff0000000000000 c000000000000000 3fe0000000000000")
    assert recipe.unpack(data[3:]) == {"on": True, "bits": 3, "count": -2, "joints": (1.0, -2.0, 0.5)}


@given(filled_recipes())
def test_data_comes_back_to_the_bit(filled: tuple[Recipe, dict[str, rtde.Value]]) -> None:
    recipe, values = filled
    (package,), rest = rtde.parse(recipe.pack(values))
    assert (package.kind, rest) == (Kind.DATA, b"")
    assert recipe.unpack(package.payload) == values


@given(st.lists(packages), st.integers(min_value=0))
def test_a_stream_may_be_cut_anywhere(sent: list[Package], cut: int) -> None:
    """What comes in pieces is the same as what comes at once."""
    stream = b"".join(rtde.frame(package.kind, package.payload) for package in sent)
    cut %= len(stream) + 1
    first, rest = rtde.parse(stream[:cut])
    second, end = rtde.parse(rest + stream[cut:])
    assert (first + second, end) == (sent, b"")


@given(st.binary(max_size=200))
def test_garbage_is_packages_or_an_error(stream: bytes) -> None:
    try:
        found, rest = rtde.parse(stream)
    except DeviceError:
        return
    assert b"".join(rtde.frame(package.kind, package.payload) for package in found) + rest == stream


@pytest.mark.parametrize("stream", [b"\x00\x02V", b"\x00\x00U\x01", b"\x00\x09X123456", b"HTTP/1.1 400 Bad Request"])
def test_what_is_no_package_is_refused(stream: bytes) -> None:
    with pytest.raises(DeviceError, match=r"not RTDE: a package of kind \d+ and \d+ bytes"):
        rtde.parse(stream)


@given(st.binary(max_size=40))
def test_no_payload_raises_anything_else(payload: bytes) -> None:
    recipe = Recipe(1, {"timestamp": "DOUBLE"})
    for read in (rtde.accepted, rtde.robot_version, rtde.text, recipe.unpack):
        with contextlib.suppress(DeviceError):
            read(payload)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"\x00NOT_FOUND,DOUBLE", "NOT_FOUND of robot_mood: its software is too old.*PolyScope 5"),
        (b"\x00IN_USE,IN_USE", "IN_USE of robot_mood, payload: another program or a fieldbus"),
        (b"\x01DOUBLE", "asked for 2 variables, the robot answered with 1 types"),
        (b"\x01DOUBLE,STRING", "types that RTDE does not have: STRING"),
        (b"", "asked for 2 variables"),
    ],
)
def test_recipes_that_cannot_be_had_are_refused(payload: bytes, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        Recipe.read(("robot_mood", "payload"), payload)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@given(filled=filled_recipes())
def test_only_finite_numbers_are_sent(wrong: float, filled: tuple[Recipe, dict[str, rtde.Value]]) -> None:
    recipe, values = filled
    for name, kind in recipe.types.items():
        if kind in ("DOUBLE", "VECTOR3D", "VECTOR6D"):
            spoilt = wrong if TYPES[kind][1] == 1 else (*[0.0] * (TYPES[kind][1] - 1), wrong)
            with pytest.raises(DeviceError, match=f"{name} is .*finite numbers"):
                recipe.pack({**values, name: spoilt})


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 0.5, (1, 2), ()])
def test_values_that_do_not_fit_are_refused(value: rtde.Value) -> None:
    with pytest.raises(DeviceError, match=r"does not fit|finite numbers"):
        Recipe(1, {"count": "INT32"}).pack({"count": value})


def test_data_of_another_recipe_is_refused() -> None:
    with pytest.raises(DeviceError, match="data of recipe 2; agreed on was 1"):
        Recipe(1, {"count": "INT32"}).unpack(b"\x02\x00\x00\x00\x01")
    with pytest.raises(DeviceError, match="6 bytes are not data of 1 variables"):
        Recipe(1, {"count": "INT32"}).unpack(b"\x01\x00\x00\x00\x01\x00")

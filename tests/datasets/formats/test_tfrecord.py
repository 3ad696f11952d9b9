"""TFRecord files and Examples: equal to what Google's libraries write, and no damage goes unnoticed."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from alula.core.errors import DatasetError
from alula.datasets.formats.tfrecord import (
    encode_example,
    encode_record,
    floats,
    integers,
    masked_crc,
    parse_example,
    read_records,
    strings,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
FEATURES = st.dictionaries(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=200),
    st.one_of(
        st.lists(st.binary(max_size=300), max_size=4),
        hnp.arrays("int64", st.integers(0, 20), elements=INT64),
        hnp.arrays("float32", st.integers(0, 40), elements=st.floats(width=32, allow_nan=False)),
    ),
    max_size=4,
)
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC bit by bit, from its reversed polynomial (RFC 3720, appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def read_all(path: Path, **options: Any) -> list[bytes]:
    return [bytes(record.payload) for record in read_records(path, **options)]


def test_the_checksum_of_the_rfc() -> None:
    """32 zeros, RFC 3720 B.4, and the usual check string; our masking undone."""
    for data, wanted in ((bytes(32), 0x8A9136AA), (b"123456789", 0xE3069283)):
        assert crc32c(data) == wanted
        rotated = (masked_crc(data) - 0xA282EAD8) & 0xFFFFFFFF
        assert (rotated >> 17 | rotated << 15) & 0xFFFFFFFF == wanted


@given(st.binary(max_size=300))
def test_a_record_is_framed_as_published(payload: bytes) -> None:
    def masked(data: bytes) -> bytes:
        crc = crc32c(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)

    length = struct.pack("<Q", len(payload))
    assert encode_record(payload) == length + masked(length) + payload + masked(payload)


def test_records_come_back_in_order_and_from_any_of_them(tmp_path: Path) -> None:
    payloads = [b"", b"one", bytes(5000)]
    path = tmp_path / "file"
    path.write_bytes(b"".join(map(encode_record, payloads)))
    assert read_all(path) == payloads
    second = next(read_records(path)).end
    assert read_all(path, start=second) == payloads[1:]


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert read_all(tmp_path / "file") == []


def test_every_truncation_but_between_records_is_found(tmp_path: Path) -> None:
    first = encode_record(b"alpha")
    content = first + encode_record(b"beta")
    for size in range(1, len(content)):
        path = tmp_path / "file"
        path.write_bytes(content[:size])
        if size == len(first):
            assert read_all(path) == [b"alpha"]
        else:
            for verify in (True, False):
                with pytest.raises(DatasetError, match=f"of {size}: the file ends"):
                    read_all(path, verify=verify)


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    content = encode_record(b"alpha")
    path = tmp_path / "file"
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(DatasetError, match="checksum"):
            read_all(path)


@RELAXED
@given(features=FEATURES)
def test_examples_are_what_protobuf_understands(features: dict[str, Any], example_message: Any) -> None:
    message = example_message.FromString(encode_example(features))
    assert set(message.features.feature) == set(features)
    for name, values in features.items():
        feature = message.features.feature[name]
        if isinstance(values, list):
            assert list(feature.bytes_list.value) == values
        elif values.dtype == np.int64:
            assert list(feature.int64_list.value) == values.tolist()
        else:
            assert np.array(list(feature.float_list.value), np.float32).tobytes() == values.tobytes()


@RELAXED
@given(features=FEATURES, packed=st.booleans())
def test_examples_of_protobuf_are_understood(
    features: dict[str, Any], packed: bool, example_message: Any, unpacked_example_message: Any
) -> None:
    message = (example_message if packed else unpacked_example_message)()
    for name, values in features.items():
        feature = message.features.feature[name]
        part = feature.bytes_list if isinstance(values, list) else feature.int64_list
        part = feature.float_list if getattr(values, "dtype", None) == np.float32 else part
        part.value.extend(values if isinstance(values, list) else values.tolist())
        part.SetInParent()
    parsed = parse_example(memoryview(message.SerializeToString()))
    assert set(parsed) == set(features)
    for name, values in features.items():
        if isinstance(values, list):
            assert strings(parsed[name]) == values
        else:
            read = integers if values.dtype == np.int64 else floats
            assert read(parsed[name]).dtype == values.dtype
            assert read(parsed[name]).tobytes() == values.tobytes()


def test_a_nan_keeps_its_bits() -> None:
    bits = np.array([0x7FC00001, 0xFFC12345, 0x7F800001], np.uint32)
    parsed = parse_example(memoryview(encode_example({"x": bits.view(np.float32)})))
    assert floats(parsed["x"]).tobytes() == bits.tobytes()


def test_a_list_of_another_kind_is_refused() -> None:
    parsed = parse_example(memoryview(encode_example({"x": [b"text"], "n": np.arange(3)})))
    with pytest.raises(DatasetError, match="holds strings, expected are floats"):
        floats(parsed["x"])
    with pytest.raises(DatasetError, match="holds integers, expected are strings"):
        strings(parsed["n"])


@given(st.binary(max_size=60), st.integers(0, 2**16))
def test_what_is_no_example_is_refused_and_never_crashes(noise: bytes, seed: int) -> None:
    """Random bytes, and an Example with some bytes replaced."""
    rng = np.random.default_rng(seed)
    damaged = bytearray(encode_example({"a": [b"xyz"], "b": np.arange(5), "c": np.ones(3, np.float32)}))
    damaged[rng.integers(len(damaged))] = rng.integers(256)
    for payload in (noise, bytes(damaged)):
        try:
            for feature in parse_example(memoryview(payload)).values():
                for read in (strings, floats, integers):
                    read(feature)
        except DatasetError:
            pass


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"\x0a\x05abc", "longer than the message"),
        (b"\xff" * 11, "does not end"),
        (b"\x08\x01", "unexpected field 1 of wire type 0"),
    ],
)
def test_damage_is_named(payload: bytes, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        parse_example(memoryview(payload))

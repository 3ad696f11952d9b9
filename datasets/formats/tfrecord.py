"""TFRecord files and the `tf.train.Example`s inside, without TensorFlow.

A TFRecord file is a sequence of records: length (uint64), masked CRC-32C of the length, payload, masked CRC-32C of
the payload, all little-endian (tensorflow/core/lib/io/record_writer.h). A payload is a protocol buffer:

    message Example  { Features features = 1; }
    message Features { map<string, Feature> feature = 1; }
    message Feature  { oneof kind { BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3; } }

Only what is asked for is decoded: a skipped image is never touched, so files are read through a memory map.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import numpy as np
from jaxtyping import Float32, Int64, Shaped, UInt8
from numpy import ndarray

from alula.core.errors import DatasetError

HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")
VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
"""Wire types of protocol buffers."""
BYTES_LIST, FLOAT_LIST, INT64_LIST = 1, 2, 3
"""Field numbers in `Feature`."""
LIST_NAMES = {BYTES_LIST: "strings", FLOAT_LIST: "floats", INT64_LIST: "integers"}
VARINT_BYTES = 10
"""The longest: 64 bits, 7 in each byte."""

Values = Sequence[bytes] | Shaped[ndarray, " values"]
"""A feature: strings, float32 or int64."""


class Record(NamedTuple):
    """One record of a file."""

    payload: memoryview
    end: int
    """Where in the file the next record starts [byte]."""


def masked_crc(data: bytes | memoryview) -> int:
    """CRC-32C, rotated and shifted so that a checksum of data that holds checksums stays a good one."""
    crc = google_crc32c.value(bytes(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_records(path: Path, start: int = 0, *, verify: bool = True) -> Iterator[Record]:
    """The records of a file, from the one that starts at byte `start` on.

    Args:
        path: The file.
        start: The `end` of another record, or 0.
        verify: Compare the payloads' checksums, which reads them; lengths are always checked.

    Raises:
        DatasetError: the file is truncated or damaged; names the byte.
    """
    size = path.stat().st_size
    if size == 0:
        return
    file = np.memmap(path, dtype=np.uint8, mode="r").data
    while start < size:
        where = f"'{path}' is damaged at byte {start} of {size}"
        if size - start < HEADER.size:
            raise DatasetError(f"{where}: the file ends within a record; fetch it again")
        length, length_crc = HEADER.unpack_from(file, start)
        if masked_crc(file[start : start + 8]) != length_crc:
            raise DatasetError(f"{where}: a record's length has a wrong checksum; damaged, or no TFRecord file")
        first, last = start + HEADER.size, start + HEADER.size + length
        if size - last < FOOTER.size:
            raise DatasetError(f"{where}: the file ends within a record of {length} bytes; fetch it again")
        payload = file[first:last]
        if verify and masked_crc(payload) != FOOTER.unpack_from(file, last)[0]:
            raise DatasetError(f"{where}: the checksum of a record of {length} bytes is wrong; fetch the file again")
        start = last + FOOTER.size
        yield Record(payload, start)


def encode_record(payload: bytes) -> bytes:
    """A payload with its length and checksums."""
    length = struct.pack("<Q", len(payload))
    return b"".join((length, FOOTER.pack(masked_crc(length)), payload, FOOTER.pack(masked_crc(payload))))


def parse_example(payload: memoryview) -> dict[str, memoryview]:
    """The features of an Example by name, not yet decoded; see `strings`, `floats` and `integers`.

    Raises:
        DatasetError: it is no Example.
    """
    features = {}
    for _, entries in _messages(payload, (1,)):
        for _, entry in _messages(entries, (1,)):
            key, feature = b"", memoryview(b"")
            for number, value in _messages(entry, (1, 2)):
                key, feature = (bytes(value), feature) if number == 1 else (key, value)
            features[key.decode(errors="surrogateescape")] = feature
    return features


def strings(feature: memoryview) -> list[bytes]:
    """The values of a feature that is a list of strings.

    Raises:
        DatasetError: it is a list of something else, or damaged.
    """
    return [bytes(value) for part in _lists(feature, BYTES_LIST) for _, value in _messages(part, (1,))]


def floats(feature: memoryview) -> Float32[ndarray, " values"]:
    """The values of a feature that is a list of floats.

    Raises:
        DatasetError: it is a list of something else, or damaged.
    """
    parts = [
        value if kind == LENGTH_DELIMITED else value[:4]
        for part in _lists(feature, FLOAT_LIST)
        for _, kind, value in _fields(part)
    ]
    if any(len(part) % 4 for part in parts):
        raise DatasetError("it is not a valid tf.train.Example: a list of floats ends within a float")
    return np.frombuffer(b"".join(parts), dtype="<f4")


def integers(feature: memoryview) -> Int64[ndarray, " values"]:
    """The values of a feature that is a list of integers.

    Raises:
        DatasetError: it is a list of something else, or damaged.
    """
    parts = [value for part in _lists(feature, INT64_LIST) for _, _, value in _fields(part)]
    return _decode_varints(np.frombuffer(b"".join(parts), dtype=np.uint8))


def encode_example(features: Mapping[str, Values]) -> bytes:
    """An Example of features: arrays of float32 or int64, or sequences of strings."""
    entries = (
        _tagged(1, b"".join((_tagged(1, key.encode(errors="surrogateescape")), _tagged(2, _encode_feature(values)))))
        for key, values in features.items()
    )
    return _tagged(1, b"".join(entries))


def _encode_feature(values: Values) -> bytes:
    if not isinstance(values, ndarray):
        return _tagged(BYTES_LIST, b"".join(_tagged(1, value) for value in values))
    if values.dtype.kind == "f":
        return _tagged(FLOAT_LIST, _tagged(1, values.astype("<f4", copy=False).tobytes()))
    return _tagged(INT64_LIST, _tagged(1, _encode_varints(values.astype(np.int64, copy=False).view(np.uint64))))


def _tagged(number: int, value: bytes) -> bytes:
    """A length-delimited field."""
    return b"".join((_varint(number << 3 | LENGTH_DELIMITED), _varint(len(value)), value))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _lists(feature: memoryview, wanted: int) -> Iterator[memoryview]:
    """The list inside a Feature, which is never split, but may be absent where it is empty."""
    for number, value in _messages(feature, LIST_NAMES):
        if number != wanted:
            raise DatasetError(f"it holds {LIST_NAMES[number]}, expected are {LIST_NAMES[wanted]}")
        yield value


def _messages(message: memoryview, allowed: Sequence[int] | Mapping[int, str]) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each field of a message whose fields are all length-delimited."""
    for number, kind, value in _fields(message):
        if kind != LENGTH_DELIMITED or number not in allowed:
            raise DatasetError(f"it is not a tf.train.Example: unexpected field {number} of wire type {kind}")
        yield number, value


def _fields(message: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Number, wire type and content of each field of a message; of a varint its bytes."""
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        number, kind = key >> 3, key & 7
        start, end = position, position
        if kind == LENGTH_DELIMITED:
            length, start = _read_varint(message, position)
            end = start + length
        elif kind == VARINT:
            _, end = _read_varint(message, position)
        elif kind in (FIXED32, FIXED64):
            end = start + (4 if kind == FIXED32 else 8)
        if end == position or end > len(message):
            raise DatasetError("it is not a valid tf.train.Example: a field is longer than the message around it")
        yield number, kind, message[start:end]
        position = end


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """A number, and where the next field starts."""
    value = 0
    for count, byte in enumerate(message[position : position + VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value, position + count + 1
    raise DatasetError("it is not a valid tf.train.Example: a number does not end")


def _decode_varints(encoded: UInt8[ndarray, " bytes"]) -> Int64[ndarray, " values"]:
    if not len(encoded):
        return np.zeros(0, dtype=np.int64)
    ends = np.flatnonzero(encoded < 0x80)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    lengths = ends - starts + 1
    if not len(ends) or ends[-1] != len(encoded) - 1 or lengths.max() > VARINT_BYTES:
        raise DatasetError("it is not a valid tf.train.Example: a number does not end")
    places = np.arange(len(encoded)) - np.repeat(starts, lengths)
    digits = (encoded & 0x7F).astype(np.uint64) << (7 * places).astype(np.uint64)
    return np.bitwise_or.reduceat(digits, starts).view(np.int64)


def _encode_varints(values: Shaped[ndarray, " values"]) -> bytes:
    """Little-endian digits of 7 bits; all but a value's last have the top bit set."""
    digits = values[:, None] >> (7 * np.arange(VARINT_BYTES)).astype(np.uint64)
    more = digits > 0x7F
    encoded = (digits & np.uint64(0x7F)).astype(np.uint8) | (more.astype(np.uint8) << 7)
    used = np.concatenate([np.ones((len(values), 1), dtype=bool), more[:, :-1]], axis=1)
    return encoded[used].tobytes()

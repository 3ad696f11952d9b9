"""Feetech's protocol: frames of the vendor's manual, and replies that break off."""

import pytest

from alula.real_robot.codecs import feetech
from alula.real_robot.codecs.feetech import Register
from alula.real_robot.codecs.servo import Reply


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (feetech.ping(1), "ff ff 01 02 01 fb"),
        (feetech.read(1, 0x38, 2), "ff ff 01 04 02 38 02 be"),
        (feetech.sync_read([1, 2], 0x38, 8), "ff ff fe 06 82 38 08 01 02 36"),
        (
            feetech.sync_write(0x2A, {servo: bytes.fromhex("00080000e803") for servo in (1, 2, 3, 4)}),
            "ff ff fe 20 83 2a 06 01 00 08 00 00 e8 03 02 00 08 00 00 e8 03 "
            "03 00 08 00 00 e8 03 04 00 08 00 00 e8 03 58",
        ),
    ],
)
def test_messages_are_those_of_the_manual(message: bytes, wire: str) -> None:
    assert message == bytes.fromhex(wire)


def test_a_reply_of_the_manual_is_read() -> None:
    assert feetech.parse(bytes.fromhex("ff ff 01 04 00 18 05 dd"), 2) == ([Reply(1, 0, b"\x18\x05")], b"")
    assert Register.POSITION.decode(b"\x18\x05") == 1304


@pytest.mark.parametrize(
    ("register", "value", "wire"),
    [
        (Register.VELOCITY, -50, "32 80"),
        (Register.LOAD, -50, "32 04"),
        (Register.HOMING_OFFSET, -50, "32 08"),
        (Register.GOAL_POSITION, 2048, "00 08"),
    ],
)
def test_a_sign_is_a_bit_in_front_of_the_magnitude(register: Register, value: int, wire: str) -> None:
    assert register.encode(value) == bytes.fromhex(wire)


@pytest.mark.parametrize("before", ["ff", "ff ff", "ff ff 02", "ff ff 02 04", "ff ff 02 04 00 18", "ff ff 02 f0 00"])
def test_a_reply_that_breaks_off_does_not_hide_the_next(before: str) -> None:
    whole = bytes.fromhex("ff ff 01 04 00 18 05 dd")
    assert feetech.parse(bytes.fromhex(before) + whole, 2) == ([Reply(1, 0, b"\x18\x05")], b"")


def test_little_is_kept_of_what_could_become_a_reply() -> None:
    _, rest = feetech.parse(b"\xff\xff\x01" * 100, 2)
    assert len(rest) < feetech.OVERHEAD + 2

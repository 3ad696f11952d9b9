"""Dynamixel X: frames of Robotis' manual, round trips, and arms against emulated servos with watchdogs."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alula.core.errors import DeviceError
from alula.real_robot.codecs import dynamixel
from alula.real_robot.codecs.dynamixel import Register, frame
from alula.real_robot.codecs.servo import Reply
from alula.real_robot.devices.config import KochConfig
from alula.real_robot.devices.dynamixel import Koch
from alula.real_robot.emulators import dynamixel as emulator

pytestmark = pytest.mark.real_time

Start = Callable[..., Any]
# Bytes of which headers are made are frequent.
BYTES = st.lists(st.one_of(st.sampled_from([0xFF, 0xFD, 0x00]), st.integers(0, 255)), max_size=20).map(bytes)


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (dynamixel.ping(1), "ff ff fd 00 01 03 00 01 19 4e"),
        (dynamixel.read(1, 132, 4), "ff ff fd 00 01 07 00 02 84 00 04 00 1d 15"),
        (
            frame(1, 3, b"\x74\x00" + Register.GOAL_POSITION.encode(512)),
            "ff ff fd 00 01 09 00 03 74 00 00 02 00 00 ca 89",
        ),
        (dynamixel.sync_read([1, 2], 132, 4), "ff ff fd 00 fe 09 00 82 84 00 04 00 01 02 ce fa"),
        (
            dynamixel.sync_write(116, {1: Register.GOAL_POSITION.encode(150), 2: Register.GOAL_POSITION.encode(170)}),
            "ff ff fd 00 fe 11 00 83 74 00 04 00 01 96 00 00 00 02 aa 00 00 00 82 87",
        ),
    ],
)
def test_messages_are_those_of_the_manual(message: bytes, wire: str) -> None:
    assert message == bytes.fromhex(wire)


@pytest.mark.parametrize(
    ("wire", "reply"),
    [
        (
            "ff ff fd 00 01 07 00 55 00 06 04 26 65 5d",
            Reply(1, 0, b"\x06\x04\x26"),
        ),  # a ping's: model 1030, firmware 38
        ("ff ff fd 00 01 08 00 55 00 a6 00 00 00 8c c0", Reply(1, 0, b"\xa6\x00\x00\x00")),
    ],
)
def test_replies_of_the_manual_are_read(wire: str, reply: Reply) -> None:
    assert dynamixel.parse(bytes.fromhex(wire), len(reply.data)) == ([reply], b"")


@given(BYTES)
def test_what_looks_like_a_header_is_stuffed(content: bytes) -> None:
    wire = frame(1, 0x55, content)
    assert wire[4:].find(b"\xff\xff\xfd\x00") < 0 or wire.find(b"\xff\xff\xfd\x00", 4) >= len(wire) - 5  # of the CRC
    assert emulator.unstuffed(wire[7:-2]) == b"\x55" + content
    assert wire[7:-2] == emulator.stuffed(b"\x55" + content)


@given(BYTES)
@example(b"\xff\xff\xfd\x00\xff\xff\xfd\xfd")
def test_our_stuffing_is_the_vendors(content: bytes) -> None:
    """What its function returns; version 4.1 forgets to send that (its `txPacket`)."""
    sdk = pytest.importorskip("dynamixel_sdk", reason="needs pip install dynamixel-sdk")
    packet = [*b"\xff\xff\xfd\x00", 1, len(content) + 3, 0, 0x83, *content, 0, 0]
    stuffed = bytes(sdk.PacketHandler(2.0).addStuffing(packet))
    assert frame(1, 0x83, content)[:-2] == stuffed[: 7 + int.from_bytes(stuffed[5:7], "little") - 2]


@pytest.mark.slow
@pytest.mark.oracle
def test_the_vendors_driver_talks_to_the_emulator(start_arm: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = pytest.importorskip("dynamixel_sdk", reason="needs pip install dynamixel-sdk")
    monkeypatch.setattr(sdk.port_handler, "LATENCY_TIMER", 200)  # its patience [ms], for a busy machine
    port, packets = sdk.PortHandler(start_arm("viperx").config.address), sdk.PacketHandler(2.0)
    port.baudrate = 1_000_000
    assert port.setupPort(1_000_000)
    try:
        assert packets.ping(port, 3) == (1120, sdk.COMM_SUCCESS, 0)
        assert packets.ping(port, 9) == (1020, sdk.COMM_SUCCESS, 0)
        write = sdk.GroupSyncWrite(port, packets, 116, 4)
        read = sdk.GroupSyncRead(port, packets, 116, 4)
        goals = {number: number * 0xFDFFFF % 4096 for number in (1, 2, 4, 6)}
        for number, goal in goals.items():
            assert write.addParam(number, list(goal.to_bytes(4, "little")))
            assert read.addParam(number)
        assert read.addParam(3)
        assert write.txPacket() == sdk.COMM_SUCCESS
        assert read.txRxPacket() == sdk.COMM_SUCCESS
        assert {number: read.getData(number, 116, 4) for number in goals} == goals
        assert read.getData(3, 116, 4) == goals[2]  # by its secondary id
        assert packets.write1ByteTxRx(port, 1, 98, 255) == (sdk.COMM_SUCCESS, 0)
        _, error = packets.write4ByteTxRx(port, 1, 116, 100)
        assert error == 4  # a goal after the watchdog has tripped is out of range
    finally:
        port.closePort()


def test_a_servo_that_hears_nothing_stops_until_it_is_activated_again(start_arm: Start) -> None:
    bench = start_arm("koch")
    bench.config.watchdog = 0.1
    device = bench.connect()
    assert device.spec.device_watchdog == pytest.approx(0.1)
    assert set(device.servos.get(Register.BUS_WATCHDOG).values()) == {0}, "set while it was only configured"
    for trips in (6, 12):
        device.activate()
        held = device.servos.get(Register.GOAL_POSITION)
        time.sleep(0.3)
        assert "gripper (servo 6): its watchdog has tripped: it heard nothing for too long" in device.read().faults
        device.servos.write(Register.GOAL_POSITION, {number: goal - 40 for number, goal in held.items()})
        assert device.servos.get(Register.GOAL_POSITION) == held
        assert set(device.servos.get(Register.BUS_WATCHDOG).values()) == {-1}
        assert len(bench.events("release")) == trips
    bench.require_no_violation()


def test_a_turn_too_many_changes_nothing(start_arm: Start) -> None:
    """A servo forgets its turns when it is switched off, and may come back on the other side of its encoder's end."""
    bench = start_arm("koch", servos={1: {"zero": 2048 + 4096}, 3: {"zero": 2048 - 4096}})
    device = bench.connect()
    np.testing.assert_allclose(device.read(1.0).position, [0.13, 0.33, 0.51, 0.72, 0.13, 1.7], atol=0.01)
    ticks = bench.undisturbed(device, 1.2)
    bench.require_no_violation()
    np.testing.assert_allclose(ticks[-1].command.position, ticks[0].state.position - 0.7, atol=0.02)
    held = device.servos.get(Register.GOAL_POSITION)
    assert held[1] > 4096
    assert held[3] < 0


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("model", r"model of the servos .* \{4: 1044\}, must be \{4: 1120\}"),
        ("firmware", r"firmware .* \{4: 20\}, must be 38 at least.*update it"),
        pytest.param("duplicate", r"servos \[4\] on .* do not answer", marks=pytest.mark.slow),
    ],
)
def test_another_arm_is_refused(start_arm: Start, kind: str, message: str) -> None:
    bench = start_arm("viperx", {"kind": kind, "target": 4})
    with pytest.raises(DeviceError, match=message):
        bench.connect()
    assert not bench.emulation.log()


def test_late_and_repeated_answers_count_as_none(tmp_path: Path) -> None:
    """A servo's clock says when it answered."""
    _, changes = emulator.prepare(KochConfig(), tmp_path)
    device = Koch(KochConfig(address="/dev/null", **changes))

    def answer(tick: int) -> dict[int, Reply]:
        data = bytearray(38)
        data[22:24] = Register.TICK.encode(tick)
        return device.fresh({1: Reply(1, 0, bytes(data))})

    assert answer(32_760)
    assert not answer(32_760), "the same once more"
    time.sleep(0.03)
    assert not answer(32_765), "25 ms old"
    assert answer(22), "its clock has begun anew meanwhile"

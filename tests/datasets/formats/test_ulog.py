"""PX4 flight logs: a real one as its bytes say, and small ones made by hand after the published format."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alula.core.errors import ConfigError, DatasetError
from alula.core.spaces import SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.formats.ulog import ULog
from alula.datasets.schema import OUTCOME, require_storable
from alula.datasets.store import EpisodeStore

FLIGHT = Path(__file__).parents[4] / "shared/data/px4_flight_small.ulg"
needs_flight = pytest.mark.skipif(not FLIGHT.is_file(), reason=f"needs the flight log {FLIGHT}")
HEADER = b"ULog\x01\x12\x35\x01" + struct.pack("<Q", 0)
FORMATS = {
    "vehicle_attitude": ("uint64_t timestamp;float[4] q", "<Q4f"),
    "vehicle_local_position": ("uint64_t timestamp;float x;float y;float z;float vx;float vy;float vz", "<Q6f"),
    "vehicle_angular_velocity": ("uint64_t timestamp;float[3] xyz", "<Q3f"),
    "actuator_outputs": ("uint64_t timestamp;uint32_t noutputs;float[4] output", "<QI4f"),
    "actuator_motors": ("uint64_t timestamp;float[4] control", "<Q4f"),
    "camera_trigger": ("uint64_t timestamp;uint64_t[2] time_utc;bool feedback;uint8_t[5] _padding0", "<Q2QB"),
}


def message(kind: str, content: bytes) -> bytes:
    return struct.pack("<HB", len(content), ord(kind)) + content


def flight(*samples: tuple[str, int, tuple[float, ...]]) -> bytes:
    """A log of (topic or topic.instance, time [us], values), in this order; padding at the end is not logged."""
    topics = list(dict.fromkeys(topic for topic, _, _ in samples))
    names = dict.fromkeys(topic.split(".")[0] for topic in topics)
    content = HEADER + message("B", bytes(40))
    for name in names:
        content += message("F", f"{name}:{FORMATS[name][0]};".encode())
    for index, topic in enumerate(topics):
        name, _, instance = topic.partition(".")
        content += message("A", struct.pack("<BH", int(instance or 0), index) + name.encode())
    for topic, time, values in samples:
        data = struct.pack(FORMATS[topic.split(".")[0]][1], time, *values)
        content += message("D", struct.pack("<H", topics.index(topic)) + data)
    return content


def read(path: Path, content: bytes, **options: str) -> Episode:
    path.write_bytes(content)
    with ULog(**options).open(path) as reader:
        (episode,) = reader.episodes()
        require_storable(reader.contents)
    return episode


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.ulg"


SAMPLES = [
    ("vehicle_attitude", 10, (1, 0, 0, 0)),
    ("vehicle_attitude", 20, (0, 1, 0, 0)),
    ("vehicle_attitude", 30, (0, 0, 1, 0)),
    ("actuator_outputs", 5, (2, 1000, 1001, 0, 0)),
    ("actuator_outputs", 15, (2, 1100, 1101, 0, 0)),
    ("actuator_outputs", 20, (2, 1200, 1201, 0, 0)),
    ("actuator_outputs", 45, (2, 1300, 1301, 0, 0)),
]


@needs_flight
def test_the_real_flight_has_position_attitude_rates_and_outputs_with_units_and_rates() -> None:
    with ULog().open(FLIGHT) as reader:
        assert ULog().detect(FLIGHT)
        assert (reader.num_episodes, len(reader.contents.streams)) == (1, 70)
        assert reader.plan.losses == ()
        streams = reader.contents.streams
        require_storable(reader.contents)
        (episode,) = reader.episodes()
    for stream, field, unit, rate in (
        ("vehicle_local_position", "x", "m", 97.75),
        ("vehicle_local_position", "vz", "m/s", 97.75),
        ("vehicle_attitude", "q", "1", 199.66),
        ("vehicle_angular_velocity", "xyz", "rad/s", 278.68),
        ("actuator_outputs", "output", "us", 9.965),
        ("actuator_outputs.1", "output", "us", 10.002),
        ("vehicle_gps_position", "lat", "1e-7 deg", 5.0),
        ("battery_status", "voltage_v", "V", 3.333),
    ):
        spec = streams[stream][field]
        assert spec.units == (unit,)
        assert spec.rate == pytest.approx(rate, rel=0.01)
    np.testing.assert_allclose(np.linalg.norm(episode.streams["vehicle_attitude"]["q"], axis=1), 1, atol=1e-5)
    assert (episode.length, episode.steps["action"].shape) == (64, (64, 8))
    assert np.isfinite(episode.steps["observation.position"]).all()
    assert episode.metadata["vehicle"]["sys_name"] == "PX4"
    assert {"[commander] Takeoff detected"} <= {line["text"] for line in episode.metadata["messages"]}


@needs_flight
def test_the_real_flight_is_what_its_bytes_say() -> None:
    """Attitudes found by walking over the messages with nothing but `struct`."""
    content, position, ids, wanted = FLIGHT.read_bytes(), 16, {}, []
    while position < len(content):
        size, kind = struct.unpack_from("<HB", content, position)
        body = content[position + 3 : position + 3 + size]
        if kind == ord("A"):
            ids[struct.unpack_from("<H", body, 1)[0]] = body[3:].decode()
        elif kind == ord("D") and ids[struct.unpack_from("<H", body)[0]] == "vehicle_attitude":
            wanted.append(struct.unpack_from("<Q4f", body, 2))
        position += 3 + size
    with ULog().open(FLIGHT) as reader:
        (episode,) = reader.episodes()
    attitude = episode.streams["vehicle_attitude"]
    assert attitude["timestamp"].tolist() == [1000 * time for time, *_ in wanted]
    assert attitude["q"].tobytes() == np.array([values for _, *values in wanted], np.float32).tobytes()


def test_steps_hold_the_latest_sample_at_or_before_them(log: Path) -> None:
    """The first command came before any attitude: no step."""
    episode = read(log, flight(*SAMPLES))
    assert episode.steps["timestamp"].tolist() == [15_000, 20_000, 45_000]
    np.testing.assert_array_equal(episode.steps["observation.attitude"], [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
    np.testing.assert_array_equal(episode.steps["action"], [[1100, 1101], [1200, 1201], [1300, 1301]])
    assert episode.steps["next.truncated"].tolist() == [False, False, True]
    np.testing.assert_array_equal(episode.streams["actuator_outputs"]["output"][0], [1000, 1001, 0, 0])


def test_commands_of_motors_that_are_not_there_are_no_actions(log: Path) -> None:
    """`actuator_motors` is NaN for them, also where it was first."""
    nan = float("nan")
    samples = [("actuator_motors", time, (nan, 0.1 * time, nan, nan)) for time in (1, 2)]
    episode = read(log, flight(*samples))
    np.testing.assert_allclose(episode.steps["action"], [[nan, 0.1], [nan, 0.2]])


def test_without_commands_there_are_streams_only(log: Path) -> None:
    log.write_bytes(flight(("vehicle_attitude", 1, (1, 0, 0, 0)), ("vehicle_attitude.1", 2, (0, 1, 0, 0))))
    with ULog().open(log) as reader:
        (episode,) = reader.episodes()
        assert len(reader.contents.action) == 0
    assert episode.length == 0
    assert set(episode.streams) == {"vehicle_attitude", "vehicle_attitude.1"}
    assert episode.streams["vehicle_attitude.1"]["timestamp"].tolist() == [2000]


def test_no_limit_stays_infinite_in_the_store(tmp_path: Path, log: Path) -> None:
    """PX4 says infinity where there is no limit; only what overflows on the way is refused."""
    log.write_bytes(flight(("vehicle_local_position", 1, (float("inf"), float("nan"), 0, 0, 0, -float("inf")))))
    with ULog().open(log) as reader:
        (episode,) = reader.episodes()
        store = EpisodeStore.create(tmp_path / "data", SpaceSpec(()), SpaceSpec(()), streams=reader.contents.streams)
        position = episode.streams["vehicle_local_position"]
        store.append(
            replace(episode, steps={name: values for name, values in episode.steps.items() if name in OUTCOME})
        )
        position["x"] = np.array([1e300])
        with pytest.raises(DatasetError, match=r"'x' .* is not a finite float32"):
            store.append(episode)
    stored = store.episode(0).streams["vehicle_local_position"]
    assert (stored["x"][0], stored["vz"][0]) == (np.inf, -np.inf)
    assert np.isnan(stored["y"][0])


def test_types_and_arrays_are_those_of_the_log_without_padding(log: Path) -> None:
    largest = 2**64 - 1
    stream = read(log, flight(("camera_trigger", 7, (largest, 1, 1)))).streams["camera_trigger"]
    assert {name: (str(values.dtype), values.shape) for name, values in stream.items()} == {
        "timestamp": ("int64", (1,)),
        "time_utc": ("uint64", (1, 2)),
        "feedback": ("bool", (1,)),
    }
    assert stream["time_utc"].tolist() == [[largest, 1]]


def test_frames_turn_only_when_asked_to_and_streams_never(log: Path) -> None:
    """A level vehicle that faces north, 10 m up, climbs eastward and rolls to the right."""
    content = flight(
        ("vehicle_local_position", 1, (1, 2, -10, 0, 3, -4)),
        ("vehicle_attitude", 1, (1, 0, 0, 0)),
        ("vehicle_angular_velocity", 1, (0.1, 0.2, 0.3)),
        ("actuator_outputs", 2, (4, 1, 2, 3, 4)),
    )
    ned, enu = read(log, content), read(log, content, frame="enu")
    np.testing.assert_array_equal(ned.steps["observation.position"], [[1, 2, -10]])
    np.testing.assert_array_equal(enu.steps["observation.position"], [[2, 1, 10]])
    np.testing.assert_array_equal(enu.steps["observation.velocity"], [[3, 0, 4]])
    np.testing.assert_allclose(enu.steps["observation.angular_velocity"], [[0.1, -0.2, -0.3]], rtol=1e-6)
    # Facing north in east-north-up is a quarter turn about up.
    np.testing.assert_allclose(enu.steps["observation.attitude"], [[np.sqrt(0.5), 0, 0, np.sqrt(0.5)]], rtol=1e-6)
    assert enu.steps["observation.attitude"].dtype == np.float32
    np.testing.assert_array_equal(enu.streams["vehicle_attitude"]["q"], [[1, 0, 0, 0]])
    with pytest.raises(ConfigError, match="unknown frame 'nwu'"):
        ULog(frame="nwu")


def test_the_plan_says_which_frame(log: Path) -> None:
    log.write_bytes(flight(*SAMPLES))
    for frame, words in (("ned", "PX4's frames"), ("enu", "east-north-up")):
        with ULog(frame=frame).open(log) as reader:
            change = next(line.change for line in reader.plan.mappings if line.target == "observation.attitude")
            assert words in change
            assert words in reader.contents.metadata["frame"]


def test_a_log_cut_by_a_loss_of_power_is_read_and_the_plan_says_so(log: Path) -> None:
    content = flight(*SAMPLES)
    log.write_bytes(content[:-5])
    with ULog().open(log) as reader:
        (episode,) = reader.episodes()
        (loss,) = reader.plan.losses
    last = 3 + 2 + struct.calcsize(FORMATS["actuator_outputs"][1])
    assert f"the last {last - 5} bytes" in loss
    assert episode.steps["timestamp"].tolist() == [15_000, 20_000]


def test_time_that_runs_backwards_is_refused(log: Path) -> None:
    log.write_bytes(flight(("vehicle_attitude", 9, (1, 0, 0, 0)), ("vehicle_attitude", 8, (1, 0, 0, 0))))
    with pytest.raises(DatasetError, match=r"'vehicle_attitude' .* back in time at sample 1, from 9000 to 8000 ns"):
        ULog().open(log)


@pytest.mark.parametrize("damage", [b"", HEADER[:12], b"PX4" + HEADER, HEADER + message("F", b"no colon")])
def test_what_is_no_log_is_refused(log: Path, damage: bytes) -> None:
    log.write_bytes(damage)
    with pytest.raises(DatasetError, match=r"log.ulg' is (not a|a damaged) ULog file"):
        ULog().open(log)


def test_damage_within_a_log_is_refused(log: Path) -> None:
    """A message of a kind that there is none of, as after lost bytes."""
    content = flight(*SAMPLES)
    log.write_bytes(content[:-40] + content[-33:])
    with pytest.raises(DatasetError, match="damaged ULog file"):
        ULog().open(log)

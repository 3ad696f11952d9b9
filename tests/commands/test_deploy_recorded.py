"""From recording to deployment: what has learnt from a device's recordings runs on that device, with cameras."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from numpy import ndarray

from alula.commands.deployment.direct import Direct
from alula.commands.deployment.emulating import start_emulation
from alula.commands.deployment.origin import RecordedOrigin, TaskOrigin, find_origin
from alula.commands.deployment.preflight import compare_recorded
from alula.commands.deployment.recording import STREAM
from alula.commands.record import spaces
from alula.core.errors import ConfigError, SpecError
from alula.core.spaces import SpaceSpec
from alula.datasets.store import EpisodeStore
from alula.datasets.windows import WindowSampler
from alula.real_robot.cameras.config import OpenCVConfig, RealSenseConfig, SyntheticConfig
from alula.real_robot.cameras.group import Cameras
from alula.real_robot.cameras.process import CameraProcess
from alula.real_robot.cameras.synthetic import read_time
from alula.real_robot.cameras.words import CameraWords
from alula.real_robot.contract import Grip, State
from alula.real_robot.devices.config import SimulatedConfig, SO101Config
from alula.real_robot.devices.registry import find_entry, make_device
from alula.real_robot.planning.inline import InlinePlanner
from alula.real_robot.planning.planner import Description, Request
from alula.real_robot.teleoperation.operator import Phase, Script
from alula.real_robot.teleoperation.operators import OPERATORS
from alula.sims.registry import make_task
from alula.sims.tasks.tabletop.config import ReachConfig
from alula.training.checkpoint import load_policy
from alula.training.pipeline import describe_task

pytestmark = pytest.mark.real_time

Run = Callable[..., Any]
DEVICE = ("device=simulated", "device.joints=2", "device.rate=50")
SPEC = make_device(SimulatedConfig(joints=2, rate=50.0)).spec
CAMERA = CameraProcess("front", SyntheticConfig(width=64, height=48))
SPACES = spaces(SPEC, 20.0, CAMERA.spec)
POLICY = Description(*SPACES, 20.0, 4, 2, {"device": "simulated"})
PLACE = np.array([0.3, -0.2], np.float32)
"""Where the policies of these tests go."""
TINY = ("policy=gaussian", "cloning.steps=5", "cloning.batch_size=8", "policy.field.width=16", "held_out=0")


@pytest.fixture
def deploy(alula: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`deploy(policy, *words)`: run a policy of software on the simulated device; a person says it was a success."""
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")

    def start(policy: Description, *words: str) -> Any:
        monkeypatch.setattr("alula.commands.deploy.ProcessPlanner", lambda *_: InlinePlanner(go, policy))
        return alula("deploy", "checkpoint=here", f"out={tmp_path / 'run.zarr'}", *words)

    return start


def go(request: Request) -> ndarray:
    """A policy that has one wish."""
    assert request.observation["observation.images.front"].shape == (48, 64, 3)
    return np.tile(PLACE, (4, 1))


def test_what_a_recorded_policy_sees_and_does_is_recorded(deploy: Run, alula: Run, tmp_path: Path) -> None:
    words = ("cameras=[front:synthetic,side:synthetic]", "seconds=0.8", "episodes=1", "max_age=0.3")
    outcome = deploy(POLICY, *DEVICE, *words)
    assert outcome.status == 0, outcome.err
    assert "100.0 %" in outcome.out
    store = EpisodeStore.open(tmp_path / "run.zarr")
    assert (store.observation, store.action) == SPACES, "the camera that the policy does not see is left out"
    steps = store.episode(0).steps
    assert len(steps["action"]) > 5
    np.testing.assert_array_equal(steps["action"], np.broadcast_to(PLACE, steps["action"].shape))
    np.testing.assert_allclose(steps["observation.state"][-1], PLACE, atol=0.05)
    for picture, now in zip(steps["observation.images.front"], steps["timestamp"], strict=True):
        assert 0 <= int(now) - read_time(picture) <= 0.4e9, "pictures are those of the moment"
    assert "to the bit" in alula("replay", f"data={store.path}", "check=true").out
    windows = WindowSampler(store, 4, list(SPACES[0])).sample(np.array([0]))
    assert windows.observation["observation.images.front"].dtype == np.uint8


def test_a_robot_is_not_run_without_a_person(deploy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", nobody)
    assert "without a person beside it" in deploy(POLICY, *DEVICE, FRONT, "seconds=0.2", "episodes=1").error


def test_a_camera_that_dies_stops_the_policy_and_the_next_episode(
    deploy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observe, seen = Cameras.observe, []

    def once(cameras: Cameras, now_ns: int) -> Any:
        if len(seen) == 4:
            cameras.cameras[0]._process.kill()  # type: ignore[attr-defined]
        seen.append(observe(cameras, now_ns))
        return seen[-1]

    monkeypatch.setattr(Cameras, "observe", once)
    outcome = deploy(POLICY, *DEVICE, "cameras=[front:synthetic]", "seconds=1.2", "episodes=2", "max_age=0.1")
    assert outcome.status == 1
    assert outcome.err.count("camera 'front': its process has ended") == 2, (
        "after the episode, and why there is no next"
    )
    store = EpisodeStore.open(tmp_path / "run.zarr")
    assert store.num_episodes == 1
    stream = store.episode(0).streams[STREAM]
    assert (stream["intent"][-20:] == 0).all(), "without pictures nothing is wished"
    assert (np.diff(stream["executed"][-20:], axis=0) == 0).all()


def changed(policy: Description, name: str, /, **properties: Any) -> Description:
    """The same with another field."""
    space = "action" if name == "action" else "observation"
    fields = [replace(field, **properties) if field.name == name else field for field in getattr(policy, space).fields]
    return replace(policy, **{space: SpaceSpec(tuple(fields))})


FRONT = "cameras=[front:synthetic]"


@pytest.mark.parametrize(
    ("policy", "words", "message"),
    [
        (POLICY, (*DEVICE, FRONT), "seconds is missing"),
        (POLICY, (*DEVICE, "seconds=1"), "cameras=[front:KIND"),
        (POLICY, (*DEVICE, "seconds=1", "cameras=[front:webcam]"), "kind of camera 'webcam'"),
        (POLICY, (*DEVICE, "seconds=1", FRONT, "width=128"), "set width=64 height=48, or leave both out"),
        (POLICY, (*DEVICE, "seconds=1", "cameras=[front:opencv:/dev/none]"), "'/dev/none' cannot be opened"),
        (POLICY, (*DEVICE, "seconds=1", FRONT, "box=[0,0,0,1,1,1]"), "box needs the model of an arm"),
        (POLICY, (*DEVICE, "seconds=1", FRONT, "start=[0.1]"), "start has 1 numbers; simulated has 2"),
        (POLICY, ("device=simulated", "seconds=1", FRONT), "action: the policy commands 2 elements [rad]"),
        (replace(POLICY, task={"device": "koch"}), ("device=so101", "seconds=1", FRONT), "has learnt on koch"),
        (replace(POLICY, task={"name": "juggling"}), DEVICE, "was trained on 'juggling'"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(
    deploy: Run, tmp_path: Path, policy: Description, words: tuple[str, ...], message: str
) -> None:
    assert message in deploy(policy, *words).error
    assert not (tmp_path / "run.zarr").exists()


@pytest.mark.parametrize(
    ("policy", "what", "problem"),
    [
        (POLICY, "", ""),
        (replace(POLICY, task={}), "", ""),
        (replace(POLICY, task={"device": "so101"}), "device", "choose device=so101"),
        (replace(POLICY, rate=80.0), "rate", "no more than 50 commands a second"),
        (
            changed(POLICY, "observation.velocity", name="observation.load"),
            "observation.load",
            "train it with fields=[observation.state,observation.images.front]",
        ),
        (
            changed(POLICY, "observation.velocity", units=("rad/s", "deg/s")),
            "observation.velocity",
            "unit of element 1 is 'deg/s' to the policy, 'rad/s' to the device",
        ),
        (
            changed(POLICY, "action", element_names=("gripper", "elbow")),
            "action",
            "name of element 0 is 'gripper' to the policy, '' to the device",
        ),
        (changed(POLICY, "action", control_mode=None), "action", "recordings of this device"),
        (changed(POLICY, "observation.state", shape=(3,)), "observation.state", "recordings of this device"),
    ],
)
def test_policy_and_device_are_compared_field_by_field(policy: Description, what: str, problem: str) -> None:
    found = {check.what: check.problem for check in compare_recorded(policy, SPEC) if check.problem is not None}
    assert list(found) == [what] * bool(what)
    assert problem in found.get(what, "")


def test_cameras_are_told_by_words() -> None:
    made = CameraWords.read("top:opencv:http://127.0.0.1:80/a").make(None, 240)
    assert (made.name, made.config) == ("top", OpenCVConfig(source="http://127.0.0.1:80/a", height=240))
    assert CameraWords.read("top:realsense").make(None, None).config == RealSenseConfig()
    for wrong, message in (
        ("front", "kind of camera ''"),
        (":opencv", "a name is made of letters"),
        ("fr/ont:opencv", "a name is made of letters"),
        ("front:webcam", "kind of camera 'webcam'"),
        ("front:synthetic:7", "leave '7' out"),
    ):
        with pytest.raises(ConfigError, match=message):
            CameraWords.read(wrong)


def test_a_policy_without_cameras_sees_the_device_as_it_is() -> None:
    seen = SpaceSpec((replace(SPEC.observation["observation.state"], dtype="float64"),))
    direct = Direct(seen, SPEC, None)
    measured = {name: np.array([0.5, -1.0], np.float32) for name in SPEC.observation}
    state = State(measured, np.zeros(2), np.zeros(2), np.ones(2, dtype=bool), 0, 0)
    direct.restart()
    found = direct.observe(state, {})
    assert list(found) == ["observation.state"]
    assert found["observation.state"].dtype == np.float64
    np.testing.assert_array_equal(found["observation.state"], [0.5, -1.0])
    np.testing.assert_array_equal(direct.wish(PLACE, state), PLACE.astype(np.float64))


def test_an_episode_starts_where_it_is_told_with_the_gripper_or_without() -> None:
    spec = replace(SPEC, grip=Grip(1, -0.2, 1.5))
    direct = Direct(SPEC.observation, spec, None)
    np.testing.assert_array_equal(direct.start([0.1]), [0.1, 1.5])
    np.testing.assert_array_equal(direct.start([0.1, 0.4]), [0.1, 0.4])
    with pytest.raises(ConfigError, match="3 numbers; simulated has 2, or 1 without the gripper"):
        direct.start([0.0, 0.0, 0.0])


def test_where_a_policy_has_learnt_says_how_it_is_run() -> None:
    config, (_, arm) = ReachConfig(robot="so101"), find_entry(SO101Config())
    task = make_task(config)
    picture = SpaceSpec((*task.observation.fields, *CAMERA.spec.fields))
    sees = Description(picture, task.action, 20.0, 4, 2, describe_task(config))
    assert isinstance(find_origin(sees, None, arm), TaskOrigin), "pictures are not the task's affair"
    assert isinstance(find_origin(replace(sees, task={}), config, arm), TaskOrigin), "it sees and does the same"
    with pytest.raises(SpecError, match="exists only in the policy"):
        find_origin(replace(sees, observation=SPEC.observation), None, arm)
    recorded = find_origin(POLICY, ReachConfig(robot="panda"), arm)
    assert isinstance(recorded, RecordedOrigin)
    assert recorded.scene is not None
    assert recorded.scene["settings"]["robot"] == "so101", "the scene is around the robot that there is"
    assert recorded.seconds == task.max_episode_steps / task.control_rate
    alone = find_origin(POLICY, None, arm)
    assert (alone.scene, alone.seconds, alone.task) == (None, None, {})


@pytest.mark.slow
def test_from_recording_to_deployment(alula: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An arm is shown a motion by teleoperation, learns it, and does it while a person looks on."""
    phases = [Phase(3.0, (0.25, 0.0, -0.2, 0.0, 0.0, 0.0)), Phase(0.1, (0.0,) * 6, release=True)]
    monkeypatch.setitem(OPERATORS, "keyboard", lambda size: Script(phases))
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")
    shown, run, done = (tmp_path / name for name in ("shown.zarr", "run", "done.zarr"))
    learning = ("policy=gaussian", "cloning.steps=400", "cloning.batch_size=32", "held_out=0")
    with emulated(tmp_path) as arm:
        size = ("width=64", "height=48")
        assert alula("record", *arm, FRONT, *size, "episodes=1", f"out={shown}").status == 0
        fields = "fields=[observation.state]"  # Stripes that wander tell nothing of a motion.
        assert alula("train", f"data={shown}", *learning, fields, f"run={run}").status == 0
        way = EpisodeStore.open(shown).episode(0).steps["action"]
        words = ("episodes=1", "seconds=3", f"start={way[0].tolist()}", f"out={done}")
        outcome = alula("deploy", f"checkpoint={run}", *arm, *words)
    assert "100.0 %" in outcome.out, "the person has said so"
    assert np.abs(way[-1] - way[0]).max() > 0.5
    np.testing.assert_allclose(EpisodeStore.open(done).episode(0).steps["observation.state"][-1], way[-1], atol=0.2)
    assert load_policy(run).task == {"device": "so101"}
    assert "has learnt on so101" in alula("deploy", f"checkpoint={run}", "device=koch", "seconds=1", FRONT).error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "judged"),
    [(("mode=asynchronous", "dry_run=true"), False), (("mode=real_time", "task=lift", "box=[-1,-1,-1,1,1,1]"), True)],
)
def test_a_network_that_sees_pictures_runs_on_an_emulator(
    alula: Run, tmp_path: Path, words: tuple[str, ...], judged: bool
) -> None:
    arm = ("device=so101", "emulate=true", FRONT)
    shown, run, done = (tmp_path / name for name in ("shown.zarr", "run", "done.zarr"))
    size = ("width=64", "height=48")
    assert alula("record", *arm, *size, "source=hold", "seconds=1", "episodes=1", f"out={shown}").status == 0
    assert alula("train", f"data={shown}", *TINY, f"run={run}").status == 0
    outcome = alula("deploy", f"checkpoint={run}", *arm, *words, "seconds=1", "episodes=1", f"out={done}")
    assert outcome.status == 0, outcome.err
    assert ("nobody has judged" in outcome.out) != judged
    store = EpisodeStore.open(done)
    assert store.metadata["success_recorded"] == judged
    assert store.episode(0).steps["observation.images.front"].shape[1:] == (48, 64, 3)
    assert store.episode(0).streams[STREAM]["delivered"].any() != ("dry_run=true" in words)
    assert "to the bit" in alula("replay", f"data={done}", "check=true").out
    assert alula("train", f"data={done}", *TINY, f"run={tmp_path / 'again'}").status == 0


@contextmanager
def emulated(folder: Path) -> Iterator[tuple[str, ...]]:
    """An arm that is emulated, and the words that say where it is."""
    with TemporaryDirectory(dir=folder) as place:
        emulation, config = start_emulation(SO101Config(), Path(place))
        with emulation:
            yield "device=so101", f"device.address={config.address}", f"device.calibration={config.calibration}"

"""What quadcopters share: what they know of themselves, when their battery ends a flight, and their fence."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import pytest
from jaxtyping import Float64
from numpy import ndarray

from alula.core.spaces import SpaceSpec
from alula.real_robot.contract import Intent, State
from alula.real_robot.devices.config import CrazyflieConfig
from alula.real_robot.devices.crazyflie import Crazyflie
from alula.real_robot.devices.quadcopter import MARGIN, BatteryWatch, Telemetry
from alula.real_robot.emulators.crazyflie_firmware import YAW_GAIN, pursuit
from alula.real_robot.governor import Governor
from alula.sims.quadcopters.action_modes import convert
from alula.sims.registry import TASKS, make_task
from alula.sims.vector import TaskVectorEnv


def measure(telemetry: Telemetry, yaw: float, scale: float = 1.0) -> None:
    quaternion = scale * np.array([math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)])
    telemetry.update(np.array([1.0, 2.0, 3.0]), quaternion, np.array([0.5, 0.0, 0.01]), np.array([0.0, 0.0, 0.8]))


def test_a_heading_counts_its_turns() -> None:
    telemetry = Telemetry()
    headings = np.linspace(0.0, 7.0, 50)
    for index, yaw in enumerate(headings):
        measure(telemetry, yaw, 1.0 if index % 2 else -1.2)
        assert telemetry.state(1, 0).position[3] == pytest.approx(yaw)
    telemetry.forget_turns()
    assert telemetry.state(1, 0).position[3] == pytest.approx(7.0 - 2 * math.pi)


def test_velocity_is_that_of_the_action() -> None:
    telemetry = Telemetry()
    measure(telemetry, 1.0)
    state = telemetry.state(3, 5)
    np.testing.assert_allclose(state.velocity, [0.5, 0.0, 0.0, 0.8])  # a centimetre a second is standing still
    assert state.observation["observation.state"][9] == pytest.approx(0.01)
    # Nose up by 60 degrees, a turn about its own vertical turns the heading twice as fast.
    pitch = np.array([math.cos(math.pi / 6), 0.0, -math.sin(math.pi / 6), 0.0])
    telemetry.update(np.zeros(3), pitch, np.zeros(3), np.array([0.0, 0.0, 1.0]))
    assert telemetry.state(3, 5).velocity[3] == pytest.approx(2.0)


@pytest.mark.parametrize(
    "spoiled",
    [
        {"position": np.array([np.nan, 0.0, 0.0])},
        {"position": np.array([0.0, 1e20, 0.0])},
        {"velocity": np.array([0.0, np.inf, 0.0])},
        {"rates": np.array([0.0, 0.0, np.nan])},
        {"quaternion": np.zeros(4)},
        {"quaternion": np.full(4, np.nan)},
    ],
)
def test_what_cannot_have_been_measured_is_not_valid(spoiled: dict[str, Float64[ndarray, " n"]]) -> None:
    telemetry = Telemetry()
    measure(telemetry, 0.5)
    before = telemetry.state(1, 0)
    good = {"position": np.zeros(3), "quaternion": np.eye(4)[0], "velocity": np.zeros(3), "rates": np.zeros(3)}
    telemetry.update(**{**good, **spoiled})
    after = telemetry.state(2, 0)
    assert before.valid.all()
    assert not after.valid.any()
    np.testing.assert_array_equal(after.position, before.position)
    telemetry.update(**good)
    assert telemetry.state(3, 0).valid.all()


def test_a_battery_is_low_once_it_has_been_for_a_while() -> None:
    second = 1_000_000_000
    watch = BatteryWatch()
    for tenth in range(100):  # sags for less than it takes
        assert watch(0.10 if tenth % 20 < 15 else 0.16, tenth * second // 10) == ()
    assert watch(math.nan, 10 * second) == ()
    assert watch(0.10, 11 * second) == ()
    assert "low: 10 %" in watch(0.10, 13 * second)[0]
    assert "low" in watch(1.0, 14 * second)[0], "a battery that recovers is none that was charged"
    assert "critical: 5 %" in BatteryWatch()(0.05, 0)[0]


@pytest.mark.parametrize("name", ["hover", "gates"])
def test_limits_leave_room_for_what_experts_fly(name: str) -> None:
    task = make_task(TASKS[name].config(action_mode="velocity"))
    environment = TaskVectorEnv(task, 16, num_threads=1)
    environment.reset(seed=0)
    state, period, limits = environment.engine.state, 0.02, Crazyflie(CrazyflieConfig()).spec.limits
    motion = list[Float64[ndarray, "2 envs 3"]]()
    for time in np.arange(0.0, 8.0, period):
        state.time[:] = time
        wanted = task.reference(state)
        motion.append(np.stack([wanted.velocity[:, 0], wanted.acceleration[:, 0]]))
    velocity, acceleration = np.abs(np.stack(motion, axis=1))
    jerk = np.abs(np.diff(np.stack(motion)[:, 1], axis=0)) / period
    assert velocity.max() > 0.5
    for found, allowed in ((velocity, limits.velocity), (acceleration, limits.acceleration), (jerk, limits.jerk)):
        assert (found.max(axis=(0, 1)) <= np.array(allowed[:3])).all()


def adversary(drones: int, rng: np.random.Generator) -> Iterator[Float64[ndarray, "drones 4"]]:
    """Wishes for many drones: corners far outside and places inside, for a moment or for seconds."""
    wish, left = np.zeros((drones, 4)), np.zeros(drones, dtype=int)
    while True:
        corners = 20.0 * np.sign(rng.random((drones, 4)) - 0.5)
        drawn = np.where(rng.random((drones, 4)) < 0.6, corners, rng.uniform(-3.0, 3.0, (drones, 4)))
        wish = np.where(left[:, None] <= 0, drawn, wish)
        lasting = rng.integers(1, np.where(rng.random(drones) < 0.5, 30, 300))
        left = np.where(left <= 0, lasting, left - 1)
        yield wish


@pytest.mark.parametrize("seconds", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_the_fence_holds(seconds: int) -> None:
    """S12: sixty drones with the wildest wishes for a minute each, an hour in all, below one governor."""
    drones, spec = 60, Crazyflie(CrazyflieConfig()).spec
    limits, low, high = spec.limits, np.array(spec.limits.low), np.array(spec.limits.high)
    names = ("low", "high", "velocity", "acceleration", "jerk", "following")
    wide = dataclasses.replace(limits, **{name: getattr(limits, name) * drones for name in names})
    action = dataclasses.replace(
        spec.action["action"], shape=(4 * drones,), units=("1",), element_names=(), low=wide.low, high=wide.high
    )
    governor = Governor(dataclasses.replace(spec, limits=wide, action=SpaceSpec((action,))))
    task = make_task(TASKS["hover"].config(action_mode="velocity", start_tilt=0.0, start_speed=0.0))
    environment = TaskVectorEnv(task, drones, num_threads=1)
    environment.reset(seed=0)
    world, yaw, farthest, now = environment.engine.state, np.zeros(drones), -np.inf, 0

    def state(sequence: int) -> State:
        rotation = world.extras["rotation"][:, 0]
        turned = np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0]) - yaw
        yaw[:] += (turned + np.pi) % (2 * np.pi) - np.pi
        place = np.column_stack([world.qpos[:, :3], yaw]).ravel()
        return State({}, place, np.zeros_like(place), np.ones(4 * drones, dtype=bool), sequence, now)

    governor.start(state(0), now)
    for step, wish in zip(range(100 * seconds), adversary(drones, np.random.default_rng(1)), strict=False):
        now += spec.period_ns
        measured = state(step + 1)
        command = governor(Intent(wish.ravel(), now, "policy"), measured, now)
        assert governor.stopped is None
        place, goal, speed, push = (
            array.reshape(drones, 4)
            for array in (measured.position, command.position, command.velocity, command.acceleration)
        )
        farthest = max(farthest, float(np.maximum(place - high, low - place).max()))
        velocity = pursuit(goal - place, speed, push)
        velocity[:, 3] = speed[:, 3] + YAW_GAIN * (goal - place)[:, 3]
        memory = np.moveaxis(world.extras["controller"], -1, 0)
        command_to_plant = np.ascontiguousarray(velocity.T[:, :, None])
        rotors = convert(task.controller, task.motion(world), command_to_plant, memory, "velocity", "rotor_speed")
        world.ctrl[:] = rotors[:, :, 0].T
        environment.engine.advance()
        task.forward(world)
    assert farthest < 0.05
    assert farthest > -MARGIN, "the wishes were not wild enough"

"""A twin sees of a measured robot exactly what the task sees of a simulated one, and wishes what the task commands."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from alula.commands.deployment.twin import make_twin
from alula.core.errors import ConfigError, DeviceError
from alula.real_robot.contract import DeviceSpec, Grip, State, Stop
from alula.real_robot.devices.config import CrazyflieConfig, SimulatedConfig
from alula.real_robot.devices.registry import make_device
from alula.sims.registry import TASKS, make_task
from alula.sims.task import Task
from alula.sims.vector import TaskVectorEnv

STEPS = 30


def arm_spec(joints: int, grip: bool) -> DeviceSpec:
    """An arm of that many joints, and a gripper."""
    spec = make_device(SimulatedConfig(joints=joints + grip)).spec
    return replace(spec, grip=Grip(joints, -0.2, 1.5)) if grip else spec


def measured_arm(task: Any, environment: TaskVectorEnv, grip: Grip | None) -> State:
    """What an arm's driver would say of the simulated arm."""
    state = environment.engine.state
    arm = task.arms[0] if hasattr(task, "arms") else task.arm
    position, velocity = state.qpos[0, arm.qpos], state.qvel[0, arm.qvel]
    if grip is not None:
        share = arm.opening(state)[0] / (2 * arm.robot.gripper.stroke)
        position = np.append(position, grip.closed + share * (grip.opened - grip.closed))
        velocity = np.append(velocity, 0.0)
    observation = {"observation.wrench": state.sensors[0].mean(axis=0)} if state.sensors.shape[2] else {}
    return State(observation, position, velocity, np.ones(len(position), dtype=bool), 0, 0)


def tracked(task: Task, environment: TaskVectorEnv) -> dict[str, np.ndarray]:
    """What a tracking system would say."""
    return {name: pose[0] for name, pose in task.tracked(environment.engine.state).items()}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("peg_insertion", {}),
        ("peg_insertion", {"robot": "ur5e"}),
        ("lift", {"robot": "so101"}),
        ("stack", {"robot": "ur5e", "action_mode": "joint_position_delta"}),
    ],
)
def test_an_arm(name: str, settings: dict[str, Any]) -> None:
    task = make_task(TASKS[name].config(**settings))
    joints = len(task.arms[0].home) if hasattr(task, "arms") else len(task.arm.home)
    twin = make_twin(task, spec := arm_spec(joints, hasattr(task, "arms")))
    environment = TaskVectorEnv(task, 1, AutoresetMode.DISABLED)
    seen, _ = environment.reset(seed=11)
    twin.restart()
    generator = np.random.default_rng(0)
    low, high = task.action["action"].bounds()
    arm = task.arms[0] if hasattr(task, "arms") else task.arm
    for step in range(STEPS):
        state = measured_arm(task, environment, spec.grip)
        found = twin.observe(state, tracked(task, environment))
        for field, value in found.items():
            # The grip's opening goes through the gripper's angle and back; nothing else is rounded.
            np.testing.assert_allclose(value, seen[field][0], atol=2e-6, err_msg=f"{field} in step {step}")
        action = generator.uniform(0.3 * low, 0.3 * high).astype(np.float32)
        wish = twin.wish(action, state)
        seen, *_ = environment.step(action[None])
        np.testing.assert_allclose(wish[:joints], environment.engine.state.ctrl[0, arm.ctrl], atol=1e-6)
        if spec.grip is not None:
            assert spec.grip.closed <= wish[joints] <= spec.grip.opened


@pytest.mark.parametrize("name", ["hover", "gates"])
def test_a_quadcopter_sees_what_it_saw(name: str) -> None:
    task = make_task(TASKS[name].config(action_mode="velocity"))
    twin = make_twin(task, make_device(CrazyflieConfig()).spec)
    environment = TaskVectorEnv(task, 1, AutoresetMode.DISABLED)
    seen, _ = environment.reset(seed=4)
    expert = task.expert(0.0, 0)
    twin.restart()
    for step in range(300):
        state = environment.engine.state
        own = np.concatenate([state.qpos[0], state.qvel[0]]).astype(np.float32)
        position = np.append(state.qpos[0, :3], 0.0)
        measured = State({"observation.state": own}, position, np.zeros(4), np.ones(4, dtype=bool), 0, 0)
        found = twin.observe(measured, tracked(task, environment))
        for field, value in found.items():
            np.testing.assert_allclose(value, seen[field][0], atol=2e-6, err_msg=f"{field} in step {step}")
        seen, *_ = environment.step(expert.act(state).astype(np.float32))


def test_commanded_velocities_become_positions_within_the_devices_limits() -> None:
    task = make_task(TASKS["hover"].config(action_mode="velocity"))
    spec = make_device(CrazyflieConfig()).spec
    twin = make_twin(task, spec)
    twin.restart()
    generator = np.random.default_rng(1)
    low, high = task.action["action"].bounds()
    position, wishes = np.array([0.0, 0.0, 1.0, 0.0]), []
    for _ in range(200):
        state = State({}, position, np.zeros(4), np.ones(4, dtype=bool), 0, 0)
        wishes.append(twin.wish(generator.uniform(low, high).astype(np.float32), state))
        position = wishes[-1]
    speed = np.diff(wishes, axis=0)[:, :3] * task.control_rate
    push = np.diff(speed, axis=0) * task.control_rate
    jerk = np.diff(push, axis=0) * task.control_rate
    for values, limit in ((speed, "velocity"), (push, "acceleration"), (jerk, "jerk")):
        assert (np.abs(values) <= np.array(getattr(spec.limits, limit))[:3] + 1e-6).all(), limit


def test_where_somebody_else_has_moved_an_arm_its_commands_begin() -> None:
    """After a takeover an action of zero keeps the arm where it is, not where the policy had last sent it."""
    task = make_task(TASKS["peg_insertion"].config(robot="ur5e"))
    spec = arm_spec(len(task.arm.home), False)
    twin, environment = make_twin(task, spec), TaskVectorEnv(task, 1, AutoresetMode.DISABLED)
    environment.reset(seed=11)
    twin.restart()
    here, poses = measured_arm(task, environment, None), tracked(task, environment)
    twin.observe(here, poses)
    action = np.zeros(task.action["action"].size)
    np.testing.assert_allclose(twin.wish(action, here), here.position, atol=1e-3)
    # Turned about the vertical, as the task keeps its tool upright.
    away = replace(here, position=here.position + 0.05 * np.eye(len(here.position))[0])
    twin.observe(away, poses)
    assert np.abs(twin.wish(action, away) - away.position).max() > 0.01, "it would be led back"
    twin.resume()
    twin.observe(away, poses)
    np.testing.assert_allclose(twin.wish(action, away), away.position, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("hover", {}, "task.action_mode=velocity"),
        ("formation", {"action_mode": "velocity"}, "3 drones"),
        ("hopper", {}, "no single arm or quadcopter"),
        ("bimanual_transfer", {}, "no single arm or quadcopter"),
    ],
)
def test_what_no_device_could_do_is_refused(name: str, settings: dict[str, Any], message: str) -> None:
    task = make_task(TASKS[name].config(**settings))
    spec = replace(make_device(SimulatedConfig()).spec, stops=(Stop.HOLD,))
    with pytest.raises(DeviceError, match=message):
        make_twin(task, spec)


def test_an_arms_tool_can_be_kept_in_a_box() -> None:
    task = make_task(TASKS["lift"].config(robot="so101"))
    spec = arm_spec(5, True)
    home = np.append(task.arms[0].home, 0.0)
    tool = task.arms[0].chain.forward(task.arms[0].home[None]).position[0]
    around = make_twin(task, spec).workspace([*(tool - 0.05), *(tool + 0.05)])
    beside = make_twin(task, spec).workspace([*(tool + 0.05), *(tool + 0.15)])
    assert around.inside(home[None]).all()
    assert not beside.inside(home[None]).any()
    with pytest.raises(ConfigError, match="has 3 numbers"):
        make_twin(task, spec).workspace([0.0, 0.0, 0.0])
    hover = make_task(TASKS["hover"].config(action_mode="velocity"))
    with pytest.raises(ConfigError, match=r"device\.fence"):
        make_twin(hover, spec).workspace([0.0] * 6)

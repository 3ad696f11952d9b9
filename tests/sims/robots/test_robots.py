"""What every arm of the table must be able to do in a tabletop task."""

import mujoco
import numpy as np
import pytest

from alula.core.errors import ConfigError
from alula.core.spaces import ControlMode
from alula.sims.robots.control import ArmControl
from alula.sims.robots.kinematics import upright_error, yaw_of
from alula.sims.robots.registry import ROBOTS, find_robot
from alula.sims.robots.robot import Robot, add_arm, add_gripper

STEP = 0.0025
"""Physics step of the tabletop tasks [s]."""
HALF = 0.02
"""Half the edge of the cube that is lifted [m]."""
TOP = {"so101": 0.15}
"""Greatest height where the tool must be able to point down [m], if not 0.2."""


@pytest.fixture(params=ROBOTS)
def robot(request: pytest.FixtureRequest) -> Robot:
    """Each arm of the table."""
    return ROBOTS[request.param]


@pytest.fixture
def model(robot: Robot) -> mujoco.MjModel:
    """The arm with its gripper over a table, with a cube in the middle of its workspace, as in the tabletop tasks."""
    spec = mujoco.MjSpec()
    spec.option.timestep = STEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0
    contact = {"condim": 4, "solref": [0.01, 1.0], "friction": [0.6, 0.01, 0.001]}
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 1], **contact)
    add_gripper(spec, robot, add_arm(spec, robot))
    cube = spec.worldbody.add_body(name="cube", pos=[*robot.workspace[:2], HALF])
    cube.add_freejoint()
    cube.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[HALF] * 3, mass=0.05, **contact)
    return spec.compile()


@pytest.fixture
def arm(robot: Robot, model: mujoco.MjModel) -> ArmControl:
    """What commands it."""
    return ArmControl(model, robot, ControlMode.JOINT_POSITION_ABSOLUTE)


def home_yaw(arm: ArmControl) -> float:
    """Yaw of the tool in the home posture [rad]."""
    return float(yaw_of(arm.chain.forward(arm.home[None]).rotation)[0])


def test_names_lead_to_arms() -> None:
    """Every arm has its own name; a wrong one is answered with the nearest and all valid ones."""
    assert [find_robot(name).name for name in ROBOTS] == list(ROBOTS)
    with pytest.raises(ConfigError, match=r"Did you mean 'ur5e'.* Valid: panda, so101, ur5e, viperx"):
        find_robot("ur5")


def test_home_is_a_posture_over_the_table(robot: Robot, arm: ArmControl) -> None:
    """Inside the joint limits, the tool pointing down from above the workspace's height, within a milliradian."""
    assert ((arm.low + 0.05 < arm.home) & (arm.home < arm.high - 0.05)).all()
    pose = arm.chain.forward(arm.home[None])
    assert pose.rotation[0, 2, 2] == pytest.approx(-1.0, abs=1e-6)
    assert pose.position[0, 2] > 0.1


def test_inertias_are_physical(robot: Robot, model: mujoco.MjModel) -> None:
    """Positive masses, and principal moments that obey the triangle inequality, gripper included."""
    moving = [model.body(f"link{index}").id for index in range(1, len(robot.links) + 1)]
    moving += [model.body(name).id for name in ("hand", "left_finger", "right_finger")]
    moments = np.sort(model.body_inertia[moving], axis=1)
    assert (model.body_mass[moving] > 0).all()
    assert (moments[:, 0] > 0).all()
    assert (moments[:, 2] <= moments[:, :2].sum(axis=1)).all()


def test_the_whole_workspace_is_reached_from_above(robot: Robot, arm: ArmControl) -> None:
    """Every point of the square, up to 0.2 m high, the tool pointing down with 0.5 rad of yaw either way."""
    x, y, half = robot.workspace
    side, height, turn = np.linspace(-half, half, 7), np.linspace(0.02, TOP.get(robot.name, 0.2), 5), (-0.5, 0.0, 0.5)
    grid = np.stack(np.meshgrid(x + side, y + side, height, turn, indexing="ij"), axis=-1).reshape(-1, 4)
    position, yaw = np.ascontiguousarray(grid[:, :3]), home_yaw(arm) + grid[:, 3]
    joints = arm.postures(position, yaw)
    pose = arm.chain.forward(joints)
    assert np.linalg.norm(pose.position - position, axis=1).max() < 1e-3
    assert np.degrees(np.arccos(np.clip(-pose.rotation[:, 2, 2], -1.0, 1.0))).max() < 1.0
    assert np.abs(upright_error(pose.rotation, yaw)).max() < 1e-2
    assert np.minimum(joints - arm.low, arm.high - joints).min() > 0.05


def test_servos_settle_without_swinging(arm: ArmControl, model: mujoco.MjModel) -> None:
    """Commanded home from 0.1 rad away, every joint is there within a second, and hardly goes beyond on its way."""
    data, count = mujoco.MjData(model), len(arm.home)
    data.qpos[:count], data.ctrl[:count] = arm.home + 0.1, arm.home
    beyond = 0.0
    for _ in range(round(1.0 / STEP)):
        mujoco.mj_step(model, data)
        beyond = max(beyond, float((arm.home - data.qpos[:count]).max()))
    np.testing.assert_allclose(data.qpos[:count], arm.home, atol=1e-3)
    np.testing.assert_allclose(data.qvel[:count], 0, atol=5e-3)
    assert beyond < 0.02


def test_servos_hold_against_gravity(arm: ArmControl, model: mujoco.MjModel) -> None:
    """The drives carry arm and gripper: at home, the posture stays exactly."""
    data, count = mujoco.MjData(model), len(arm.home)
    data.qpos[:count] = data.ctrl[:count] = arm.home
    for _ in range(round(1.0 / STEP)):
        mujoco.mj_step(model, data)
    np.testing.assert_allclose(data.qpos[:count], arm.home, atol=1e-9)


def test_fingers_go_where_they_are_told_together(robot: Robot, arm: ArmControl, model: mujoco.MjModel) -> None:
    """Opened and closed within a second, at no more than their speed, both equally far from the middle."""
    data, count, stroke = mujoco.MjData(model), len(arm.home), robot.gripper.stroke
    data.qpos[:count] = data.ctrl[:count] = arm.home
    for target in (stroke, 0.3 * stroke, 0.0):
        data.ctrl[count:] = target
        for _ in range(round(1.0 / STEP)):
            mujoco.mj_step(model, data)
            assert np.abs(data.qvel[count : count + 2]).max() < 0.11
            assert abs(data.qpos[count] - data.qpos[count + 1]) < 1e-4
        np.testing.assert_allclose(data.qpos[count : count + 2], target, atol=2e-4)


def test_what_is_grasped_comes_along(robot: Robot, arm: ArmControl, model: mujoco.MjModel) -> None:
    """A 40 mm cube of 50 g, 6 mm beside the middle, is centred, held and lifted by 10 cm without slipping."""
    x, y, _ = robot.workspace
    heights = HALF + 0.1 * np.clip((np.arange(40) - 11) / 20, 0, 1)  # every 50 ms: close, lift in 1 s, hold
    path = arm.postures(np.stack([np.full(40, x), np.full(40, y), heights], axis=1), np.full(40, home_yaw(arm)))
    data, count = mujoco.MjData(model), len(arm.home)
    data.qpos[:count], data.qpos[count : count + 2] = path[0], robot.gripper.stroke
    aside = 0.006 * arm.chain.forward(path[:1]).rotation[0, :, 1]
    data.qpos[count + 2 : count + 5] += aside
    data.qpos[count + 5 : count + 9] = (np.cos(home_yaw(arm) / 2), 0, 0, np.sin(home_yaw(arm) / 2))
    held = []
    for joints in path:
        data.ctrl[:count] = joints
        mujoco.mj_step(model, data, round(0.05 / STEP))
        tool = data.site("tool")
        held.append(tool.xmat.reshape(3, 3).T @ (data.body("cube").xpos - tool.xpos))
    assert data.body("cube").xpos[2] > HALF + 0.095
    assert abs(held[-1][1]) < 1e-3
    assert np.ptp(held[11:], axis=0).max() < 2e-3
    assert np.linalg.norm(data.body("cube").cvel) < 2e-3

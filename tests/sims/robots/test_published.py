"""The arms as compiled, against the published numbers, written down a second time; for the Panda see test_panda."""

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np
import pytest

from alula.sims.robots.kinematics import SerialChain
from alula.sims.robots.registry import ROBOTS
from alula.sims.robots.robot import Robot, add_arm, add_gripper


def rotation(axis: str, angle: float) -> np.ndarray:
    """Homogeneous rotation about x, y or z."""
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    T = np.eye(4)
    T[first, first] = T[second, second] = np.cos(angle)
    T[second, first], T[first, second] = np.sin(angle), -np.sin(angle)
    return T


def translation(*offset: float) -> np.ndarray:
    """Homogeneous translation."""
    T = np.eye(4)
    T[:3, 3] = offset
    return T


def ur5e_tool(q: np.ndarray) -> np.ndarray:
    """Product of the classic Denavit-Hartenberg transforms of Universal Robots' support article, and the gripper."""
    parameters = [  # a [m], d [m], alpha [rad]
        (0, 0.1625, np.pi / 2),
        (-0.425, 0, 0),
        (-0.3922, 0, 0),
        (0, 0.1333, np.pi / 2),
        (0, 0.0997, -np.pi / 2),
        (0, 0.0996, 0),
    ]
    T = np.eye(4)
    for (a, d, alpha), theta in zip(parameters, q, strict=True):
        T = T @ rotation("z", theta) @ translation(0, 0, d) @ translation(a, 0, 0) @ rotation("x", alpha)
    return T @ translation(0, 0, 0.152)


def so101_tool(q: np.ndarray) -> np.ndarray:
    """Product of the origins in so101_new_calib.urdf; the gripper looks along its -z, and its jaw opens along x."""
    origins = [  # x, y, z [m]; roll, pitch, yaw [rad]
        (0.0388353, 0, 0.0624, np.pi, 0, -np.pi),
        (-0.0303992, -0.0182778, -0.0542, -np.pi / 2, -np.pi / 2, 0),
        (-0.11257, -0.028, 0, 0, 0, np.pi / 2),
        (-0.1349, 0.0052, 0, 0, 0, -np.pi / 2),
        (0, -0.0611, 0.0181, np.pi / 2, 0.0486795, np.pi),
    ]
    T = translation(0, 0, 0.1)  # the block under the base
    for (x, y, z, roll, pitch, yaw), angle in zip(origins, q, strict=True):
        T = T @ translation(x, y, z) @ rotation("z", yaw) @ rotation("y", pitch) @ rotation("x", roll)
        T = T @ rotation("z", angle)
    T = T @ translation(0, 0, -0.0981274)
    T[:3, :3] = np.stack([T[:3, 1], T[:3, 0], -T[:3, 2]], axis=1)
    return T


def viperx_tool(q: np.ndarray) -> np.ndarray:
    """Product of exponentials in Trossen's specification; the gripper looks along its x and opens along y."""
    home = translation(0.536494, 0, 0.42705)
    screws = [  # axis, and a point on it [m]: Trossen gives -axis x point instead
        ("z", (0, 0, 0)),
        ("y", (0, 0, 0.12705)),
        ("y", (0.05955, 0, 0.42705)),
        ("x", (0, 0, 0.42705)),
        ("y", (0.35955, 0, 0.42705)),
        ("x", (0, 0, 0.42705)),
    ]
    T = np.eye(4)
    for (axis, point), angle in zip(screws, q, strict=True):
        T = T @ translation(*point) @ rotation(axis, angle) @ translation(*(-value for value in point))
    T = T @ home
    T[:3, :3] = np.stack([T[:3, 2], -T[:3, 1], T[:3, 0]], axis=1)
    return T


@dataclass
class Published:
    """What the makers say of one arm."""

    tool: Callable[[np.ndarray], np.ndarray]
    limits: np.ndarray
    torques: list[float]
    masses: list[float]
    opening: float
    known: tuple[list[float], list[float]]
    """Joint positions, and where the tool is then, computed by hand [m]."""


PUBLISHED = {
    "ur5e": Published(
        tool=ur5e_tool,
        limits=np.pi * np.array([(-2, 2), (-2, 2), (-1, 1), (-2, 2), (-2, 2), (-2, 2)]),
        torques=[150, 150, 150, 28, 28, 28],
        masses=[3.761, 8.058, 2.846, 1.37, 1.3, 0.365],
        opening=0.085,
        # Stretched out along -x; Universal Robots' arms then have their flange at (-817.2, -232.9, 62.8) mm.
        known=([0] * 6, [-0.8172, -0.2329 - 0.152, 0.0628]),
    ),
    "so101": Published(
        tool=so101_tool,
        limits=np.array(
            [(-1.91986, 1.91986), (-1.74533, 1.74533), (-1.69, 1.69), (-1.65806, 1.65806), (-2.74385, 2.84121)]
        ),
        torques=[2.94] * 5,
        masses=[0.100006, 0.103, 0.104, 0.079, 0.087],
        opening=0.07,
        # Upper arm up, forearm and gripper level.
        known=(
            [0] * 5,
            [
                0.0388353 + 0.0303992 + 0.028 + 0.1349 + 0.0611 + 0.0981274,
                -0.0182778 + 0.0181,
                0.1 + 0.0624 + 0.0542 + 0.11257 + 0.0052,
            ],
        ),
    ),
    "viperx": Published(
        tool=viperx_tool,
        limits=np.radians([(-180, 180), (-106, 72), (-101, 92), (-180, 180), (-107, 128), (-180, 180)]),
        torques=[10.6, 21.2, 21.2, 10.6, 10.6, 4.1],
        masses=[0.798614, 0.792592, 0.322228, 0.414823, 0.115395, 0.097666],
        opening=0.072,
        known=([0] * 6, [0.536494, 0, 0.42705]),
    ),
}


@pytest.fixture(params=PUBLISHED)
def robot(request: pytest.FixtureRequest) -> Robot:
    """Each arm but the Panda."""
    return ROBOTS[request.param]


@pytest.fixture
def published(robot: Robot) -> Published:
    """Its published numbers."""
    return PUBLISHED[robot.name]


@pytest.fixture
def model(robot: Robot) -> mujoco.MjModel:
    """The arm with its gripper."""
    spec = mujoco.MjSpec()
    add_gripper(spec, robot, add_arm(spec, robot))
    return spec.compile()


def test_the_tool_follows_the_published_transforms(robot: Robot, published: Published, model: mujoco.MjModel) -> None:
    """Position and axes at thirty random postures within the limits."""
    chain = SerialChain(model, robot.joint_names(), "tool")
    postures = np.random.default_rng(0).uniform(*published.limits.T, (30, len(robot.links)))
    pose = chain.forward(postures)
    for row, qpos in enumerate(postures):
        T = published.tool(qpos)
        np.testing.assert_allclose(pose.position[row], T[:3, 3], atol=1e-9)
        np.testing.assert_allclose(pose.rotation[row], T[:3, :3], atol=1e-9)


def test_a_pose_by_hand(robot: Robot, published: Published, model: mujoco.MjModel) -> None:
    """Sums of link lengths, to the tenth of a millimetre."""
    joints, position = published.known
    pose = SerialChain(model, robot.joint_names(), "tool").forward(np.array([joints], dtype=float))
    np.testing.assert_allclose(pose.position[0], position, atol=1e-4)


def test_limits_and_torques_are_the_published_ones(robot: Robot, published: Published, model: mujoco.MjModel) -> None:
    """Joint ranges bound joints and commands, torque limits the servos; the fingers open as far as the real ones."""
    count = len(robot.links)
    joints = [model.joint(name).id for name in robot.joint_names()]
    assert model.jnt_limited[joints].all()
    for bounds in (model.jnt_range[joints], model.actuator_ctrlrange[:count]):
        np.testing.assert_allclose(bounds, published.limits, atol=1e-12)
    np.testing.assert_allclose(model.actuator_forcerange[:count], [[-torque, torque] for torque in published.torques])
    fingers = [model.joint(side).id for side in ("left", "right")]
    assert model.jnt_range[fingers, 1].sum() == pytest.approx(published.opening)


def test_masses_are_the_published_ones(robot: Robot, published: Published, model: mujoco.MjModel) -> None:
    """Each link weighs what it should, and drawings weigh nothing."""
    links = [model.body(f"link{index}").id for index in range(1, len(robot.links) + 1)]
    np.testing.assert_allclose(model.body_mass[links], published.masses)
    assert model.body_mass.sum() == pytest.approx(sum(published.masses) + robot.gripper.mass)

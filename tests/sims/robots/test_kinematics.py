"""Batched kinematics against MuJoCo's own, finite differences and the theory of least squares."""

from dataclasses import dataclass

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alula.sims.robots.kinematics import ChainPose, SerialChain, damped_least_squares
from alula.sims.robots.panda.panda import PANDA
from alula.sims.robots.robot import add_arm


@dataclass
class Arm:
    """A compiled Panda whose tool sits askew on the flange, and random postures."""

    model: mujoco.MjModel
    chain: SerialChain
    postures: np.ndarray


@pytest.fixture(scope="module")
def arm() -> Arm:
    """Forty postures that fill the joint limits."""
    spec = mujoco.MjSpec()
    tool = add_arm(spec, PANDA).add_body(name="tool", pos=[0.01, -0.02, 0.05], quat=[0.9, 0.1, -0.3, 0.2])
    tool.add_site(name="tip", pos=[0.03, 0.0, 0.1], quat=[0.5, 0.5, -0.5, 0.5])
    model = spec.compile()
    low, high = np.array([(link.low, link.high) for link in PANDA.links]).T
    postures = np.random.default_rng(0).uniform(low, high, (40, 7))
    return Arm(model, SerialChain(model, PANDA.joint_names(), "tip"), postures)


def test_pose_and_jacobian_are_mujoco_s(arm: Arm) -> None:
    """Tool position, axes and both halves of the Jacobian to 1e-12 at every posture."""
    pose, data = arm.chain.forward(arm.postures), mujoco.MjData(arm.model)
    linear, angular = np.zeros((3, 7)), np.zeros((3, 7))
    for row, qpos in enumerate(arm.postures):
        data.qpos[:] = qpos
        mujoco.mj_forward(arm.model, data)
        mujoco.mj_jacSite(arm.model, data, linear, angular, arm.model.site("tip").id)
        np.testing.assert_allclose(pose.position[row], data.site("tip").xpos, atol=1e-12)
        np.testing.assert_allclose(pose.rotation[row].ravel(), data.site("tip").xmat, atol=1e-12)
        np.testing.assert_allclose(pose.jacobian[row], np.vstack([linear, angular]), atol=1e-12)


def test_the_jacobian_is_the_derivative_of_the_pose(arm: Arm) -> None:
    """Central differences of position and rotation, joint by joint."""
    pose, step = arm.chain.forward(arm.postures), 1e-6
    for joint in range(7):
        shift = step * np.eye(7)[joint]
        ahead, behind = arm.chain.forward(arm.postures + shift), arm.chain.forward(arm.postures - shift)
        np.testing.assert_allclose(
            (ahead.position - behind.position) / (2 * step), pose.jacobian[:, :3, joint], atol=1e-8
        )
        spin = (ahead.rotation - behind.rotation) / (2 * step) @ pose.rotation.transpose(0, 2, 1)
        np.testing.assert_allclose(spin, -spin.transpose(0, 2, 1), atol=1e-8)
        angular = np.stack([spin[:, 2, 1], spin[:, 0, 2], spin[:, 1, 0]], axis=1)
        np.testing.assert_allclose(angular, pose.jacobian[:, 3:, joint], atol=1e-8)


def test_rows_of_a_batch_do_not_mix(arm: Arm) -> None:
    """One posture alone gives the same bits as among others."""
    batch = arm.chain.forward(arm.postures)
    for row in (0, 17):
        alone = arm.chain.forward(arm.postures[row : row + 1])
        for field in ("position", "rotation", "jacobian"):
            assert (getattr(alone, field)[0] == getattr(batch, field)[row]).all()


def error_to(target: ChainPose, pose: ChainPose) -> np.ndarray:
    """Twist from `pose` to `target` for small rotations."""
    turn = sum(np.cross(pose.rotation[:, :, axis], target.rotation[:, :, axis]) for axis in range(3)) / 2
    return np.concatenate([target.position - pose.position, turn], axis=1)


def test_damped_least_squares_reaches_targets(arm: Arm) -> None:
    """From 0.3 rad away in every joint to reachable poses: below a micrometre and a microradian in 30 iterations."""
    generator = np.random.default_rng(1)
    reached = np.array(PANDA.home) + generator.uniform(-0.3, 0.3, (30, 7))
    target, qpos = arm.chain.forward(reached), np.tile(PANDA.home, (30, 1))
    for _ in range(30):
        pose = arm.chain.forward(qpos)
        qpos = qpos + damped_least_squares(pose.jacobian, error_to(target, pose), np.zeros_like(qpos), 0.02)
    assert np.abs(error_to(target, arm.chain.forward(qpos))).max() < 1e-6


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1.0))
def test_the_step_solves_the_damped_problem(seed: int, damping: float) -> None:
    """Without a posture it minimises |J dq - twist|^2 + damping^2 |dq|^2, as a general solver confirms."""
    generator = np.random.default_rng(seed)
    jacobian, twist = generator.normal(size=(2, 6, 7)), generator.normal(size=(2, 6))
    got = damped_least_squares(jacobian, twist, np.zeros((2, 7)), damping)
    for row in range(2):
        stacked = np.vstack([jacobian[row], damping * np.eye(7)])
        wanted = np.linalg.lstsq(stacked, np.append(twist[row], np.zeros(7)), rcond=None)[0]
        np.testing.assert_allclose(got[row], wanted, atol=1e-7)


def test_posture_motion_leaves_the_tool_still(arm: Arm) -> None:
    """Undamped, the step is J+ twist + (1 - J+ J) posture: the tool does its task, the rest follows the posture."""
    pose = arm.chain.forward(np.array(PANDA.home) + np.random.default_rng(2).uniform(-0.3, 0.3, (20, 7)))
    posture = np.random.default_rng(3).normal(size=(20, 7))
    J = pose.jacobian
    inverse = np.linalg.pinv(J)
    for twist in (np.zeros((20, 6)), np.random.default_rng(4).normal(size=(20, 6))):
        step = damped_least_squares(J, twist, posture, 1e-6)
        np.testing.assert_allclose(np.einsum("bij,bj->bi", J, step), twist, atol=1e-8)
        free = (np.eye(7) - inverse @ J) @ posture[:, :, None]
        np.testing.assert_allclose(step, (inverse @ twist[:, :, None] + free)[:, :, 0], atol=1e-8)

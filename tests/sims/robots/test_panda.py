"""The Panda as compiled, against the published numbers, written down here a second time."""

import mujoco
import numpy as np
import pytest

from alula.sims.robots.kinematics import SerialChain
from alula.sims.robots.panda.panda import PANDA
from alula.sims.robots.robot import add_arm

# Franka Control Interface documentation, "Robot and interface specifications".
POSITION_LIMITS = {
    "lower": [-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973],
    "upper": [2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973],
}
TORQUES = [87, 87, 87, 87, 12, 12, 12]
DENAVIT_HARTENBERG = [  # a [m], d [m], alpha [rad], in Craig's convention; the last row is the flange.
    (0, 0.333, 0),
    (0, 0, -np.pi / 2),
    (0, 0.316, np.pi / 2),
    (0.0825, 0, np.pi / 2),
    (-0.0825, 0.384, -np.pi / 2),
    (0, 0, np.pi / 2),
    (0.088, 0, np.pi / 2),
    (0, 0.107, 0),
]
# Gaz et al. 2019, table of identified dynamic parameters.
MASSES = [4.970684, 0.646926, 3.228604, 3.587895, 1.225946, 1.666555, 0.735522]


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    """The arm alone, with a site at its flange."""
    spec = mujoco.MjSpec()
    add_arm(spec, PANDA).add_site(name="flange")
    return spec.compile()


def craig(a: float, d: float, alpha: float, theta: float) -> np.ndarray:
    """Transform from frame i - 1 to i in Craig's convention."""
    ca, sa, ct, st = np.cos(alpha), np.sin(alpha), np.cos(theta), np.sin(theta)
    return np.array(
        [
            [ct, -st, 0, a],
            [st * ca, ct * ca, -sa, -d * sa],
            [st * sa, ct * sa, ca, d * ca],
            [0, 0, 0, 1],
        ]
    )


def test_the_flange_follows_the_published_parameters(model: mujoco.MjModel) -> None:
    """The product of the eight Denavit-Hartenberg transforms, at random postures."""
    chain = SerialChain(model, PANDA.joint_names(), "flange")
    postures = np.random.default_rng(0).uniform(*POSITION_LIMITS.values(), (20, 7))
    pose = chain.forward(postures)
    for row, qpos in enumerate(postures):
        T = np.eye(4)
        for parameters, theta in zip(DENAVIT_HARTENBERG, [*qpos, 0.0], strict=True):
            T = T @ craig(*parameters, theta)
        np.testing.assert_allclose(pose.position[row], T[:3, 3], atol=1e-12)
        np.testing.assert_allclose(pose.rotation[row], T[:3, :3], atol=1e-12)


def test_known_poses_by_hand(model: mujoco.MjModel) -> None:
    """All joints at zero: 88 mm ahead, 926 mm up; at home: 306.9 mm ahead, 590.3 mm up; both looking down.

    The second is the vendor's example of the ready pose, less the 103.4 mm of its hand.
    """
    pose = SerialChain(model, PANDA.joint_names(), "flange").forward(np.array([np.zeros(7), PANDA.home]))
    np.testing.assert_allclose(pose.position, [[0.088, 0, 0.926], [0.3069, 0, 0.5903]], atol=5e-5)
    np.testing.assert_allclose(pose.rotation[:, :, 2], [[0, 0, -1]] * 2, atol=1e-12)


def test_limits_are_compiled_in(model: mujoco.MjModel) -> None:
    """Joint ranges bound joints and commands, torque limits the servos."""
    low, high = POSITION_LIMITS.values()
    joints = [model.joint(name).id for name in PANDA.joint_names()]
    assert model.jnt_limited[joints].all()
    for bounds in (model.jnt_range[joints], model.actuator_ctrlrange):
        np.testing.assert_array_equal(bounds, np.array([low, high]).T)
    np.testing.assert_array_equal(model.actuator_forcerange, np.array([[-t, t] for t in TORQUES]))
    assert model.actuator_ctrllimited.all()
    assert model.actuator_forcelimited.all()
    assert tuple(link.velocity for link in PANDA.links) == (2.175,) * 4 + (2.61,) * 3
    assert (np.array(low) < PANDA.home).all()
    assert (np.array(PANDA.home) < high).all()


def test_masses_are_compiled_in(model: mujoco.MjModel) -> None:
    """Each link weighs what was identified, drawings weigh nothing, and inertias are physical."""
    links = [model.body(f"link{index}").id for index in range(1, 8)]
    np.testing.assert_allclose(model.body_mass[links], MASSES)
    assert model.body_mass.sum() == pytest.approx(sum(MASSES))
    moments = np.sort(model.body_inertia[links], axis=1)
    assert (moments[:, 0] > 0).all()
    assert (moments[:, 2] <= moments[:, :2].sum(axis=1)).all()


def test_the_servos_hold_a_posture(model: mujoco.MjModel) -> None:
    """Commanded home, the arm comes from 0.1 rad away to rest there within a second, gravity being compensated."""
    data = mujoco.MjData(model)
    data.qpos[:], data.ctrl[:] = np.array(PANDA.home) + 0.1, PANDA.home
    for _ in range(round(1.0 / model.opt.timestep)):
        mujoco.mj_step(model, data)
    np.testing.assert_allclose(data.qpos, PANDA.home, atol=1e-3)
    np.testing.assert_allclose(data.qvel, 0, atol=5e-3)

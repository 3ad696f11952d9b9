"""BimanualTransfer: two arms, who holds the bar, and the expert."""

from collections.abc import Callable

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from alula.core.errors import ConfigError
from alula.sims.task import Task
from alula.sims.tasks.tabletop.bimanual_transfer import AWAY, HALF_LENGTH, HALF_WIDTH, HEIGHT, ON_AXIS, BimanualTransfer
from alula.sims.tasks.tabletop.config import BimanualTransferConfig
from alula.sims.vector import TaskVectorEnv

Share = Callable[[Task, int, float], float]


@pytest.fixture(scope="module")
def task() -> BimanualTransfer:
    """The default task."""
    return BimanualTransfer(BimanualTransferConfig())


def test_the_expert_hands_the_bar_over(task: BimanualTransfer, share_of_successes: Share) -> None:
    """On at least 19 of 20 seeds, and with the clumsiness of the demonstrations on at least 17."""
    assert share_of_successes(task, 20, 0.0) >= 0.95
    assert share_of_successes(task, 20, 0.4) >= 0.85


HIGH = HALF_WIDTH + HEIGHT + 0.001


@pytest.mark.parametrize(
    ("height", "left", "right", "expected"),
    [
        # height of the bar; tools relative to it: along its axis, beside it [m]
        (HIGH, (0.08, AWAY + 0.001), (-0.08, 0.0), True),
        (HIGH, (0.08, AWAY - 0.001), (-0.08, 0.0), False),
        (HIGH, (HALF_LENGTH + AWAY + 0.001, 0.0), (-0.08, 0.0), True),
        (HIGH, (HALF_LENGTH + AWAY - 0.001, 0.0), (-0.08, 0.0), False),
        (HIGH, (0.08, 0.0), (-0.08, 0.0), False),  # Both hold it.
        (HIGH, (0.08, 0.0), (-0.3, 0.0), False),  # Only the left one does.
        (HIGH, (0.3, 0.0), (-0.3, 0.0), False),  # Nobody does.
        (HIGH, (0.3, 0.0), (0.08, ON_AXIS - 0.001), True),  # By the other end, too.
        (HIGH, (0.3, 0.0), (-0.08, ON_AXIS + 0.001), False),
        (HIGH - 0.002, (0.3, 0.0), (-0.08, 0.0), False),
    ],
)
def test_success_is_the_right_arm_alone_in_the_air(
    task: BimanualTransfer, height: float, left: tuple[float, float], right: tuple[float, float], expected: bool
) -> None:
    """For bars that point anywhere."""
    env = TaskVectorEnv(task, 7, AutoresetMode.DISABLED)
    env.reset(seed=0)
    state, bar, yaw = env.engine.state, task.things["bar"], np.linspace(-3.0, 3.0, 7)
    bar.place(state, np.arange(7), np.tile([0.5, 0.1, height], (7, 1)), yaw)
    along = np.stack([np.cos(yaw), np.sin(yaw), 0 * yaw], axis=1)
    beside = np.stack([-np.sin(yaw), np.cos(yaw), 0 * yaw], axis=1)
    for prefix, (distance, offset) in (("left_", left), ("right_", right)):
        state.extras[prefix + "tool_position"][:] = bar.position(state) + distance * along + offset * beside
    assert (task.success(state) == expected).all()
    env.close()


def test_the_arms_face_each_other(task: BimanualTransfer) -> None:
    """A half turn about the middle of the table carries one arm onto the other; each starts on its own side."""
    left, right = (arm.chain.forward(arm.home[None]) for arm in task.arms)
    np.testing.assert_allclose((left.position + right.position)[0, :2], 2 * np.array(task.center), atol=1e-9)
    np.testing.assert_allclose(left.rotation[0, :2], -right.rotation[0, :2], atol=1e-9)
    env = TaskVectorEnv(task, 200, num_threads=1)
    env.reset(seed=0)
    state = env.engine.state
    assert (state.extras["left_tool_position"][:, 1] > state.extras["right_tool_position"][:, 1] + task.half / 2).all()
    env.close()


def test_each_arm_has_its_own_part_of_the_action(task: BimanualTransfer) -> None:
    """Moving one leaves the other where it is, and the names say which is which."""
    names = task.action["action"].element_names
    assert names[:5] == tuple(f"left_{name}" for name in ("step_x", "step_y", "step_z", "turn", "opening"))
    assert names[5:] == tuple(name.replace("left", "right") for name in names[:5])
    env = TaskVectorEnv(task, 2, AutoresetMode.DISABLED)
    env.reset(seed=[1, 1])
    before = {prefix: env.engine.state.extras[prefix + "tool_position"].copy() for prefix in ("left_", "right_")}
    actions = np.zeros((2, 10))
    actions[:, [4, 9]] = 1.0
    actions[0, 2] = actions[1, 7] = 0.02
    for _ in range(5):
        env.step(actions)
    climbed = {p: env.engine.state.extras[p + "tool_position"][:, 2] - before[p][:, 2] for p in before}
    assert climbed["left_"][0] > 0.05
    assert climbed["right_"][1] > 0.05
    assert abs(climbed["left_"][1]) < 0.003
    assert abs(climbed["right_"][0]) < 0.003
    env.close()


def test_an_arm_that_is_too_small_is_refused() -> None:
    """With the arms that are not."""
    with pytest.raises(ConfigError, match=r"task.robot is so101, .* allowed are panda, ur5e, viperx"):
        BimanualTransferConfig(robot="so101")

"""What every task promises as an environment, for every line of the tasks table."""

from collections.abc import Callable
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import alula.sims  # noqa: F401  # registers the tasks with Gymnasium
from alula.core.errors import ActionError
from alula.sims.config import Randomization
from alula.sims.registry import TASKS, make_task
from alula.sims.task import Task
from alula.sims.vector import TaskEnv, TaskVectorEnv

Same = Callable[[Any, Any], None]
Corners = Callable[[Task, int], np.ndarray]
FLYING = {"hover", "track", "gates", "land", "formation", "hover_gpd"}
REPLAYED = {"push_t_gym", "robosuite", "hover_gpd"}
"""Their states are restored by replaying the episode, and cannot be written to."""
MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED]


def roll(env: Any, actions: np.ndarray, steps: int) -> list[tuple[Any, ...]]:
    """Everything that `steps` steps under constant actions return."""
    return [env.step(actions) for _ in range(steps)]


def rows(history: list[tuple[Any, ...]], chosen: Any) -> list[tuple[Any, ...]]:
    """The part of a history without final observations that belongs to the chosen environments."""
    return [
        (
            {name: value[chosen] for name, value in observation.items()},
            *(array[chosen] for array in arrays),
            {name: value[chosen] for name, value in info.items()},
        )
        for observation, *arrays, info in history
    ]


def finals(info: dict[str, Any], env: int) -> dict[str, np.ndarray]:
    """Gymnasium's final observation of one environment."""
    return dict(info["final_obs"][env])


def assert_finite(observation: dict[str, np.ndarray]) -> None:
    """No NaN and no infinity."""
    for name, value in observation.items():
        assert np.isfinite(value).all(), name


# Gymnasium advises bounded observations; physical quantities have none that would hold.
@pytest.mark.filterwarnings("ignore:.*infinity. This is probably too:UserWarning")
# It also advises actions in [-1, 1]; ours are in physical units, which policies normalise.
@pytest.mark.filterwarnings("ignore:.*using a symmetric and normalized space:UserWarning")
def test_gymnasium_s_checker_accepts_the_single_environment(task_name: str) -> None:
    """`gymnasium.make` finds the task, and Gymnasium's own checker has no complaint."""
    env = gymnasium.make(TASKS[task_name].gymnasium_id)
    assert isinstance(env.unwrapped, TaskEnv)
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_gymnasium_makes_the_batch(task_name: str) -> None:
    """`gymnasium.make_vec` gives the batched environment, with autoreset mode and task parameters passed on."""
    env = gymnasium.make_vec(TASKS[task_name].gymnasium_id, num_envs=3)
    assert isinstance(env.unwrapped, TaskVectorEnv)
    assert env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert env.reset(seed=0)[0] in env.observation_space
    env.close()
    entry = TASKS[task_name].gymnasium_id
    other: Any = gymnasium.make_vec(entry, num_envs=2, autoreset_mode=AutoresetMode.SAME_STEP, max_episode_steps=7)
    assert other.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert other.unwrapped.task.max_episode_steps == 7
    other.close()


def test_the_task_follows_its_configuration_s_randomization(task_name: str) -> None:
    """Delays and noise are the environment's business, so a task only has to hand them on."""
    asked = Randomization(latency=2, observation_noise=0.5)
    assert make_task(TASKS[task_name].config(randomization=asked)).randomization == asked


def test_observations_lie_in_their_space(task: Task, corners: Corners) -> None:
    """Names, shapes, types and bounds of every observation, over resets; rewards and flags are per environment."""
    env = TaskVectorEnv(task, 3)
    observation, _ = env.reset(seed=0)
    for step in range(task.max_episode_steps + 3):
        assert observation in env.observation_space
        assert list(observation) == list(task.observation)
        for name, value in observation.items():
            assert value.shape == (3, *task.observation[name].shape)
            assert value.dtype == task.observation[name].dtype
        assert_finite(observation)
        actions = corners(task, 3) if step % 2 else env.action_space.sample()
        observation, reward, terminated, truncated, info = env.step(actions)
        for flags in (terminated, truncated, info["success"], info["diverged"], info["clipped"]):
            assert (flags.shape, flags.dtype) == ((3,), np.bool_)
        assert (reward.shape, reward.dtype) == ((3,), np.float64)
    env.close()


def test_equal_seeds_give_equal_episodes(task: Task, corners: Corners, assert_identical: Same) -> None:
    """Bit for bit, over two episodes; and other seeds give others."""
    actions = corners(task, 3)
    histories = []
    for seed in (5, 5, 6):
        env = TaskVectorEnv(task, 3)
        histories.append((env.reset(seed=seed)[0], roll(env, actions, 2 * task.max_episode_steps)))
        env.close()
    assert_identical(histories[0], histories[1])
    assert any((histories[0][0][name] != histories[2][0][name]).any() for name in task.observation)


def test_an_episode_depends_on_its_own_seed_alone(task: Task, corners: Corners, assert_identical: Same) -> None:
    """Alone, among others, in another order or on other threads: the same bits, autoreset included."""
    seeds, actions = [11, 22, 33, 44, 55, 66, 77, 88, 99], corners(task, 9)
    steps = task.max_episode_steps + 5

    def run(order: list[int]) -> tuple[Any, ...]:
        env = TaskVectorEnv(task, len(order))
        first, _ = env.reset(seed=[seeds[env] for env in order])
        history = [(first, roll(env, actions[order], steps))]
        env.close()
        return tuple(history[0])

    everything = run(list(range(9)))
    for order in ([2], [4, 2, 0, 3, 1], [8, 7, 6, 5, 4, 3, 2, 1, 0]):
        first, history = run(order)
        assert_identical(first, {name: value[order] for name, value in everything[0].items()})
        assert_identical(rows(history, slice(None)), rows(everything[1], order))


def test_the_number_of_threads_does_not_matter(task: Task, corners: Corners, assert_identical: Same) -> None:
    """One or two physics threads: the same bits."""
    runs = []
    for num_threads in (1, 2):
        env = TaskVectorEnv(task, 10, num_threads=num_threads)
        env.reset(seed=0)
        runs.append((roll(env, corners(task, 10), task.max_episode_steps + 5), env.get_state()))
        env.close()
    assert_identical(*runs)


def test_a_saved_state_continues_exactly(task: Task, task_name: str, corners: Corners, assert_identical: Same) -> None:
    """From a state in contact, 30 steps with autoreset repeat bit for bit, here and in another environment.

    Drones meet nothing in so short an episode; theirs is a state in flight.
    That needs mocap poses, clocks and random streams, for the scene of the next episode is drawn on the way.
    """
    env, other = TaskVectorEnv(task, 6), TaskVectorEnv(task, 6)
    env.reset(seed=0)
    other.reset(seed=1000)
    actions = corners(task, 6)
    roll(env, actions, task.max_episode_steps - 4)
    saved = env.get_state()
    kept = {name: array.copy() for name, array in saved.items()}
    data, contacts = mujoco.MjData(task.model), 0
    for row in range(6):
        data.qpos[:], data.mocap_pos[:] = env.engine.state.qpos[row], env.engine.state.mocap_pos[row]
        mujoco.mj_forward(task.model, data)
        contacts += data.ncon
    assert contacts > 0 or task_name in FLYING | REPLAYED
    assert len(np.unique(env.engine.state.qpos, axis=0)) == 6
    if task.model.nmocap and task_name not in REPLAYED:
        assert len(np.unique(env.engine.state.mocap_pos.reshape(6, -1), axis=0)) == 6
    observation = task.observe(env.engine.state)
    first, after = roll(env, actions, 30), env.get_state()
    assert sum(truncated.sum() + terminated.sum() for _, _, terminated, truncated, _ in first) >= 6
    for again in (env, other):
        assert_identical(again.set_state(saved), observation)
        assert_identical(again.get_state(), saved)
        assert_identical(roll(again, actions, 30), first)
        assert_identical(again.get_state(), after)
    assert_identical(saved, kept)
    env.close()
    other.close()


def test_branches_are_exact_copies(task: Task, corners: Corners, assert_identical: Same) -> None:
    """Copies lie next to each other and, under their original's actions, repeat its future bit for bit, resets too."""
    env = TaskVectorEnv(task, 3)
    env.reset(seed=0)
    actions = corners(task, 3)
    roll(env, actions, task.max_episode_steps - 4)
    branched, chosen = env.branch(np.array([2, 0]), 2), np.array([2, 2, 0, 0])
    before = env.get_state()
    assert_identical(branched.get_state(), {name: array[chosen] for name, array in before.items()})
    futures = rows(roll(env, actions, 10), chosen)
    assert_identical(rows(roll(branched, actions[chosen], 10), slice(None)), futures)
    env.close()
    branched.close()


def test_things_that_are_put_where_they_were_measured_are_seen_there(task: Task) -> None:
    """What a policy on a robot is told of its surroundings is what it would see in simulation."""
    environments = TaskVectorEnv(task, 3)
    environments.reset(seed=5)
    state = environments.engine.state
    seen, poses = task.observe(state), task.tracked(state)
    task.place(state, {name: np.roll(pose, 1, axis=0) for name, pose in poses.items()})
    task.place(state, poses)
    for name, value in task.observe(state).items():
        np.testing.assert_allclose(value, seen[name], atol=1e-5, err_msg=name)
    environments.close()


@pytest.mark.parametrize("mode", MODES[:2])
def test_autoreset_is_gymnasium_s(task: Task, corners: Corners, mode: AutoresetMode, assert_identical: Same) -> None:
    """Gymnasium's own vectorisation of single environments returns the same, final observations included."""
    ours = TaskVectorEnv(task, 3, mode)
    theirs = SyncVectorEnv([lambda: TaskEnv(task)] * 3, autoreset_mode=mode)
    first, _ = ours.reset(seed=3)
    assert_identical(dict(theirs.reset(seed=3)[0]), first)
    for env, single in enumerate(theirs.envs):  # Episodes end at different times.
        state = single.unwrapped.batch.get_state()
        single.unwrapped.batch.set_state(state | {"elapsed": np.array([3 * env])})
    ours.set_state(ours.get_state() | {"elapsed": np.array([0, 3, 6])})
    actions, ends = corners(task, 3), 0
    for _ in range(task.max_episode_steps + 6):
        observation, *arrays, info = ours.step(actions)
        wanted, *wanted_arrays, wanted_info = theirs.step(actions)
        assert_identical(observation, dict(wanted))
        assert_identical(arrays, wanted_arrays)
        assert ("final_obs" in info) == ("final_obs" in wanted_info)
        if "final_obs" in info:
            ended = arrays[1] | arrays[2]
            for key in ("_final_obs", "_final_info"):
                assert_identical(info[key], wanted_info[key])
            for env in np.flatnonzero(ended):  # Gymnasium keeps a list of observations, we one array per field.
                assert_identical(
                    {name: value[env] for name, value in info["final_obs"].items()}, finals(wanted_info, env)
                )
            assert_identical(info["final_info"]["success"][ended], wanted_info["final_info"]["success"][ended])
        ends += int((arrays[1] | arrays[2]).sum())
    assert ends >= 3
    ours.close()
    theirs.close()


@pytest.fixture
def generous(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step is a rewarded success, so that nothing is zero by chance; only clock and divergence end episodes."""
    monkeypatch.setattr(task, "reward", lambda state, success: np.ones(len(state.time)))
    monkeypatch.setattr(task, "success", lambda state: np.ones(len(state.time), dtype=bool))
    monkeypatch.setattr(task, "terminated", lambda state, success: np.zeros(len(state.time), dtype=bool))


@pytest.mark.usefixtures("generous")
def test_next_step_ignores_the_action_of_a_reset(task: Task, corners: Corners, assert_identical: Same) -> None:
    """The step after the end gives the first observation of the next episode, reward 0 and no flag, whatever is asked.

    That observation is the one that SAME_STEP gives at once.
    """
    low, high = task.action["action"].bounds()
    outcomes, actions = [], corners(task, 3)
    for ignored in (low, high, 10 * high):
        env = TaskVectorEnv(task, 3)
        env.reset(seed=3)
        last = roll(env, actions, task.max_episode_steps)[-1]
        assert (last[2] | last[3]).all()
        assert last[1].all()
        outcomes.append(env.step(np.tile(ignored, (3, 1))))
        env.close()
    same = TaskVectorEnv(task, 3, AutoresetMode.SAME_STEP)
    same.reset(seed=3)
    at_once = roll(same, actions, task.max_episode_steps)[-1]
    assert_identical(at_once[4]["final_obs"], last[0])
    assert_identical(at_once[0], outcomes[0][0])
    same.close()
    for observation, reward, *flags, info in outcomes:
        assert_identical(observation, outcomes[0][0])
        assert not reward.any()
        assert not any(flag.any() for flag in (*flags, info["success"], info["diverged"], info["clipped"]))
        assert_identical(info, outcomes[0][4])


def test_disabled_never_resets_by_itself(task: Task, corners: Corners, assert_identical: Same) -> None:
    """The clock runs on until a reset mask asks, and that touches only the chosen environments."""
    env = TaskVectorEnv(task, 3, AutoresetMode.DISABLED)
    env.reset(seed=3)
    actions = corners(task, 3)
    history = roll(env, actions, task.max_episode_steps + 3)
    assert all((terminated | truncated).all() for _, _, terminated, truncated, _ in history[-4:])
    assert all("final_obs" not in info for *_, info in history)
    before, seeded = env.get_state(), TaskVectorEnv(task, 3)
    start, _ = seeded.reset(seed=[0, 42, 0])
    mask = np.array([False, True, False])
    observation, _ = env.reset(seed=[1, 42, 1], options={"reset_mask": mask})
    after = env.get_state()
    for name in after:
        assert_identical(after[name][~mask], before[name][~mask])
    for name in observation:
        assert_identical(observation[name][1], start[name][1])
        assert_identical(observation[name][~mask], history[-1][0][name][~mask])
    assert after["elapsed"].tolist() == [task.max_episode_steps + 3, 0, task.max_episode_steps + 3]
    env.close()
    seeded.close()


def test_without_a_seed_the_own_stream_goes_on(task: Task, assert_identical: Same) -> None:
    """The next episode differs but is a function of the first seed; NumPy's integers are seeds too."""
    env, other = TaskVectorEnv(task, 2), TaskVectorEnv(task, 2)
    first, second = env.reset(seed=7)[0], env.reset()[0]
    assert any((first[name] != second[name]).any() for name in first)
    assert_identical(other.reset(seed=np.int64(7))[0], first)
    assert_identical(other.reset(seed=[None, None], options={})[0], second)
    env.close()
    other.close()


def test_seeds_and_masks_need_one_entry_per_environment(task: Task) -> None:
    """Anything else is refused by name."""
    env = TaskVectorEnv(task, 2)
    with pytest.raises(ValueError, match="seed has 3 entries for 2 environments"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="reset_mask has 1 entries for 2 environments"):
        env.reset(options={"reset_mask": np.array([True])})
    env.close()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, "shape", "batch"])
def test_bad_actions_never_reach_physics(
    task: Task, bad: float | str, corners: Corners, assert_identical: Same
) -> None:
    """Not finite or of the wrong shape: an error that names the environment or the shape, and no bit has changed."""
    env = TaskVectorEnv(task, 3)
    env.reset(seed=0)
    actions = corners(task, 3)
    roll(env, actions, 2)
    before = env.get_state()
    wrong = actions.copy()
    if isinstance(bad, str):
        wrong = actions[:, :-1] if bad == "shape" else actions[:2]
        message = r"actions have shape .*nothing was simulated"
    else:
        wrong[1, -1] = bad
        message = "action of environment 1 is not finite.*nothing was simulated"
    with pytest.raises(ActionError, match=message):
        env.step(wrong)
    assert_identical(env.get_state(), before)
    env.close()


def test_actions_out_of_range_are_clipped_and_reported(task: Task, assert_identical: Same) -> None:
    """Exactly as if the bound had been commanded, and told only of the environment concerned."""
    _, high = task.action["action"].bounds()
    within, beyond = np.tile(high, (3, 1)), np.tile(high, (3, 1))
    beyond[1, 0] *= 3
    results = []
    for actions in (within, beyond):
        env = TaskVectorEnv(task, 3)
        env.reset(seed=0)
        results.append((*env.step(actions), env.get_state()))
        env.close()
    clipped = [result[4].pop("clipped").tolist() for result in results]
    assert clipped == [[False, False, False], [False, True, False]]
    assert_identical(*results)


@pytest.mark.usefixtures("quiet_mujoco", "generous")
@pytest.mark.parametrize(
    ("mode", "array", "value"),
    [
        *((mode, "qpos", np.nan) for mode in MODES),
        *((AutoresetMode.SAME_STEP, *fault) for fault in [("qvel", np.inf), ("qvel", 1e12), ("qpos", -1e300)]),
    ],
)
def test_a_diverged_environment_ends_alone(
    task: Task, corners: Corners, mode: AutoresetMode, array: str, value: float, assert_identical: Same
) -> None:
    """Faults in environments 1 and 3 end these two, flagged; the others do not feel it; all numbers stay finite."""
    actions, healthy = corners(task, 5), [0, 2, 4]
    histories = []
    for faulty in (False, True):
        env = TaskVectorEnv(task, 5, mode)
        env.reset(seed=0)
        roll(env, actions, 3)
        if faulty:
            getattr(env.engine.state, array)[[1, 3], 1] = value
        histories.append(roll(env, actions, 6))
        env.close()
    clean, broken = histories
    without_final = [
        (*entry[:4], {key: value for key, value in entry[4].items() if "final" not in key}) for entry in broken
    ]
    assert_identical(rows(without_final, healthy), rows(clean, healthy))
    _, reward, terminated, truncated, info = broken[0]
    assert terminated.tolist() == info["diverged"].tolist() == [False, True, False, True, False]
    assert not truncated.any()
    assert reward.tolist() == info["success"].tolist() == [1, 0, 1, 0, 1]
    for observation, rewards, later, _, after in broken:
        assert_finite(observation)
        assert np.isfinite(rewards).all()
        if "final_obs" in after:
            assert_finite(after["final_obs"])
        assert after is info or not later.any()


def test_truncation_comes_at_the_time_limit_exactly(task: Task) -> None:
    """Not a step earlier or later, in two episodes in a row, and termination is something else."""
    low, high = task.action["action"].bounds()
    env = TaskVectorEnv(task, 2, AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    history = roll(env, np.tile((low + high) / 2, (2, 1)), 2 * task.max_episode_steps)
    found = [step + 1 for step, entry in enumerate(history) if entry[3].all()]
    assert found == [task.max_episode_steps, 2 * task.max_episode_steps]
    assert sum(entry[3].sum() for entry in history) == 4
    assert not any(entry[2].any() for entry in history)
    env.close()


def test_the_single_environment_is_a_row_of_the_batch(task: Task, corners: Corners, assert_identical: Same) -> None:
    """Observations, rewards and flags of `TaskEnv` equal those of the batch, bit for bit."""
    batch, single = TaskVectorEnv(task, 3, AutoresetMode.DISABLED), TaskEnv(task)
    actions = corners(task, 3)
    wanted = [batch.reset(seed=[1, 2, 3])[0]]
    history = roll(batch, actions, task.max_episode_steps)
    got, _ = single.reset(seed=2)
    assert_identical(got, {name: value[1] for name, value in wanted[0].items()})
    for observation, reward, terminated, truncated, info in history:
        got, *outcome = single.step(actions[1])
        assert_identical(got, {name: value[1] for name, value in observation.items()})
        assert outcome[:3] == [reward[1], terminated[1], truncated[1]]
        assert outcome[3] == {name: value[1].item() for name, value in info.items()}
    batch.close()
    single.close()

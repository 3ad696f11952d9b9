"""The adapted suites against their originals."""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from alula.core.errors import ConfigError
from alula.sims.config import Randomization
from alula.sims.registry import TASKS, make_task
from alula.sims.tasks.suites import task as suites
from alula.sims.tasks.suites.task import SuiteTask
from alula.sims.vector import TaskVectorEnv

Same = Callable[[Any, Any], None]
PACKAGES = {
    "fetch": "gymnasium_robotics",
    "franka_kitchen": "gymnasium_robotics",
    "metaworld": "metaworld",
    "push_t_gym": "gym_pusht",
    "robosuite": "robosuite",
    "hover_gpd": "gym_pybullet_drones",
}
MADE: dict[str, SuiteTask] = {}
CASES = [
    *(("fetch", {"name": name, "reward": "dense"}) for name in ("reach", "push", "slide", "pick_and_place")),
    ("fetch", {"name": "reach", "reward": "sparse"}),
    ("franka_kitchen", {"chores": ["kettle", "microwave"]}),
    *(("metaworld", {"name": name}) for name in ("pick-place-v3", "door-open-v3", "reach-v3")),
    ("push_t_gym", {}),
    ("robosuite", {"name": "Lift", "reward": "dense"}),
    ("robosuite", {"name": "Door"}),
    ("hover_gpd", {"start_range": 0.2}),
]
NAMES = [f"{task}-{'-'.join(map(str, settings.values()))}" for task, settings in CASES]


class Theirs(NamedTuple):
    """An original environment, made and driven as its own users do; observations in the original's order."""

    reset: Callable[[int], np.ndarray]
    step: Callable[[np.ndarray], tuple[np.ndarray, float, bool, bool]]
    """Observation, reward, success, terminated."""


def require(task: str) -> Any:
    """The suite's package; skips where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Theirs.
        return pytest.importorskip(PACKAGES[task], reason=f"{task} needs {PACKAGES[task]}")


def adapted(task: str, /, **settings: Any) -> SuiteTask:
    """Our side of a suite's task; made once, for the originals that tasks keep are slow to make."""
    require(task)
    key = f"{task} {settings}"
    if key not in MADE:
        MADE[key] = make_task(TASKS[task].config(**settings))
    return MADE[key]


def wrapped(env: Any, flat: Callable[[Any], np.ndarray], success: Callable[[dict[str, Any], bool], bool]) -> Theirs:
    """Whatever follows Gymnasium."""

    def step(action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        observation, reward, terminated, _, info = env.step(action)
        return flat(observation), reward, success(info, terminated), terminated

    return Theirs(lambda seed: flat(env.reset(seed=seed)[0]), step)


def fetch(package: Any, name: str, reward: str = "sparse") -> Theirs:
    gymnasium.register_envs(package)
    kind = "".join(word.capitalize() for word in name.split("_"))
    env = gymnasium.make(f"Fetch{kind}-v4", reward_type=reward, disable_env_checker=True, max_episode_steps=10**6)
    both = ("observation", "desired_goal")
    return wrapped(env, lambda o: np.concatenate([o[key] for key in both]), lambda info, _: bool(info["is_success"]))


def franka_kitchen(package: Any, chores: list[str]) -> Theirs:
    gymnasium.register_envs(package)
    env = gymnasium.make("FrankaKitchen-v1", tasks_to_complete=chores, disable_env_checker=True)
    return wrapped(env, lambda o: o["observation"], lambda _, terminated: terminated)


def metaworld(package: Any, name: str) -> Theirs:
    # Their goal-observable class crashes on a MuJoCo with twelve numbers per constraint, so it is mended here, too.
    env = package.ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{name}-goal-observable"](seed=0)
    env._freeze_rand_vec, env.seeded_rand_vec = False, True

    def reset(seed: int) -> np.ndarray:
        env.seed(seed)
        return np.asarray(env.reset()[0])

    return wrapped(env, lambda o: o, lambda info, _: bool(info["success"]))._replace(reset=reset)


def push_t_gym(package: Any) -> Theirs:
    env = gymnasium.make("gym_pusht/PushT-v0", obs_type="environment_state_agent_pos", disable_env_checker=True)
    both = ("environment_state", "agent_pos")
    return wrapped(env, lambda o: np.concatenate([o[key] for key in both]), lambda info, _: bool(info["is_success"]))


def robosuite(package: Any, name: str, reward: str = "sparse") -> Theirs:
    unseen = {"has_renderer": False, "has_offscreen_renderer": False, "use_camera_obs": False}
    np.random.seed(0)  # noqa: NPY002
    env = package.make(name, robots="Panda", reward_shaping=reward == "dense", hard_reset=False, **unseen)

    def flat(observation: dict[str, Any]) -> np.ndarray:
        return np.concatenate([observation["robot0_proprio-state"], observation["object-state"]])

    def reset(seed: int) -> np.ndarray:
        np.random.seed(seed)  # noqa: NPY002
        return flat(env.reset())

    def step(action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        observation, reward, _, _ = env.step(action)
        return flat(observation), reward, bool(env._check_success()), False

    return Theirs(reset, step)


def hover_gpd(package: Any, start_range: float) -> Theirs:
    from gym_pybullet_drones.envs.HoverAviary import HoverAviary

    env: Any = None

    def reset(seed: int) -> np.ndarray:
        nonlocal env
        offset = start_range * np.random.default_rng(seed).uniform(-1, 1, 3)
        offset[2] = abs(offset[2])
        start = HoverAviary(pyb_freq=240, ctrl_freq=30).INIT_XYZS + offset
        env = HoverAviary(pyb_freq=240, ctrl_freq=30, initial_xyzs=start)
        return np.asarray(env.reset(seed=seed)[0][0])

    def step(action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        observation, reward, terminated, truncated, _ = env.step(action[None])
        near = bool(np.linalg.norm(observation[0, :3] - (0, 0, 1)) < 0.05)
        return observation[0], reward, near, terminated or truncated

    return Theirs(reset, step)


def walk(task: SuiteTask, steps: int, seed: int) -> np.ndarray:
    """Actions that wander within their bounds."""
    low, high = task.action["action"].bounds()
    generator = np.random.default_rng(seed)
    moves = np.cumsum(generator.normal(0, 0.15, (steps, 2, len(low))), axis=0)
    return ((low + high) / 2 + np.clip(moves, -1, 1) * (high - low) / 2).astype(np.float32)


@pytest.mark.filterwarnings("ignore")  # Theirs.
@pytest.mark.parametrize(("name", "settings"), CASES, ids=NAMES)
def test_seeds_and_actions_give_what_the_original_gives(
    name: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Observations, rewards, success and ends of three episodes are the original's, beside another environment."""
    task, package = adapted(name, **settings), require(name)
    if name == "metaworld":
        from alula.sims.tasks.suites.metaworld import _reset_mocap_welds

        monkeypatch.setattr("metaworld.sawyer_xyz_env.SawyerMocapBase.reset_mocap_welds", _reset_mocap_welds)
    theirs: Theirs = globals()[name](package, **settings)
    env = TaskVectorEnv(task, 2, AutoresetMode.DISABLED)
    rewards = []
    for seed in range(3):
        ours, _ = env.reset(seed=[100 + seed, seed])
        extras = env.engine.state.extras
        np.testing.assert_array_equal(extras["observed"][1], theirs.reset(int(extras["seed"][1, 0])))
        for actions in walk(task, 40, seed):
            ours, reward, terminated, _, info = env.step(actions)
            observation, wanted, success, ended = theirs.step(actions[1])
            np.testing.assert_allclose(
                extras["observed"][1], observation, rtol=0, atol=1e-6 if name == "hover_gpd" else 0
            )
            assert reward[1] == pytest.approx(wanted, abs=1e-12)
            assert (info["success"][1], terminated[1]) == (success, ended)
            rewards.append(reward[1])
            if terminated[1]:
                break
        seen = np.sort(np.concatenate([value[1] for value in ours.values()]))
        np.testing.assert_array_equal(seen, np.sort(observation.astype(np.float32)))
    assert len(set(rewards)) > 1 or settings.get("reward", "sparse") == "sparse"
    env.close()


@pytest.mark.parametrize(("name", "settings"), CASES, ids=NAMES)
def test_every_observed_number_has_a_name(name: str, settings: dict[str, Any]) -> None:
    """No two elements of a field are called the same."""
    for field in adapted(name, **settings).observation.values():
        assert len(set(field.element_names)) == field.size


@pytest.mark.parametrize(
    ("name", "settings"), [case for case in CASES if case[0] in ("fetch", "franka_kitchen", "metaworld")]
)
def test_pictures_show_what_is_simulated(name: str, settings: dict[str, Any]) -> None:
    """In the scene of the pictures every geom lies where the original has it, moved furniture included."""
    task = adapted(name, **settings)
    env = TaskVectorEnv(task, 3)
    env.reset(seed=0)
    for actions in walk(task, 10, 0):
        env.step(np.concatenate([actions, actions[:1]]))
    state: Any = env.engine.state
    shown, placed = mujoco.MjData(task.model), []
    for row, original in enumerate(state.engine.originals):
        shown.qpos[:], shown.mocap_pos[:], shown.mocap_quat[:] = (
            state.qpos[row],
            state.mocap_pos[row],
            state.mocap_quat[row],
        )
        mujoco.mj_forward(task.model, shown)
        mujoco.mj_forward(original.model, original.data)
        count = original.model.ngeom
        np.testing.assert_allclose(shown.geom_xpos[:count], original.data.geom_xpos, atol=1e-9)
        np.testing.assert_allclose(shown.geom_xmat[:count], original.data.geom_xmat, atol=1e-9)
        placed.append(shown.geom_xpos.copy())
    assert not np.allclose(placed[0], placed[1])
    env.close()


def test_the_picture_of_push_t_has_the_corners_that_are_observed() -> None:
    """Bar and stem of the scene, in metres with y upwards, against Chipmunk's pixels with y downwards."""
    task = adapted("push_t_gym")
    env = TaskVectorEnv(task, 1)
    env.reset(seed=3)
    observation = env.step(np.array([[100.0, 400.0]]))[0]
    data = mujoco.MjData(task.model)
    data.qpos[:] = env.engine.state.qpos[0]
    mujoco.mj_forward(task.model, data)
    found = []
    for geom in np.flatnonzero(task.model.geom_bodyid == task.model.body("block").id):
        signs = np.array([(x, y, 0) for x in (-1, 1) for y in (-1, 1)])
        corners = data.geom_xpos[geom] + signs * task.model.geom_size[geom] @ data.geom_xmat[geom].reshape(3, 3).T
        found += [(1e3 * x, -1e3 * y) for x, y, _ in corners]
    wanted = observation["observation.environment_state"][0].reshape(8, 2)
    np.testing.assert_allclose(sorted(found), sorted(map(tuple, wanted)), atol=1e-3)
    np.testing.assert_allclose(
        1e3 * data.body("agent").xpos[:2] * (1, -1), observation["observation.state"][0], atol=1e-3
    )
    env.close()


def test_positions_can_be_written() -> None:
    """An object that is put on the goal is there in the next step, rewarded as the original rewards it."""
    task = adapted("fetch", name="push")
    env = TaskVectorEnv(task, 2)
    env.reset(seed=0)
    goal = env.engine.state.mocap_pos[0, -1].copy()
    cube = int(task.model.joint("object0:joint").qposadr[0])
    env.engine.state.qpos[0, cube : cube + 2] = goal[:2]
    observation, reward, _, _, info = env.step(np.zeros((2, 4)))
    assert info["success"].tolist() == [True, False]
    assert reward.tolist() == [0.0, -1.0]
    np.testing.assert_allclose(observation["observation.environment_state"][0, :2], goal[:2], atol=1e-3)
    env.close()


def test_a_chore_is_rewarded_once_even_across_a_saved_state(assert_identical: Same) -> None:
    """Completed chores are part of the state: the last one ends the episode, wherever it is continued."""
    task = adapted("franka_kitchen", chores=["microwave", "slide cabinet"])
    env, other = TaskVectorEnv(task, 1, AutoresetMode.DISABLED), TaskVectorEnv(task, 1, AutoresetMode.DISABLED)
    env.reset(seed=0)
    other.reset(seed=1)
    door, cabinet = (int(task.model.joint(name).qposadr[0]) for name in ("microwave", "slide_cabinet"))
    still = np.zeros((1, 9))
    env.engine.state.qpos[0, door] = -0.75
    assert (env.step(still)[1], env.step(still)[1]) == (1.0, 0.0)
    other.set_state(env.get_state())
    for each in (env, other):
        each.engine.state.qpos[0, cabinet] = 0.37
    ours, theirs = env.step(still), other.step(still)
    assert_identical(ours, theirs)
    assert ours[1] == 1.0
    assert ours[2].all()
    assert ours[4]["success"].all()
    env.close()
    other.close()


@pytest.mark.usefixtures("quiet_mujoco")
@pytest.mark.parametrize("name", ["fetch", "metaworld", "franka_kitchen"])
def test_physics_that_gives_up_during_a_step_is_told(name: str) -> None:
    """MuJoCo then silently starts from its initial state; here the environment is flagged and ends alone."""
    task = adapted(name)
    env = TaskVectorEnv(task, 3)
    env.reset(seed=0)
    env.engine.state.qvel[1] = 9e5  # within bounds, until it is integrated
    low, high = task.action["action"].bounds()
    still = np.tile((low + high) / 2, (3, 1))
    observation, _, terminated, _, info = env.step(still)
    assert info["diverged"].tolist() == terminated.tolist() == [False, True, False]
    assert all(np.isfinite(value).all() for value in observation.values())
    assert not env.step(still)[4]["diverged"].any()
    env.close()


def test_closed_batches_lend_their_originals_to_the_next() -> None:
    """The same objects, for they are slow to make, and what they did before leaves no trace."""
    task = adapted("fetch")
    first = TaskVectorEnv(task, 2)
    used: Any = first.engine
    observation, _ = first.reset(seed=7)
    first.step(np.ones((2, 4)))
    first.close()
    again = TaskVectorEnv(task, 3)
    reused: Any = again.engine
    assert set(map(id, used.originals)) <= set(map(id, reused.originals))
    for name, value in again.reset(seed=7)[0].items():
        np.testing.assert_array_equal(value[:2], observation[name])
    again.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Theirs.
def test_all_fifty_tasks_of_meta_world_continue_exactly(assert_identical: Same) -> None:
    """Saved in the middle, restored in other environments: the same bits for 15 steps, a reset included."""
    known = require("metaworld").ALL_V3_ENVIRONMENTS
    assert len(known) == 50
    for name in known:
        task = adapted("metaworld", name=name, max_episode_steps=30)
        env, other = TaskVectorEnv(task, 2), TaskVectorEnv(task, 2)
        env.reset(seed=0)
        other.reset(seed=50)
        actions = walk(task, 35, 0)
        for action in actions[:20]:
            env.step(action)
        saved = env.get_state()
        history = [env.step(action) for action in actions[20:]]
        assert_identical(other.set_state(saved), task.observe(other.engine.state))
        assert_identical([other.step(action) for action in actions[20:]], history)
        assert_identical(other.get_state(), env.get_state())
        env.close()
        other.close()


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_missing_suite_is_named_with_its_remedy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`alula list tasks` prints this."""
    monkeypatch.setattr(suites, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=r"needs .* which is not installed: pip install"):
        make_task(TASKS[name].config())


@pytest.mark.skipif(find_spec("gymnasium_robotics") is None, reason="a suite that is there, to break it")
def test_a_suite_that_cannot_be_imported_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that was made for another Python."""

    def broken(module: str) -> None:
        raise ImportError("No module named 'pkg_resources'")

    monkeypatch.setattr(suites, "import_module", broken)
    with pytest.raises(ConfigError, match=r"installed, but cannot be imported \(No module named 'pkg_resources'\)"):
        make_task(TASKS["fetch"].config())


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("fetch", {"name": "throw"}, r"unknown task.name 'throw'.*Valid: pick_and_place, push, reach, slide"),
        ("fetch", {"reward": "shaped"}, "unknown task.reward 'shaped'"),
        ("franka_kitchen", {"chores": []}, "at least one is needed"),
        ("franka_kitchen", {"chores": ["kettle", "kettle"]}, "each once"),
        ("franka_kitchen", {"chores": ["fridge"]}, "unknown entry of task.chores 'fridge'"),
        ("robosuite", {"reward": "shaped"}, "unknown task.reward 'shaped'"),
        ("hover_gpd", {"start_range": 0.6}, r"start_range is 0.6 m; allowed are 0 to 0.5"),
        ("push_t_gym", {"max_episode_steps": 0}, "max_episode_steps is 0"),
    ],
)
def test_impossible_settings_are_refused(name: str, settings: dict[str, Any], message: str) -> None:
    """Before anything is imported, with what is allowed."""
    with pytest.raises(ConfigError, match=message):
        TASKS[name].config(**settings)


def test_what_only_a_suite_knows_is_refused_by_it() -> None:
    """Names of tasks, experts, varied physics."""
    with pytest.raises(ConfigError, match=r"unknown task.name 'pick-place'\. Did you mean 'pick-place"):
        adapted("metaworld", name="pick-place")
    task = adapted("fetch", randomization=Randomization(mass=0.1))
    with pytest.raises(ConfigError, match="SnapshotEngine cannot do"):
        TaskVectorEnv(task, 1)
    with pytest.raises(ConfigError, match="no scripted expert"):
        task.expert(0.0, 0)

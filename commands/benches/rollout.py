"""Environment steps per second, against bare `mujoco.rollout` on the same model and the same states."""

from collections.abc import Callable, Iterator

import mujoco
import numpy as np
from gymnasium.vector import AutoresetMode
from mujoco.rollout import Rollout

from alula.commands.benches.measure import interleaved, median, ratio
from alula.commands.console import Result
from alula.configs.schemas import BenchConfig
from alula.sims.mujoco_engine import CONTROL, MujocoEngine
from alula.sims.tasks.peg_insertion.config import PegInsertionConfig
from alula.sims.tasks.peg_insertion.task import PegInsertion
from alula.sims.vector import TaskVectorEnv

STEPS = 120
"""Control steps per measurement: one full episode length."""
EXPERT_NOISE = 0.4


def bench_sims(config: BenchConfig) -> list[Result]:
    """PegInsertion under its expert, resets included, and the bare physics of the very same steps."""
    environments = TaskVectorEnv(PegInsertion(PegInsertionConfig()), config.num_envs, AutoresetMode.SAME_STEP)
    states, controls, actions = _record(environments)
    start = environments.get_state()

    def ours() -> Iterator[int]:
        environments.set_state(start)
        for action in actions:
            environments.step(action)
            yield config.num_envs

    rates = interleaved({"ours": ours, "bare": _bare(environments, states, controls)}, config.repeats)
    environments.close()
    return [
        median("peg_insertion_steps_per_s", rates["ours"], "1/s", bar=15_000),
        median("mujoco_rollout_steps_per_s", rates["bare"], "1/s"),
        ratio("peg_insertion_vs_rollout", rates["ours"], rates["bare"], "mujoco.rollout", bar=0.85),
    ]


def _record(environments: TaskVectorEnv) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Physics states, controls and actions of expert episodes that are under way at different stages."""
    environments.reset(seed=0)
    environments.randomize_clocks(np.random.default_rng(0))
    expert = environments.task.expert(EXPERT_NOISE, 0)
    for _ in range(STEPS):
        environments.step(expert.act(environments.engine.state).astype(np.float32))
    begin = environments.get_state()
    states, controls, actions = [], [], []
    for _ in range(STEPS):
        action = expert.act(environments.engine.state).astype(np.float32)
        states.append(environments.get_state()["physics"])
        environments.step(action)
        actions.append(action)
        controls.append(_physics(environments).last_control)
    environments.set_state(begin)
    return states, controls, actions


def _physics(environments: TaskVectorEnv) -> MujocoEngine:
    assert isinstance(environments.engine, MujocoEngine)
    return environments.engine


def _bare(
    environments: TaskVectorEnv, states: list[np.ndarray], controls: list[np.ndarray]
) -> Callable[[], Iterator[int]]:
    """The same physics by `mujoco.rollout` alone, with buffers and threads made beforehand."""
    engine = _physics(environments)
    model, count, substeps = engine.model, engine.num_envs, engine.substeps
    data = [mujoco.MjData(model) for _ in range(engine.num_threads)]
    pool = Rollout(nthread=engine.num_threads)
    trajectory = np.zeros((count, substeps, states[0].shape[1]))
    sensors = np.zeros((count, substeps, model.nsensordata))

    def work() -> Iterator[int]:
        for state, control in zip(states, controls, strict=True):
            pool.rollout(
                [model] * count,
                data,
                state,
                control,
                control_spec=CONTROL,
                skip_checks=True,
                nstep=substeps,
                state=trajectory,
                sensordata=sensors,
            )
            yield count

    return work

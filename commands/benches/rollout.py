"""Environment steps per second, against bare `mujoco.rollout` on the same model and the same states."""

from collections.abc import Callable, Iterator

import mujoco
import numpy as np
from gymnasium.vector import AutoresetMode
from mujoco.rollout import Rollout

from alula.commands.benches.measure import interleaved, median, ratio
from alula.commands.console import Result
from alula.sims.mujoco_engine import CONTROL, MujocoEngine
from alula.sims.registry import TASKS, make_task
from alula.sims.vector import TaskVectorEnv

STEPS = 120
"""Control steps per measurement: one full episode length."""
EXPERT_NOISE = 0.4


def against_rollout(name: str, num_envs: int, repeats: int, bar: float, rate: float | None = None) -> list[Result]:
    """A task under its expert, resets included, and the bare physics of the very same steps.

    Args:
        name: Of the task.
        num_envs: Environments in the batch.
        repeats: Rounds.
        bar: Share of the bare physics' speed to reach.
        rate: Steps per second to reach.
    """
    environments = TaskVectorEnv(make_task(TASKS[name].config()), num_envs, AutoresetMode.SAME_STEP)
    states, controls, actions = _record(environments)
    start = environments.get_state()

    def ours() -> Iterator[int]:
        environments.set_state(start)
        for action in actions:
            environments.step(action)
            yield num_envs

    rates = interleaved({"ours": ours, "bare": _bare(environments, states, controls)}, repeats)
    environments.close()
    return [
        median(f"{name}_steps_per_s", rates["ours"], "1/s", bar=rate),
        median(f"{name}_rollout_steps_per_s", rates["bare"], "1/s"),
        ratio(f"{name}_vs_rollout", rates["ours"], rates["bare"], "mujoco.rollout", bar=bar),
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

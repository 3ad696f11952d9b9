"""Makes every task known to `gymnasium.make` and `gymnasium.make_vec`.

Gymnasium has no plugin entry points: `import alula.sims` registers, as does `gymnasium.make("alula.sims:alula/...")`.
"""

from typing import Any

import gymnasium
from gymnasium.vector import AutoresetMode


def register_envs() -> None:
    """Register one id per line of the tasks table; nothing heavy is imported until an environment is made."""
    from alula.sims.registry import TASKS

    for name, entry in TASKS.items():
        if entry.gymnasium_id not in gymnasium.registry:
            gymnasium.register(
                id=entry.gymnasium_id,
                entry_point="alula.sims.registration:make_single",
                vector_entry_point="alula.sims.registration:make_vector",
                kwargs={"task": name},
            )


def make_single(task: str, render_mode: str | None = None, **parameters: Any) -> Any:
    """One environment; `parameters` are the fields of the task's configuration."""
    from alula.sims.registry import TASKS, make_task
    from alula.sims.vector import TaskEnv

    return TaskEnv(make_task(TASKS[task].config(**parameters)), render_mode)


def make_vector(
    task: str,
    num_envs: int = 1,
    render_mode: str | None = None,
    autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    num_threads: int | None = None,
    **parameters: Any,
) -> Any:
    """`num_envs` environments in one batch, stepped by C++ threads; autoreset in the next step, as Gymnasium's own."""
    from alula.sims.registry import TASKS, make_task
    from alula.sims.vector import TaskVectorEnv

    made = make_task(TASKS[task].config(**parameters))
    return TaskVectorEnv(made, num_envs, AutoresetMode(autoreset_mode), num_threads, render_mode)

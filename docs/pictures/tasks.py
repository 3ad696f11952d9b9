"""Draws docs/pictures/TASK.png for every task: an initial state from the task's camera.

python docs/pictures/tasks.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
from gymnasium.vector import AutoresetMode

from alula.sims.registry import TASKS, make_task
from alula.sims.rendering import Camera
from alula.sims.vector import TaskVectorEnv


def main() -> None:
    """One picture a task."""
    for name, entry in TASKS.items():
        task = make_task(entry.config())
        environments = TaskVectorEnv(task, 1, AutoresetMode.DISABLED)
        environments.reset(seed=0)
        camera = Camera(task.model, task.camera, width=480, height=360)
        plt.imsave(Path(__file__).with_name(f"{name}.png"), camera.picture(environments.engine.state, 0))


if __name__ == "__main__":
    main()

"""Draws docs/pictures/TASK.png for every task, shortly after its expert set out, and all of them in tasks.png.

MUJOCO_GL=egl python docs/pictures/tasks.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from gymnasium.vector import AutoresetMode

from alula.core.errors import ConfigError
from alula.sims.registry import TASKS, make_task
from alula.sims.rendering import Camera, Picture
from alula.sims.task import Task
from alula.sims.vector import TaskVectorEnv

FOLDER = Path(__file__).parent
STEPS = 10  # Robots are under way, and those that move at random still stand.
WIDTH, HEIGHT = 480, 360
COLUMNS = 7


def draw(task: Task) -> Picture:
    """The task's camera after a few steps of its expert, or at random where there is none."""
    environments = TaskVectorEnv(task, 1, AutoresetMode.DISABLED)
    environments.reset(seed=0)
    state, generator = environments.engine.state, np.random.default_rng(0)
    low, high = task.action["action"].bounds()
    try:
        expert = task.expert(0.0, 0)
    except ConfigError:
        expert = None
    for _ in range(STEPS):
        environments.step(expert.act(state) if expert else generator.uniform(low, high, (1, len(low))))
    camera = Camera(task.model, task.camera, WIDTH, HEIGHT)
    picture = camera.picture(state, 0)
    camera.close()
    environments.close()
    return picture


def tile(pictures: dict[str, Picture]) -> None:
    """All pictures in rows, each under its name."""
    rows = -(-len(pictures) // COLUMNS)
    figure, grid = plt.subplots(rows, COLUMNS, figsize=(3.2 * COLUMNS, 2.7 * rows), squeeze=False, layout="constrained")
    for axes in grid.flat:
        axes.axis("off")
    for axes, (name, picture) in zip(grid.flat, pictures.items(), strict=False):
        axes.imshow(picture)
        axes.set_title(name, fontsize=11, family="monospace")
    figure.savefig(FOLDER / "tasks.png", dpi=100)


def main() -> None:
    """Every task whose models are installed."""
    pictures = {}
    for name, entry in TASKS.items():
        try:
            task = make_task(entry.config())
        except ConfigError as error:
            print(f"{name} is left out: {error}")
            continue
        pictures[name] = draw(task)
        plt.imsave(FOLDER / f"{name}.png", pictures[name])
    tile(pictures)


if __name__ == "__main__":
    main()

"""Videos of evaluated episodes."""

from pathlib import Path

from alula.sims.rendering import Camera, write_video
from alula.sims.task import Task
from alula.training.evaluation import Film


def require_pictures(task: Task) -> None:
    """Find out whether pictures can be drawn, before long work that ends with them.

    Raises:
        RenderError: no OpenGL context can be made.
    """
    Camera(task.model, task.camera).close()


def write_films(task: Task, films: list[Film], folder: Path, prefix: str, count: int) -> list[Path]:
    """Draw the first `count` successes and the first `count` failures.

    Returns:
        Files `PREFIX_{success|failure}_seedN.mp4`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    camera = Camera(task.model, task.camera)
    written = []
    for outcome in (True, False):
        for film in [film for film in films if film.success is outcome][:count]:
            path = folder / f"{prefix}_{'success' if outcome else 'failure'}_seed{film.seed}.mp4"
            # Faster tasks are thinned to what a video needs.
            stride = max(1, round(task.control_rate / 25))
            frames = [camera.draw(*frame) for frame in film.frames[::stride]]
            write_video(path, frames, task.control_rate / stride)
            written.append(path)
    camera.close()
    return written

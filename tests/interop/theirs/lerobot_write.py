"""A dataset by LeRobot's own writer, and what was put in: lerobot_write.py DATASET TRUTH.npz image|video.

No episode has a single frame: LeRobot 0.4.4 cannot merge the statistics of such a one where a feature has two axes.
"""

import inspect
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

TASK_IN_FRAME = "task" not in inspect.signature(LeRobotDataset.add_frame).parameters
root, truth, images = sys.argv[1:]
shapes = {"observation.state": (6,), "action": (2,), "observation.grid": (2, 3), "next.reward": (1,)}
features = {name: {"dtype": "float32", "shape": shape, "names": None} for name, shape in shapes.items()}
features["observation.state"]["names"] = [f"joint_{index}.pos" for index in range(6)]
features["next.done"] = {"dtype": "bool", "shape": (1,), "names": None}
features["next.success"] = {"dtype": "bool", "shape": (1,), "names": None}
features["observation.images.top"] = {"dtype": images, "shape": (64, 96, 3), "names": ["height", "width", "channels"]}
dataset = LeRobotDataset.create("local/theirs", fps=10, features=features, root=root, use_videos=images == "video")
rng = np.random.default_rng(0)
rows, columns = np.mgrid[:64, :96]
recorded = {name: [] for name in (*features, "task")}
for episode, (length, task) in enumerate([(5, "pick up"), (2, "put down"), (8, "pick up")]):
    for step in range(length):
        frame = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        frame["next.done"] = np.array([step == length - 1])
        frame["next.success"] = np.array([step == length - 1 and episode == 0])
        frame["observation.images.top"] = np.stack(
            [(rows + 4 * step) % 200, columns, (rows + columns + 10 * episode) // 2], axis=-1
        ).astype(np.uint8)
        for name, value in frame.items():
            recorded[name].append(value)
        recorded["task"].append(task)
        if TASK_IN_FRAME:
            dataset.add_frame({**frame, "task": task})
        else:
            dataset.add_frame(frame, task)
    dataset.save_episode()
if hasattr(dataset, "finalize"):
    dataset.finalize()
np.savez(truth, **{name: np.stack(values) for name, values in recorded.items()})

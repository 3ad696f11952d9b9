"""Every item of a dataset, as LeRobot's own loader gives it: lerobot_read.py DATASET ITEMS.npz."""

import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

root, items = sys.argv[1:]
dataset = LeRobotDataset("local/alula", root=root, video_backend="pyav")
gathered = {}
for index in range(len(dataset)):
    for name, value in dataset[index].items():
        gathered.setdefault(name, []).append(value.numpy() if torch.is_tensor(value) else value)
arrays = {
    name: np.stack(values) if not isinstance(values[0], str) else np.array(values) for name, values in gathered.items()
}
for name, parts in dataset.meta.stats.items():
    arrays |= {f"stats/{name}/{part}": np.asarray(value) for part, value in parts.items()}
np.savez(items, **arrays)

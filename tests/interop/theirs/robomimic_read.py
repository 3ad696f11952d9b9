"""Every item of robomimic's own SequenceDataset: robomimic_read.py FILE ITEMS.npz SEQUENCE FILTER OBSERVATION..."""

import sys

import numpy as np
from robomimic.utils import obs_utils
from robomimic.utils.dataset import SequenceDataset

path, items, sequence, mask, *keys = sys.argv[1:]
pictures = [key for key in keys if key.endswith("_image")]
others = [key for key in keys if key not in pictures]
obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": others, "rgb": pictures}})
dataset = SequenceDataset(
    path, keys, ("actions", "rewards", "dones"), seq_length=int(sequence), filter_by_attribute=mask or None
)
gathered = {}
for index in range(len(dataset)):
    item = dataset[index]
    for name, value in item.items():
        for key, array in value.items() if isinstance(value, dict) else [("", value)]:
            gathered.setdefault(f"{name}/{key}" if key else name, []).append(array)
np.savez(items, demos=np.array(dataset.demos), **{name: np.stack(values) for name, values in gathered.items()})

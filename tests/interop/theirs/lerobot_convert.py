"""A dataset from version 2.1 to 3.0 in place, by LeRobot's own script: lerobot_convert.py DATASET."""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

from lerobot.datasets.v30.convert_dataset_v21_to_v30 import convert_dataset

root = Path(sys.argv[1])
convert_dataset(root.name, root=root.parent, push_to_hub=False)

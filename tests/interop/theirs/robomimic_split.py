"""Masks `train` and `valid` into a file, by robomimic's own script: robomimic_split.py FILE."""

import sys

from robomimic.scripts.split_train_val import split_train_val_from_hdf5

split_train_val_from_hdf5(sys.argv[1], val_ratio=0.4)

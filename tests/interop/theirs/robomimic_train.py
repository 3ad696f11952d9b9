"""A small BC policy, and what it does: robomimic_train.py FILE POLICY.pth ACTIONS.npz NORMALIZE OBSERVATION..."""

import sys

import numpy as np
import torch
from robomimic.algo import RolloutPolicy, algo_factory
from robomimic.config import config_factory
from robomimic.utils import file_utils, obs_utils, train_utils
from robomimic.utils.dataset import SequenceDataset

path, policy_path, actions_path, normalize, *keys = sys.argv[1:]
torch.manual_seed(0)
config = config_factory("bc")
with config.values_unlocked():
    config.observation.modalities.obs.low_dim = keys
    config.observation.modalities.obs.rgb = []
    config.algo.actor_layer_dims = (64, 32)
    config.train.hdf5_normalize_obs = normalize == "1"
obs_utils.initialize_obs_utils_with_config(config)
shapes = file_utils.get_shape_metadata_from_dataset(path, all_obs_keys=keys)
model = algo_factory("bc", config, shapes["all_shapes"], shapes["ac_dim"], torch.device("cpu"))
dataset = SequenceDataset(path, keys, ("actions",), hdf5_normalize_obs=normalize == "1", load_next_obs=False)
statistics = dataset.get_obs_normalization_stats() if normalize == "1" else None
loader = torch.utils.data.DataLoader(dataset, batch_size=16, shuffle=True)
model.set_train()
for epoch in range(5):
    for batch in loader:
        model.train_on_batch(model.process_batch_for_training(batch), epoch)
environment = {"env_name": "none", "type": 2, "env_kwargs": {}}
train_utils.save_model(model, config, environment, shapes, policy_path, statistics)

model.set_eval()
policy = RolloutPolicy(model, obs_normalization_stats=statistics)
policy.start_episode()
plain = SequenceDataset(path, keys, ("actions",), load_next_obs=False)
items = [plain[index]["obs"] for index in range(len(plain))]
np.savez(actions_path, actions=np.stack([policy({key: item[key][0] for key in keys}) for item in items]))

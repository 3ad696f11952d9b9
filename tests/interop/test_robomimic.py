"""robomimic's own loader gives what we wrote, and we read what its scripts write."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from alula.core.spaces import ControlMode, FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.formats.format import Contents
from alula.datasets.formats.robomimic import Robomimic
from alula.datasets.schema import step_fields
from alula.policies.robomimic import load_robomimic

pytestmark = pytest.mark.interop

CONTENTS = Contents(
    SpaceSpec(
        (
            FieldSpec("observation.robot0_eef_pos", (3,), "float64", ("m",)),
            FieldSpec("observation.object", (10,), "float32"),
            FieldSpec("observation.images.agentview", (12, 16, 3), "uint8"),
        )
    ),
    SpaceSpec(
        (
            FieldSpec(
                "action",
                (7,),
                low=(-1.0,),
                high=(1.0,),
                control_mode=ControlMode.END_EFFECTOR_POSE_DELTA,
                rate=20.0,
            ),
        )
    ),
)
KEYS = {
    "observation.robot0_eef_pos": "robot0_eef_pos",
    "observation.object": "object",
    "observation.images.agentview": "agentview_image",
}
LENGTHS = [5, 1, 9, 2, 7, 4, 3, 6, 8, 2, 11, 3]
"""Twelve, so that `demo_10` shows whether anybody sorts names as text."""


def make_episodes() -> list[Episode]:
    rng = np.random.default_rng(0)

    def values(field: FieldSpec, length: int) -> np.ndarray:
        shape = (length, *field.shape)
        if field.name == "action":
            return rng.uniform(-1, 1, shape).astype(field.dtype)
        if np.dtype(field.dtype).kind == "f":
            return rng.standard_normal(shape).astype(field.dtype)
        return rng.integers(0, 2 if field.dtype == "bool" else 256, shape).astype(field.dtype)

    return [
        Episode(
            {name: values(field, length) for name, field in step_fields(CONTENTS).items()},
            {"split": "valid" if number % 3 == 0 else "train"},
        )
        for number, length in enumerate(LENGTHS)
    ]


@pytest.fixture
def episodes() -> list[Episode]:
    return make_episodes()


@pytest.fixture
def path(tmp_path: Path, episodes: list[Episode]) -> Path:
    writer = Robomimic().create(tmp_path / "ours.hdf5", CONTENTS)
    for episode in episodes:
        writer.append(episode)
    writer.finish()
    return tmp_path / "ours.hdf5"


@pytest.mark.parametrize("sequence", [1, 4])
@pytest.mark.parametrize("mask", ["", "train"])
def test_robomimic_reads_every_index_of_ours(
    sequence: int, mask: str, path: Path, episodes: list[Episode], tmp_path: Path, run_theirs
) -> None:
    """Sequences repeat the last step behind an episode's end."""
    run_theirs("interop", "robomimic_read.py", path, tmp_path / "items.npz", sequence, mask, *KEYS.values())
    items = dict(np.load(tmp_path / "items.npz"))
    chosen = [number for number, episode in enumerate(episodes) if mask in ("", episode.metadata["split"])]
    assert items["demos"].tolist() == [f"demo_{number}" for number in chosen]

    def windows(name: str, shift: int = 0) -> np.ndarray:
        parts = []
        for number in chosen:
            values = episodes[number].steps[name]
            for start in range(len(values)):
                steps = np.minimum(np.arange(start, start + sequence), len(values) - 1)
                parts.append(values[np.minimum(steps + shift, len(values) - 1)])
        return np.stack(parts)

    for name, key in KEYS.items():
        assert np.array_equal(items[f"obs/{key}"], windows(name)), name
        assert items[f"obs/{key}"].dtype == CONTENTS.observation[name].dtype
        assert np.array_equal(items[f"next_obs/{key}"], windows(name, shift=1)), name
    assert np.array_equal(items["actions"], windows("action"))
    assert np.array_equal(items["rewards"], windows("next.reward"))
    assert np.array_equal(items["dones"], windows("next.terminated"))


def test_we_read_the_masks_that_robomimic_writes(
    path: Path, episodes: list[Episode], tmp_path: Path, run_theirs
) -> None:
    """Its script splits demonstrations; a file without our own notes is read by robomimic's conventions."""
    with h5py.File(path, "r+") as file:
        for group in (file["data"], *file["data"].values()):
            for place in (group.attrs, group):
                if "alula" in place:
                    del place["alula"]
        del file["mask"]
    run_theirs("interop", "robomimic_split.py", path)
    with h5py.File(path) as file:
        masks = {name: {demo.decode() for demo in demos} for name, demos in file["mask"].items()}
    assert set(masks) == {"train", "valid"}
    with Robomimic().open(path) as reader:
        found = list(reader.episodes())
    assert len(found) == len(episodes)
    for number, (got, wanted) in enumerate(zip(found, episodes, strict=True)):
        assert got.metadata["split"] == ("train" if f"demo_{number}" in masks["train"] else "valid")
        for name in (*KEYS, "action", "next.reward", "next.terminated"):
            assert np.array_equal(got.steps[name], wanted.steps[name]), name


@pytest.mark.parametrize("normalize", [0, 1])
def test_a_policy_that_robomimic_trained_acts_the_same_here(
    normalize: int, path: Path, episodes: list[Episode], tmp_path: Path, run_theirs
) -> None:
    """Also with observations far outside the range that our own policies clamp to."""
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            demo["obs/object"][...] *= 30.0
    for episode in episodes:
        episode.steps["observation.object"] *= np.float32(30)
    seen = {name: key for name, key in KEYS.items() if not key.endswith("_image")}
    trained, actions = tmp_path / "model_epoch_5.pth", tmp_path / "actions.npz"
    run_theirs("interop", "robomimic_train.py", path, trained, actions, normalize, *seen.values())
    wanted = np.load(actions)["actions"]
    policy = load_robomimic(trained)
    assert set(policy.observation) == set(seen)
    observation = {
        name: np.concatenate([episode.steps[name] for episode in episodes]).astype(np.float32) for name in seen
    }
    generator = torch.Generator().manual_seed(0)
    got, _, _ = policy.act(observation, policy.memory(len(wanted)), generator, stochastic=False)
    assert np.abs(wanted).max() > 0.05
    assert got == pytest.approx(wanted, abs=1e-5)

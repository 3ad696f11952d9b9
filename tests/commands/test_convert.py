"""`alula convert` shows its plan, keeps what is there, and says what came back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alula.datasets.store import EpisodeStore


def test_a_dataset_goes_to_another_format_and_back(alula: Any, workplace: Path) -> None:
    there = alula("convert", "demonstrations.zarr", "there.hdf5", "--json")
    results = {result["name"]: result["value"] for result in there.report["results"]}
    assert (results["episodes"], results["losses"], results["identical_fields"]) == (3, 0, 1.0)
    assert "data/demo_*/actions" in there.out
    assert alula("convert", "there.hdf5", "back.zarr").status == 0
    first, last = (EpisodeStore.open(workplace / name) for name in ("demonstrations.zarr", "back.zarr"))
    assert (last.contents, last.digests) == (first.contents, first.digests)


def test_a_plan_alone_writes_nothing(alula: Any, workplace: Path) -> None:
    before = set(workplace.iterdir())
    assert "observation.state" in alula("convert", "demonstrations.zarr", "new.zarr", "plan_only=true").out
    assert set(workplace.iterdir()) == before


@pytest.mark.usefixtures("workplace")
def test_what_is_there_is_replaced_with_force_only(alula: Any) -> None:
    assert alula("convert", "demonstrations.zarr", "new.hdf5").status == 0
    assert "--force" in alula("convert", "demonstrations.zarr", "new.hdf5").error
    assert alula("convert", "demonstrations.zarr", "new.hdf5", "--force").status == 0


def test_strict_refuses_a_loss(alula: Any, workplace: Path) -> None:
    """A field that the archive holds but no dataset field takes."""
    arrays = {"observation": np.zeros((4, 3)), "action": np.zeros((4, 2)), "reward": np.zeros(4)}
    np.savez(workplace / "source.npz", **arrays, episode_ends=np.array([4]), notes=np.zeros(3))
    refused = alula("convert", "source.npz", "new.zarr", "--strict")
    assert "--strict refuses" in refused.error
    assert "array 'notes' is not read" in refused.out
    assert not (workplace / "new.zarr").exists()
    assert alula("convert", "source.npz", "new.zarr").status == 0


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rotations=[action:0]"], "needed is FIELD:START:FROM:TO"),
        (["format=lerobot"], "unknown dataset format 'lerobot'"),
        (["format=robomimic", "video=true"], "format 'robomimic' has no setting 'video'"),
    ],
)
def test_a_mistake_is_named(words: list[str], message: str, alula: Any) -> None:
    assert message in alula("convert", "demonstrations.zarr", "new.zarr", *words).error

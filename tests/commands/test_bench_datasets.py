"""The dataset area of `alula bench` measures what it says, with whatever peers there are."""

from pathlib import Path

import numpy as np
import pytest

from alula.commands.benches import datasets, sampling_memory
from alula.commands.benches.datasets import ACTION, CAMERA, KINDS, Kind, bench_datasets
from alula.configs.schemas import BenchConfig
from alula.core.errors import ConfigError
from alula.core.spaces import SpaceSpec
from alula.datasets.store import EpisodeStore


def test_without_peers_our_own_rates_remain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = {name: Kind(kind.observation, episodes=2, batch=8) for name, kind in KINDS.items()}
    monkeypatch.setattr(datasets, "KINDS", tiny)
    config = BenchConfig("datasets", repeats=2, peers=str(tmp_path / "none"), dataset_gb=0)
    results = {result.name: result for result in bench_datasets(config)}
    assert {"windows_state_per_s", "windows_images_per_s", "convert_mb_per_s"} <= set(results)
    assert all(result.value > 0 for result in results.values())
    assert not any("vs" in name or "memory" in name for name in results)
    said = capsys.readouterr().err
    for peer in ("lerobot", "robomimic", "diffusion_policy"):
        assert f"left out: {peer}, for lack of {tmp_path / 'none'}" in said


def test_headlines_are_the_kind_of_data_with_the_smaller_lead() -> None:
    rates = {
        "state": {"ours": [40.0, 40.0, 44.0], "robomimic": [10.0, 10.0, 10.0]},
        "images": {"ours": [9.0, 6.0, 6.0], "robomimic": [3.0, 3.0, 3.0]},
    }
    headline, *details = datasets._compared(rates)
    assert (headline.name, headline.value, headline.bar, headline.ok) == ("windows_vs_robomimic", 2.0, 2.0, True)
    assert headline.peer == "robomimic, images"
    assert {result.name: result.value for result in details} == {
        "windows_state_per_s": 40.0,
        "robomimic_windows_state_per_s": 10.0,
        "windows_images_per_s": 6.0,
        "robomimic_windows_images_per_s": 3.0,
        "windows_vs_robomimic_state": 4.0,
        "windows_vs_robomimic_images": 2.0,
    }


def test_memory_is_measured_while_every_window_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset whose pictures do not tell their step is found out."""
    monkeypatch.setattr(sampling_memory, "SECONDS", 0.1)
    for name, steps in (("right", np.arange(20)), ("wrong", np.zeros(20))):
        store = EpisodeStore.create(tmp_path / name, SpaceSpec((CAMERA,)), SpaceSpec((ACTION,)))
        store.append(datasets._shades(steps))
    peak, rate = sampling_memory.measure(tmp_path / "right", 2**20, batch=4, history=2, horizon=3)
    assert peak > 2**20
    assert rate > 0
    with pytest.raises(AssertionError, match="another step's image"):
        sampling_memory.measure(tmp_path / "wrong", 2**20, batch=4, history=2, horizon=3)


def test_the_size_of_the_large_dataset_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"dataset_gb is -1"):
        BenchConfig(dataset_gb=-1)

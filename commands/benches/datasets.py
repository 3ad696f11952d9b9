"""Random windows per second against other loaders, memory while sampling what does not fit, and conversion."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy import ndarray

from alula.commands.benches.measure import interleaved, median, ratio
from alula.commands.benches.peer import Peer, interpreter
from alula.commands.console import ERR, Result
from alula.configs.schemas import BenchConfig
from alula.core.spaces import FieldSpec, SpaceSpec
from alula.core.transitions import Episode
from alula.datasets.conversion import Conversion, for_target
from alula.datasets.formats.registry import get_format
from alula.datasets.store import EpisodeStore
from alula.datasets.windows import WindowSampler

HISTORY, HORIZON = 2, 16
"""Of every window [steps]."""
LENGTH, RATE = 100, 20.0
"""Steps of an episode, and their rate [Hz]."""
STATE, ACTION = FieldSpec("observation.state", (10,)), FieldSpec("action", (7,), rate=RATE)
CAMERA = FieldSpec("observation.images.top", (96, 96, 3), "uint8")
SLICES, OUR_BATCHES = 8, 32
"""Turns of a contender in a round, and our batches in a turn."""
LARGE_LENGTH, LARGE_AT_ONCE = 500, 8
"""Steps of an episode of the large dataset, and episodes that are written together."""
LARGE_LIMIT = 512 * 2**20
"""What a sampler may keep in memory of the large dataset [bytes]."""
LARGE_PEAK_MB = 1000
"""Bar: that limit, the interpreter with its libraries, and what is worked on at a time."""


@dataclass(frozen=True)
class Kind:
    """A generated dataset."""

    observation: SpaceSpec
    episodes: int
    batch: int


KINDS = {
    "state": Kind(SpaceSpec((STATE,)), 200, 256),
    # Few enough that robomimic's cache of prepared windows fits into memory.
    "images": Kind(SpaceSpec((STATE, CAMERA)), 20, 64),
}


@dataclass(frozen=True)
class Loader:
    """A peer, and what it reads."""

    environment: str
    format: str
    bar: float
    """Our windows per second over its."""
    slices: int
    batches: int
    """In a turn."""


LOADERS = {
    "lerobot": Loader("interop", "lerobot3", 3.0, 1, 1),
    "robomimic": Loader("interop", "robomimic", 2.0, SLICES, 4),
    "diffusion_policy": Loader("diffusion_policy", "dp_zarr", 1.5, SLICES, 4),
}


def bench_datasets(config: BenchConfig) -> list[Result]:
    """State-only and image datasets, the same windows for all loaders, each in one process."""
    with TemporaryDirectory(prefix="alula-bench-") as temporary:
        folder = Path(temporary)
        rates, results = {}, []
        for name, kind in KINDS.items():
            store = _generated(folder / f"{name}.zarr", kind)
            converted, seconds = _converted(store, folder)
            rates[name] = _windows(config, store, kind, converted)
            if name == "images":
                results += _conversion_rates(store, seconds)
        if config.dataset_gb:
            results += _memory(folder, config.dataset_gb)
    return [*_compared(rates), *results]


def _generated(path: Path, kind: Kind) -> EpisodeStore:
    """Random numbers and noisy pictures: nothing that a codec could make use of."""
    store = EpisodeStore.create(path, kind.observation, SpaceSpec((ACTION,)), {"rate": RATE})
    rng = np.random.default_rng(0)
    for _ in range(kind.episodes):
        steps = {name: _random(rng, field) for name, field in (*kind.observation.items(), ("action", ACTION))}
        store.append(Episode(steps | _outcome(LENGTH), {"instruction": "push the block"}))
    return store


def _random(rng: np.random.Generator, field: FieldSpec) -> ndarray:
    if field.dtype == "uint8":
        return rng.integers(0, 256, (LENGTH, *field.shape), dtype=np.uint8)
    return rng.standard_normal((LENGTH, *field.shape), dtype=np.float32)


def _outcome(length: int) -> dict[str, ndarray]:
    """Steps that led to nothing."""
    names = ("next.terminated", "next.truncated", "next.success")
    return {"next.reward": np.zeros(length), **dict.fromkeys(names, np.zeros(length, dtype=bool))}


def _converted(store: EpisodeStore, folder: Path) -> tuple[dict[str, Path], dict[str, float]]:
    """The dataset as each peer wants it, and how long that took [s]."""
    targets, seconds = {}, {}
    for loader in LOADERS.values():
        target = folder / f"{store.path.stem}.{loader.format}"
        start = time.perf_counter()
        with get_format("zarr").open(store.path) as reader:
            Conversion(store.path, target, reader, for_target(target, loader.format)).run()
        targets[loader.format], seconds[loader.format] = target, time.perf_counter() - start
    return targets, seconds


def _conversion_rates(store: EpisodeStore, seconds: dict[str, float]) -> list[Result]:
    """Uncompressed values per second; reading the source is part of it."""
    megabytes = store.num_steps * sum(f.size * np.dtype(f.dtype).itemsize for f in store.fields.values()) / 1e6
    each = [Result(f"convert_{name}_mb_per_s", megabytes / spent, "MB/s") for name, spent in seconds.items()]
    return [Result("convert_mb_per_s", len(seconds) * megabytes / sum(seconds.values()), "MB/s"), *each]


def _windows(
    config: BenchConfig, store: EpisodeStore, kind: Kind, converted: dict[str, Path]
) -> dict[str, list[float]]:
    """Windows per second of all loaders in each round."""
    sampler = WindowSampler(store, HORIZON, history=HISTORY)
    contenders = {"ours": _ours(sampler, kind.batch)}
    with ExitStack() as stack:
        for name, loader in LOADERS.items():
            python = interpreter(config.peers, loader.environment)
            checkout = [config.diffusion_policy] if name == "diffusion_policy" else []
            if python is None or None in checkout:
                environment = f"{config.peers}/{loader.environment} (make bench-peers interop)"
                ERR.print(f"left out: {name}, for lack of {environment if python is None else f'{name}=CHECKOUT'}")
                continue
            arguments: list[str | int] = [
                *filter(None, checkout),
                str(converted[loader.format]),
                HISTORY,
                HORIZON,
                kind.batch,
            ]
            peer = stack.enter_context(closing(Peer(python, name, *arguments)))
            contenders[name] = peer.rounds(loader.slices, loader.batches, loader.batches * kind.batch)
        return interleaved(contenders, config.repeats)


def _ours(sampler: WindowSampler, batch: int) -> Callable[[], Iterator[int]]:
    rng = np.random.default_rng(0)

    def work() -> Iterator[int]:
        for _ in range(SLICES):
            for _ in range(OUR_BATCHES):
                sampler.sample(rng.integers(len(sampler), size=batch))
            yield OUR_BATCHES * batch

    return work


def _compared(rates: dict[str, dict[str, list[float]]]) -> list[Result]:
    """Every peer by the kind of data where our lead is smaller; then all that was measured."""
    headlines, details = [], []
    for kind, measured in rates.items():
        details.append(median(f"windows_{kind}_per_s", measured["ours"], "1/s"))
        details += [median(f"{name}_windows_{kind}_per_s", measured[name], "1/s") for name in list(measured)[1:]]
    for name, loader in LOADERS.items():
        ratios = {
            kind: ratio(f"windows_vs_{name}", measured["ours"], measured[name], f"{name}, {kind}", loader.bar)
            for kind, measured in rates.items()
            if name in measured
        }
        headlines += sorted(ratios.values(), key=lambda result: result.value)[:1]
        details += [replace(result, name=f"{result.name}_{kind}") for kind, result in ratios.items()]
    return [*headlines, *details]


def _shades(steps: ndarray) -> Episode:
    """Pictures of one shade each, which says of which step they are; quick to write."""
    pictures = np.broadcast_to(steps.astype(np.uint8)[:, None, None, None], (len(steps), *CAMERA.shape))
    actions = np.zeros((len(steps), *ACTION.shape), dtype=np.float32)
    return Episode({CAMERA.name: pictures, "action": actions, **_outcome(len(steps))})


def _memory(folder: Path, gigabytes: float) -> list[Result]:
    """Peak memory of a process that samples a dataset far larger than its limit; see `sampling_memory.py`."""
    ERR.print(f"generating {gigabytes:g} GB of pictures, and as much again for the uncompressed copy")
    store = EpisodeStore.create(folder / "large.zarr", SpaceSpec((CAMERA,)), SpaceSpec((ACTION,)))
    while store.num_steps * CAMERA.size < gigabytes * 1e9:
        starts = store.num_steps + LARGE_LENGTH * np.arange(LARGE_AT_ONCE)
        store.extend([_shades(start + np.arange(LARGE_LENGTH)) for start in starts])
    batch = KINDS["images"].batch
    sizes = [str(number) for number in (LARGE_LIMIT, batch, HISTORY, HORIZON)]
    command = [sys.executable, "-m", "alula.commands.benches.sampling_memory", str(store.path), *sizes]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    peak = float(answer[0]) / 1e6
    return [
        Result("peak_memory_mb", peak, "MB", bar=LARGE_PEAK_MB, ok=peak <= LARGE_PEAK_MB),
        Result("windows_large_per_s", float(answer[1]), "1/s"),
        Result("large_dataset_mb", store.num_steps * CAMERA.size / 1e6, "MB"),
    ]

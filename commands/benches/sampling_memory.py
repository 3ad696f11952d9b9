"""Memory while sampling a dataset that is larger than its limit; run as a process of its own, without torch.

python -m alula.commands.benches.sampling_memory DATASET LIMIT_BYTES BATCH HISTORY HORIZON
"""

import re
import sys
import time
from pathlib import Path

import numpy as np

from alula.datasets.store import EpisodeStore
from alula.datasets.windows import WindowSampler

SECONDS = 20.0


def measure(path: Path, limit: int, batch: int, history: int, horizon: int) -> tuple[int, float]:
    """Peak memory [bytes] from the start of the process on, copying the dataset included; and windows per second.

    The peak is the kernel's high-water mark of resident memory (VmHWM), which counts mapped pages of files as well,
    although the kernel could take those back at any time.
    """
    store = EpisodeStore.open(path)
    sampler = WindowSampler(store, horizon, memory_limit=limit, history=history)
    rng = np.random.default_rng(0)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        indices = rng.integers(len(sampler), size=batch)
        windows = sampler.sample(indices)
        for images in windows.observation.values():
            assert (images[:, -1, 0, 0, 0] == indices % 256).all(), "a window holds another step's image"
        count += batch
    rate = count / (time.perf_counter() - start)
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    return int(peak[1]) * 1024, rate


if __name__ == "__main__":
    print(*measure(Path(sys.argv[1]), *map(int, sys.argv[2:])))

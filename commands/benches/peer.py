"""Other simulators and loaders, measured beside ours: each runs in its own process, with the Python that holds it.

This file is both sides: the parent imports `Peer`; the child runs it as a script, by an interpreter that has the
peer installed but not alula. `make bench-peers` prepares those interpreters.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

Steps = Callable[[int], None]
"""Advance all environments that many control steps, or load that many batches of windows."""


class Peer:
    """A peer's environments or dataset, advanced on demand.

    Args:
        python: Interpreter that has the peer.
        name: Row of `PEERS`.
        arguments: Of that row's function.
    """

    def __init__(self, python: Path, name: str, *arguments: str | int) -> None:
        # -P: this file's folder holds modules with names of others' packages.
        command = [str(python), "-P", __file__, name, *map(str, arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def rounds(self, slices: int, steps: int, amount: int) -> Callable[[], Iterator[int]]:
        """A contender: `slices` slices of `steps` control steps or batches, each slice worth `amount`."""

        def work() -> Iterator[int]:
            for _ in range(slices):
                print(steps, file=self._process.stdin, flush=True)
                self._answer()
                yield amount

        return work

    def _answer(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise ChildProcessError(f"a peer stopped: {' '.join(map(str, self._process.args))}")  # type: ignore[arg-type]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def interpreter(folder: str, peer: str) -> Path | None:
    """The Python that `make bench-peers` has put into `folder` for a peer; None where it has not."""
    python = Path(folder) / peer / "bin" / "python"
    return python if python.exists() else None


def _envpool(env_id: str, num_envs: str) -> Steps:
    import envpool

    environments = envpool.make(env_id, env_type="gymnasium", num_envs=int(num_envs), num_threads=os.cpu_count())
    return _random_actions(environments, int(num_envs), environments.action_space)


def _gymnasium(env_id: str, num_envs: str, mode: str) -> Steps:
    import gymnasium

    environments = gymnasium.make_vec(env_id, num_envs=int(num_envs), vectorization_mode=mode)
    return _random_actions(environments, int(num_envs), environments.single_action_space)


def _random_actions(environments: Any, num_envs: int, space: Any) -> Steps:
    """Uniformly random actions, drawn beforehand."""
    import numpy as np

    environments.reset()
    shape = (64, num_envs, *space.shape)
    actions = np.random.default_rng(0).uniform(space.low, space.high, shape).astype(space.dtype)

    def advance(count: int) -> None:
        for step in range(count):
            environments.step(actions[step % len(actions)])

    return advance


def _crazyflow(num_drones: str) -> Steps:
    import jax
    from crazyflow.sim import Sim

    simulation = Sim(n_worlds=int(num_drones), control="rotor_vel", dynamics="first_principles", freq=500)
    simulation.reset()

    def advance(count: int) -> None:
        simulation.step(count)
        jax.block_until_ready(simulation.data)

    return advance


def _gym_pybullet_drones(checkout: str, num_drones: str, camera: str) -> Steps:
    sys.path.insert(0, checkout)
    import numpy as np
    from gym_pybullet_drones.envs.HoverAviary import HoverAviary
    from gym_pybullet_drones.envs.MultiHoverAviary import MultiHoverAviary
    from gym_pybullet_drones.utils.enums import ActionType, ObservationType

    seen = ObservationType.RGB if camera == "rgb" else ObservationType.KIN
    count = int(num_drones)
    rate = 24 if camera == "rgb" else 30  # its camera needs the former
    kind = {"obs": seen, "act": ActionType.RPM, "pyb_freq": 240, "ctrl_freq": rate}
    environment = HoverAviary(**kind) if count == 1 else MultiHoverAviary(num_drones=count, **kind)
    environment.reset()
    action = np.zeros((count, 4), dtype=np.float32)

    def advance(steps: int) -> None:
        for _ in range(steps):
            _, _, terminated, truncated, _ = environment.step(action)
            if terminated or truncated:
                environment.reset()

    return advance


def _lerobot(path: str, history: str, horizon: str, batch: str) -> Steps:
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": f"{path}.cache"}
    from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
    from torch.utils.data import default_collate

    metadata = LeRobotDatasetMetadata("bench", root=path)
    seen = [step / metadata.fps for step in range(1 - int(history), 1)]
    times = {name: seen for name in metadata.features if name.startswith("observation.")}
    times["action"] = [step / metadata.fps for step in range(int(horizon))]
    dataset = LeRobotDataset("bench", root=path, delta_timestamps=times)
    return _random_windows(dataset.__getitem__, len(dataset), default_collate, int(batch))


def _robomimic(path: str, history: str, horizon: str, batch: str) -> Steps:
    import h5py
    from robomimic.utils.dataset import SequenceDataset
    from robomimic.utils.obs_utils import initialize_obs_utils_with_obs_specs
    from torch.utils.data import default_collate

    with h5py.File(path) as file:
        names = list(file["data/demo_0/obs"])
    images = [name for name in names if name.endswith("image")]
    numbers = [name for name in names if name not in images]
    # Everything in memory and prepared, its fastest mode.
    options: dict[str, Any] = {"frame_stack": int(history), "seq_length": int(horizon), "hdf5_cache_mode": "all"}
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        initialize_obs_utils_with_obs_specs([{"obs": {"low_dim": numbers, "rgb": images}}])
        dataset = SequenceDataset(path, names, ("actions",), **options, load_next_obs=False)
    seen = slice(int(history))

    def window(index: int) -> dict[str, Any]:
        """It stacks observations for every action; leaving those out that ours has not spares it most of the work."""
        item = dataset[index]
        return {"actions": item["actions"], **{name: values[seen] for name, values in item["obs"].items()}}

    return _random_windows(window, len(dataset), default_collate, int(batch))


def _diffusion_policy(checkout: str, path: str, history: str, horizon: str, batch: str) -> Steps:
    sys.path.insert(0, checkout)
    import numpy as np
    from diffusion_policy.common.replay_buffer import ReplayBuffer
    from diffusion_policy.common.sampler import SequenceSampler

    outcome = ("reward", "terminated", "truncated", "success")
    names = [name for name in os.listdir(Path(path, "data")) if name not in outcome and not name.startswith(".")]
    before, after = int(history) - 1, int(horizon) - 1
    buffer = ReplayBuffer.copy_from_path(path, keys=names)  # into memory
    sampler = SequenceSampler(buffer, before + int(horizon), pad_before=before, pad_after=after)
    seen = {name: slice(None) if name == "action" else slice(int(history)) for name in names}

    def window(index: int) -> dict[str, Any]:
        """Slices of its sequence: what `key_first_k` gives, at less cost."""
        item = sampler.sample_sequence(index)
        return {name: item[name][part] for name, part in seen.items()}

    def stacked(items: list[dict[str, Any]]) -> Any:
        return {name: np.stack([item[name] for item in items]) for name in names}

    return _random_windows(window, len(sampler), stacked, int(batch))


def _random_windows(
    window: Callable[[int], Any], num_windows: int, stacked: Callable[[list[Any]], Any], batch: int
) -> Steps:
    import numpy as np

    rng = np.random.default_rng(0)

    def advance(count: int) -> None:
        for _ in range(count):
            stacked([window(index) for index in rng.integers(num_windows, size=batch).tolist()])

    return advance


PEERS: dict[str, Callable[..., Steps]] = {
    "envpool": _envpool,
    "gymnasium": _gymnasium,
    "crazyflow": _crazyflow,
    "gym_pybullet_drones": _gym_pybullet_drones,
    "lerobot": _lerobot,
    "robomimic": _robomimic,
    "diffusion_policy": _diffusion_policy,
}

if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the peer itself prints is not an answer
    advance = PEERS[sys.argv[1]](*sys.argv[2:])
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        advance(int(line))
        print("ready", file=answers, flush=True)
